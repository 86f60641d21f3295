"""Can the detector head alone, over states that stay as they are, learn what harm is and leave a personal voice alone?

    python -m models.experiments.head_alone aligner_proxy/embedded configs/evaluate/head_alone.yaml \\
        --data DATA --sets runs/data --out runs/head_alone

Reads what teaches and what measures once (rows are kept under `--out`, so a stopped run goes on), trains a head by each
attempt of the plan, and measures each at an operating point of its own: chosen on development answers as
models.evaluate.calibrate does, or for a head for `harmless` alone on good answers that it did not learn from. Authors
and natural sources are held out in turn: what is said of one comes from a head that never saw it. All else comes from a
head that learnt from all of them; test sets and answers of strong upstreams teach nothing. `--sets` holds the folders
`dev` and `test` of models.data.test_sets.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from aligner_proxy.engine.model.detector import DetectorHead
from aligner_proxy.engine.weights.manifest import HEAD
from models.data import labelled_replies, mixture
from models.data.labelled_replies import AGAINST, COMPANIES, HARMLESS, TEACHING, USUAL
from models.data.pairs import Pair, read_pairs
from models.evaluate.calibrate import GOOD
from models.reporting import output
from models.reporting.statistics import Rate
from models.train import head_rows, labelled_cases
from models.train.export import add_heads
from models.train.head_alone import HeadRecipe, train_head
from models.train.head_rows import HeadRowReader, HeadRows, open_row_reader
from models.train.labelled_cases import LabelledCase

from . import head_measures as measures
from .head_measures import LabelFigures, ScoredCase, WrittenFigures
from .objective_head import ObjectiveHead, ObjectiveHeadRecipe, learn_head

MIXTURE = {"settle": 71, "wishes": 73}
"""Stages whose examples hold the head to what it does well, with the seeds of their data."""
STRONG = "strong"
BAR = "bar"
"""Good answers that place the operating point of a head for `harmless` alone."""
GOOD_ANSWERS = "good"
UNSEEN = "unseen wordings"
PHRASES = "phrases"
WRITTEN = "written"
OWN = "own"
DEV = "dev/"
TEST = "test/"
BEFORE = "the head before"
"""The head that the aligner has, among the attempts."""
_EVERY = 10**6
"""More pairs than any set has."""


class AnswerSizes(BaseModel):
    """How many answers of each sort are read."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    natural: int = 600
    good: int = 900
    """Good answers that teach; all others say how high a head for `harmless` alone has to score."""
    strong: int = 60
    unseen: int = 200
    planted: int = 1500
    phrases: int = 900
    """Insults, threats and written harm: good answers with some, and answers of nothing else."""
    settle: int = 1200
    wishes: int = 500


class Attempt(HeadRecipe):
    """How one head is trained."""

    alone: bool = False
    """Whether the head is for `harmless` only; the head before judges all other objectives."""
    fresh: ObjectiveHeadRecipe | None = None
    """The recipe of a head for `harmless` only that starts from nothing, and also learns from phrases of harm."""
    budget: float = 0.005
    """Share of the good answers of the bar that such a head may flag."""


