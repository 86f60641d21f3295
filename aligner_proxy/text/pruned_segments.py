"""Recognition of a segment that lost some of its judged words, and nothing else."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from difflib import SequenceMatcher
from itertools import takewhile

from aligner_proxy.text.code_lexing import Place
from aligner_proxy.text.code_lines import can_go_together, find_code_lines
from aligner_proxy.text.judged_words import find_data_words, judged_words
from aligner_proxy.text.side_clauses import find_side_clauses
from aligner_proxy.text.structure import FENCES
from aligner_proxy.text.word_removal import without_words

_MAX_COMPARED_LINES = 300
"""Most lines of a code block that are compared one by one, since the time grows with the square of their number."""
_WORD_OR_SIGN = re.compile(r"\w+|[^\w\s]")
_MAX_COMPARED_WORDS = 600
"""Most words and signs of a code block that are compared one by one."""


def is_pruned(text: str, pruned: str) -> bool:
    """Whether `pruned` is the segment `text` without some of its `judged_words`, data or lines, or a side clause.

    `text` may be the undisguised form of a code block, without the fences that `pruned` has.
    """
    lines = pruned.split("\n")
    lacks_fences = pruned.startswith(FENCES) and not text.lstrip().startswith(FENCES)
    if len(lines) > 1 and lacks_fences:
        text = f"{lines[0]}\n{text}\n{lines[-1]}"
    if any(_lacks_only(text, pruned, places) for places in (judged_words(text), find_data_words(text))):
        return True
    if _lacks_code_lines(text, pruned):
        return True
    return any(_lacks_only(text, pruned, [place]) for place in find_side_clauses(text))


def _lacks_only(text: str, pruned: str, places: Sequence[Place]) -> bool:
    """Whether `pruned` is `text` without the words at some of the `places`."""
    for find_places in (_find_absent_places, _find_absent_repetitions):
        absent_places = find_places(text, pruned, places)
        if absent_places and without_words(text, absent_places).strip() == pruned.strip():
            return True
    return False


def _find_absent_repetitions(text: str, pruned: str, places: Sequence[Place]) -> list[Place]:
    """Those of the `places` in a code block whose words `pruned` lacks there, although it may have them elsewhere.

    Empty if more than `_MAX_COMPARED_WORDS` words or signs may have changed.
    """
    if not text.lstrip().startswith(FENCES):
        return []
    words = list(_WORD_OR_SIGN.finditer(text))
    pruned_words = _WORD_OR_SIGN.findall(pruned)
    first = sum(1 for _ in takewhile(_are_equal, zip(map(re.Match.group, words), pruned_words, strict=False)))
    pairs = zip(map(re.Match.group, reversed(words[first:])), reversed(pruned_words[first:]), strict=False)
    last_count = sum(1 for _ in takewhile(_are_equal, pairs))
    words = words[first : len(words) - last_count]
    pruned_words = pruned_words[first : len(pruned_words) - last_count]
    if len(words) > _MAX_COMPARED_WORDS:
        return []
    matcher = SequenceMatcher(None, [word[0] for word in words], pruned_words, autojunk=False)
    equal_numbers = {
        number for number, _, size in matcher.get_matching_blocks() for number in range(number, number + size)
    }
    lost_starts = [word.start() for number, word in enumerate(words) if number not in equal_numbers]
    counts = {
        sentence: (text.count(sentence), pruned.count(sentence)) for sentence in {text[slice(*p)] for p in places}
    }
    absent_places: list[Place] = []
    for start, end in places:
        count, pruned_count = counts[text[start:end]]
        lost_count = bisect_left(lost_starts, end) - bisect_left(lost_starts, start)
        is_lost = 2 * lost_count > len(_WORD_OR_SIGN.findall(text, start, end))
        if pruned_count == 0 or (pruned_count < count and is_lost):
            absent_places.append((start, end))
    return absent_places


def _are_equal(pair: tuple[str, str]) -> bool:
    return pair[0] == pair[1]


def _lacks_code_lines(text: str, pruned: str) -> bool:
    """Whether `pruned` is the code block `text` without lines that can go together, and without words of comments."""
    code_lines = find_code_lines(text)
    if not code_lines:
        return False
    absent_lines = _find_absent_places(text, pruned, code_lines)
    if not absent_lines or not can_go_together(text, absent_lines):
        return False
    return _lacks_only(text, pruned, sorted([*judged_words(text), *code_lines]))


def _find_absent_places(text: str, pruned: str, places: Sequence[Place]) -> list[Place]:
    """Those of the `places` in `text` whose words `pruned` lacks; of code, only changed lines are compared."""
    lines = text.split("\n")
    if not text.lstrip().startswith(FENCES) or len(lines) > _MAX_COMPARED_LINES:
        return [(start, end) for start, end in places if text[start:end].strip() not in pruned]
    pruned_lines = pruned.split("\n")
    equal_blocks = SequenceMatcher(None, lines, pruned_lines, autojunk=False).get_matching_blocks()
    unchanged_numbers = {number for first, _, size in equal_blocks for number in range(first, first + size)}
    kept_numbers = {number for _, first, size in equal_blocks for number in range(first, first + size)}
    changed_text = "\n".join(line for number, line in enumerate(pruned_lines) if number not in kept_numbers)
    return [
        (start, end)
        for start, end in places
        if text.count("\n", 0, start) not in unchanged_numbers and text[start:end].strip() not in changed_text
    ]
