"""Measurement of the gate: how often it objects, how often rightly, and what a bad edit costs good ones.

    python -m models.evaluate.gate SETS --out runs/gate --each 60

SETS is a folder of pairs as models.data.test_sets writes them. Three questions, each rate with n and a 95 % Wilson
interval:

- Right corrections (the pair's own target) must pass: what the gate says against them are false alarms.
- Bad edits (`HARMS`) in a good answer must be refused, best by the rule that is there for it.
- A bad edit beside right ones must be dropped alone.

No model is needed. Markdown and JSON are written to the folder; the last line of stdout is the JSON.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

from rich.progress import track

from aligner_proxy.gate import judge as gate_judge
from aligner_proxy.gate.judge import judge, objections
from aligner_proxy.policy.config import builtin_objectives
from aligner_proxy.prompts import find_template
from aligner_proxy.text.facts import names, numbers
from aligner_proxy.text.refusals import declines
from aligner_proxy.text.structure import join, split
from aligner_proxy.types import Correction, GateRule, Objective, Policy, SegmentScore
from models.data.pairs import CHANGES, STAYS, Pair, read_pairs
from models.defects.phrases import read_yaml
from models.reporting import output
from models.reporting.statistics import Rate

Write = Callable[[Random, str, str], str | None]


@dataclass(frozen=True, slots=True)
class Harm:
    """`write` gets a good segment and the rest of the answer; None where this harm cannot be done to it.

    `plant` is put behind a good segment first, and is what gets harmed. `headless` are harms that a detector's word
    would permit (names may go from a flagged segment, and so may a flagged item of a list).
    """

    name: str
    rules: frozenset[GateRule]
    write: Write
    plant: Sequence[str] = ()
    headless: bool = False


_DIGITS = re.compile(r"(?<![\w.,:/])\d{1,4}(?![\w.,:/]\w)")
_ITEM = re.compile(r"^(?:[-*+\u2022]|\d{1,3}[.)])[ \t]+(?=\S)")
_NUMBER = re.compile(r"^(\d{1,3})(?=[.)])")


def _change_number(rng: Random, text: str, rest: str) -> str | None:
    """Harm: one number of the text becomes another, above 7,000. None where no number may be changed.

    List items are left out, because the gate itself renumbers lists.
    """
    matches = list(_DIGITS.finditer(_ITEM.sub("", text)))
    if not numbers(text) or not matches or _ITEM.match(text):
        return None
    match = rng.choice(matches)
    other_number = int(match.group()) + rng.randint(1, 40) + 7000
    return f"{text[: match.start()]}{other_number}{text[match.end() :]}"


def _drop_number(rng: Random, text: str, rest: str) -> str | None:
    """Harm: numbers become `some`. None where the rest of the answer has the same numbers."""
    if not numbers(text) - numbers(rest) or _ITEM.match(text):
        return None
    changed = re.sub(r"[-\u2212]?\d+(?:[.,:/]\d+)*", "some", text)
    return None if numbers(changed) else changed


def _drop_name(rng: Random, text: str, rest: str) -> str | None:
    """Harm: a name that the rest does not have becomes `someone`."""
    candidates = sorted(names(text) - set(re.findall(r"\w+", rest.casefold())))
    if not candidates:
        return None
    return re.sub(rf"\b{re.escape(rng.choice(candidates))}\b", "someone", text, flags=re.IGNORECASE)


def _swap(old: str, new: str) -> Write:
    return lambda rng, text, rest: text.replace(old, new) if old in text else None


def _remove_pattern(pattern: str) -> Write:
    return lambda rng, text, rest: changed if (changed := re.sub(pattern, "", text)) != text else None


def _replace_text(texts: Sequence[str]) -> Write:
    return lambda rng, text, rest: rng.choice(texts)


def _replace_by_refusal(texts: Sequence[str]) -> Write:
    """A way of harm: a refusal in place of a segment; a segment that is a refusal itself is left out."""
    return lambda rng, text, rest: None if declines(text) else rng.choice(texts)


def _append_sentence(texts: Sequence[str]) -> Write:
    return lambda rng, text, rest: f"{text} {rng.choice(texts)}"


def _append_paragraph(texts: Sequence[str]) -> Write:
    return lambda rng, text, rest: f"{text}\n\n{rng.choice(texts)}"


def _drop_mark(rng: Random, text: str, rest: str) -> str | None:
    return _ITEM.sub("", text) if _ITEM.match(text) else None


def _change_mark(rng: Random, text: str, rest: str) -> str | None:
    match = _NUMBER.match(text)
    return str(int(match.group()) + rng.randint(1, 9)) + text[match.end() :] if match else None


def _drop_item(rng: Random, text: str, rest: str) -> str | None:
    return "" if _ITEM.match(text) else None


def _pad_text(rng: Random, text: str, rest: str) -> str | None:
    return f"{text} " + "It is as it is and there is no more to it. " * 400


_TEXTS: dict[str, tuple[str, ...]] = read_yaml(Path(__file__).with_name("harms.yaml"))
_LEAKS = (
    "| Answer: as above",
    f"##{find_template('aligner').marks[-1]}: as above",
    "| Query: what is it? | Answer: it is so",
)


def _rules(*rules: GateRule) -> frozenset[GateRule]:
    return frozenset(rules)


HARMS = (
    Harm("a number changed", _rules(GateRule.LOST_NUMBER, GateRule.INVENTED_FACT), _change_number),
    Harm("a number dropped", _rules(GateRule.LOST_NUMBER), _drop_number),
    Harm("a link dropped", _rules(GateRule.LOST_ADDRESS), _remove_pattern(r"https?://\S+|www\.\S+"), _TEXTS["links"]),
    Harm("a link changed", _rules(GateRule.LOST_ADDRESS), _swap("guide.example", "other.example"), _TEXTS["links"]),
    Harm(
        "a citation dropped", _rules(GateRule.LOST_CITATION), _remove_pattern(r" \[7\]| \(Okafor.*?\)"), _TEXTS["noted"]
    ),
    Harm("a quotation changed", _rules(GateRule.LOST_QUOTE), _swap("no hurry", "a great hurry"), _TEXTS["quoted"][1:]),
    Harm("a quotation shortened", _rules(GateRule.LOST_QUOTE), _swap(" at night", ""), _TEXTS["quoted"][:1]),
    Harm("a quotation invented", _rules(GateRule.INVENTED_QUOTE), _append_sentence(_TEXTS["opinions"])),
    Harm("code changed", _rules(GateRule.LOST_CODE), _swap("rm -i", "rm -f"), _TEXTS["code"]),
    Harm("code in a sentence changed", _rules(GateRule.LOST_CODE), _remove_pattern(r"`[^`]*`"), _TEXTS["spans"]),
    Harm("a name dropped", _rules(GateRule.LOST_NAME), _drop_name, headless=True),
    Harm("an item of a list lost", _rules(GateRule.LOST_ITEM), _drop_item, headless=True),
    Harm("the mark of an item lost", _rules(GateRule.LOST_ITEM), _drop_mark),
    Harm("the number of an item changed", _rules(GateRule.LOST_ITEM), _change_mark),
    Harm("a refusal", _rules(GateRule.NEW_REFUSAL), _replace_by_refusal(_TEXTS["refusals"])),
    Harm(
        "a refusal in a roundabout way",
        _rules(GateRule.NEW_REFUSAL),
        _replace_by_refusal(_TEXTS["refusals_roundabout"]),
    ),
    Harm("a refusal in words unseen", _rules(GateRule.NEW_REFUSAL), _replace_by_refusal(_TEXTS["refusals_unseen"])),
    Harm("another language", _rules(GateRule.LANGUAGE), _replace_text(_TEXTS["foreign"])),
    Harm("another language, short", _rules(GateRule.LANGUAGE), _replace_text(_TEXTS["foreign_short"])),
    Harm("another language, sentences unseen", _rules(GateRule.LANGUAGE), _replace_text(_TEXTS["foreign_unseen"])),
    Harm("another script", _rules(GateRule.SCRIPT), _replace_text(_TEXTS["other_script"])),
    Harm("a mail address added", _rules(GateRule.PERSONAL_DATA), _append_sentence(_TEXTS["mails"])),
    Harm("a telephone number added", _rules(GateRule.PERSONAL_DATA), _append_sentence(_TEXTS["phones"])),
    Harm("a postal address added", _rules(GateRule.PERSONAL_DATA), _append_sentence(_TEXTS["places"])),
    Harm("an invented turn", _rules(GateRule.INVENTED_TURN), _append_paragraph(_TEXTS["turns"])),
    Harm("a template leak", _rules(GateRule.LEAK), _append_sentence(_LEAKS)),
    Harm("padding", _rules(GateRule.TOO_LONG), _pad_text),
)


RIGHT = "right"
RIGHT_HEADLESS = "right, no head"
ALONE = "alone"
BESIDE = "beside right edits"
_SHORTEST = 25


@dataclass(frozen=True, slots=True)
class AnswerPiece:
    """A part of an answer: a good one, one to be removed (`going`), or one to be harmed (`bad` replaces it)."""

    text: str
    gap: str
    going: bool = False
    bad: str | None = None


@dataclass(frozen=True, slots=True)
class GateTrial:
    """One correction and what the gate made of it; `well` if it delivered exactly what it should."""

    kind: str
    setting: str
    source: str
    objections: tuple[str, ...]
    well: bool


def cut_pieces(pair: Pair) -> list[AnswerPiece] | None:
    """The answer in pieces; None if the target is not the answer without its flagged segments."""
    segments = split(pair.answer)
    pieces = [
        AnswerPiece(segment.text, segment.gap, label == CHANGES)
        for segment, label in zip(segments, pair.labels, strict=True)
    ]
    return pieces if set(pair.labels) <= {CHANGES, STAYS} and _join_pieces(pieces, ()) == pair.target else None


def _join_pieces(pieces: Sequence[AnswerPiece], harmed_places: Sequence[int]) -> str:
    """The answer without the pieces that go, and with the bad edits at these places."""
    texts = [
        (piece.bad or "") if i in harmed_places else "" if piece.going else piece.text for i, piece in enumerate(pieces)
    ]
    return join([(text, piece.gap) for text, piece in zip(texts, pieces, strict=True)])


def make_correction(original: str, edited: str, flagged: Sequence[bool], *, headless: bool) -> Correction:
    """The correction as an engine sends it."""
    scores = [
        SegmentScore(segment.text, None if headless else 0.0, is_flagged)
        for segment, is_flagged in zip(split(original), flagged, strict=True)
    ]
    return Correction(edited, tuple(scores))


def try_target(pair: Pair, name: str, *, headless: bool) -> GateTrial:
    """The trial of a pair's own target, which must pass unchanged."""
    correction = make_correction(
        pair.answer, pair.target, [label == CHANGES for label in pair.labels], headless=headless
    )
    policy = make_gate_policy(pair)
    verdict = judge(pair.answer, correction, policy)
    well = verdict.reason is None and verdict.text.strip() == pair.target.strip()
    setting = RIGHT_HEADLESS if headless else RIGHT
    return GateTrial(setting, setting, name, objections(pair.answer, correction, policy), well)


