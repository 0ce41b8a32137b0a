"""Tokenizer and text encoder of a Stable Diffusion pipeline: text -> embeddings X of Eq. 1 and 4, and where words are.

transformers is imported at the first text, so that an attributor serving learned tokens alone never waits for it.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from backends.contract import BackendError, PromptTooLongError
from backends.diffusion.model_folder import ModelFolder
from backends.diffusion.quiet import quiet

#: Longer text cannot fit any text encoder and is refused before it is tokenized.
_MOST_CHARACTERS = 20_000
#: Encoded texts kept; each is at most 77 x 1024 float32 = 315 kB.
_CACHE = 256


@dataclass(frozen=True, slots=True)
class EncodedText:
    """A text with its embeddings, special tokens included, padding left out.

    Attributes:
        text: what was encoded, white space collapsed.
        embeddings: (n, E) float32; row 0 is the start token.
        spans: for each row the (start, end) characters of ``text`` it stands for; ``None`` for special tokens.
    """

    text: str
    embeddings: torch.Tensor
    spans: tuple[tuple[int, int] | None, ...]

    def rows(self, start: int, end: int) -> tuple[int, ...]:
        """Rows whose characters overlap ``text[start:end]``, however the tokenizer merged them."""
        return tuple(i for i, s in enumerate(self.spans) if s is not None and s[0] < end and s[1] > start)

    def own_rows(self) -> tuple[int, ...]:
        """Rows of all the text's own pieces (no start, end or other special token)."""
        return tuple(i for i, s in enumerate(self.spans) if s is not None)


