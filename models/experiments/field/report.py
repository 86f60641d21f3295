"""Tables and plots of what a comparison has come to so far; nobody's text is in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from operator import add
from pathlib import Path
from statistics import fmean
from typing import Any

from models.evaluate import measures
from models.reporting import output
from models.systems.baselines.cost import TrainingCost

from . import editors, features, figures, hours, people
from .answers import AnswerWorkshop, JobAnswers, format_weights
from .config import FRONTS, ONE_FOR_ALL, Method, TrainingJob, make_job
from .editors import EditTask
from .figures import FrontPlace, Gain

TITLES: Mapping[Method, str] = {"sft": "SFT", "rlhf": "RLHF", "morlhf": "MORLHF", "modpo": "MODPO", "ric": "RiC"}
NOTHING = "not run"


@dataclass(frozen=True)
class MethodRow:
    """One method and its answers. `after` has a list for each seed."""

    name: str
    questions: Sequence[str]
    before: Sequence[str]
    after: Sequence[Sequence[str]]
    training: TrainingCost | None
    """Mean of the seeds, the pool's included; none where nothing is trained."""
    answering: TrainingCost


def _mean(costs: Sequence[TrainingCost]) -> TrainingCost:
    """The mean cost; of the peak of memory, the highest."""
    total = reduce(add, costs)
    shared = {name: value / len(costs) for name, value in asdict(total).items() if name != "peak_mb"}
    return TrainingCost(**shared | {"peak_mb": total.peak_mb})


def _list_done_jobs(
    workshop: AnswerWorkshop, method: Method, weights: Mapping[str, float], *, other: bool = False
) -> list[TrainingJob]:
    """The finished trainings of a method under a weighting, in the order of the seeds."""
    jobs = [make_job(workshop.comparison, method, seed, weights, other=other) for seed in workshop.comparison.seeds]
    return [job for job in jobs if workshop.is_done(job)]


def _answers(workshop: AnswerWorkshop, jobs: Sequence[TrainingJob]) -> list[Sequence[str]]:
    """The answers of each job under the weighting that it was trained for."""
    return [workshop.answer_job(job).answers[format_weights(job.weightings[0])] for job in jobs]


def make_method_row(workshop: AnswerWorkshop, method: Method) -> MethodRow | None:
    """The row of a method under the table's weighting; None where no training is finished."""
    comparison = workshop.comparison
    jobs = _list_done_jobs(workshop, method, comparison.even)
    if not jobs:
        return None
    job_answers = [workshop.answer_job(job) for job in jobs]
    training = _mean(
        [
            answers_of_job.cost + workshop.pool(job.seed)[1]
            for job, answers_of_job in zip(jobs, job_answers, strict=True)
        ]
    )
    answering = TrainingCost(
        **{name: value / len(job_answers[0].answers) for name, value in asdict(job_answers[0].answering).items()}
    )
    after = _answers(workshop, jobs)
    name = TITLES[method] + (f", {comparison.rlhf}" if method == "rlhf" else "")
    return MethodRow(name, workshop.questions, workshop.base().answers[""], after, training, answering)


def make_editor_row(workshop: AnswerWorkshop, editor: Any, job_answers: JobAnswers) -> MethodRow:
    """The row of an editor, on the answers that it edited."""
    questions = workshop.questions[:: editor.every]
    before = workshop.base().answers[""][:: editor.every]
    return MethodRow(editor.name, questions, before, [job_answers.answers[""]], None, job_answers.answering)


def read_rows(workshop: AnswerWorkshop) -> dict[str, MethodRow | None]:
    """The row of every method and editor in the file; None where nothing is finished."""
    comparison = workshop.comparison
    rows_by_name: dict[str, MethodRow | None] = {}
    for method in comparison.methods:
        rows_by_name[TITLES[method]] = make_method_row(workshop, method)
    task = EditTask(workshop.questions, workshop.base().answers[""], comparison.trade, "base")
    for editor in comparison.editors:
        job_answers = editors.find_kept(workshop, editor, task)
        rows_by_name[editor.name] = make_editor_row(workshop, editor, job_answers) if job_answers else None
    return rows_by_name


# ---------------------------------------------------------------- tables


