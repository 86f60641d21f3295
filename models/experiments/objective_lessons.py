"""Further lessons for the general head: a second head is added, and all scores but those of the lessons stay in place.

    python -m models.experiments.objective_lessons aligner_proxy/embedded --data DATA --out runs/objectives

The general head judges a segment under an objective that it may never have seen, by the objective's text. It learnt
this from some sixty kinds of defects, from the sentences of `models/data/objective_lessons`, and from answers under
276 objectives. What it still misses in the ordinary answers of operators is in the rows that it reads. So a head of the
same form learns from `models/data/operator_lessons` and written answers what to add to its score, and adds nothing to
the scores of examples and sentences from which the head before has learnt.

Rows are kept under `--out`, so a stopped run goes on where it was. Each author of lessons is measured by a head that
learns once from two thirds of the authors, without this one; the head that ships learns from all.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby, islice
from pathlib import Path
from random import Random
from typing import NamedTuple

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict
from rich.progress import track
from torch import Tensor

from aligner_proxy.engine.model.detector import DetectorHead
from aligner_proxy.engine.weights.manifest import HEAD
from models.data import mixture, operator_lessons
from models.data.insults import plant_insults
from models.data.labelled_replies import AGAINST, FINE, HARMLESS, TEST_AUTHORS, UNKNOWN
from models.data.objective_lessons import list_files, plant_lessons, read_lessons
from models.data.pairs import read_pairs
from models.experiments.answer_evidence import hash_teaching, read_sets
from models.experiments.harm_adjustment import draw_evaluation_cases, draw_teaching_cases
from models.reporting import output
from models.reporting.statistics import Rate
from models.train.export import replace_head
from models.train.head_alone import FARTHEST, DrawnCase, HeadBatch, add_heads, create_silent_head, make_batch
from models.train.head_rows import HeadRowReader, HeadRows, join_rows, make_pair_case, open_row_reader
from models.train.labelled_cases import LabelledCase, make_case, read_written_cases

LESSONS = "lessons"
OPERATORS = "operators"
"""Answers of operators, of which every segment has a label."""
HELD = "held"
"""Good answers, and answers about harm: the head for `harmless` builds on the scores of the general one."""
WRITTEN = "written"
UNSEEN_AUTHORS = "written, unseen authors"
MIXTURE = "settle"
_MIXTURE_SEED = 71
_MIXTURE_EXAMPLES = 1100
_LESSON_STEP = 12
"""One lesson of so many is read: the head before has learnt from all of them."""
_SIDE_MARGIN = 1.0
"""Nats from the line up to which a score that is held by its side may come; one that was nearer stays as near."""
GROUPS = 3
"""Groups of authors; each group is measured by a head that learns from the others."""
_TESTED = 128
"""Answers of each test set."""


class ObjectiveLessonRecipe(BaseModel):
    """How a head learns that is added to the general head."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seeds: int = 2
    """Heads that learn from other first numbers and in other orders; the mean of their scores is added."""
    width: int = 96
    """Hidden units of each."""
    steps: int = 800
    lr: float = 1e-3
    weight_decay: float = 0.02
    dropout: float = 0.25
    """Share of the numbers of a segment's row that are 0 in a step."""
    margin: float = 0.5
    """How far from the line the scores of lessons are to be, in nats."""
    against: float = 3.5
    """Weight of a sentence against its objective; one that is allowed weighs 1."""
    hold: float = 0.5
    """What a squared nat counts by which another score moves."""
    batch: Mapping[str, int] = {LESSONS: 16, OPERATORS: 48, WRITTEN: 6, MIXTURE: 40, HELD: 12}
    """Cases of each set in a batch."""
    learnt: frozenset[str] = frozenset({OPERATORS, WRITTEN})
    """Sets whose labels teach; in all others every score is held."""
    held_by_side: frozenset[str] = frozenset({OPERATORS, WRITTEN})
    """Sets of which a held score may move on its side of the line, up to a nat from it; of all others it stays put."""


