"""Answers that a run scores at each of its snapshots, and what these scores say of every snapshot.

    python -m models.experiments.watched write --data DATA --sets runs/data --out runs/data/watch.jsonl.xz
    python -m models.train STAGE.yaml watch=runs/data/watch.jsonl.xz snapshots='[0, 0.7]' blends='[0.5]'
    python -m models.experiments.watched judge runs/harm/snapshots/scores.npz \\
        --data DATA --sets runs/data --out runs/watched

None of them is ever learnt from: the guards' sets, answers of strong upstreams, whole authors, the development side of
further labelled replies, test sets, and the good development answers that choose the operating point (the score that
1 % of them are above). For `harmless` there is a bar of its own: the score that a share of strong answers are above.
All before the gate. A snapshot has a second line where `init` comes with a head for `harmless`: by that head.
"""

from __future__ import annotations

import argparse
import lzma
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from torch import Tensor

from aligner_proxy.text.structure import split
from models.data import labelled_replies
from models.data.harm_replies import SOURCES, read_harm_replies
from models.data.labelled_replies import AGAINST, FINE, HARMLESS, TEST_AUTHORS, USUAL, LabelledReply
from models.data.pairs import Pair, read_pairs, write_pairs
from models.data.preference_sets import GUARD_SETS
from models.evaluate import guards
from models.evaluate.calibrate import GOOD
from models.evaluate.guards import STRONG_ANSWERS
from models.evaluate.test_sets import SetCase
from models.reporting import output
from models.reporting.statistics import Rate
from models.train.head_rows import make_pair_case
from models.train.labelled_cases import LabelledCase, make_case
from models.train.probe import measure_area
from models.train.snapshots import TAUGHT_SCORES, split_scores

from . import head_measures as measures
from .head_measures import ScoredCase

FURTHER = "further"
DEV = "dev/"
TEST = "test/"
TESTS = (
    "unseen_kinds",
    "written_unseen",
    "other_wordings",
    "insult",
    "on_topic",
    "natural",
    "alike_unseen",
    "not_asked",
    "innocent",
    "clean",
    "dialogue",
    "compared_replies",
)
_EACH_TEST, _EACH_GUARD, _EACH_SOURCE = 200, 600, 40
"""Answers of each test set, set of guards and further source at most."""
_BUDGET = 0.003
"""Share of strong answers that may be flagged under `harmless`: what the general head flags comes on top."""


@dataclass(frozen=True, slots=True)
class WatchedSets:
    """All sets by name, and the pairs of test and development sets by set and id."""

    cases: Mapping[str, Sequence[LabelledCase]]
    pairs: Mapping[str, Mapping[str, Pair]]

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """(segments, objectives) of every case in turn."""
        return [(len(split(case.answer)), len(case.objectives)) for cases in self.cases.values() for case in cases]

    def score_snapshot(self, flat: object, point: float = 0.0) -> dict[str, list[ScoredCase]]:
        """The scores of a snapshot, less `point`, by set. `flat` has those of all cases in one row."""
        parts = iter(split_scores(flat, self.shapes))
        return {name: [ScoredCase(case, next(parts) - point) for case in cases] for name, cases in self.cases.items()}


def list_watched(data: Path, sets: Path) -> WatchedSets:
    """The sets to watch. The same data give the same cases in the same order."""
    cases: dict[str, list[LabelledCase]] = {
        name: list(of_set) for name, of_set in guards.list_cases(data, _EACH_GUARD).items()
    }
    test_answers = [reply for reply in labelled_replies.read_written_answers() if reply.source in TEST_AUTHORS]
    for author in TEST_AUTHORS:
        cases[author] = [_ask_alone(reply) for reply in test_answers if reply.source == author]
    further = [reply for name in SOURCES for reply in read_harm_replies(data, name, "dev")[:: _step(data, name)]]
    cases[FURTHER] = [make_case(reply, USUAL) for reply in further]
    pairs = {f"{DEV}{name}": list(read_pairs(sets / "dev" / f"{name}.jsonl")) for name in GOOD}
    pairs |= {f"{TEST}{name}": list(islice(read_pairs(sets / "test" / f"{name}.jsonl"), _EACH_TEST)) for name in TESTS}
    cases |= {
        name: [make_pair_case(pair, number) for number, pair in enumerate(of_set)] for name, of_set in pairs.items()
    }
    return WatchedSets(
        cases, {name: {f"pair-{n}": pair for n, pair in enumerate(of_set)} for name, of_set in pairs.items()}
    )


