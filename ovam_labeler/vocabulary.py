"""What a label means to the base model: its active token, else its words."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from backends.contract import Backend, ClassQuery
from ovam_labeler.domain import Label
from ovam_labeler.embedding_space import differences, refusal
from ovam_labeler.translate import translate_errors
from token_store.contract import InvalidTokenError, TokenStore
from token_store.entities import Scope, TokenVersion

log = logging.getLogger(__name__)

_CACHED_QUERIES = 4096


@dataclass(frozen=True, slots=True)
class Meaning:
    """How one label is asked for.

    Attributes:
        warning: one sentence where an active token could not be used, or was learned with other reading settings.
    """

    label: Label
    query: ClassQuery
    source: Literal["token", "word"]
    version: TokenVersion | None = None
    warning: str | None = None

    @property
    def identity(self) -> tuple[str | None, ...]:
        """Tells this query from others of the same base model, by content."""
        if self.version is not None:
            return ("token", self.version.sha256)
        return ("word", self.label.name, self.label.prompt)


class Vocabulary:
    """Labels and scope -> queries.  Thread-safe; queries are cached, encoding a word takes a text encoder's pass."""

    def __init__(self, store: TokenStore, backend: Callable[[], Backend]) -> None:
        self._store = store
        self._backend = backend
        self._queries: OrderedDict[tuple[object, ...], ClassQuery] = OrderedDict()
        self._warned: set[str] = set()
        self._lock = threading.Lock()

    def active(self, labels: Sequence[Label], scope: Scope) -> dict[str, TokenVersion]:
        """Active versions by label name, of the scope, else global.  Needs no model.

        A version whose stored bytes are damaged is left out, so that the others still serve.
        """
        names = list(dict.fromkeys(label.name for label in labels if label.name.strip()))
        with translate_errors():
            try:
                return self._store.find_active(scope, names)
            except InvalidTokenError as error:
                self._warn(str(error))
            found: dict[str, TokenVersion] = {}
            for name in names:
                try:
                    found |= self._store.find_active(scope, [name])
                except InvalidTokenError as error:
                    self._warn(f"The token of '{name}' is damaged, its word is used: {error}")
            return found

    def meanings(self, labels: Sequence[Label], scope: Scope, *, words: bool = True) -> list[Meaning | None]:
        """One meaning a label, in order; None for a label without a usable token where ``words`` is False.

        Raises:
            BadRequestError: an empty label, or a prompt longer than the text encoder takes.
        """
        active = self.active(labels, scope)
        return [self._meaning(label, active.get(label.name), words) for label in labels]

    def word(self, label: Label) -> ClassQuery:
        """Query of the label's own words."""
        attributor = self._backend().attributor
        with translate_errors():
            return self._cached(("word", label.name, label.prompt), lambda: attributor.words(label.name, label.prompt))

    def _meaning(self, label: Label, version: TokenVersion | None, words: bool) -> Meaning | None:
        warning = None
        if version is not None:
            attributor = self._backend().attributor
            refused = refusal(version.fingerprint, attributor.fingerprint)
            if refused is None:
                if differing := differences(version.fingerprint, attributor.fingerprint):
                    warning = (
                        f"The token of '{label.name}' (version {version.number}) was learned with other reading settings: "
                        f"{'; '.join(differing)}."
                    )
                    self._warn(warning)
                with translate_errors():
                    query = self._cached(("token", version.sha256), lambda: attributor.token(version.embedding))
                return Meaning(label, query, "token", version, warning)
            warning = (
                f"The token of '{label.name}' (version {version.number}) is refused, {refused}; "
                "its word is used until a correction is learned again."
            )
            self._warn(warning)
        return Meaning(label, self.word(label), "word", None, warning) if words else None

    def _cached(self, key: tuple[object, ...], make: Callable[[], ClassQuery]) -> ClassQuery:
        with self._lock:
            if key in self._queries:
                self._queries.move_to_end(key)
                return self._queries[key]
        query = make()
        with self._lock:
            self._queries[key] = query
            while len(self._queries) > _CACHED_QUERIES:
                self._queries.popitem(last=False)
        return query

    def _warn(self, sentence: str) -> None:
        """Log each sentence once in a process, not once in a prediction."""
        with self._lock:
            if sentence in self._warned:
                return
            self._warned.add(sentence)
        log.warning("%s", sentence)