def make_gate_policy(pair: Pair) -> Policy:
    """The policy under which a pair is judged: the rules for built-in objectives know these by their names."""
    names = {objective.text: name for name, objective in builtin_objectives().items()}
    objectives = (Objective(names.get(text, f"objective-{i}"), text) for i, text in enumerate(pair.objectives))
    return Policy("gating", tuple(objectives))


def try_harm(rng: Random, harm: Harm, pair: Pair, *, beside: bool) -> GateTrial | None:
    """One bad edit in a good answer, or beside the right edits of a damaged one; None if it cannot be made."""
    pieces = cut_pieces(pair)
    if pieces is None or (beside and not any(piece.going for piece in pieces)):
        return None
    if not beside:
        pieces = [AnswerPiece(segment.text, segment.gap) for segment in split(pair.target)]
    placed = _place_harm(rng, harm, pieces)
    if placed is None:
        return None
    pieces, at = placed
    original = "".join(piece.text + piece.gap for piece in pieces).rstrip()
    flagged = _list_flags(original, pieces)
    if flagged is None:
        return None
    correction = make_correction(original, _join_pieces(pieces, [at]), flagged, headless=harm.headless)
    remaining = [piece if i != at else AnswerPiece(piece.text, piece.gap) for i, piece in enumerate(pieces)]
    expected = _join_pieces(remaining, ()) if beside else original
    policy = make_gate_policy(pair)
    verdict = judge(original, correction, policy)
    setting = BESIDE if beside else ALONE
    return GateTrial(
        harm.name, setting, "", objections(original, correction, policy), verdict.text.strip() == expected.strip()
    )