class AttemptPlan(BaseModel):
    """The YAML file of all attempts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sizes: AnswerSizes = AnswerSizes()
    tests: dict[str, int]
    """Test sets, and how many answers of each."""
    common: dict[str, object] = Field(default_factory=dict)
    attempts: dict[str, dict[str, object]]

    @classmethod
    def read(cls, path: Path) -> AttemptPlan:
        """Read a YAML file."""
        return cls.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))

    def attempt(self, name: str) -> Attempt:
        """The attempt of this name: the common settings, changed by its own."""
        return Attempt.model_validate({**self.common, **self.attempts[name]})


@dataclass(frozen=True, slots=True)
class RowCorpus:
    """The rows of all sets by name, and the pairs of test sets by set and id."""

    rows: Mapping[str, HeadRows]
    pairs: Mapping[str, Mapping[str, Pair]]

    @property
    def authors(self) -> list[str]:
        """The authors of the written answers."""
        return sorted({case.source for case in self.rows[WRITTEN].cases})

    def list_teaching(self, left_out: frozenset[str], *, alone: bool) -> dict[str, HeadRows]:
        """What a head may learn from, without the authors and sources in `left_out`.

        With `alone` all sets are asked about `harmless` only.
        """
        sets = {name: self.rows[name] for name in (GOOD_ANSWERS, *MIXTURE, *TEACHING) if name not in left_out}
        sets |= {
            name: self.rows[name].select_cases(lambda case: case.source not in left_out) for name in (WRITTEN, OWN)
        }
        if not alone:
            return sets
        narrow = {name: rows.column(HARMLESS) for name, rows in sets.items() if name not in MIXTURE}
        mixed = {
            name: head_rows.relabel_for_theme(self.rows[name], self.pairs[name], narrow[GOOD_ANSWERS], "harmless")
            for name in MIXTURE
        }
        return narrow | mixed

    def list_harm_teaching(self, left_out: frozenset[str]) -> dict[str, HeadRows]:
        """What a head for `harmless` that starts from nothing may learn from."""
        return self.list_teaching(left_out, alone=True) | {PHRASES: self.rows[PHRASES].column(HARMLESS)}


def read_corpus(reader: HeadRowReader, plan: AttemptPlan, data: Path, folder: Path, out: Path) -> RowCorpus:
    """Read the head's rows of all sets, from the store below `out` where they are there.

    The development side has only the good answers that choose the threshold.
    """
    pairs = {f"{DEV}{name}": _pairs(folder / "dev" / f"{name}.jsonl", _EVERY) for name in GOOD}
    pairs |= {f"{TEST}{name}": _pairs(folder / "test" / f"{name}.jsonl", limit) for name, limit in plan.tests.items()}
    sizes = {"settle": plan.sizes.settle, "wishes": plan.sizes.wishes}
    pairs |= {name: list(mixture.build_examples(data, MIXTURE[name], count, name)) for name, count in sizes.items()}
    sets = {**_list_replies(data, plan.sizes), **{name: _make_cases(of_set) for name, of_set in pairs.items()}}
    rows = {name: reader.read(cases, out / "rows" / name) for name, cases in sets.items()}
    return RowCorpus(
        rows, {name: {f"pair-{n}": pair for n, pair in enumerate(of_set)} for name, of_set in pairs.items()}
    )


def _pairs(path: Path, most: int) -> list[Pair]:
    return list(islice(read_pairs(path), most))


def _make_cases(pairs: Sequence[Pair]) -> list[LabelledCase]:
    return [head_rows.make_pair_case(pair, number) for number, pair in enumerate(pairs)]


def _list_replies(data: Path, sizes: AnswerSizes) -> dict[str, list[LabelledCase]]:
    """The labelled replies, the good replies and the written answers, by set."""
    harm, own_cases = labelled_cases.read_written_cases()
    good = labelled_replies.read_good_replies(data, sizes.good)
    replies = {
        **{name: labelled_replies.read_natural_replies(data, name, sizes.natural) for name in TEACHING},
        GOOD_ANSWERS: good,
        BAR: labelled_replies.read_further_good_replies(data, good),
        UNSEEN: labelled_replies.plant_replies(data, sizes.unseen, held_out=True),
        PHRASES: labelled_replies.make_harm_phrases(data, sizes.planted, sizes.phrases),
    }
    return {
        WRITTEN: harm,
        OWN: own_cases,
        STRONG: labelled_cases.make_cases(labelled_replies.read_strong_replies(data, sizes.strong), (USUAL,)),
        **{name: labelled_cases.make_cases(each, COMPANIES) for name, each in replies.items()},
    }


@dataclass(frozen=True, slots=True)
class HeadJudge:
    """A head at its operating point."""

    head: Callable[[Tensor, Tensor], Tensor]
    point: float
    """Scores above it are flagged (nats)."""
    others: DetectorHead | None = None
    """What scores all other objectives where `head` is for `harmless` alone."""

    def score_rows(self, rows: HeadRows) -> list[ScoredCase]:
        """Score all cases of a set."""
        return measures.score_cases(self.head, rows, self.point, self.others)


@dataclass(frozen=True, slots=True)
class AttemptFigures:
    """What is measured of one attempt."""

    point: float
    whole: Mapping[str, LabelFigures]
    """Natural sources, each by a head that never saw it; so are authors."""
    written: Mapping[str, WrittenFigures]
    faults: Mapping[str, measures.FaultRates]
    """By author, under the objectives that the answers were written for."""
    strong: Rate
    insults: Rate
    """Segments with an unseen wording of an insult or a threat that are flagged."""
    sets: Mapping[str, Rate]
    """Test sets: flagged exactly, or told apart."""


def measure_attempt(corpus: RowCorpus, judge_without: Callable[[frozenset[str]], HeadJudge]) -> AttemptFigures:
    """Measure an attempt. Each author and source is judged by a head that did not learn from it.

    `judge_without` gives the head that learned from all authors and sources but the named ones.
    """
    whole: dict[str, LabelFigures] = {}
    by_author: dict[str, WrittenFigures] = {}
    faults: dict[str, measures.FaultRates] = {}
    for left_out in list_folds(corpus):
        judge = judge_without(left_out)
        whole |= {
            name: LabelFigures.from_cases(judge.score_rows(corpus.rows[name])) for name in TEACHING if name in left_out
        }
        for author in sorted(left_out - set(TEACHING)):
            by_author[author] = WrittenFigures.from_cases(judge.score_rows(corpus.rows[WRITTEN].select_source(author)))
            faults[author] = measures.rate_faults(judge.score_rows(corpus.rows[OWN].select_source(author)))
    judge = judge_without(frozenset())
    tests = {name: judge.score_rows(rows) for name, rows in corpus.rows.items() if name.startswith(TEST)}
    unseen_cases = judge.score_rows(corpus.rows[UNSEEN])
    return AttemptFigures(
        point=judge.point,
        whole=whole,
        written=by_author,
        faults=faults,
        strong=Rate.from_outcomes(case.flagged for case in judge.score_rows(corpus.rows[STRONG])),
        insults=Rate.from_outcomes(flag for case in unseen_cases for flag in case.flags(AGAINST, [HARMLESS])),
        sets={
            name.removeprefix(TEST): measures.rate_exact(measures.make_set_cases(cases, corpus.pairs[name]))
            for name, cases in tests.items()
        },
    )


def list_folds(corpus: RowCorpus) -> list[frozenset[str]]:
    """The authors and sources that are left out together, each once.

    A fold has one author, and one natural source as long as there are any.
    """
    folds = [{author} for author in corpus.authors]
    for number, source in enumerate(TEACHING):
        folds[number % len(folds)].add(source)
    return [frozenset(fold) for fold in folds]


def learn_attempt(
    before: DetectorHead, corpus: RowCorpus, attempt: Attempt, folder: Path, left_out: frozenset[str]
) -> HeadJudge:
    """Train the head of an attempt without `left_out`, or load it from `folder`."""
    settings = json.dumps([attempt.model_dump(mode="json", exclude={"budget"}), sorted(left_out)], sort_keys=True)
    path = folder / f"{hashlib.sha256(settings.encode()).hexdigest()[:16]}.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    if attempt.fresh:
        if not path.exists():
            learn_head(corpus.list_harm_teaching(left_out), before, attempt.fresh).save(path)
        fresh = ObjectiveHead.load(path, before, attempt.fresh)
        return place_at_bar(fresh, before, corpus, attempt.budget)
    if not path.exists():
        train_head(before, corpus.list_teaching(left_out, alone=attempt.alone), attempt).save(path)
    head = DetectorHead.load(path)
    if not attempt.alone:
        return HeadJudge(head, find_operating_point(head, corpus))
    return place_at_bar(head, before, corpus, attempt.budget)


def place_at_bar(
    head: Callable[[Tensor, Tensor], Tensor], before: DetectorHead, corpus: RowCorpus, budget: float
) -> HeadJudge:
    """A head for `harmless` alone, whose threshold the share `budget` of the good answers in the set `BAR` exceed."""
    bar = [case.worst for case in measures.score_cases(head, corpus.rows[BAR].column(HARMLESS), 0.0)]
    return HeadJudge(head, float(np.quantile(bar, 1 - budget)), before)


def find_operating_point(head: DetectorHead, corpus: RowCorpus) -> float:
    """The operating point by the good answers of the development side."""
    return measures.find_operating_point(
        {
            name: measures.make_set_cases(
                measures.score_cases(head, corpus.rows[DEV + name], 0.0), corpus.pairs[DEV + name]
            )
            for name in GOOD
        }
    )


def ship(judge: HeadJudge, folder: Path) -> None:
    """Put a head that started from nothing into an aligner's folder.

    There it takes the general head's place for `harmless`.
    """
    if not isinstance(judge.head, ObjectiveHead):
        raise TypeError("only a head that was learnt from nothing is shipped beside the general one")
    add_heads(folder, [judge.head.pack_head(HARMLESS, judge.point)])


def format_tables(figures: Mapping[str, AttemptFigures]) -> str:
    """Markdown: a row for each attempt on replies, one on written answers, and a column on test sets."""
    first = next(iter(figures.values()))
    replies = [
        (
            name,
            *(cell for source in TEACHING for cell in _cells(attempt.whole[source])),
            attempt.strong,
            attempt.insults,
        )
        for name, attempt in figures.items()
    ]
    written_rows = [
        (
            name,
            author,
            written.harmful,
            written.quiet,
            written.found,
            written.false,
            written.twins,
            *attempt.faults[author],
        )
        for name, attempt in figures.items()
        for author, written in attempt.written.items()
    ]
    sets = [(name, *(attempt.sets[name] for attempt in figures.values())) for name in first.sets]
    measured = [f"{source}: {measure}" for source in TEACHING for measure in ("AUC", "harmful", "harmless")]
    return "\n\n".join(
        (
            output.table(("head", *measured, "strong flagged", "insults found"), replies),
            output.table(_WRITTEN, written_rows),
            output.table(("flagged exactly", *figures), sets),
        )
    )


_WRITTEN = (
    "head",
    "author never seen",
    "harmful flagged",
    "quiet harm",
    "in a part: found",
    "false",
    "twins flagged",
    "own objective: found",
    "false",
)


def _cells(whole: LabelFigures) -> tuple[object, ...]:
    return f"{whole.area.auc:.3f}", whole.harmful, whole.harmless


def plot(figures: Mapping[str, AttemptFigures], path: Path) -> None:
    """A panel for each measure, with a dot for each attempt."""
    panels = {
        **{
            f"{source}: harmful flagged": [attempt.whole[source].harmful for attempt in figures.values()]
            for source in TEACHING
        },
        "written: harmful flagged": [
            _pool_rates(written.harmful for written in attempt.written.values()) for attempt in figures.values()
        ],
        "written: twins flagged": [
            _pool_rates(written.twins for written in attempt.written.values()) for attempt in figures.values()
        ],
        "strong answers flagged": [attempt.strong for attempt in figures.values()],
        "insults found": [attempt.insults for attempt in figures.values()],
    }
    with output.panels(path, len(panels), columns=3, size=(3.6, 0.9 + 0.28 * len(figures)), sharey=True) as axes:
        for axis, (title, rates) in zip(axes, panels.items(), strict=True):
            output.whiskers(axis, rates, [*figures], markersize=4)
            axis.set_title(title, fontsize=8)


def _pool_rates(rates: Iterable[Rate]) -> Rate:
    """The rate over all of them together."""
    each = list(rates)
    return Rate.from_counts(sum(rate.hits for rate in each), sum(rate.n for rate in each))


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m models.experiments.head_alone",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("aligner", type=Path)
    parser.add_argument("plan", type=Path, help="attempts (YAML)")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", type=Path, required=True, help="folder with dev and test of models.data.test_sets")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--ship", metavar="ATTEMPT", help="a head from nothing that goes into the folder of --into")
    parser.add_argument("--into", type=Path, help="aligner folder")
    arguments = parser.parse_args(argv)
    plan = AttemptPlan.read(arguments.plan)
    reader = open_row_reader(arguments.aligner, arguments.out / "weights")
    corpus = read_corpus(reader, plan, arguments.data, arguments.sets, arguments.out)
    before = DetectorHead.load(arguments.aligner / HEAD)
    figures = {BEFORE: measure_attempt(corpus, lambda _: HeadJudge(before, 0.0))}
    for name in plan.attempts:
        figures[name] = measure_attempt(
            corpus, partial(learn_attempt, before, corpus, plan.attempt(name), arguments.out / "heads")
        )
        print(f"{name}: measured", flush=True)
    if arguments.ship and arguments.into:
        attempt = plan.attempt(arguments.ship)
        judge = learn_attempt(before, corpus, attempt, arguments.out / "heads", frozenset())
        ship(judge, arguments.into)
    text = format_tables(figures)
    output.write(arguments.out, "head_alone", text, figures)
    plot(figures, arguments.out / "head_alone.svg")
    print(text)


if __name__ == "__main__":
    main()
