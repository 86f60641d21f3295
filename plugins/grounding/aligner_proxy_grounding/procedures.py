"""Order of steps: finds answers that give the steps of a reference's procedure in another order.

Steps are the items of a numbered list, or sentences that begin with "First, ... Then, ... Finally, ...". Each step of
the answer must match exactly one step of the reference, and there must be at least three. Steps in the wrong order are
swapped if each can be moved whole. If a step refers back to the one before it, or the text refers to a step's number,
the passage is reported as unsettled. Bulleted lists imply no order, and leaving out steps does not change the order.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise

from aligner_proxy.text.fragments import stands_alone
from aligner_proxy.text.structure import split
from aligner_proxy_grounding.words import GENERIC, words

ORDER = "order of steps"
"""The kind of an edit that reorders steps."""
_FEWEST = 3
_MAX_STEPS = 40
_MAX_SEQUENCES = 50
"""Least and largest number of steps, and limit on procedures of a page or an answer; the comparison is quadratic."""
_MATCHES = 0.5
"""Least share of the shorter step's words, by weight, that both steps must have."""
_AHEAD = 1.5
"""The best match must score this many times the second-best."""
_MIN_WORDS = 2
"""Least number of words that both steps must have."""
_ITEM = re.compile(r"(?P<mark>[ \t]*\*{0,2}(?:Step )?(?P<number>\d{1,2})[.):]\*{0,2}[ \t]+)(?P<body>\S.*)")
_HOW = re.compile(
    r"\b(?:how|steps?|order|procedure|process|follow(?:s|ing)?|proceed|instructions?|what happens|what to do|"
    r"(?:this|here) is (?:how|what)|in turn)\b",
    re.IGNORECASE,
)
_DOES = re.compile(
    r"(?:please )?(?:you |we |they |the \w+ )?(?:then )?(?:add|agree|answer|apply|ask|attach|book|bring|call|carry|"
    r"check|choose|clean|click|close|collect|come|complete|confirm|connect|cut|download|drain|drop|dry|empty|enter|fetch|"
    r"fill|find|fit|give|go|hand|hang|hold|inspect|install|keep|lay|leave|let|lift|list|lock|log|look|make|measure|mix|move|"
    r"note|open|order|pack|paste|pay|pick|place|plug|pour|prepare|press|print|pull|push|put|read|receive|register|remove|"
    r"repeat|reply|report|return|rinse|save|say|scan|screw|select|send|set|show|sign|spread|start|stick|stop|submit|"
    r"switch|take|tell|test|tighten|tick|turn|type|undo|unlock|unplug|unscrew|upload|use|visit|wait|wash|wear|weigh|"
    r"wipe|write)s?\b",
    re.IGNORECASE,
)
"""A step begins with an instruction."""
_ORDINAL = re.compile(
    r"(?P<mark>\s*(?:First(?:ly)?|Second(?:ly)?|Third(?:ly)?|Fourth(?:ly)?|Fifth(?:ly)?|Next|Then|After that|"
    r"Afterwards|Finally|Lastly|Last),?\s+(?:of all,? )?)(?P<body>\S.*)",
    re.DOTALL,
)
_FIRST = re.compile(r"\s*First", re.IGNORECASE)
_NUMBER_MEANT = re.compile(r"(?<=\S )(?:steps?|points?|items?|numbers?|nos?\.)\s+#?\d", re.IGNORECASE)
_LOOKS_BACK = re.compile(
    r"\b(?:before that|after that|afterwards|again|previous(?:ly)?|finally|lastly)\b", re.IGNORECASE
)
_OTHER_ORDER = re.compile(
    r"\b(?:in (?:any|whatever|no particular) order|order (?:does not|doesn't|is not|isn't)|backwards?|in reverse|"
    r"the other way round|undo)\b",
    re.IGNORECASE,
)
"""Says that the order is free, or reversed on purpose."""


@dataclass(frozen=True, slots=True)
class ProcedureStep:
    """One step: its text without mark, its position, the number of its line, and the stems of its subject words."""

    body: str
    start: int
    end: int
    line: int = 0
    words: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Procedure:
    """Steps in order; `source` is the name of their reference (empty for an answer's), `above` the line before them."""

    steps: tuple[ProcedureStep, ...]
    source: str = ""
    above: str = ""


@dataclass(frozen=True, slots=True)
class Reordering:
    """Steps of an answer whose order differs from that of a reference.

    `places` has them in the answer's order, `steps` in the reference's. `place` is "name:line" of the reference, and
    `can_move` says whether the steps can be swapped safely.
    """

    answer_steps: tuple[ProcedureStep, ...]
    steps: tuple[ProcedureStep, ...]
    place: str
    can_move: bool


def procedures(text: str, source: str = "") -> tuple[Procedure, ...]:
    """The procedures of a page: numbered lists of instructions, and sentences with ordinals."""
    return tuple(
        Procedure(sequence.steps, source, sequence.above)
        for sequence in sequences(text)
        if not _OTHER_ORDER.search(sequence.above)
        # the line above announces steps, or more than half of the items begin with an instruction
        and (
            _HOW.search(sequence.above)
            or 2 * sum(bool(_DOES.match(step.body)) for step in sequence.steps) > len(sequence.steps)
        )
    )


def sequences(text: str) -> Iterator[Procedure]:
    """The ordered sequences of a text (numbered lists, sentences with ordinals) with at least three steps."""
    yield from islice(_numbered_lists(text), _MAX_SEQUENCES)
    yield from islice(_ordinal_sentences(text), _MAX_SEQUENCES)


