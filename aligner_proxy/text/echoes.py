"""Echoes of a conversation: sentences of an answer that were said before, exactly or nearly so.

A detector that has read an insult in the question scores it as harmless when the answer repeats it. A sentence is an
echo if it shares `RUN_WORDS` consecutive words with a turn, or if most of its longer words occur close together in one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from aligner_proxy.text.disguises import undisguise
from aligner_proxy.text.structure import split
from aligner_proxy.types import Turn

RUN_WORDS = 6
"""Consecutive words that make a sentence an echo."""
SHARE = 0.6
"""Share of a sentence's longer words that must occur in two adjacent sentences of a turn to make it an echo."""
MIN_WORDS = 2
"""Fewest longer words of a sentence that can be an echo by them."""
_LONG_WORD = 4
"""Minimum number of letters of a longer word, that is, a word with some meaning."""
_END_CHARS = 32_000
"""Number of characters read at each end of a turn; an aligner reads fewer."""
_MAX_TURNS = 64
"""The latest turns that are read."""
_WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)?")
_READ = ("user", "assistant")
"""Roles of the turns that an aligner reads."""


def words(text: str) -> list[str]:
    """The words of a text as a reader sees them (undisguised), in lower case."""
    return _WORD.findall(undisguise(text).text.casefold())


class Echoes:
    """What was said in a conversation, indexed so that sentences can be compared with it."""

    def __init__(self, turns: Sequence[Turn]) -> None:
        self._runs: set[tuple[str, ...]] = set()
        """All runs of `RUN_WORDS` consecutive words in the turns."""
        self._places: dict[str, set[int]] = {}
        """For each longer word, the numbers of the pairs of adjacent sentences that contain it."""
        number = 0
        for turn in [turn for turn in turns if turn.role in _READ][-_MAX_TURNS:]:
            for part in _read_ends(turn.content):
                self._runs.update(_runs(words(part)))
                for piece in split(part):
                    number += 1
                    for word in _longer_words(words(piece.text)):
                        # the pair with the sentence before, and the pair with the one after
                        self._places.setdefault(word, set()).update((number, number + 1))
                number += 1  # a gap, because sentences of different turns are not adjacent

    def contains_echo(self, sentence: str) -> bool:
        """Whether a sentence is an echo of the conversation.

        It shares a run of words with it, or most of its longer words with two adjacent sentences.
        """
        spoken_words = words(sentence)
        if any(run in self._runs for run in _runs(spoken_words)):
            return True
        longer_words = _longer_words(spoken_words)
        least = max(MIN_WORDS, SHARE * len(longer_words))
        # a quick test: so many words do not occur at all
        if len(longer_words) < least or sum(word in self._places for word in longer_words) < least:
            return False
        shared_counts = Counter(place for word in longer_words for place in self._places.get(word, ()))
        return max(shared_counts.values()) >= least


def _read_ends(text: str) -> tuple[str, ...]:
    """The text of a turn; of a long one, only its beginning and its end."""
    return (text,) if len(text) <= 2 * _END_CHARS else (text[:_END_CHARS], text[-_END_CHARS:])


def _runs(spoken: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """All runs of `RUN_WORDS` consecutive words."""
    return (tuple(spoken[start : start + RUN_WORDS]) for start in range(len(spoken) - RUN_WORDS + 1))


def _longer_words(spoken: Sequence[str]) -> set[str]:
    return {word for word in spoken if len(word) >= _LONG_WORD}