def _step(data: Path, name: str) -> int:
    """One reply in so many is taken of a source, which makes about `_EACH_SOURCE`."""
    return max(1, len(read_harm_replies(data, name, "dev")) // _EACH_SOURCE)


def _ask_alone(reply: LabelledReply) -> LabelledCase:
    """The reply under its own objective only, as models.evaluate.own_voice asks."""
    return make_case(reply, (reply.objective,))


def make_pair(case: LabelledCase) -> Pair:
    """The case as a pair, which the trainer can score."""
    labels = tuple(FINE for _ in split(case.answer))
    return Pair(case.query, case.objectives, case.answer, case.answer, labels, case.source)


@dataclass(frozen=True, slots=True)
class SnapshotFigures:
    """The figures of one snapshot."""

    point: float
    """The operating point of the general head (nats)."""
    bar: float
    """The operating point under `harmless` (nats)."""
    guards: Sequence[guards.GuardFigures]
    authors: Mapping[str, Mapping[str, object]]
    strong: Rate
    further: str
    tests: Mapping[str, Rate]


def judge_snapshot(watched: WatchedSets, flat: object, head_scores: object | None = None) -> SnapshotFigures:
    """Judge a snapshot by its general head; with `head_scores`, `harmless` is judged by another head.

    Both heads' scores are moved so that their thresholds lie at 0: the general one's where good answers choose it, that
    of `harmless` where the share `_BUDGET` of strong answers is flagged.
    """
    scored_all = watched.score_snapshot(flat)
    scored_harm = scored_all if head_scores is None else watched.score_snapshot(head_scores)
    point = measures.find_operating_point({name: _make_set_cases(watched, scored_all, DEV + name) for name in GOOD})
    harm_limit = guards.find_limit([scored.worst for scored in scored_harm[STRONG_ANSWERS]], _BUDGET)
    at_zero = {
        name: [
            _move_scores(scored, scored_by_head, point, harm_limit)
            for scored, scored_by_head in zip(scored_all[name], scored_harm[name], strict=True)
        ]
        for name in scored_all
    }
    by_guards = {
        name: [
            guards.ScoredReply(scored.case.id, scored.case.harmful, tuple(scored.column(HARMLESS).tolist()))
            for scored in at_zero[name]
        ]
        for name in (*GUARD_SETS, STRONG_ANSWERS)
    }
    further_cases = at_zero[FURTHER]
    worst_scores = {
        label: np.array([scored.worst for scored in further_cases if scored.case.harmful is label])
        for label in (True, False)
    }
    tests = {name: measures.rate_exact(_make_set_cases(watched, at_zero, TEST + name)) for name in TESTS}
    return SnapshotFigures(
        point,
        harm_limit,
        guards.compute_figures(by_guards),
        authors={author: _rate_author(at_zero[author]) for author in TEST_AUTHORS if at_zero[author]},
        strong=Rate.from_outcomes(scored.flagged for scored in at_zero[STRONG_ANSWERS]),
        further=str(measure_area(worst_scores[True], worst_scores[False]))
        if all(map(len, worst_scores.values()))
        else "",
        tests=tests,
    )


def _make_set_cases(watched: WatchedSets, cases: Mapping[str, list[ScoredCase]], name: str) -> list[SetCase]:
    return measures.make_set_cases(cases[name], watched.pairs[name])


def _move_scores(one: ScoredCase, other: ScoredCase, point: float, bar: float) -> ScoredCase:
    """Scores above the operating point; under `harmless` those of the other head above its bar."""
    scores: Tensor = one.scores - point
    for place, text in enumerate(one.case.objectives):
        if text == HARMLESS:
            scores[:, place] = other.scores[:, place] - bar
    return ScoredCase(one.case, scores)


def _rate_author(cases: Sequence[ScoredCase]) -> dict[str, object]:
    """What is flagged of an author's answers, under `harmless` and under the objectives that they were written for."""
    figures: dict[str, object] = {}
    for name, selected in (
        ("harm", [scored for scored in cases if scored.case.own == HARMLESS]),
        ("own", [scored for scored in cases if scored.case.own != HARMLESS]),
    ):
        if not selected:
            continue
        labelled_scores = [
            (float(score), label)
            for scored in selected
            for score, (label,) in zip(scored.scores[:, 0], scored.case.labels, strict=True)
        ]
        high, low = (np.array([score for score, label in labelled_scores if label == side]) for side in (AGAINST, FINE))
        faulty = [scored for scored in selected if scored.case.harmful]
        figures |= {
            f"{name}: AUC of segments": str(measure_area(high, low)),
            f"{name}: found": Rate.from_outcomes(
                flag for scored in faulty for flag in scored.flags(AGAINST, scored.case.objectives)
            ),
            f"{name}: false": Rate.from_outcomes(
                flag for scored in faulty for flag in scored.flags(FINE, scored.case.objectives)
            ),
            f"{name}: twins": Rate.from_outcomes(scored.flagged for scored in selected if not scored.case.harmful),
        }
    return figures


def format_table(lines: Mapping[str, SnapshotFigures]) -> str:
    """Markdown: a row for each figure, a column for each snapshot."""
    rows: list[tuple[object, ...]] = [("operating point", *(f"{snapshot.point:.2f}" for snapshot in lines.values()))]
    rows.append(("bar of harmless", *(f"{snapshot.bar:.2f}" for snapshot in lines.values())))
    first = next(iter(lines.values()))
    for place, figure in enumerate(first.guards):
        for name in ("area", "found", "touched"):
            label = f"{figure.set}, {figure.evidence}: {name}"
            rows.append((label, *(getattr(snapshot.guards[place], name) for snapshot in lines.values())))
    for author, figures in first.authors.items():
        rows += [
            (f"{author} {name}", *(snapshot.authors[author][name] for snapshot in lines.values())) for name in figures
        ]
    rows.append(("strong answers flagged", *(snapshot.strong for snapshot in lines.values())))
    rows.append(("further sources, AUC", *(snapshot.further for snapshot in lines.values())))
    rows += [(f"{name}, exactly", *(snapshot.tests[name] for snapshot in lines.values())) for name in first.tests]
    return output.table(("", *lines), rows)


def judge_snapshots(watched: WatchedSets, scores: Mapping[str, object]) -> dict[str, SnapshotFigures]:
    """Judge each snapshot twice: by its general head, and with the head for `harmless` of the run's start."""
    lines: dict[str, SnapshotFigures] = {}
    for name, flat in scores.items():
        if name.endswith(f"/{TAUGHT_SCORES}"):
            lines[name] = judge_snapshot(watched, scores[name.removesuffix(f"/{TAUGHT_SCORES}")], flat)
        else:
            lines[name] = judge_snapshot(watched, flat)
    return lines


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m models.experiments.watched",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("step", choices=("write", "judge"))
    parser.add_argument("scores", type=Path, nargs="?", help="what a run wrote beside its snapshots")
    parser.add_argument("--data", type=Path, required=True, help="folder with the research data")
    parser.add_argument("--sets", type=Path, required=True, help="folder with dev and test of models.data.test_sets")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args(argv)
    watched_sets = list_watched(arguments.data, arguments.sets)
    if arguments.step == "write":
        plain = arguments.out.with_suffix("")
        count = write_pairs(plain, (make_pair(case) for each in watched_sets.cases.values() for case in each))
        arguments.out.write_bytes(lzma.compress(plain.read_bytes(), preset=9))
        plain.unlink()
        print(f"{arguments.out}: {count} answers in {len(watched_sets.cases)} sets")
        return
    if arguments.scores is None:
        parser.error("judge needs the scores of a run")
    with np.load(arguments.scores) as stored:
        lines = judge_snapshots(watched_sets, {name: stored[name] for name in stored.files})
    text = format_table(lines)
    output.write(arguments.out, "watched", text, lines)
    print(text)


if __name__ == "__main__":
    main()
