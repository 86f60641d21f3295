"""How often does the gate object, how often rightly, and what does a bad edit cost the good ones beside it?

    python -m models.gating SETS --out runs/gate --each 60

SETS is a folder of pairs as models.heldout writes them. Three questions, each rate with n and a 95 % Wilson interval:

- Right corrections (the pair's own target) must pass: what the gate says against them are false alarms.
- Bad edits (models/harms.py) in a good answer must be refused, best by the rule that is there for it.
- A bad edit beside right ones must be dropped alone.

No model is needed. Markdown and JSON are written to the folder; the last line of stdout is the JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

from rich.progress import track

from aligner_proxy import gate
from aligner_proxy.segments import join, split
from aligner_proxy.types import Correction, GateRule, Objective, Policy, SegmentScore

from . import publish
from .harms import HARMS, Harm
from .pairs import CHANGES, STAYS, Pair, read_pairs
from .rates import Rate

RIGHT, RIGHT_HEADLESS = "right", "right, no head"
ALONE, BESIDE = "alone", "beside right edits"
_SHORTEST = 25


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of an answer: good, to be removed (`going`), or to be harmed (`bad` takes its place)."""

    text: str
    gap: str
    going: bool = False
    bad: str | None = None


@dataclass(frozen=True, slots=True)
class Trial:
    """One correction and what the gate made of it. `well`: exactly what should have been delivered was."""

    kind: str
    setting: str
    source: str
    objections: tuple[str, ...]
    well: bool


def pieces_of(pair: Pair) -> list[Piece] | None:
    """The answer in pieces; None where the target is more than the answer with the flagged segments taken out."""
    segments = split(pair.answer)
    pieces = [Piece(s.text, s.gap, label == CHANGES) for s, label in zip(segments, pair.labels, strict=True)]
    return pieces if set(pair.labels) <= {CHANGES, STAYS} and _delivered(pieces, ()) == pair.target else None


def _delivered(pieces: Sequence[Piece], harmed: Sequence[int]) -> str:
    """The text with what is going removed, and the bad edits at these places in it."""
    texts = [(p.bad or "") if i in harmed else "" if p.going else p.text for i, p in enumerate(pieces)]
    return join([(text, piece.gap) for text, piece in zip(texts, pieces, strict=True)])


def correction(original: str, edited: str, flagged: Sequence[bool], *, headless: bool) -> Correction:
    """As an engine would send it."""
    scores = [SegmentScore(s.text, None if headless else 0.0, f) for s, f in zip(split(original), flagged, strict=True)]
    return Correction(edited, tuple(scores))


def right(pair: Pair, name: str, *, headless: bool) -> Trial:
    """The pair's own target must pass whole."""
    made = correction(pair.answer, pair.target, [label == CHANGES for label in pair.labels], headless=headless)
    policy = policy_of(pair)
    verdict = gate.judge(pair.answer, made, policy)
    well = verdict.reason is None and verdict.text.strip() == pair.target.strip()
    setting = RIGHT_HEADLESS if headless else RIGHT
    return Trial(setting, setting, name, gate.objections(pair.answer, made, policy), well)


def policy_of(pair: Pair) -> Policy:
    """The policy under which a pair is judged."""
    return Policy("gating", tuple(Objective(f"objective-{i}", text) for i, text in enumerate(pair.objectives)))


def harmed(rng: Random, harm: Harm, pair: Pair, *, beside: bool) -> Trial | None:
    """One bad edit in the good answer, or beside the right edits of a damaged one; None where it cannot be made."""
    pieces = pieces_of(pair)
    if pieces is None or (beside and not any(piece.going for piece in pieces)):
        return None
    if not beside:
        pieces = [Piece(s.text, s.gap) for s in split(pair.target)]
    placed = _placed(rng, harm, pieces)
    if placed is None:
        return None
    pieces, at = placed
    original = "".join(piece.text + piece.gap for piece in pieces).rstrip()
    flagged = _flags(original, pieces)
    if flagged is None:
        return None
    made = correction(original, _delivered(pieces, [at]), flagged, headless=harm.headless)
    kept = [piece if i != at else Piece(piece.text, piece.gap) for i, piece in enumerate(pieces)]
    wanted = _delivered(kept, ()) if beside else original
    policy = policy_of(pair)
    verdict = gate.judge(original, made, policy)
    setting = BESIDE if beside else ALONE
    return Trial(
        harm.name, setting, "", gate.objections(original, made, policy), verdict.text.strip() == wanted.strip()
    )