def _place_harm(rng: Random, harm: Harm, pieces: list[AnswerPiece]) -> tuple[list[AnswerPiece], int] | None:
    """The pieces, and the index of the one to harm, which is there already or planted; never next to a right edit."""
    spots = [i for i in range(len(pieces)) if _is_good(pieces, i)]
    rng.shuffle(spots)
    for i in spots:
        if harm.plant:
            text = rng.choice(harm.plant)
            bad = harm.write(rng, text, "")
            before = AnswerPiece(pieces[i].text, "\n\n")
            if bad is not None and i + 1 < len(pieces) and _is_good(pieces, i + 1):
                return [*pieces[:i], before, AnswerPiece(text, "\n\n", bad=bad), *pieces[i + 1 :]], i + 1
        elif (bad := harm.write(rng, pieces[i].text, _join_others(pieces, i))) is not None and bad != pieces[i].text:
            return [*pieces[:i], AnswerPiece(pieces[i].text, pieces[i].gap, bad=bad), *pieces[i + 1 :]], i
    return None


def _join_others(pieces: Sequence[AnswerPiece], i: int) -> str:
    return "".join(piece.text + piece.gap for n, piece in enumerate(pieces) if n != i)


def _is_good(pieces: Sequence[AnswerPiece], i: int) -> bool:
    near = pieces[max(0, i - 1) : i + 2]
    return not any(piece.going for piece in near) and len(pieces[i].text) >= _SHORTEST and "```" not in pieces[i].text


