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

_JOINT_TEXTS = (("The harbour opens", " at six, e.g. 12"), ("| Answer: It's 7.\n\n-", " item \u4f60\u597d!"))
"""Test texts, each cut at a single space between two words, that show whether tokens of both halves just join."""
_MAX_TRIES = 64
"""Most spaces that are tried as the place where a text is cut."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids, and for each token the (start, end) characters of the text that it stands for."""

    ids: list[int]
    offsets: list[tuple[int, int]]

    def count_before(self, end: int) -> int:
        """Return the number of the first tokens whose last characters lie before the character `end`."""
        return bisect_right(self.offsets, end, key=lambda offset: offset[1])


class PromptTokenizer:
    """Wraps a fast tokenizer so that it reads everything as plain text; `eos_ids` are the ids that end an answer."""

    def __init__(self, backend: Tokenizer, eos_ids: frozenset[int]) -> None:
        backend.encode_special_tokens = True
        backend.no_truncation()
        backend.no_padding()
        self._backend = backend
        self.eos_ids = eos_ids
        # each of these ids ends an answer; drafts contain the lowest
        self.eos = min(eos_ids)
        # Some tokenizers put a mark in front of every text, so the tokens of two halves differ from those of the whole.
        # With such a tokenizer a prompt is always tokenised as a whole.
        self._can_join = all(
            self.encode_text(first).ids + self.encode_text(second).ids == self.encode_text(first + second).ids
            for first, second in _JOINT_TEXTS
        )

    def encode_prompt(self, text: str) -> Encoded:
        """Return the tokens of a whole prompt, with the start mark if this tokenizer has one."""
        encoding = self._backend.encode(text, add_special_tokens=True)
        return Encoded(list(encoding.ids), list(encoding.offsets))

    def extend_prompt(self, previous: Encoded, previous_text: str, text: str, common_length: int) -> Encoded:
        """Return the tokens of the prompt `text`, reusing `previous`, the tokens of `previous_text`.

        Both texts begin with the same `common_length` characters. Only the text from the last common word on, which may
        go on, is tokenised, so that a growing text is not tokenised again and again.
        """
        start = _find_word_start(text, common_length) if self._can_join else 0
        shared_count = previous.count_before(start) if start else 0
        # tokens are reused only if one of them ends exactly where the new text is cut
        if not shared_count or previous.offsets[shared_count - 1][1] != start or previous_text[:start] != text[:start]:
            return self.encode_prompt(text)
        rest = self.encode_text(text[start:])
        rest_offsets = [(token_start + start, token_end + start) for token_start, token_end in rest.offsets]
        return Encoded(previous.ids[:shared_count] + rest.ids, previous.offsets[:shared_count] + rest_offsets)

    def list_ids(self, text: str) -> list[int]:
        """Return the ids of a text that continues a prompt, without a start mark."""
        return self.encode_text(text).ids if text else []

    def encode_text(self, text: str) -> Encoded:
        """Return the tokens of a text that continues a prompt, without a start mark."""
        encoding = self._backend.encode(text, add_special_tokens=False)
        return Encoded(list(encoding.ids), list(encoding.offsets))

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of generated tokens; special tokens are left out."""
        text: str = self._backend.decode(list(ids), skip_special_tokens=True)
        return text


def _find_word_start(text: str, end: int) -> int:
    """Return the index of the last single space before `end`, where the text can be cut; 0 if none is found."""
    position = text.rfind(" ", 0, end)
    for _ in range(_MAX_TRIES):
        if position <= 0:
            return 0
        is_single = not (text[position - 1].isspace() or text[position + 1 : position + 2].isspace())
        if is_single:
            return position
        position = text.rfind(" ", 0, position)
    return 0
