"""Tokenizer for text that comes from outside. No torch here.

Nothing that a client writes may become a special token: "<|im_end|>" in an answer is ordinary characters, and does not
end the answer. The only special token ever added is the tokenizer's own start mark, and only in front of a prompt.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_JOINTS = (("The harbour opens", " at six, e.g. 12"), ("| Answer: It's 7.\n\n-", " item \u4f60\u597d!"))
"""Test texts, each cut at a single space between two words, that show whether tokens of both halves just join."""
_TRIES = 64
"""Most spaces that are checked in search of a safe place to cut."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids and, for each, the (start, end) characters it stands for."""

    ids: list[int]
    offsets: list[tuple[int, int]]


class PromptTokenizer:
    """Wraps a fast tokenizer so that it reads everything as plain text; `eos_ids` are the ids that end an answer."""

    def __init__(self, backend: Tokenizer, eos_ids: frozenset[int]) -> None:
        backend.encode_special_tokens = True
        backend.no_truncation()
        backend.no_padding()
        self._backend = backend
        self.eos_ids = eos_ids
        # any of them ends an answer; the lowest is the one that drafts contain
        self.eos = min(eos_ids)
        # Some tokenizers put a mark in front of every text, so the tokens of two halves differ from those of the whole.
        # False for such tokenizers: a prompt is then always tokenised as a whole.
        self._joins = all(
            self.encode_text(a).ids + self.encode_text(b).ids == self.encode_text(a + b).ids for a, b in _JOINTS
        )

    def encode_prompt(self, text: str) -> Encoded:
        """Tokens of a whole prompt, with the start mark if this tokenizer has one."""
        encoding = self._backend.encode(text, add_special_tokens=True)
        return Encoded(list(encoding.ids), list(encoding.offsets))

    def extend_prompt(self, previous: Encoded, before: str, text: str, common_length: int) -> Encoded:
        """Tokens of the prompt `text`, as `encode_prompt` returns them, reusing `previous`, the tokens of `before`.

        Both texts begin with the same `common_length` characters. Only what follows the last but one common word is
        tokenised, so that a growing text is not tokenised again and again.
        """
        start = _find_word_start(text, common_length) if self._joins else 0
        shared_count = bisect_right(previous.offsets, start, key=lambda offset: offset[1]) if start else 0
        # reused only if a token of the previous prompt ends exactly where the new text is cut
        if not shared_count or previous.offsets[shared_count - 1][1] != start or before[:start] != text[:start]:
            return self.encode_prompt(text)
        rest = self.encode_text(text[start:])
        moved = [(first + start, last + start) for first, last in rest.offsets]
        return Encoded(previous.ids[:shared_count] + rest.ids, previous.offsets[:shared_count] + moved)

    def list_ids(self, text: str) -> list[int]:
        """Tokens of a text that continues a prompt, without a start mark."""
        return self.encode_text(text).ids if text else []

    def encode_text(self, text: str) -> Encoded:
        """The tokens of a continuation, with the character offsets of each."""
        encoding = self._backend.encode(text, add_special_tokens=False)
        return Encoded(list(encoding.ids), list(encoding.offsets))

    def decode(self, ids: Sequence[int]) -> str:
        """Text of generated tokens; special tokens are skipped."""
        text: str = self._backend.decode(list(ids), skip_special_tokens=True)
        return text


def _find_word_start(text: str, end: int) -> int:
    """Index of the last single space before `end`, a safe place to cut the text; 0 if there is none.

    The word at `end` may go on in another text, so the cut is before that word.
    """
    position = text.rfind(" ", 0, end)
    for _ in range(_TRIES):
        if position <= 0 or not (text[position - 1].isspace() or text[position + 1 : position + 2].isspace()):
            break
        position = text.rfind(" ", 0, position)
    else:
        return 0  # no single space in so many tries: tokenise the whole text
    return max(0, position)