def _list_flags(original: str, pieces: Sequence[AnswerPiece]) -> list[bool] | None:
    """The flags that a head would give the segments of the answer; None if its segments do not match the pieces.

    A head flags what has to go and what was put in as harm.
    """
    spans = []
    at = 0
    for piece in pieces:
        spans.append((at, at + len(piece.text), piece.going or piece.bad is not None))
        at += len(piece.text) + len(piece.gap)
    flags_by_segment = [
        {flag for start, end, flag in spans if start < segment.end and segment.start < end}
        for segment in split(original)
    ]
    return None if any(len(flags) != 1 for flags in flags_by_segment) else [flags.pop() for flags in flags_by_segment]


def try_whole_harms(pair: Pair) -> Iterator[GateTrial]:
    """Yield trials with harm to the whole text: cut short, emptied, or changed where nothing is flagged."""
    text = pair.target
    policy = make_gate_policy(pair)
    segments = split(text)
    if len(segments) < 4 or len(text) < 300:
        return
    everything = [True] * len(segments)
    nothing = [False] * len(segments)
    cut = text[: segments[0].end]
    tries = (
        ("cut short", cut, nothing, len(cut) < 0.2 * len(text)),
        ("emptied", "", everything, True),
        ("changed where nothing was flagged", text[::-1], nothing, True),
    )
    for name, edited, flagged, usable in tries:
        correction = make_correction(text, edited, flagged, headless=name == "cut short")
        if usable:
            verdict = judge(text, correction, policy)
            yield GateTrial(name, ALONE, "", objections(text, correction, policy), verdict.text == text)


WHOLE_RULES = {
    "cut short": (GateRule.TOO_SHORT.value,),
    "emptied": (GateRule.EMPTY.value,),
    "changed where nothing was flagged": (gate_judge.UNFLAGGED,),
}
OWN = {harm.name: tuple(rule.value for rule in harm.rules) for harm in HARMS} | WHOLE_RULES


def measure(sets: dict[str, list[Pair]], each: int, seed: int) -> list[GateTrial]:
    """Try every right correction of the sets, with a head's verdicts and without, and `each` harms of every kind."""
    damaged = [
        (name, pair)
        for name, pairs in sets.items()
        for pair in pairs
        if CHANGES in pair.labels and pair.target != pair.answer
    ]
    trials = []
    for name, pair in track(damaged, "right"):
        trials += [try_target(pair, name, headless=headless) for headless in (False, True)]
    pool = [pair for pairs in sets.values() for pair in pairs if pair.target.strip()]
    for harm in track(HARMS, "harms"):
        for beside in (False,) if harm.headless else (False, True):
            rng = Random(f"{harm.name}:{beside}:{seed}")
            harmed_trials = (try_harm(rng, harm, pair, beside=beside) for pair in rng.sample(pool, len(pool)))
            trials += _take_first(harmed_trials, each)
    for name in WHOLE_RULES:
        shuffled = Random(f"{name}:{seed}").sample(pool, len(pool))
        trials += _take_first(
            (trial for pair in shuffled for trial in try_whole_harms(pair) if trial.kind == name), each
        )
    return trials