def format_quality(workshop: AnswerWorkshop, rows: Mapping[str, MethodRow | None]) -> tuple[str, dict[str, Any]]:
    """Gains by objective, verdicts and damage: (Markdown, the same as data)."""
    comparison = workshop.comparison
    lines: list[Sequence[object]] = []
    document = {}
    for name, row in rows.items():
        if row is None:
            lines.append((name, *(NOTHING,) * (len(comparison.report) + 5)))
            continue
        gains = figures.compute_gains(comparison.report, row.questions, row.before, row.after)
        verdicts = figures.compare_answers(row.questions, row.before, row.after)
        damage = figures.measure_damage(row.questions, row.before, row.after)
        document[name] = {"gains": gains, "verdicts": verdicts, "damage": damage, "seeds": len(row.after)}
        count = f"{len(row.questions)} x {len(row.after)}"
        lines.append((row.name, count, *gains.values(), verdicts.win, verdicts.tie, verdicts.lose, damage))
    before = workshop.base().answers[""]
    base = {name: fmean(figures.compute_rewards(name, workshop.questions, before)) for name in comparison.report}
    lines.insert(0, ("policy as it is (rewards)", len(before), *(f"{mean:.3f}" for mean in base.values()), *"----"))
    head = ("method", "n x seeds", *comparison.report, "win", "tie", "lose", "damage to sound answers")
    return output.table(head, lines), document | {"base": base}


def format_costs(rows: Mapping[str, MethodRow | None]) -> str:
    """Markdown: what each training cost, and what each answer costs."""
    lines = []
    for row in filter(None, rows.values()):
        training = row.training
        cells = ("0",) * 5
        if training is not None:
            gflops = f"{training.flops / 1e12:.2f}"
            cells = (
                f"{training.fed:.0f}",
                f"{training.trained:.0f}",
                gflops,
                f"{training.cpu_s:.0f}",
                f"{training.peak_mb:.0f}",
            )
        cpu_s_of_answer = row.answering.cpu_s / len(row.questions)
        lines.append((row.name, *cells, f"{cpu_s_of_answer:.2f}"))
    head = ("method", "tokens fed", "of these trained on", "TFLOPs", "CPU s", "peak MB", "CPU s an answer")
    return output.table(head, lines)


def format_changes(workshop: AnswerWorkshop, rows: Mapping[str, MethodRow | None]) -> str:
    """Markdown: what must be trained again for a new objective or another policy, and what that gains."""
    comparison = workshop.comparison
    before = workshop.base().answers[""]
    lines: list[Sequence[object]] = []
    for method in comparison.methods:
        row = rows[TITLES[method]]
        retraining = (
            f"{row.training.fed:.0f} tokens, {row.training.cpu_s:.0f} CPU s" if row and row.training else NOTHING
        )
        gain_when_new: object = NOTHING
        after = [] if method == "rlhf" else _answers(workshop, _list_done_jobs(workshop, method, comparison.with_new))
        if after:
            gains = figures.compute_gains([comparison.new_objective], workshop.questions, before, after)
            gain_when_new = f"{gains[comparison.new_objective]} (seeds: {len(after)})"
        gain_elsewhere: object = NOTHING
        after = (
            _answers(workshop, _list_done_jobs(workshop, method, comparison.even, other=True))
            if comparison.other_base
            else []
        )
        if after:
            gain = _gain_of_both(workshop, workshop.base(other=True).answers[""], after)
            gain_elsewhere = f"{gain} (seeds: {len(after)})"
        lines.append((TITLES[method], retraining, gain_when_new, retraining, gain_elsewhere))
    task = EditTask(workshop.questions, before, (*comparison.trade, comparison.new_objective), "new-objective")
    for editor in comparison.editors:
        job_answers = editors.find_kept(workshop, editor, task)
        gain_when_new = NOTHING
        if job_answers:
            questions = workshop.questions[:: editor.every]
            after = [job_answers.answers[""]]
            gain_when_new = figures.compute_gains(
                [comparison.new_objective], questions, before[:: editor.every], after
            )[comparison.new_objective]
        gain_elsewhere = NOTHING
        if comparison.other_base:
            elsewhere = workshop.base(other=True).answers[""]
            job_answers = editors.find_kept(
                workshop, editor, EditTask(workshop.questions, elsewhere, comparison.trade, "other")
            )
            gain_elsewhere = (
                _gain_of_both(workshop, elsewhere, [job_answers.answers[""]], editor.every) if job_answers else NOTHING
            )
        lines.append((editor.name, "none", gain_when_new, "none", gain_elsewhere))
    gained = f"gain in {comparison.new_objective}"
    head = ("method", "training for a new objective", gained, "training for another policy", "gain of both there")
    return output.table(head, lines)


def _gain_of_both(
    workshop: AnswerWorkshop, before: Sequence[str], after: Sequence[Sequence[str]], every: int = 1
) -> Gain:
    """The gain in the mean of the two objectives of the fronts; `after` answers every `every`th question."""
    questions = workshop.questions[::every]
    means_by_seed = [_means(workshop, questions, answers) for answers in after]
    base = _means(workshop, questions, before[::every])
    return figures.compute_gain([[new - old for old, new in zip(base, means, strict=True)] for means in means_by_seed])


def _means(workshop: AnswerWorkshop, questions: Sequence[str], answers: Sequence[str]) -> list[float]:
    columns = [figures.compute_rewards(name, questions, answers) for name in workshop.comparison.trade]
    return [fmean(values) for values in zip(*columns, strict=True)]