def _placed(rng: Random, harm: Harm, pieces: list[Piece]) -> tuple[list[Piece], int] | None:
    """The pieces with the place that is to be harmed, there already or planted; never next to a right edit."""
    spots = [i for i in range(len(pieces)) if _good(pieces, i)]
    rng.shuffle(spots)
    for i in spots:
        if harm.plant:
            text = rng.choice(harm.plant)
            bad = harm.write(rng, text, "")
            before = Piece(pieces[i].text, "\n\n")
            if bad is not None and i + 1 < len(pieces) and _good(pieces, i + 1):
                return [*pieces[:i], before, Piece(text, "\n\n", bad=bad), *pieces[i + 1 :]], i + 1
        elif (bad := harm.write(rng, pieces[i].text, _rest(pieces, i))) is not None and bad != pieces[i].text:
            return [*pieces[:i], Piece(pieces[i].text, pieces[i].gap, bad=bad), *pieces[i + 1 :]], i
    return None


def _rest(pieces: Sequence[Piece], i: int) -> str:
    return "".join(piece.text + piece.gap for n, piece in enumerate(pieces) if n != i)


def _good(pieces: Sequence[Piece], i: int) -> bool:
    near = pieces[max(0, i - 1) : i + 2]
    return not any(piece.going for piece in near) and len(pieces[i].text) >= _SHORTEST and "```" not in pieces[i].text


def _flags(original: str, pieces: Sequence[Piece]) -> list[bool] | None:
    """What a head would flag of the answer as it is cut now; None where the cut does not agree with the pieces."""
    marks, at = [], 0
    for piece in pieces:
        marks.append((at, at + len(piece.text), piece.going or piece.bad is not None))
        at += len(piece.text) + len(piece.gap)
    inside = [{m for start, end, m in marks if start < s.end and s.start < end} for s in split(original)]
    return None if any(len(flags) != 1 for flags in inside) else [flags.pop() for flags in inside]


def whole(pair: Pair) -> Iterator[Trial]:
    """Harm to the text as a whole: cut short, emptied, changed where nobody flagged anything."""
    text, policy = pair.target, policy_of(pair)
    segments = split(text)
    if len(segments) < 4 or len(text) < 300:
        return
    everything, nothing = [True] * len(segments), [False] * len(segments)
    cut = text[: segments[0].end]
    tries = (
        ("cut short", cut, nothing, len(cut) < 0.2 * len(text)),
        ("emptied", "", everything, True),
        ("changed where nothing was flagged", text[::-1], nothing, True),
    )
    for name, edited, flagged, usable in tries:
        made = correction(text, edited, flagged, headless=name == "cut short")
        if usable:
            verdict = gate.judge(text, made, policy)
            yield Trial(name, ALONE, "", gate.objections(text, made, policy), verdict.text == text)


WHOLE_RULES = {
    "cut short": (GateRule.TOO_SHORT.value,),
    "emptied": (GateRule.EMPTY.value,),
    "changed where nothing was flagged": (gate.UNFLAGGED,),
}
OWN = {harm.name: tuple(rule.value for rule in harm.rules) for harm in HARMS} | WHOLE_RULES