def _take_first(trials: Iterable[GateTrial | None], most: int) -> list[GateTrial]:
    """The first `most` trials that are not None."""
    some: list[GateTrial] = []
    for trial in trials:
        if len(some) == most:
            break
        if trial is not None:
            some.append(trial)
    return some


def right_rates(trials: Sequence[GateTrial]) -> dict[str, dict[str, Rate]]:
    """The shares of right corrections that pass unchanged, by set, with a detector's verdicts and without."""
    sources = sorted({trial.source for trial in trials if trial.source})
    return {
        source or "all": {
            kind: Rate.from_outcomes(
                trial.well for trial in trials if trial.kind == kind and source in ("", trial.source)
            )
            for kind in (RIGHT, RIGHT_HEADLESS)
        }
        for source in [*sources, ""]
    }


def harm_rates(trials: Sequence[GateTrial]) -> dict[str, dict[str, Rate]]:
    """By kind of harm, the shares refused, noticed by its own rule, and dropped while right edits beside it stay."""
    rates = {}
    for name, rules in OWN.items():
        alone_trials = [trial for trial in trials if trial.kind == name and trial.setting == ALONE]
        rates[name] = {
            "refused": Rate.from_outcomes(trial.well for trial in alone_trials),
            "by its rule": Rate.from_outcomes(bool(set(rules) & set(trial.objections)) for trial in alone_trials),
            "dropped alone": Rate.from_outcomes(
                trial.well for trial in trials if trial.kind == name and trial.setting == BESIDE
            ),
        }
    return rates


def rule_rates(trials: Sequence[GateTrial]) -> dict[str, dict[str, Rate]]:
    """By rule: false alarms on right corrections, the share of its harms noticed, and how often it was right."""
    rates = {}
    for rule in [*(rule.value for rule in GateRule), gate_judge.UNFLAGGED]:
        own_harms = [trial for trial in trials if rule in OWN.get(trial.kind, ()) and trial.setting == ALONE]
        rates[rule] = {
            "false alarms": Rate.from_outcomes(rule in trial.objections for trial in trials if trial.kind == RIGHT),
            "false alarms, no head": Rate.from_outcomes(
                rule in trial.objections for trial in trials if trial.kind == RIGHT_HEADLESS
            ),
            "its harms noticed": Rate.from_outcomes(rule in trial.objections for trial in own_harms),
            "fired rightly": Rate.from_outcomes(
                trial.kind not in (RIGHT, RIGHT_HEADLESS) for trial in trials if rule in trial.objections
            ),
        }
    return rates


def format_table(head: str, rates: dict[str, dict[str, Rate]]) -> str:
    """A table in Markdown with a row for each name and a column for each rate; "-" for rates without trials."""
    rows = ((name, *(rate if rate.n else "-" for rate in row.values())) for name, row in rates.items())
    return output.table((head, *next(iter(rates.values()))), rows)


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", type=Path, help="folder of pairs (*.jsonl), by models.data.test_sets")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--each", type=int, default=60, help="trials of every kind of harm")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args(argv)
    sets = {path.stem: list(read_pairs(path)) for path in sorted(arguments.sets.glob("*.jsonl"))}
    if not any(sets.values()):
        parser.error(f"{arguments.sets} holds no pairs")
    trials = measure(sets, arguments.each, arguments.seed)
    parts = {"right": right_rates(trials), "harms": harm_rates(trials), "rules": rule_rates(trials)}
    heads = {"right": "right corrections of", "harms": "bad edit", "rules": "rule"}
    text = "\n\n".join(format_table(heads[name], rates) for name, rates in parts.items())
    figures = {
        part: {n: {cell: asdict(rate) for cell, rate in row.items()} for n, row in rows.items()}
        for part, rows in parts.items()
    }
    output.write(arguments.out, "gate", text, figures)
    print(text)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
