"""Learns one class from its lessons: fits, evidence, verdict, one stored version, aliases moved by the project's policy."""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, replace
from statistics import fmean
from typing import Any

from backends.contract import Attributor, Backend, MaskMethod, Progress
from ovam_labeler.demotion import DEMOTED, spoken_against
from ovam_labeler.domain import Label, LearnResult, ProjectOptions
from ovam_labeler.errors import BadMaskError
from ovam_labeler.evidence import Findings, acceptance, expected_fits, investigate
from ovam_labeler.learning_examples import Lesson
from ovam_labeler.promotion import Moves, Verdict, by_policy, judge
from ovam_labeler.trials import FitMemory, Trials
from ovam_labeler.vocabulary import Vocabulary
from token_store.contract import ConflictError, NotFoundError, TokenStore
from token_store.entities import NewTokenVersion, Scope, StateChange, TokenVersion
from token_store.registry_contract import ACTIVE

#: How often a verdict is thought over because another process moved the active alias meanwhile.
_ATTEMPTS = 20

#: Who moves aliases when no human does.
GATE = "gate"

#: Figure of a version that was active when annotators came to disagree on what it was learned from: the reason.
DISPUTED = "disputed"


class ClassLearning:
    """Fits, judges and stores.  Thread-safe."""

    def __init__(self, store: TokenStore, backend: Callable[[], Backend], vocabulary: Vocabulary) -> None:
        self._store = store
        self._backend = backend
        self._vocabulary = vocabulary
        self._memory = FitMemory()

    def learn(
        self,
        scope: Scope,
        label: Label,
        lessons: Sequence[Lesson],
        method: MaskMethod,
        options: ProjectOptions,
        *,
        newest: int | None,
        created_by: str,
        progress: Progress | None = None,
    ) -> LearnResult:
        """Learn a class from lessons of which at least one is positive.

        The same lessons in the same base model give the version that is already there, not another one.

        Args:
            newest: id of the correction that came last; None where the class is judged again after a retraction.

        Raises:
            BadMaskError: no lesson has background, or the object is too small for the map.
            BackendError: the optimisation refuses the examples.
            StoreError: of the store.
        """
        attributor = self._backend().attributor
        positives = [lesson for lesson in lessons if lesson.positive]
        considered = tuple(sorted(lesson.correction_id for lesson in lessons))
        again = newest is None and options.policy != "manual"
        if (done := self._already(scope, label.name, considered, attributor, again=again)) is not None:
            return done
        if not any(lesson.has_background() for lesson in lessons):
            raise BadMaskError(
                f"Nothing is known to be outside '{label.name}'; mark other labels too, or declare the annotation exhaustive."
            )
        expected = expected_fits(len(positives), len(lessons) - len(positives))
        word = self._vocabulary.word(label)
        trials = Trials(attributor, method, label, word, options, progress, expected, self._memory)
        trials.check_size(positives[0])
        began = time.perf_counter()
        found = investigate(trials, lessons, newest)
        metrics = _metrics(trials, positives, found, time.perf_counter() - began)
        version, demoted = self._keep(scope, label.name, trials, found, metrics, considered, options, created_by)
        return _result(version, str(version.metrics["reason"]), demoted)

    def withdraw(self, scope: Scope, name: str, why: str) -> LearnResult | None:
        """Take the active token away: no correction of the class is left that teaches it.  None where there is none."""
        current = self._active(scope, name)
        if current is None or not current.source_corrections:
            return None
        states = [StateChange(current.number, "rejected", why)]
        self._store.decide(
            scope, name, aliases={ACTIVE: None}, states=states, who=GATE, why=why, expect={ACTIVE: current.number}
        )
        return LearnResult(scope, name, current.number, False, why, moved=True)

    def dispute(
        self, scope: Scope, name: str, corrections: Collection[int], why: str, *, nothing_left: bool
    ) -> LearnResult | None:
        """Mark the active token where it was learned from corrections that annotators disagree on now, so that it is used again
        when they are learned from again; take it away, and say so, where nothing else teaches the class."""
        current = self._active(scope, name)
        if current is None or not set(current.source_corrections) & set(corrections):
            return None
        self._store.decide(
            scope,
            name,
            aliases={ACTIVE: None} if nothing_left else {},
            states=[StateChange(current.number, current.state, why, {DISPUTED: why})],
            who=GATE,
            why=why,
            expect={ACTIVE: current.number},
        )
        return LearnResult(scope, name, current.number, False, why, moved=True) if nothing_left else None

    def _keep(
        self,
        scope: Scope,
        name: str,
        trials: Trials,
        found: Findings,
        metrics: Mapping[str, Any],
        considered: tuple[int, ...],
        options: ProjectOptions,
        created_by: str,
    ) -> tuple[TokenVersion, bool]:
        """Judge against what is active now, and store both in one transaction; think again where that moved meanwhile.

        Returns the version, and whether the class went back to its word.
        """
        attributor, method = trials.attributor, trials.method
        fingerprint = attributor.fingerprint
        for attempt in range(_ATTEMPTS):
            current = self._active(scope, name)
            usable = current is not None and current.fingerprint.get("space") == fingerprint.space
            accepted, offered = acceptance(self._store, scope, name, current if usable else None)
            evidence = replace(found.evidence, accepted=accepted, offered=offered)
            verdict = judge(evidence, known=trials.known, has_current=usable)
            moves = by_policy(verdict, options.policy)
            figures: dict[str, Any] = {"evidence": evidence.figures(), "reason": moves.reason, "policy": options.policy}
            if current is not None and usable:
                newest = found.learned_from[0]
                figures["parent_iou"] = trials.token_iou(newest, current.embedding)
            new = NewTokenVersion(
                fingerprint={
                    "space": fingerprint.space,
                    "model": fingerprint.model,
                    "parts": dict(fingerprint.parts),
                    "settings": {**fingerprint.settings, "method": method.name},
                },
                embedding=found.fit.embedding,
                recipe=asdict(trials.recipe),
                metrics={**metrics, **figures, "considered": list(considered)},
                source_corrections=tuple(sorted(lesson.correction_id for lesson in found.learned_from)),
                parent_version=current.number if current is not None else None,
                created_by=created_by,
                state=moves.state,
            )
            try:
                version = self._store.add_version(
                    scope,
                    name,
                    new,
                    aliases=moves.aliases,
                    drop_aliases=moves.drop_aliases,
                    states=self._demotions(
                        scope,
                        name,
                        current if usable else None,
                        verdict,
                        moves,
                        evidence.set_aside,
                        lambda version: spoken_against(version, fingerprint.space, trials, found.learned_from),
                    ),
                    expect={ACTIVE: current.number if current is not None else None},
                    why=moves.reason,
                    once=True,
                )
                return version, current is not None and ACTIVE in moves.drop_aliases
            except ConflictError:
                if attempt == _ATTEMPTS - 1:
                    raise
        raise AssertionError("the loop returns or raises")

    def _demotions(
        self,
        scope: Scope,
        name: str,
        current: TokenVersion | None,
        verdict: Verdict,
        moves: Moves,
        set_aside: tuple[int, ...],
        against: Callable[[TokenVersion], str],
    ) -> list[StateChange]:
        """The current token is rejected where it goes for its word; and where a new one takes over, so is every earlier one
        that was learned from a correction the others contradict, or that later corrections speak ``against``: it is no version to
        go back to."""
        if verdict.use == "word" and ACTIVE in moves.drop_aliases:
            return [] if current is None else [StateChange(current.number, "rejected", verdict.reason)]
        if ACTIVE not in moves.aliases:
            return []
        changes = []
        states = ("proven", "unproven") if set_aside else ("unproven",)  # nothing else speaks against what was proven
        for version in self._store.newest_versions(scope, name, states=states, limit=1000):
            if wrong := sorted(set(version.source_corrections) & set(set_aside)):
                why = f"It was learned from correction {', '.join(map(str, wrong))}, which the others contradict."
            elif not (why := against(version)):
                continue
            changes.append(StateChange(version.number, "rejected", why, {DEMOTED: why}))
        return changes

    def _already(
        self, scope: Scope, name: str, considered: tuple[int, ...], attributor: Attributor, *, again: bool
    ) -> LearnResult | None:
        """The result of the same work done before (a job that ran twice, or the state before a retracted correction).

        Args:
            again: the class is judged again: what these corrections taught then becomes what is used now.
        """
        for version in self._store.newest_versions(scope, name, limit=1000):
            seen = version.metrics.get("considered", list(version.source_corrections))
            if sorted(seen) != list(considered) or version.fingerprint.get("space") != attributor.fingerprint.space:
                continue
            reason = str(version.metrics.get("reason", ""))
            current, withdrawn = self._active(scope, name), None
            if again and version.metrics.get(DISPUTED) and version.state in ("proven", "unproven"):
                why = "The annotators' disagreement is over; what it was learned from counts again."
                self._use_again(version, StateChange(version.number, version.state, why, {DISPUTED: None}))
                version = self._store.get_version(scope, name, version.number)
            elif again and current is not None and set(current.source_corrections) - set(considered):
                if version.state in ("proven", "unproven"):
                    why = "A later correction was withdrawn; this version was learned from those that remain."
                    self._store.promote(scope, name, version.number, who=GATE, why=why)
                elif version.metrics.get(DEMOTED):
                    why = "What spoke against it was withdrawn; it was learned from the corrections that remain."
                    self._use_again(version, StateChange(version.number, "unproven", why, {DEMOTED: None}))
                else:
                    withdrawn = self.withdraw(scope, name, "A correction it was learned from was withdrawn.")
                version = self._store.get_version(scope, name, version.number)
            return _result(version, reason, withdrawn is not None)
        return None

    def _use_again(self, version: TokenVersion, back: StateChange) -> None:
        self._store.decide(
            version.scope, version.class_name, aliases={ACTIVE: version.number}, states=[back], who=GATE, why=back.why
        )

    def _active(self, scope: Scope, name: str) -> TokenVersion | None:
        try:
            return self._store.get_version(scope, name, ACTIVE)
        except NotFoundError:
            return None


def _result(version: TokenVersion, reason: str, demoted: bool) -> LearnResult:
    active = ACTIVE in version.aliases
    return LearnResult(
        version.scope, version.class_name, version.number, active, reason, version.metrics, moved=active or demoted
    )


def _metrics(trials: Trials, positives: Sequence[Lesson], found: Findings, seconds: float) -> dict[str, Any]:
    metrics: dict[str, Any] = {
        "train_iou": found.fit.train_iou,
        "losses": list(found.fit.losses),
        "best_epoch": found.fit.best_epoch,
        "seconds": seconds,
        "examples": sum(lesson.positive for lesson in found.learned_from),
        "negatives": sum(not lesson.positive for lesson in found.learned_from),
        "known_word": trials.known,
        "word_iou": fmean(trials.word_iou(lesson) for lesson in positives),
        "libraries": _libraries(),
    }
    if found.evidence.token:
        metrics["held_out"] = {"token": list(found.evidence.token), "word": list(found.evidence.word)}
    if found.agreement:
        metrics["agreement"] = found.agreement
    return metrics


def _libraries() -> dict[str, str]:
    found = {}
    for name in ("ovam-labeler", "torch", "diffusers", "transformers"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