def measure(sets: dict[str, list[Pair]], each: int, seed: int) -> list[Trial]:
    """All trials, at most `each` of every kind of harm."""
    damaged = [(name, p) for name, pairs in sets.items() for p in pairs if CHANGES in p.labels and p.target != p.answer]
    trials = [right(p, name, headless=headless) for name, p in track(damaged, "right") for headless in (False, True)]
    pool = [pair for pairs in sets.values() for pair in pairs if pair.target.strip()]
    for harm in track(HARMS, "harms"):
        for beside in (False,) if harm.headless else (False, True):
            rng = Random(f"{harm.name}:{beside}:{seed}")
            made = (harmed(rng, harm, pair, beside=beside) for pair in rng.sample(pool, len(pool)))
            trials += _first(made, each)
    for name in WHOLE_RULES:
        shuffled = Random(f"{name}:{seed}").sample(pool, len(pool))
        trials += _first((t for pair in shuffled for t in whole(pair) if t.kind == name), each)
    return trials


def _first(trials: Iterable[Trial | None], most: int) -> list[Trial]:
    found: list[Trial] = []
    for trial in trials:
        if len(found) == most:
            break
        if trial is not None:
            found.append(trial)
    return found


def right_rates(trials: Sequence[Trial]) -> dict[str, dict[str, Rate]]:
    """Passed whole, by set, with a detector's word and without."""
    sources = sorted({t.source for t in trials if t.source})
    return {
        source or "all": {
            kind: Rate.of(t.well for t in trials if t.kind == kind and source in ("", t.source))
            for kind in (RIGHT, RIGHT_HEADLESS)
        }
        for source in [*sources, ""]
    }


def harm_rates(trials: Sequence[Trial]) -> dict[str, dict[str, Rate]]:
    """Refused, noticed by its own rule, and dropped alone beside right edits; by kind of harm."""
    found = {}
    for name, rules in OWN.items():
        alone = [t for t in trials if t.kind == name and t.setting == ALONE]
        found[name] = {
            "refused": Rate.of(t.well for t in alone),
            "by its rule": Rate.of(bool(set(rules) & set(t.objections)) for t in alone),
            "dropped alone": Rate.of(t.well for t in trials if t.kind == name and t.setting == BESIDE),
        }
    return found


def rule_rates(trials: Sequence[Trial]) -> dict[str, dict[str, Rate]]:
    """False alarms on right corrections, its harms noticed, and the share of its firings that were right; by rule."""
    found = {}
    for rule in [*(rule.value for rule in GateRule), gate.UNFLAGGED]:
        mine = [t for t in trials if rule in OWN.get(t.kind, ()) and t.setting == ALONE]
        found[rule] = {
            "false alarms": Rate.of(rule in t.objections for t in trials if t.kind == RIGHT),
            "false alarms, no head": Rate.of(rule in t.objections for t in trials if t.kind == RIGHT_HEADLESS),
            "its harms noticed": Rate.of(rule in t.objections for t in mine),
            "fired rightly": Rate.of(t.kind not in (RIGHT, RIGHT_HEADLESS) for t in trials if rule in t.objections),
        }
    return found


def table(head: str, rates: dict[str, dict[str, Rate]]) -> str:
    """Markdown: a row a name, a column a rate; a dash where nothing was tried."""
    rows = ((name, *(rate if rate.n else "-" for rate in row.values())) for name, row in rates.items())
    return publish.table((head, *next(iter(rates.values()))), rows)


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", type=Path, help="folder of pairs (*.jsonl), by models.heldout")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--each", type=int, default=60, help="trials of every kind of harm")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args(argv)
    sets = {path.stem: list(read_pairs(path)) for path in sorted(arguments.sets.glob("*.jsonl"))}
    if not any(sets.values()):
        parser.error(f"{arguments.sets} holds no pairs")
    trials = measure(sets, arguments.each, arguments.seed)
    found = {"right": right_rates(trials), "harms": harm_rates(trials), "rules": rule_rates(trials)}
    heads = {"right": "right corrections of", "harms": "bad edit", "rules": "rule"}
    text = "\n\n".join(table(heads[name], rates) for name, rates in found.items())
    figures = {
        part: {n: {c: asdict(r) for c, r in row.items()} for n, row in rows.items()} for part, rows in found.items()
    }
    publish.write(arguments.out, "gate", text, figures)
    print(text)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
