"""Tokenizer for text that comes from outside. No torch here.

Nothing that a client writes may become a special token: "<|im_end|>" in an answer is eleven ordinary characters, not
the end of it. Only the tokenizer's own start mark is ever added, and only in front of a prompt.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_JOINTS = (("The harbour opens", " at six, e.g. 12"), ("| Answer: It's 7.\n\n-", " item \u4f60\u597d!"))
"""Texts and what follows them, each cut where one space stands between two words."""
_TRIES = 64
"""Spaces that are looked at for such a place."""


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
        # Some tokenizers put a mark of their own in front of every text, so that two texts are not their tokens joined.
        self._joins = all(self._ids(a) + self._ids(b) == self._ids(a + b) for a, b in _JOINTS)

    def prompt(self, text: str) -> Encoded:
        """Tokens of a whole prompt, with the start mark where this tokenizer has one."""
        encoding = self._backend.encode(text, add_special_tokens=True)
        return Encoded(list(encoding.ids), list(encoding.offsets))

    def prompt_after(self, previous: Encoded, before: str, text: str, same: int) -> Encoded:
        """Tokens of the prompt `text`, where `previous` are those of `before` and both begin with the same characters.

        `same` is the number of these. Only what stands behind the last but one of the words that both have is read, so
        that a growing text is not read again and again. The result is that of `prompt`.
        """
        start = _word_start(text, same) if self._joins else 0
        shared_count = bisect_right(previous.offsets, start, key=lambda offset: offset[1]) if start else 0
        if not shared_count or previous.offsets[shared_count - 1][1] != start or before[:start] != text[:start]:
            return self.prompt(text)
        rest = self.pieces(text[start:])
        moved = [(first + start, last + start) for first, last in rest.offsets]
        return Encoded(previous.ids[:shared_count] + rest.ids, previous.offsets[:shared_count] + moved)

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

    def _ids(self, text: str) -> list[int]:
        return list(self._backend.encode(text, add_special_tokens=False).ids)


def _word_start(text: str, end: int) -> int:
    """Where the last word before `end` that one space stands before begins, that space included; 0: there is none.

    The word in which `end` lies may go on, so it is not looked at.
    """
    at = text.rfind(" ", 0, end)
    for _ in range(_TRIES):
        if at <= 0 or not (text[at - 1].isspace() or text[at + 1 : at + 2].isspace()):
            break
        at = text.rfind(" ", 0, at)
    else:
        return 0
    return max(0, at)