# ---------------------------------------------------------------- fronts


def find_fronts(workshop: AnswerWorkshop) -> dict[str, list[FrontPlace]]:
    """The finished places of each method that has a front, for the first seed."""
    comparison = workshop.comparison
    places_by_name: dict[str, list[FrontPlace]] = {}
    for method in comparison.methods:
        if method not in FRONTS:
            continue
        places = []
        for share in comparison.shares:
            weights = comparison.make_weighting(share)
            job = make_job(
                comparison, method, comparison.seeds[0], comparison.even if method in ONE_FOR_ALL else weights
            )
            if workshop.is_done(job):
                answers = workshop.answer_job(job).answers[format_weights(weights)]
                places.append(figures.find_place(share, comparison.trade, workshop.questions, answers))
        if places:
            places_by_name[TITLES[method]] = places
    return places_by_name


def front_table(workshop: AnswerWorkshop, places_by_name: Mapping[str, Sequence[FrontPlace]]) -> str:
    """Markdown: a line for each method with its places and the area under its front."""
    comparison = workshop.comparison
    lines = []
    for name, places in places_by_name.items():
        at = {place.share: f"{place.first:.2f}, {place.second:.2f}" for place in places}
        area = (
            f"{figures.hypervolume(places):.3f}" if len(places) == len(comparison.shares) else f"{len(places)} places"
        )
        lines.append((name, *(at.get(share, NOTHING) for share in comparison.shares), area))
    head = ("method", *(f"{comparison.trade[0]} {share:g}" for share in comparison.shares), "area under the front")
    return output.table(head, lines)


def draw_plots(
    workshop: AnswerWorkshop, rows: Mapping[str, MethodRow | None], lines: Mapping[str, Sequence[FrontPlace]]
) -> None:
    """Draw fronts.svg, and cost.svg: the cost of a training against the gain in both objectives."""
    comparison = workshop.comparison
    with output.plot(workshop.out / "fronts.svg", size=(5, 4)) as ((axis,),):
        for name, places in lines.items():
            axis.plot([place.first for place in places], [place.second for place in places], "o-", label=name)
        for name, row in rows.items():
            if row is not None and row.training is None:
                x, y = (
                    fmean(figures.compute_rewards(objective_name, row.questions, row.after[0]))
                    for objective_name in comparison.trade
                )
                axis.plot([x], [y], "s", label=name)
        axis.set_xlabel(comparison.trade[0])
        axis.set_ylabel(comparison.trade[1])
        axis.legend(fontsize=7)
    with output.plot(workshop.out / "cost.svg", size=(6, 4)) as ((axis,),):
        for row in filter(None, rows.values()):
            gained = _gain_of(workshop, row)
            spread = [[gained.mean - gained.low], [gained.high - gained.mean]]
            seconds = row.training.cpu_s if row.training else 0.0
            axis.errorbar([seconds], [gained.mean], yerr=spread, fmt="o" if row.training else "s", label=row.name)
        axis.axhline(0, color="grey", linewidth=0.5)
        axis.set_xlabel("CPU seconds of training, for one weighting and one policy")
        axis.set_ylabel(f"gain, mean of {' and '.join(comparison.trade)}")
        axis.legend(fontsize=7)


def _gain_of(workshop: AnswerWorkshop, row: MethodRow) -> Gain:
    """The gain in the mean of both objectives."""
    base = _means(workshop, row.questions, row.before)
    means_by_seed = [_means(workshop, row.questions, answers) for answers in row.after]
    return figures.compute_gain([[new - old for old, new in zip(base, means, strict=True)] for means in means_by_seed])


def describe_accuracy(cases: Sequence[Path]) -> str:
    """How often the measures behind win, tie and lose are right, on pairs with known faults."""
    if not cases:
        return "How often the measures are right: not measured in this run (`--cases`)."
    return measures.accuracy_table(measures.accuracy(measures.read_cases(cases)))


def write_report(workshop: AnswerWorkshop, cases: Sequence[Path] = ()) -> str:
    """Write field.md, field.json and the plots."""
    comparison = workshop.comparison
    rows = read_rows(workshop)
    table, document = format_quality(workshop, rows)
    lines = find_fronts(workshop)
    parts = [
        table,
        people.format_table(workshop),
        describe_accuracy(cases),
        front_table(workshop, lines),
        format_costs(rows),
        format_changes(workshop, rows),
        f"Utilisation that the SFT row implies: {hours.utilisation():.2f}\n\n{hours.format_table()}",
        features.format_table(),
        features.evidence(),
    ]
    text = "\n\n".join(parts)
    figured = {"comparison": comparison.model_dump(mode="json"), "methods": document, "fronts": lines}
    training_costs = {name: row.training for name, row in rows.items() if row and row.training}
    output.write(workshop.out, "field", text, figured | {"training": training_costs})
    draw_plots(workshop, rows, lines)
    return text