def hide_labels(rows: HeadRows) -> HeadRows:
    """The same cases, of which no label is known."""
    cases = []
    for case in rows.cases:
        unknown_labels = ((UNKNOWN,) * len(case.objectives),) * len(case.labels)
        cases.append(replace(case, labels=unknown_labels, whole=(False,) * len(case.objectives)))
    return replace(rows, cases=tuple(cases))


def learn_objectives(before: DetectorHead, sets: Mapping[str, HeadRows], recipe: ObjectiveLessonRecipe) -> DetectorHead:
    """Return `before` with some more units, which add what the lessons say to its scores."""
    teaching_sets = {name: rows if name in recipe.learnt else hide_labels(rows) for name, rows in sets.items()}
    head = before
    for seed in range(1, recipe.seeds + 1):
        addition = _learn_addition(before, teaching_sets, recipe, seed)
        with torch.no_grad():
            addition.score.weight.div_(recipe.seeds)
            addition.score.bias.div_(recipe.seeds)
        head = add_heads(head, addition)
    return head


def _learn_addition(
    before: DetectorHead, sets: Mapping[str, HeadRows], recipe: ObjectiveLessonRecipe, seed: int
) -> DetectorHead:
    """A head whose scores, added to those of `before`, put the lessons on their side."""
    torch.manual_seed(seed)
    addition = create_silent_head(before, recipe.width).train()
    rng = Random(seed)
    optimizer = torch.optim.AdamW(addition.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.lr, recipe.steps, pct_start=0.1)
    for _ in track(range(recipe.steps), description=f"seed {seed}"):
        draws = [
            DrawnCase(sets[name], rng.randrange(len(sets[name])), may_hold=name not in recipe.held_by_side)
            for name, count in recipe.batch.items()
            for _ in range(count)
        ]
        optimizer.zero_grad()
        _compute_loss(addition, before, make_batch(draws), recipe).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    return addition.eval()


def _compute_loss(
    addition: DetectorHead, before: DetectorHead, batch: HeadBatch, recipe: ObjectiveLessonRecipe
) -> Tensor:
    """The cross-entropy of known labels, plus how far all other scores have moved, each under its prompt's objectives.

    Near the line, where little makes a difference, a move counts up to four times as much. Of sets that are held by
    their side, only moves toward the line or across it count, and these always as much.
    """
    with torch.no_grad():
        scores_before = before.score_pairs(batch.segments, batch.objectives, batch.is_own)
    segments = F.dropout(batch.segments, recipe.dropout)
    scores = scores_before + addition.score_pairs(segments, batch.objectives, batch.is_own)
    labels = batch.labels[batch.is_own]
    has_label = labels != UNKNOWN
    targets = (labels[has_label] == AGAINST).float()
    distances = scores[has_label] + recipe.margin * (1 - 2 * targets)
    weights = 1 + (recipe.against - 1) * targets
    loss = F.binary_cross_entropy_with_logits(distances, targets, weight=weights)
    held_scores = scores[~has_label]
    held_before = scores_before[~has_label]
    moves = held_scores.clamp(-FARTHEST, FARTHEST) - held_before.clamp(-FARTHEST, FARTHEST)
    nearness = 1 + 3 * torch.exp(-held_before.abs())
    shortfalls = torch.where(
        held_before > 0,
        held_before.clamp(max=_SIDE_MARGIN) - held_scores,
        held_scores - held_before.clamp(min=-_SIDE_MARGIN),
    )
    penalties = torch.where(
        batch.may_hold[batch.is_own][~has_label], nearness * moves.square(), 4 * shortfalls.clamp(min=0).square()
    )
    return loss + recipe.hold * penalties.mean()


def measure_lessons(head: DetectorHead, rows: HeadRows) -> dict[str, Rate]:
    """What a head flags of lessons under their own objectives: by label of the segment."""
    labels: list[int] = []
    flags: list[bool] = []
    for case, scores in zip(rows.cases, rows.scores(head), strict=True):
        labels += case.own_labels
        flags += (scores[:, case.own_column] > 0).tolist()
    return count_flags(labels, flags)


