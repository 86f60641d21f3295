"""Search for answers that give the steps of a reference's procedure (numbered instructions) in another order.

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
_MIN_STEPS = 3
_MAX_STEPS = 40
_MAX_SEQUENCES = 50
"""Limit on the lists, and on the runs of sentences, of a page or an answer; the comparison of steps is quadratic."""
_MIN_SHARE = 0.5
"""Two steps match only if they share at least this part of the words, by weight, of the step with less weight."""
_MIN_LEAD = 1.5
"""The best match must have at least this many times the share of the second-best."""
_MIN_SHARED_WORDS = 2
"""Two steps match only if they share at least this many words."""
_ITEM = re.compile(r"(?P<mark>[ \t]*\*{0,2}(?:Step )?(?P<number>\d{1,2})[.):]\*{0,2}[ \t]+)(?P<body>\S.*)")
_ANNOUNCES_STEPS = re.compile(
    r"\b(?:how|steps?|order|procedure|process|follow(?:s|ing)?|proceed|instructions?|what happens|what to do|"
    r"(?:this|here) is (?:how|what)|in turn)\b",
    re.IGNORECASE,
)
_INSTRUCTION = re.compile(
    r"(?:please )?(?:you |we |they |the \w+ )?(?:then )?(?:add|agree|answer|apply|ask|attach|book|bring|call|carry|"
    r"check|choose|clean|click|close|collect|come|complete|confirm|connect|cut|download|drain|drop|dry|empty|enter|fetch|"
    r"fill|find|fit|give|go|hand|hang|hold|inspect|install|keep|lay|leave|let|lift|list|lock|log|look|make|measure|mix|move|"
    r"note|open|order|pack|paste|pay|pick|place|plug|pour|prepare|press|print|pull|push|put|read|receive|register|remove|"
    r"repeat|reply|report|return|rinse|save|say|scan|screw|select|send|set|show|sign|spread|start|stick|stop|submit|"
    r"switch|take|tell|test|tighten|tick|turn|type|undo|unlock|unplug|unscrew|upload|use|visit|wait|wash|wear|weigh|"
    r"wipe|write)s?\b",
    re.IGNORECASE,
)
"""The beginning of a step that is an instruction."""
_ORDINAL = re.compile(
    r"(?P<mark>\s*(?:First(?:ly)?|Second(?:ly)?|Third(?:ly)?|Fourth(?:ly)?|Fifth(?:ly)?|Next|Then|After that|"
    r"Afterwards|Finally|Lastly|Last),?\s+(?:of all,? )?)(?P<body>\S.*)",
    re.DOTALL,
)
_FIRST = re.compile(r"\s*First", re.IGNORECASE)
_STEP_NUMBER_MENTIONED = re.compile(r"(?<=\S )(?:steps?|points?|items?|numbers?|nos?\.)\s+#?\d", re.IGNORECASE)
_REFERS_BACK = re.compile(
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
    """Steps in order; `source` is the name of their reference (empty for an answer's steps)."""

    steps: tuple[ProcedureStep, ...]
    source: str = ""
    line_above: str = ""
    """The last line before the steps; empty for sentences."""


@dataclass(frozen=True, slots=True)
class Reordering:
    """The steps of an answer, whose order differs from that of a reference."""

    answer_steps: tuple[ProcedureStep, ...]
    """The answer's steps in its own order."""
    reordered_steps: tuple[ProcedureStep, ...]
    """The answer's steps in the reference's order."""
    place: str
    """"name:line" of the reference."""
    can_move: bool
    """Whether the steps read well in the reference's order."""


def procedures(text: str, source: str = "") -> tuple[Procedure, ...]:
    """Find the procedures of the page `source`: numbered lists of instructions, and sentences with ordinals."""
    return tuple(
        Procedure(sequence.steps, source, sequence.line_above)
        for sequence in sequences(text)
        if not _OTHER_ORDER.search(sequence.line_above) and _gives_instructions(sequence)
    )


def _gives_instructions(sequence: Procedure) -> bool:
    """Whether the line above announces steps, or more than half of the items begin with an instruction."""
    if _ANNOUNCES_STEPS.search(sequence.line_above):
        return True
    instruction_count = sum(bool(_INSTRUCTION.match(step.body)) for step in sequence.steps)
    return 2 * instruction_count > len(sequence.steps)


def sequences(text: str) -> Iterator[Procedure]:
    """Yield the numbered lists, then the runs of sentences with ordinals ("First", "Then"), as sequences of steps."""
    yield from islice(_numbered_lists(text), _MAX_SEQUENCES)
    yield from islice(_ordinal_sentences(text), _MAX_SEQUENCES)


def _numbered_lists(text: str) -> Iterator[Procedure]:
    """Yield the numbered lists of a text; a list ends at the first line with text that is not its next item."""
    steps: list[ProcedureStep] = []
    line_above = ""
    last_line = ""
    line_start = 0
    for line_number, line in enumerate(text.split("\n"), 1):
        item = _ITEM.fullmatch(line)
        is_next_item = item is not None and int(item["number"]) == len(steps) + 1
        if steps and not is_next_item and line.strip():
            yield from _check_length(steps, line_above)
            steps = []
            # this line may begin the next list
            is_next_item = item is not None and int(item["number"]) == 1
        if item is not None and is_next_item:
            if not steps:
                line_above = last_line
            steps.append(_make_step(item["body"].rstrip(), line_start + item.start("body"), line_number))
        elif line.strip():
            last_line = line
        line_start += len(line) + 1
    yield from _check_length(steps, line_above)


def _ordinal_sentences(text: str) -> Iterator[Procedure]:
    """Yield the runs of sentences that begin with "First" and go on with other ordinals."""
    steps: list[ProcedureStep] = []
    for segment in split(text):
        ordinal = _ORDINAL.fullmatch(segment.text.rstrip())
        begins_run = bool(_FIRST.match(segment.text))
        # the run before has ended
        if ordinal is None or begins_run:
            yield from _check_length(steps, "")
            steps = []
        if ordinal is not None and (steps or begins_run):
            start = segment.start + ordinal.start("body")
            line_number = text.count("\n", 0, start) + 1
            steps.append(_make_step(ordinal["body"], start, line_number))
    yield from _check_length(steps, "")


def _check_length(steps: Sequence[ProcedureStep], line_above: str) -> Iterator[Procedure]:
    """Yield the steps as one procedure if there are enough of them and not too many to compare."""
    if _MIN_STEPS <= len(steps) <= _MAX_STEPS:
        yield Procedure(tuple(steps), line_above=line_above)


def _make_step(body: str, start: int, line: int) -> ProcedureStep:
    """Make the step with the text `body`, which begins at the position `start`, in the line with this number."""
    subject_words = frozenset(word for word in words(body) if word not in GENERIC)
    return ProcedureStep(body, start, start + len(body), line, subject_words)


def find_reorderings(text: str, procedures_of_references: Sequence[Procedure]) -> list[Reordering]:
    """Find the sequences of steps in an answer that match exactly one procedure and have its steps in another order."""
    if not procedures_of_references or _OTHER_ORDER.search(text):
        return []
    reorderings = []
    for sequence in sequences(text):
        # a list of questions is no procedure
        if any(step.body.endswith("?") for step in sequence.steps):
            continue
        matches = [
            (procedure, indexes)
            for procedure in procedures_of_references
            if (indexes := _match_steps(sequence.steps, procedure.steps))
        ]
        if len(matches) != 1:
            continue  # no procedure has these steps, or several have
        procedure, indexes = matches[0]
        if all(index < next_index for index, next_index in pairwise(indexes)):
            continue  # the order is that of the reference
        by_index = sorted(zip(indexes, sequence.steps, strict=True), key=lambda pair: pair[0])
        reordered_steps = tuple(step for _, step in by_index)
        place = f"{procedure.source}:{procedure.steps[0].line}"
        can_move = _can_move(text, sequence.steps, reordered_steps)
        reorderings.append(Reordering(sequence.steps, reordered_steps, place, can_move))
    return reorderings


def _match_steps(steps: Sequence[ProcedureStep], reference_steps: Sequence[ProcedureStep]) -> list[int]:
    """Return, for each step of an answer, the index of the reference step with which it shares most words.

    Rare words count more. Empty if a step has no match or several similar ones, or if two steps have the same match.
    """
    word_counts = Counter(word for step in reference_steps for word in step.words)
    # words that many steps share say little about which step is meant
    weights = {word: 1 / count for word, count in word_counts.items()}
    indexes = []
    for step in steps:
        shares = sorted(
            (
                (_share_words(step, reference_step, weights), index)
                for index, reference_step in enumerate(reference_steps)
            ),
            reverse=True,
        )
        best_share, best_index = shares[0]
        # there is a second share, since procedures have at least three steps
        second_share, _ = shares[1]
        shared_words = step.words & reference_steps[best_index].words
        if best_share < _MIN_SHARE or best_share < _MIN_LEAD * second_share or len(shared_words) < _MIN_SHARED_WORDS:
            return []
        indexes.append(best_index)
    return indexes if len(set(indexes)) == len(indexes) else []


def _share_words(one: ProcedureStep, other: ProcedureStep, weights: Mapping[str, float]) -> float:
    """Return the weight of the words that two steps share, divided by that of all words of the lighter step: 0 to 1."""
    shared_weight = sum(weights.get(word, 1.0) for word in one.words & other.words)
    smaller_weight = min(sum(weights.get(word, 1.0) for word in step.words) for step in (one, other))
    return shared_weight / smaller_weight if smaller_weight else 0.0


def _can_move(text: str, steps: Sequence[ProcedureStep], reordered_steps: Sequence[ProcedureStep]) -> bool:
    """Whether the steps can be put into this order: they read well there, and the text mentions no step's number."""
    if _STEP_NUMBER_MENTIONED.search(text) or not _are_adjacent(text, steps):
        return False
    # if only some steps began with a capital or ended with a full stop, a swap would show
    begin_alike = len({step.body[0].islower() for step in steps}) == 1
    end_alike = len({step.body[-1] in ".!?" for step in steps}) == 1
    if not (begin_alike and end_alike):
        return False
    moving_steps = [step for step, new_step in zip(steps, reordered_steps, strict=True) if step != new_step]
    return all(_reads_alone(step) for step in moving_steps)


def _are_adjacent(text: str, steps: Sequence[ProcedureStep]) -> bool:
    """Whether only list marks, ordinals and white space separate the steps."""
    texts_between = [text[step.end : next_step.start].strip() for step, next_step in pairwise(steps)]
    # the patterns need a text after the mark, so "x" is added
    return all(_ITEM.fullmatch(f"{mark} x") or _ORDINAL.fullmatch(f"{mark} x") for mark in texts_between)


def _reads_alone(step: ProcedureStep) -> bool:
    """Whether a step does not depend on the step before: it does not refer back, and is a sentence of its own."""
    first_sentence = split(step.body)[0].text
    step_as_sentence = step.body[0].upper() + step.body[1:]
    return not _REFERS_BACK.search(first_sentence) and stands_alone(step_as_sentence)