def _numbered_lists(text: str) -> Iterator[Procedure]:
    """Yield the numbered lists of a text; a list ends where the count does not continue."""
    steps: list[ProcedureStep] = []
    above = ""
    last = ""
    at = 0
    for number, line in enumerate(text.split("\n"), 1):
        item = _ITEM.fullmatch(line)
        counts_on = item is not None and int(item["number"]) == len(steps) + 1
        if steps and not counts_on and line.strip():
            yield from _check_length(steps, above)
            steps = []
            # this line may begin the next list
            counts_on = item is not None and int(item["number"]) == 1
        if item is not None and counts_on:
            above = above if steps else last
            steps.append(_step(item["body"].rstrip(), at + item.start("body"), number))
        elif line.strip():
            last = line
        at += len(line) + 1
    yield from _check_length(steps, above)


def _ordinal_sentences(text: str) -> Iterator[Procedure]:
    """Yield the runs of sentences that begin with "First" and go on with other ordinals."""
    steps: list[ProcedureStep] = []
    for segment in split(text):
        match = _ORDINAL.fullmatch(segment.text.rstrip())
        begins = bool(_FIRST.match(segment.text))
        if match is None or begins:
            yield from _check_length(steps, "")
            steps = []
        if match is not None and (steps or begins):
            start = segment.start + match.start("body")
            steps.append(_step(match["body"], start, text.count("\n", 0, start) + 1))
    yield from _check_length(steps, "")


def _check_length(steps: Sequence[ProcedureStep], above: str) -> Iterator[Procedure]:
    """Yield the steps as one procedure if there are enough of them and not too many to compare."""
    if _FEWEST <= len(steps) <= _MAX_STEPS:
        yield Procedure(tuple(steps), above=above)


def _step(body: str, start: int, line: int) -> ProcedureStep:
    """Make the step with this text, which begins at `start` and in this line."""
    return ProcedureStep(
        body, start, start + len(body), line, frozenset(word for word in words(body) if word not in GENERIC)
    )


def find_reorderings(text: str, procedures_of_references: Sequence[Procedure]) -> list[Reordering]:
    """The sequences of an answer that match exactly one procedure and have its steps in another order."""
    if not procedures_of_references or _OTHER_ORDER.search(text):
        return []
    result = []
    for sequence in sequences(text):
        # a list of questions is no procedure
        if any(step.body.endswith("?") for step in sequence.steps):
            continue
        matching = [
            (procedure, matched)
            for procedure in procedures_of_references
            if (matched := _match_steps(sequence.steps, procedure.steps))
        ]
        if len(matching) != 1:
            continue  # no procedure has these steps, or several have
        procedure, order = matching[0]
        if all(index < next_index for index, next_index in pairwise(order)):
            continue
        right_order = [step for _, step in sorted(zip(order, sequence.steps, strict=True), key=lambda pair: pair[0])]
        place = f"{procedure.source}:{procedure.steps[0].line}"
        result.append(
            Reordering(sequence.steps, tuple(right_order), place, _can_move(text, sequence.steps, right_order))
        )
    return result


def _match_steps(steps: Sequence[ProcedureStep], reference_steps: Sequence[ProcedureStep]) -> list[int]:
    """For each step the index of the reference step that shares most words with it, rare words counting more.

    Empty if a step has no match or an ambiguous one, or if two steps have the same match.
    """
    counts = Counter(word for step in reference_steps for word in step.words)
    # words that many steps share say little about which step is meant
    weights = {word: 1 / count for word, count in counts.items()}
    numbers = []
    for step in steps:
        shares = sorted(
            ((_share(step, reference_step, weights), n) for n, reference_step in enumerate(reference_steps)),
            reverse=True,
        )
        # there is a second one, since procedures have at least three steps
        (best, number), (second, _) = shares[0], shares[1]
        if best < _MATCHES or best < _AHEAD * second or len(step.words & reference_steps[number].words) < _MIN_WORDS:
            return []
        numbers.append(number)
    return numbers if len(set(numbers)) == len(numbers) else []


def _share(one: ProcedureStep, other: ProcedureStep, weights: Mapping[str, float]) -> float:
    """Share, from 0 to 1, of the lighter step's word weight that both steps have in common."""
    both = sum(weights.get(word, 1.0) for word in one.words & other.words)
    least = min(sum(weights.get(word, 1.0) for word in step.words) for step in (one, other))
    return both / least if least else 0.0


def _can_move(text: str, steps: Sequence[ProcedureStep], right_order: Sequence[ProcedureStep]) -> bool:
    """Whether the moved steps read well in their new places and no text refers to their numbers."""
    moved = [step for step, new in zip(steps, right_order, strict=True) if step != new]
    if _NUMBER_MEANT.search(text):
        return False
    if not _is_whole(text, steps):
        return False
    # with mixed capitals or full stops a swap would show
    cases = {step.body[0].islower() for step in steps}
    ends = {step.body[-1] in ".!?" for step in steps}
    whole = len(cases) == 1 and len(ends) == 1
    return whole and not any(_LOOKS_BACK.search(_head(step)) or not stands_alone(_sentence(step)) for step in moved)


def _is_whole(text: str, steps: Sequence[ProcedureStep]) -> bool:
    """Whether only list marks, ordinals and white space separate the steps."""
    between = [text[step.end : next_step.start] for step, next_step in pairwise(steps)]
    # the patterns want a body after the mark, hence the "x"
    return all(_ITEM.fullmatch(gap.strip() + " x") or _ORDINAL.fullmatch(gap.strip() + " x") for gap in between)


def _head(step: ProcedureStep) -> str:
    """The first sentence of a step, which may refer back to the step before."""
    return split(step.body)[0].text


def _sentence(step: ProcedureStep) -> str:
    """The step with a capital, as a sentence of its own."""
    return step.body[0].upper() + step.body[1:]
