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
"""Fewest longer words that a sentence must share with two adjacent sentences to be an echo."""
_MIN_LONG_WORD_LETTERS = 4
"""Fewest letters of a "longer word", a word that has some meaning by itself."""
_END_CHARS = 32_000
"""Number of characters read at each end of a turn; an aligner reads fewer."""
_MAX_TURNS = 64
"""Number of the latest turns that are read."""
_WORD = re.compile(r"[^\W_]+(?:['\u2019][^\W_]+)?")
_READ_ROLES = ("user", "assistant")
"""Roles of the turns that an aligner reads."""


def words(text: str) -> list[str]:
    """The words of a text as a reader sees them (undisguised), in lower case."""
    return _WORD.findall(undisguise(text).text.casefold())


class Echoes:
    """What was said in a conversation, indexed so that sentences can be compared with it."""

    def __init__(self, turns: Sequence[Turn]) -> None:
        self._runs: set[tuple[str, ...]] = set()
        """Every sequence of `RUN_WORDS` consecutive words in the turns."""
        self._sentence_pairs_by_word: dict[str, set[int]] = {}
        """For each longer word, the numbers of the pairs of adjacent sentences that contain the word."""
        number = 0
        read_turns = [turn for turn in turns if turn.role in _READ_ROLES][-_MAX_TURNS:]
        for turn in read_turns:
            for part in _read_ends(turn.content):
                self._runs.update(_word_runs(words(part)))
                for sentence in split(part):
                    number += 1
                    for word in _longer_words(words(sentence.text)):
                        # a pair has the number of its second sentence, and each sentence is in two pairs
                        self._sentence_pairs_by_word.setdefault(word, set()).update((number, number + 1))
                number += 1  # a number is left out, because sentences of different turns are no pair

    def contains_echo(self, sentence: str) -> bool:
        """Whether a sentence is an echo of the conversation.

        It shares `RUN_WORDS` consecutive words with a turn, or most of its longer words with two adjacent sentences.
        """
        spoken_words = words(sentence)
        if any(run in self._runs for run in _word_runs(spoken_words)):
            return True
        longer_words = _longer_words(spoken_words)
        min_shared = max(MIN_WORDS, SHARE * len(longer_words))
        # a quick test first: whether enough of the words occur at all
        known_count = sum(word in self._sentence_pairs_by_word for word in longer_words)
        if known_count < min_shared:
            return False
        # for each pair of adjacent sentences, how many of the words it has
        shared_counts = Counter(pair for word in longer_words for pair in self._sentence_pairs_by_word.get(word, ()))
        return max(shared_counts.values()) >= min_shared


def _read_ends(text: str) -> tuple[str, ...]:
    """The parts of a turn that are read: all of a short turn, the beginning and the end of a long one."""
    if len(text) <= 2 * _END_CHARS:
        return (text,)
    return text[:_END_CHARS], text[-_END_CHARS:]


def _word_runs(spoken: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Every sequence of `RUN_WORDS` consecutive words."""
    return (tuple(spoken[start : start + RUN_WORDS]) for start in range(len(spoken) - RUN_WORDS + 1))


def _longer_words(spoken: Sequence[str]) -> set[str]:
    return {word for word in spoken if len(word) >= _MIN_LONG_WORD_LETTERS}