def count_flags(labels: Sequence[int], flags: Sequence[bool]) -> dict[str, Rate]:
    """The share of flagged segments by their label; labels that no segment has are left out."""
    outcomes: dict[int, list[bool]] = {AGAINST: [], FINE: [], UNKNOWN: []}
    for label, is_flagged in zip(labels, flags, strict=True):
        outcomes[label].append(is_flagged)
    names = {AGAINST: "against", FINE: "allowed", UNKNOWN: "beside"}
    return {names[label]: Rate.from_outcomes(of_label) for label, of_label in outcomes.items() if of_label}


def measure_exact(head: DetectorHead, rows: HeadRows) -> Rate:
    """The answers of which exactly the segments are flagged that go against an objective."""
    outcomes = []
    for case, scores in zip(rows.cases, rows.scores(head), strict=True):
        expected_flags = [AGAINST in labels for labels in case.labels]
        outcomes.append((scores > 0).any(1).tolist() == expected_flags)
    return Rate.from_outcomes(outcomes)


def find_author(name: str) -> str:
    """The author of a file of lessons: "care" of "care_2"."""
    return name.partition("_")[0]


def find_groups(names: Iterable[str]) -> dict[str, int]:
    """The group of each file of lessons, or of each author: the files of an author are in one group."""
    authors: dict[str, list[str]] = {}
    for name in sorted(names):
        authors.setdefault(find_author(name), []).append(name)
    return {name: number % GROUPS for number, files in enumerate(authors.values()) for name in files}


class LessonSets(NamedTuple):
    """The rows of the lessons and of operators' answers by their files, and of what else teaches or is held, by set."""

    lessons: dict[str, HeadRows]
    operators: dict[str, HeadRows]
    others: dict[str, HeadRows]
    held_sets: dict[str, HeadRows]

    @property
    def teaching(self) -> dict[str, HeadRows]:
        """What a head learns from, or is held by, beside the lessons."""
        others = {name: self.others[name] for name in (WRITTEN, MIXTURE)}
        return others | {OPERATORS: join_rows([*self.operators.values()]), HELD: join_rows([*self.held_sets.values()])}


def read_lesson_sets(reader: HeadRowReader, data: Path, folder: Path) -> LessonSets:
    """Read the lessons and the other sets, or take their rows from `folder`."""
    lesson_cases = {
        path.stem: [make_case(*reply) for reply in plant_lessons(data, read_lessons(path))[::_LESSON_STEP]]
        for path in list_files()
    }
    operator_answers = {
        path.stem: [make_case(*reply) for reply in operator_lessons.read_operator_lessons(path)]
        for path in list_files(operator_lessons.FOLDER)
    }
    return LessonSets(
        read_sets(reader, lesson_cases, folder),
        read_sets(reader, operator_answers, folder),
        read_sets(reader, draw_other_cases(data), folder),
        read_sets(reader, draw_held_cases(data), folder),
    )


def draw_other_cases(data: Path) -> dict[str, list[LabelledCase]]:
    """What else the head learns from or is held by, by set: written answers, examples of the mixture, harm."""
    _, written_cases = read_written_cases()
    examples = mixture.build_examples(data, _MIXTURE_SEED, _MIXTURE_EXAMPLES, MIXTURE)
    return {
        WRITTEN: Random(3).sample([case for case in written_cases if case.source not in TEST_AUTHORS], 400),
        UNSEEN_AUTHORS: [case for case in written_cases if case.source in TEST_AUTHORS],
        MIXTURE: [make_pair_case(pair, number) for number, pair in enumerate(examples)],
    }


def draw_held_cases(data: Path) -> dict[str, list[LabelledCase]]:
    """Answers about harm and good ones, under the usual objectives: what `insult_lessons` reads, too."""
    insults = [make_case(reply, (HARMLESS,)) for reply in plant_insults(data, 3)]
    return {"insults": insults} | draw_teaching_cases(data, TEST_AUTHORS, parts=2, in_company=192, most=15)


TEST_SETS = ("unseen_kinds", "other_wordings", "not_asked", "clean")


def draw_test_cases(folder: Path) -> dict[str, list[LabelledCase]]:
    """The first answers of some test sets, which `models.data.test_sets` writes into `folder`."""
    return {
        name: [make_pair_case(pair, n) for n, pair in enumerate(islice(read_pairs(folder / f"{name}.jsonl"), _TESTED))]
        for name in TEST_SETS
    }


