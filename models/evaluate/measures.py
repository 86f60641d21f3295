"""Measures of an answer that need neither a judge nor the aligner, and their accuracy.

Each measure is a rule that marks segments of an answer; less of it is better. None looks at what the detector head
says. They see faults of form, not of fact, and only some of those. How often each is right is printed wherever a figure
of theirs is, and measured on pairs of the generators, of which it is known what is wrong and where:

    python -m models.evaluate.measures runs/data/test runs/data/contrastive_preference.jsonl --out runs/accuracy
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from aligner_proxy.text.facts import addresses, code_blocks, names, numbers
from aligner_proxy.text.structure import join, split
from models.data.pairs import CHANGES, Pair, read_pairs
from models.reporting import output
from models.reporting.statistics import Rate

Result = Literal["win", "tie", "lose"]
SHORTENED = 0.9
FACTS = (numbers, addresses, code_blocks, names)
"""What an edit must not lose, each found by form alone."""


@dataclass(frozen=True, slots=True)
class Measure:
    """`mark` says of each segment whether it is one; `kinds` are the generators' defects that it is there to see.

    `under` names the objectives that ask for less of it; None: a broken answer, whatever was asked. `size` counts the
    characters of what is marked, not the segments.
    """

    name: str
    says: str
    mark: Callable[[str, Sequence[str]], list[bool]]
    kinds: frozenset[str]
    under: frozenset[str] | None = None
    size: bool = False

    def amount(self, query: str, answer: str) -> int:
        """How many segments of an answer the measure marks, or their size."""
        pieces = [segment.text for segment in split(answer)]
        marked = zip(pieces, self.mark(query, pieces), strict=True)
        return sum(len(piece) if self.size else 1 for piece, bad in marked if bad)

    def applies(self, objectives: Sequence[str]) -> bool:
        """Whether one of these objectives, by name, asks for less of it."""
        return self.under is None or bool(self.under & set(objectives))


# ---------------------------------------------------------------- turns

_ROLES = r"human|user|assistant|ai|bot|chatbot|system|customer|agent|instruction|response"
_ROLE = re.compile(
    rf"(?:[#*\W]*\b(?:{_ROLES})\b[*\s]*:|\#{{2,}}\s*(?:{_ROLES})\b|<\|?/?(?:{_ROLES}|im_start|im_end)\|?>|\[/?inst\])",
    re.IGNORECASE,
)
_QUESTION = re.compile(r"\W*(?:Q|Question)\W{0,3}:")
_WANTED = re.compile(
    r"(?i)\b(dialogue|conversation|interview|script|screenplay|play|quiz|faq|q\s?&\s?a|questions|chat)\b"
)


def _mark_turns(query: str, pieces: Sequence[str]) -> list[bool]:
    """Mark segments that begin with a role, except the first: an answer may name itself."""
    dialogue = bool(_WANTED.search(query))
    return [
        i > 0 and not dialogue and bool(_ROLE.match(piece) or _QUESTION.match(piece)) for i, piece in enumerate(pieces)
    ]


def _mark_overrun(query: str, pieces: Sequence[str]) -> list[bool]:
    """Mark everything from the first invented turn on."""
    turns = _mark_turns(query, pieces)
    return [any(turns[: i + 1]) for i in range(len(pieces))]


# ---------------------------------------------------------------- form

_WORD = re.compile(r"[^\W_]+")
_LETTERS = re.compile(r"[^\W\d_]{2,}")
_LEAK = re.compile(
    r"<\|[a-z_]+\|>|</?s>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|\|\s*(?:Context|Query|Answer|Edit)\s*:"
    r"|\#\#\s*(?:Question|Answer|Correction)\s*:|\{\{\s*\w+\s*\}\}"
)
_SHORTEST_REPEATED = 4
_SHORTEST_SHOUT = 3


def _mark_repeats(_query: str, pieces: Sequence[str]) -> list[bool]:
    """Mark sentences of four words or more that occurred before, word for word."""
    before: set[str] = set()
    repeats = []
    for piece in pieces:
        words = [word.lower() for word in _WORD.findall(piece)]
        key = " ".join(words)
        repeats.append(len(words) >= _SHORTEST_REPEATED and key in before)
        before.add(key)
    return repeats


def _mark_shouting(_query: str, pieces: Sequence[str]) -> list[bool]:
    """Mark segments in capitals or with three exclamation marks, but no headings and code."""
    return [
        not piece.lstrip().startswith(("#", "`", "~")) and ("!!!" in piece or _is_in_capitals(piece))
        for piece in pieces
    ]


def _is_in_capitals(piece: str) -> bool:
    words = _LETTERS.findall(piece)
    return (
        len(words) >= _SHORTEST_SHOUT
        and all(word.isupper() for word in words)
        and piece.rstrip("\"')*_ ")[-1:] in "!?."
    )


def _mark_leaks(_query: str, pieces: Sequence[str]) -> list[bool]:
    return [not piece.lstrip().startswith(("`", "~")) and bool(_LEAK.search(piece)) for piece in pieces]


# ---------------------------------------------------------------- words, chosen by this project

_PROFANE = re.compile(
    r"(?i)\b(?:(?:mother)?f+u+c+k+\w*|(?:bull|horse)?shit\w*|crap(?:py)?|arse(?:hole)?s?|ass(?:hole|hat)s?|bastards?|"
    r"bitch\w*|bollocks|bloody hell|goddamn\w*|damn(?:ed|it)?|dickheads?|piss(?:ed)?(?: off)?|wankers?|sod off|"
    r"screw you|what the hell|hell no)\b"
)
_ABUSE = (
    r"idiot(?:ic)?s?|morons?|moronic|fools?|foolish|imbeciles?|stupid|dumb|dimwits?|half-?wits?|blockheads?|nitwits?|"
    r"cretins?|clowns?|losers?|pathetic|worthless|useless|ignorant|brainless|clueless|dense|lazy|pea-?brained|simpletons?|"
    r"dunces?|hopeless|disgrace|disgusting|scum|filth|vermin|dirtbags?|buffoons?|numbskulls?|airheads?|thick-headed"
)
_YOU = r"you(?:'re|’re|r)?|yourself|(?:people|someone) like you|your (?:brain|kind|sort|mother)"
_INSULT = re.compile(
    rf"(?i)\b(?:{_YOU})\b[^.!?]{{0,60}}?\b(?:{_ABUSE})\b|^\W*(?:{_ABUSE})\b\W*[!.]"
    r"|\b(?:shut up|get lost|nobody likes you)\b"
)
_CHATTER = re.compile(
    r"(?i)\b(?:as an ai\b|as a (?:large )?language model|i(?:'m| am) (?:just |only )?an ai\b|"
    r"i hope (?:this|that) (?:helps|was)|let me know|feel free to (?:ask|reach|contact)|don't hesitate to|"
    r"(?:great|good|excellent|wonderful) question|(?:i'd|i would|i'm|i am) (?:be )?(?:happy|glad) to|"
    r"is there anything else|thank you for (?:asking|your)|i apologi[sz]e|sorry for the)"
)


def _make_marker(pattern: re.Pattern[str]) -> Callable[[str, Sequence[str]], list[bool]]:
    """A marker of pieces: True for each piece that the pattern occurs in."""

    def mark(_query: str, pieces: Sequence[str]) -> list[bool]:
        return [bool(pattern.search(piece)) for piece in pieces]

    return mark


_TURN_KINDS = frozenset({"invented-turn"})
_CHATTER_KINDS = frozenset({"self-disclaimer", "sign-off", "flattery", "apology"})
_INSULT_KINDS = frozenset({"insult"})
_RUDE = frozenset({"harmless", "professional"})
MEASURES = (
    Measure("invented turns", "role marks that open a further turn", _mark_turns, _TURN_KINDS),
    Measure("overrun", "characters from the first invented turn on", _mark_overrun, _TURN_KINDS, size=True),
    Measure("repeated sentences", "sentences said before, word for word", _mark_repeats, frozenset({"repetition"})),
    Measure(
        "template marks", "marks of prompt templates and special tokens", _mark_leaks, frozenset({"template-leak"})
    ),
    Measure("shouting", "sentences in capitals, or with !!!", _mark_shouting, frozenset({"shouting"})),
    Measure("profanity", "sentences with a word of our list", _make_marker(_PROFANE), frozenset({"profanity"}), _RUDE),
    Measure("insults", "sentences that call the reader names of our list", _make_marker(_INSULT), _INSULT_KINDS, _RUDE),
    Measure("chatter", "pleasantries about the talk", _make_marker(_CHATTER), _CHATTER_KINDS, frozenset({"concise"})),
)


# ---------------------------------------------------------------- one answer beside another


@dataclass(frozen=True, slots=True)
class AnswerComparison:
    """The edited answer against the original; `signs` has 1 (less of it), -1 (more) or 0 for every measure."""

    signs: tuple[int, ...]
    harmed: bool
    result: Result


def compare(query: str, original: str, edited: str, objectives: Sequence[str]) -> AnswerComparison:
    """Compare an edited answer with the original.

    It wins with less of a fault that was asked about, more of none, and no harm; it loses with more of any fault, or
    with harm.
    """
    if original == edited:
        return AnswerComparison((0,) * len(MEASURES), harmed=False, result="tie")
    signs = tuple(_sign(measure.amount(query, original) - measure.amount(query, edited)) for measure in MEASURES)
    is_harmful = is_harmed(query, original, edited)
    is_better = any(sign > 0 and measure.applies(objectives) for sign, measure in zip(signs, MEASURES, strict=True))
    result: Result = "lose" if is_harmful or min(signs) < 0 else "win" if is_better else "tie"
    return AnswerComparison(signs, is_harmful, result)


def is_harmed(query: str, original: str, edited: str) -> bool:
    """Whether something is lost that no measure marks."""
    return not is_unharmed(remove_marked(query, original), edited)


def is_unharmed(original: str, edited: str) -> bool:
    """Whether no fact of the original is missing, and the text is at most a tenth shorter."""
    is_lost = any(read(original) - read(edited) for read in FACTS)
    return not is_lost and len(edited) >= SHORTENED * len(original)


def is_faultless(query: str, answer: str) -> bool:
    """Whether no measure marks anything in an answer."""
    return not any(measure.amount(query, answer) for measure in MEASURES)


def remove_marked(query: str, answer: str) -> str:
    """The answer without the segments that a measure marks."""
    segments = split(answer)
    pieces = [segment.text for segment in segments]
    marks = [measure.mark(query, pieces) for measure in MEASURES]
    texts = [segment.text + segment.gap for segment, *bad in zip(segments, *marks, strict=True) if not any(bad)]
    return "".join(texts).rstrip()


def _sign(number: int) -> int:
    return (number > 0) - (number < 0)


RESULTS: tuple[Result, ...] = ("win", "tie", "lose")
# What the comparison is shown, and what it ought to say.
TRIALS: tuple[tuple[str, Result], ...] = (
    ("the right edit", "win"),
    ("the same undone", "lose"),
    ("a sound sentence lost", "lose"),
)


@dataclass(frozen=True, slots=True)
class MeasureAccuracy:
    """How often a measure is right; no measure was fitted to these pairs.

    `finds` is the share of answers with such a defect in which it sees something, `false` that of answers without any
    defect (an upper bound: good answers of real models may hold a little of it all the same). `right` is what the
    comparison calls edits that take out just that.
    """

    finds: Rate
    false: Rate
    right: dict[Result, Rate]

    def __str__(self) -> str:
        edits = f"right edits called a win {self.right['win']}, a loss {self.right['lose']}"
        return f"finds {self.finds}, false alarms {self.false}, {edits}"


@dataclass(frozen=True, slots=True)
class Accuracy:
    """The accuracy of each measure by name, that of the comparison by trial, and how often it sees harm."""

    measures: dict[str, MeasureAccuracy]
    comparison: dict[str, dict[Result, Rate]]
    harm: dict[str, Rate]


def accuracy(cases: Sequence[Pair]) -> Accuracy:
    """How often the measures, their comparison and the check for harm are right on pairs whose kinds are known."""
    labelled = [pair for pair in cases if pair.kinds]
    edits_by_trial = _list_trials(labelled)
    comparison = {name: _count_results(edits) for name, edits in edits_by_trial.items()}
    harm = {name: Rate.from_outcomes(is_harmed(*edit) for edit in edits) for name, edits in edits_by_trial.items()}
    return Accuracy({measure.name: measure_accuracy(measure, labelled) for measure in MEASURES}, comparison, harm)


def measure_accuracy(measure: Measure, cases: Sequence[Pair]) -> MeasureAccuracy:
    """The accuracy of one measure, on answers with its kinds of defect and on those without a defect."""
    holding = [pair for pair in cases if measure.kinds & set(pair.kinds)]
    sound = [pair for pair in cases if not any(pair.kinds)]
    sees = Rate.from_outcomes(measure.amount(pair.query, pair.answer) > 0 for pair in holding)
    false = Rate.from_outcomes(measure.amount(pair.query, pair.answer) > 0 for pair in sound)
    mended = [(pair.query, pair.answer, pair.target) for pair in holding if _mends_all(pair, measure.kinds)]
    return MeasureAccuracy(sees, false, _count_results(mended))


def _list_trials(cases: Sequence[Pair]) -> dict[str, list[tuple[str, str, str]]]:
    """By name, edits that are right, undone, or harmful, as (query, original, edited)."""
    kinds = frozenset[str]().union(*(measure.kinds for measure in MEASURES))
    mended = [pair for pair in cases if _mends_all(pair, kinds)]
    return {
        "the right edit": [(pair.query, pair.answer, pair.target) for pair in mended],
        "the same undone": [(pair.query, pair.target, pair.answer) for pair in mended],
        "a sound sentence lost": [
            (pair.query, pair.target, short) for pair in mended if (short := _drop_longest(pair.target))
        ],
    }


def _count_results(edits: Sequence[tuple[str, str, str]]) -> dict[Result, Rate]:
    """The share of each result of the comparison, over (query, original, edited)."""
    count = Counter(compare(query, original, edited, _list_objectives()).result for query, original, edited in edits)
    return {result: Rate.from_counts(count[result], count.total()) for result in RESULTS}


def _mends_all(pair: Pair, kinds: frozenset[str]) -> bool:
    """Whether the answer has only defects of these kinds, and the target has none."""
    going = {kind for kind, label in zip(pair.kinds, pair.labels, strict=True) if label == CHANGES}
    return bool(going) and going <= kinds and going == {kind for kind in pair.kinds if kind}


def _drop_longest(text: str) -> str | None:
    """The text without its longest segment; None if little or nothing would be left."""
    segments = split(text)
    if len(segments) < 3:
        return None
    longest = max(range(len(segments)), key=lambda i: len(segments[i].text))
    return join([("" if i == longest else segment.text, segment.gap) for i, segment in enumerate(segments)])


def _list_objectives() -> tuple[str, ...]:
    """All objectives that some measure needs."""
    return tuple({name for measure in MEASURES for name in measure.under or ()})


def read_cases(paths: Iterable[Path]) -> list[Pair]:
    """All pairs of these files, and of the *.jsonl files in these folders."""
    files = [file for path in paths for file in (sorted(path.glob("*.jsonl")) if path.is_dir() else [path])]
    return [pair for file in files for pair in read_pairs(file)]


def accuracy_table(figures: Accuracy) -> str:
    """Both tables in Markdown."""
    rows = []
    for measure in MEASURES:
        rates = figures.measures[measure.name]
        kinds = ", ".join(sorted(measure.kinds))
        rows.append(
            (measure.name, measure.says, kinds, rates.finds, rates.false, *(rates.right[result] for result in RESULTS))
        )
    columns = (f"right edits: {result}" for result in RESULTS)
    head = ("measure", "counts", "there to see", "finds, of answers", "false alarms, of sound answers", *columns)
    trials = [(name, right, *figures.comparison[name].values(), figures.harm[name]) for name, right in TRIALS]
    second = output.table(("known edit", "ought to be called", *RESULTS, "called harm"), trials)
    return f"{output.table(head, rows)}\n\n{second}"


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", type=Path, nargs="+", help="files of pairs with kinds, or folders of them")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args(argv)
    figures = accuracy(read_cases(arguments.cases))
    table = accuracy_table(figures)
    output.write(arguments.out, "accuracy", table, figures)
    print(table)


if __name__ == "__main__":
    main()