class TextEncoder:
    """Encodes text; loads tokenizer and weights at the first use.  Thread-safe.

    Args:
        load: returns (a transformers tokenizer, a CLIP text model in evaluation mode).
        device: where the text encoder runs; embeddings are returned on the CPU.
    """

    def __init__(self, load: Callable[[], tuple[Any, Any]], device: str = "cpu") -> None:
        self._load = load
        self._device = device
        self._lock = threading.Lock()
        self._cache: OrderedDict[str, EncodedText] = OrderedDict()
        self._parts: tuple[Any, Any, Any] | None = None

    @classmethod
    def from_folder(cls, folder: ModelFolder, device: str = "cpu") -> TextEncoder:
        """Encoder of a pipeline folder, loaded at its first use."""
        return cls(lambda: _load_parts(folder), device)

    @property
    def limit(self) -> int:
        """Most tokens of a text, start and end included."""
        with self._lock:
            tokenizer, _, model = self._ready()
            return min(int(tokenizer.model_max_length), int(model.config.max_position_embeddings))

    def encode(self, text: str) -> EncodedText:
        """Embeddings of a text without padding (a causal encoder's rows do not depend on what follows them).

        Raises:
            PromptTooLongError: more tokens than the encoder takes; the text is never cut.
            BackendError: the text is not valid Unicode.
        """
        text = clean(text)
        with self._lock:
            if text in self._cache:
                self._cache.move_to_end(text)
                return self._cache[text]
            ids, spans = self._tokens(text)
            encoded = EncodedText(text, self._run(ids, [1] * len(ids)), spans)
            self._cache[text] = encoded
            while len(self._cache) > _CACHE:
                self._cache.popitem(last=False)
            return encoded

    @property
    def input_size(self) -> int:
        """Width of the input embeddings, which textual inversion learns."""
        with self._lock:
            return int(self._ready()[2].get_input_embeddings().weight.shape[1])

    def encode_vectors(self, before: str, vectors: torch.Tensor, after: str = "") -> EncodedText:
        """Embeddings of a text with a gap that input vectors fill, as textual inversion (arXiv 2208.01618) uses them.

        Args:
            before, after: text around the gap.
            vectors: (k, input_size) rows that stand in for the input embeddings of k pieces.

        Returns:
            ``text`` with ``*`` in the gap; the rows of the vectors have that one character as their span.

        Raises:
            PromptTooLongError: text and vectors are longer than the encoder takes.
        """
        before, after = clean(before), clean(after)
        with self._lock:
            tokenizer, _, model = self._ready()
            table = model.get_input_embeddings()
            begin, end = (self._tokens(part) for part in (before, after))
            # Between the special tokens at both ends: the pieces before, the gap, the pieces after.
            head = [i for i, span in zip(*begin, strict=True) if span is not None]
            tail = [i for i, span in zip(*end, strict=True) if span is not None]
            first, last = begin[0][0], begin[0][-1]
            ids = [first, *head, *([last] * len(vectors)), *tail, last]
            limit = min(int(tokenizer.model_max_length), int(model.config.max_position_embeddings))
            if len(ids) > limit:
                raise PromptTooLongError(
                    f"{len(vectors)} vectors and the text around them are {len(ids)} tokens; the text encoder takes {limit}."
                )
            gap = slice(1 + len(head), 1 + len(head) + len(vectors))

            def fill(_module: Any, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
                filled = output.clone()
                filled[0, gap] = vectors.to(filled)
                return filled

            hook = table.register_forward_hook(fill)
            try:
                embeddings = self._run(ids, [1] * len(ids))
            finally:
                hook.remove()
        place = len(before) + bool(before)
        text = " ".join(part for part in (before, "*", after) if part)
        shift = place + 1 + bool(after)
        spans: list[tuple[int, int] | None] = [None]
        spans += [s for s in begin[1] if s is not None]
        spans += [(place, place + 1)] * len(vectors)
        spans += [(s[0] + shift, s[1] + shift) for s in end[1] if s is not None]
        return EncodedText(text, embeddings, (*spans, None))

    def conditioning(self, text: str) -> torch.Tensor:
        """(limit, E) float32 embeddings padded to full length, as the diffusion model is conditioned in generation.

        Raises:
            PromptTooLongError, BackendError: as :meth:`encode`.
        """
        with self._lock:
            ids, _ = self._tokens(clean(text))
            tokenizer, _, model = self._ready()
            full = min(int(tokenizer.model_max_length), int(model.config.max_position_embeddings))
            pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else ids[-1]
            mask = [1] * len(ids) + [0] * (full - len(ids))
            return self._run(ids + [pad] * (full - len(ids)), mask)

    def _ready(self) -> tuple[Any, Any, Any]:
        if self._parts is None:
            tokenizer, model = self._load()
            from tokenizers import Tokenizer

            # A copy: text such as "<|endoftext|>" in a label must be read as characters, not as a control token,
            # and the caller's tokenizer stays as it is.
            copy = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
            copy.encode_special_tokens = True
            copy.no_truncation()
            copy.no_padding()
            self._parts = (tokenizer, copy, model.to(self._device))
        return self._parts

    def _tokens(self, text: str) -> tuple[list[int], tuple[tuple[int, int] | None, ...]]:
        tokenizer, copy, model = self._ready()
        limit = min(int(tokenizer.model_max_length), int(model.config.max_position_embeddings))
        if len(text) > _MOST_CHARACTERS:
            raise PromptTooLongError(
                f"The prompt has {len(text)} characters; the text encoder takes {limit} tokens, start and end included."
            )
        encoding = copy.encode(text)
        if len(encoding.ids) > limit:
            raise PromptTooLongError(
                f"The prompt {_short(text)!r} has {len(encoding.ids)} tokens; the text encoder takes {limit}, start and end "
                "included."
            )
        special = encoding.special_tokens_mask
        spans = tuple(None if special[i] else (int(a), int(b)) for i, (a, b) in enumerate(encoding.offsets))
        return list(encoding.ids), spans

    def _run(self, ids: list[int], mask: list[int]) -> torch.Tensor:
        _, _, model = self._ready()
        # diffusers passes the attention mask only to text encoders that ask for it; so do we.
        wants_mask = bool(getattr(model.config, "use_attention_mask", False))
        with torch.no_grad():
            hidden = model(
                torch.tensor([ids], device=self._device),
                attention_mask=torch.tensor([mask], device=self._device) if wants_mask else None,
            )[0]
        return hidden[0].float().cpu()


def clean(text: str) -> str:
    """White space collapsed; refuses what no tokenizer can read.

    Raises:
        BackendError: the text holds half of a surrogate pair.
    """
    text = " ".join(text.split())
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise BackendError("The text holds characters that are not valid Unicode (a lone surrogate).") from None
    return text


def find_word(text: str, word: str) -> list[tuple[int, int]]:
    """Where ``word`` stands in ``text``: (start, end) of each occurrence as a whole word, else of each occurrence at all.

    Letter case is ignored; ``"cat"`` is not found in ``"category"`` while it stands elsewhere as a word of its own.
    """
    pattern = re.escape(word)
    whole = [m.span() for m in re.finditer(rf"(?<!\w){pattern}(?!\w)", text, re.IGNORECASE)]
    return whole or [m.span() for m in re.finditer(pattern, text, re.IGNORECASE)]


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."


@quiet("transformers")
def _load_parts(folder: ModelFolder) -> tuple[Any, Any]:
    """Tokenizer and text encoder (float32, evaluation mode) of a pipeline folder, by the classes its index names."""
    import transformers

    parts = []
    for part in ("tokenizer", "text_encoder"):
        library, name = (folder.index.get(part) or [None, None])[:2]
        kind = getattr(transformers, str(name), None) if library == "transformers" else None
        if kind is None:
            raise BackendError(
                f"Model folder {folder.path} names {library}.{name} as its {part}; it must be of transformers."
            )
        options: dict[str, Any] = {"local_files_only": True}
        if part == "text_encoder":
            _, variant = folder.weights(part)
            options |= {"use_safetensors": True, "variant": variant, "dtype": torch.float32}
        try:
            parts.append(kind.from_pretrained(folder.path / part, **options))
        except (OSError, ValueError, RuntimeError, TypeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise BackendError(f"The {part} in {folder.path} cannot be loaded: {reason}") from error
    tokenizer, model = parts
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise BackendError(f"The tokenizer in {folder.path} has no fast form; save it again with transformers 5.")
    return tokenizer, model.eval().requires_grad_(False)