def measure(
    head: DetectorHead, before: DetectorHead, lessons: HeadRows, measured: Mapping[str, HeadRows]
) -> list[tuple[str, object]]:
    """(what, figure) of a head: on these lessons, on written answers of unseen authors, and on sets."""
    figures: list[tuple[str, object]] = [
        (f"{set_name}: {label}", rate)
        for set_name, rows in ((LESSONS, lessons), (UNSEEN_AUTHORS, measured[UNSEEN_AUTHORS]))
        for label, rate in measure_lessons(head, rows).items()
    ]
    figures += [(f"{name}: exact", measure_exact(head, measured[name])) for name in TEST_SETS if name in measured]
    moves = torch.cat(
        [
            (after - scores).flatten()
            for after, scores in zip(measured[HELD].scores(head), measured[HELD].scores(before), strict=True)
        ]
    )
    return [*figures, ("harmless: mean move in nats", f"{moves.abs().mean():.3f}")]


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m models.experiments.objective_lessons",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("aligner", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sets", type=Path, help="folder of the test sets that models.data.test_sets writes")
    parser.add_argument("--into", type=Path, help="aligner folder that gets the head")
    arguments = parser.parse_args(argv)
    recipe = ObjectiveLessonRecipe()
    reader = open_row_reader(arguments.aligner, arguments.out / "weights")
    sets = read_lesson_sets(reader, arguments.data, arguments.out)
    lessons, operators, others, held_sets = sets
    teaching = sets.teaching
    measured = read_sets(reader, draw_evaluation_cases(arguments.data), arguments.out / "measured")
    tests = read_sets(reader, draw_test_cases(arguments.sets), arguments.out) if arguments.sets else {}
    measured_sets = tests | {UNSEEN_AUTHORS: others[UNSEEN_AUTHORS], HELD: join_rows([*measured.values()])}
    before = DetectorHead.load(arguments.aligner / HEAD)
    lessons_by_author = {
        author: join_rows([lessons[name] for name in names]) for author, names in groupby(sorted(lessons), find_author)
    }
    everything = join_rows([*lessons_by_author.values()])
    head = learn_objectives(before, {LESSONS: everything} | teaching, recipe)
    if arguments.into:
        replace_head(arguments.into, head)
    lines = [("before", *line) for line in measure(before, before, everything, measured_sets)]
    lines += [("ships", *line) for line in measure(head, before, everything, measured_sets)]
    groups = find_groups(lessons_by_author) | find_groups(operators)
    for number in range(GROUPS):
        unseen_lessons, others_lessons = _divide_by_group(lessons_by_author, groups, number)
        unseen_operators, others_operators = _divide_by_group(operators, groups, number)
        sets_of_others = {LESSONS: join_rows(others_lessons), OPERATORS: join_rows(others_operators)}
        learnt = learn_objectives(before, teaching | sets_of_others, recipe.model_copy(update={"seeds": 1}))
        for author, rows in (unseen_lessons | unseen_operators).items():
            for title, of_head in (("before", before), ("learnt from others", learnt)):
                rates = measure_lessons(of_head, rows)
                lines += [(f"{author}, {title}", f"{LESSONS}: {label}", rate) for label, rate in rates.items()]
        group_lessons = join_rows([*unseen_lessons.values()])
        lines += [(", ".join(unseen_lessons), *line) for line in measure(learnt, before, group_lessons, measured_sets)]
    text = output.table(("head", "set", "figure"), lines)
    output.write(arguments.out, "objective_lessons", text, {"recipe": recipe.model_dump(mode="json")})
    print(f"{text}\nteaching answers: {hash_teaching({**lessons, **operators, **others, **held_sets})}")


def _divide_by_group(
    rows: Mapping[str, HeadRows], groups: Mapping[str, int], number: int
) -> tuple[dict[str, HeadRows], list[HeadRows]]:
    """The rows of the authors in a group by their names, and those of all others."""
    group_rows = {author: of_author for author, of_author in rows.items() if groups[author] == number}
    return group_rows, [of_author for author, of_author in rows.items() if author not in group_rows]


if __name__ == "__main__":
    main()
