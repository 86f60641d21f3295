"""Tokenizer for text that comes from outside. No torch here.

Nothing that a client writes may become a special token: "<|im_end|>" in an answer is eleven ordinary characters, not
the end of it. Only the tokenizer's own start mark is ever added, and only in front of a prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids and, for each, the (start, end) characters it stands for."""

    ids: list[int]
    offsets: list[tuple[int, int]]


class PromptTokenizer:
    """A fast tokenizer that reads everything as plain text; `eos_ids` are the ids that end an answer."""

    def __init__(self, backend: Tokenizer, eos_ids: frozenset[int]) -> None:
        backend.encode_special_tokens = True
        backend.no_truncation()
        backend.no_padding()
        self._backend = backend
        self.eos_ids = eos_ids
        self.eos = min(eos_ids)

    def prompt(self, text: str) -> Encoded:
        """Tokens of a whole prompt, with the start mark where this tokenizer has one."""
        encoding = self._backend.encode(text, add_special_tokens=True)
        return Encoded(list(encoding.ids), list(encoding.offsets))

    def continuation(self, text: str) -> list[int]:
        """Tokens of a text that goes on after a prompt."""
        return self.pieces(text).ids if text else []

    def pieces(self, text: str) -> Encoded:
        """The same, and where each token stands in the text."""
        encoding = self._backend.encode(text, add_special_tokens=False)
        return Encoded(list(encoding.ids), list(encoding.offsets))

    def decode(self, ids: Sequence[int]) -> str:
        """Text of generated tokens; special tokens stand for no text."""
        text: str = self._backend.decode(list(ids), skip_special_tokens=True)
        return text
