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
from .answers import Made, Workshop, key
from .config import FRONTS, ONE_FOR_ALL, Job, Method, trained
from .editors import Given
from .figures import Gain, Place

TITLES: Mapping[Method, str] = {"sft": "SFT", "rlhf": "RLHF", "morlhf": "MORLHF", "modpo": "MODPO", "ric": "RiC"}
NOTHING = "not run"


@dataclass(frozen=True)
class Row:
    """One method: `after` has its answers to `questions`, seed by seed."""

    name: str
    questions: Sequence[str]
    before: Sequence[str]
    after: Sequence[Sequence[str]]
    training: TrainingCost | None
    """Mean of the seeds, the pool's included; none where nothing is trained."""
    answering: TrainingCost


def _mean(costs: Sequence[TrainingCost]) -> TrainingCost:
    total = reduce(add, costs)
    shared = {name: value / len(costs) for name, value in asdict(total).items() if name != "peak_mb"}
    return TrainingCost(**shared | {"peak_mb": total.peak_mb})


def _done(workshop: Workshop, method: Method, weights: Mapping[str, float], *, other: bool = False) -> list[Job]:
    """The trainings of a method under a weighting that are there, seed by seed."""
    wanted = [trained(workshop.comparison, method, seed, weights, other) for seed in workshop.comparison.seeds]
    return [job for job in wanted if workshop.done(job)]


def _answers(workshop: Workshop, done: Sequence[Job]) -> list[Sequence[str]]:
    """What each of these answers under the weighting that it was trained for."""
    return [workshop.trained(job).answers[key(job.asked[0])] for job in done]


def of_method(workshop: Workshop, method: Method) -> Row | None:
    """What is there of a method under the table's weighting; None where nothing is."""
    c = workshop.comparison
    done = _done(workshop, method, c.even)
    if not done:
        return None
    made = [workshop.trained(job) for job in done]
    training = _mean([one.cost + workshop.pool(job.seed)[1] for job, one in zip(done, made, strict=True)])
    answering = TrainingCost(
        **{name: value / len(made[0].answers) for name, value in asdict(made[0].answering).items()}
    )
    after = _answers(workshop, done)
    name = TITLES[method] + (f", {c.rlhf}" if method == "rlhf" else "")
    return Row(name, workshop.questions, workshop.base().answers[""], after, training, answering)


def of_editor(workshop: Workshop, editor: Any, made: Made) -> Row:
    """An editor's row, on the answers that it was given."""
    asked = workshop.questions[:: editor.every]
    before = workshop.base().answers[""][:: editor.every]
    return Row(editor.name, asked, before, [made.answers[""]], None, made.answering)


def rows(workshop: Workshop) -> dict[str, Row | None]:
    """Every method and editor of the file, None where it is not there yet."""
    c = workshop.comparison
    found: dict[str, Row | None] = {}
    for method in c.methods:
        found[TITLES[method]] = of_method(workshop, method)
    given = Given(workshop.questions, workshop.base().answers[""], c.trade, "base")
    for editor in c.editors:
        made = editors.kept(workshop, editor, given)
        found[editor.name] = of_editor(workshop, editor, made) if made else None
    return found


# ---------------------------------------------------------------- tables


def quality(workshop: Workshop, found: Mapping[str, Row | None]) -> tuple[str, dict[str, Any]]:
    """Gains by objective, verdicts and damage; as a table and as figures."""
    c = workshop.comparison
    lines: list[Sequence[object]] = []
    document = {}
    for name, row in found.items():
        if row is None:
            lines.append((name, *(NOTHING,) * (len(c.report) + 5)))
            continue
        gains = figures.gains(c.report, row.questions, row.before, row.after)
        said = figures.verdicts(row.questions, row.before, row.after)
        damage = figures.damage(row.questions, row.before, row.after)
        document[name] = {"gains": gains, "verdicts": said, "damage": damage, "seeds": len(row.after)}
        n = f"{len(row.questions)} x {len(row.after)}"
        lines.append((row.name, n, *gains.values(), said.win, said.tie, said.lose, damage))
    before = workshop.base().answers[""]
    base = {name: fmean(figures.rewards(name, workshop.questions, before)) for name in c.report}
    lines.insert(0, ("policy as it is (rewards)", len(before), *(f"{mean:.3f}" for mean in base.values()), *"----"))
    head = ("method", "n x seeds", *c.report, "win", "tie", "lose", "damage to sound answers")
    return output.table(head, lines), document | {"base": base}


def costs(found: Mapping[str, Row | None]) -> str:
    """What each training took, and what each answer takes."""
    lines = []
    for row in filter(None, found.values()):
        t = row.training
        spent = ("0",) * 5
        if t is not None:
            gflops = f"{t.flops / 1e12:.2f}"
            spent = (f"{t.fed:.0f}", f"{t.trained:.0f}", gflops, f"{t.cpu_s:.0f}", f"{t.peak_mb:.0f}")
        each = row.answering.cpu_s / len(row.questions)
        lines.append((row.name, *spent, f"{each:.2f}"))
    head = ("method", "tokens fed", "of these trained on", "TFLOPs", "CPU s", "peak MB", "CPU s an answer")
    return output.table(head, lines)


def changes(workshop: Workshop, found: Mapping[str, Row | None]) -> str:
    """A new objective and a new policy model: what has to be trained again, and what comes of it."""
    c = workshop.comparison
    before = workshop.base().answers[""]
    lines: list[Sequence[object]] = []
    for method in c.methods:
        row = found[TITLES[method]]
        again = f"{row.training.fed:.0f} tokens, {row.training.cpu_s:.0f} CPU s" if row and row.training else NOTHING
        new: object = NOTHING
        after = [] if method == "rlhf" else _answers(workshop, _done(workshop, method, c.with_new))
        if after:
            gains = figures.gains([c.new_objective], workshop.questions, before, after)
            new = f"{gains[c.new_objective]} (seeds: {len(after)})"
        other: object = NOTHING
        after = _answers(workshop, _done(workshop, method, c.even, other=True)) if c.other_base else []
        if after:
            other = f"{_both(workshop, workshop.base(other=True).answers[''], after)} (seeds: {len(after)})"
        lines.append((TITLES[method], again, new, again, other))
    given = Given(workshop.questions, before, (*c.trade, c.new_objective), "new-objective")
    for editor in c.editors:
        made = editors.kept(workshop, editor, given)
        new = NOTHING
        if made:
            asked = workshop.questions[:: editor.every]
            after = [made.answers[""]]
            new = figures.gains([c.new_objective], asked, before[:: editor.every], after)[c.new_objective]
        other = NOTHING
        if c.other_base:
            elsewhere = workshop.base(other=True).answers[""]
            made = editors.kept(workshop, editor, Given(workshop.questions, elsewhere, c.trade, "other"))
            other = _both(workshop, elsewhere, [made.answers[""]], editor.every) if made else NOTHING
        lines.append((editor.name, "none", new, "none", other))
    gained = f"gain in {c.new_objective}"
    head = ("method", "training for a new objective", gained, "training for another policy", "gain of both there")
    return output.table(head, lines)


def _both(workshop: Workshop, before: Sequence[str], after: Sequence[Sequence[str]], every: int = 1) -> Gain:
    """The gain in the mean of the two objectives that are traded."""
    asked = workshop.questions[::every]
    each = [_means(workshop, asked, answers) for answers in after]
    base = _means(workshop, asked, before[::every])
    return figures.gain([[new - old for old, new in zip(base, one, strict=True)] for one in each])


def _means(workshop: Workshop, questions: Sequence[str], answers: Sequence[str]) -> list[float]:
    columns = [figures.rewards(name, questions, answers) for name in workshop.comparison.trade]
    return [fmean(values) for values in zip(*columns, strict=True)]


# ---------------------------------------------------------------- fronts


def fronts(workshop: Workshop) -> dict[str, list[Place]]:
    """Of every method that has one, the places of the weightings that are there, by the first seed."""
    c = workshop.comparison
    found: dict[str, list[Place]] = {}
    for method in c.methods:
        if method not in FRONTS:
            continue
        places = []
        for share in c.shares:
            weights = c.weighting(share)
            job = trained(c, method, c.seeds[0], c.even if method in ONE_FOR_ALL else weights)
            if workshop.done(job):
                answers = workshop.trained(job).answers[key(weights)]
                places.append(figures.place(share, c.trade, workshop.questions, answers))
        if places:
            found[TITLES[method]] = places
    return found


def front_table(workshop: Workshop, found: Mapping[str, Sequence[Place]]) -> str:
    """One line a method: its places, and the area under those that nothing beats."""
    c = workshop.comparison
    lines = []
    for name, places in found.items():
        at = {place.share: f"{place.first:.2f}, {place.second:.2f}" for place in places}
        area = f"{figures.hypervolume(places):.3f}" if len(places) == len(c.shares) else f"{len(places)} places"
        lines.append((name, *(at.get(share, NOTHING) for share in c.shares), area))
    head = ("method", *(f"{c.trade[0]} {share:g}" for share in c.shares), "area under the front")
    return output.table(head, lines)


def draw(workshop: Workshop, found: Mapping[str, Row | None], lines: Mapping[str, Sequence[Place]]) -> None:
    """fronts.svg, and cost.svg: what a training took against what both objectives gained."""
    c = workshop.comparison
    with output.plot(workshop.out / "fronts.svg", size=(5, 4)) as ((axis,),):
        for name, places in lines.items():
            axis.plot([place.first for place in places], [place.second for place in places], "o-", label=name)
        for name, row in found.items():
            if row is not None and row.training is None:
                x, y = (fmean(figures.rewards(one, row.questions, row.after[0])) for one in c.trade)
                axis.plot([x], [y], "s", label=name)
        axis.set_xlabel(c.trade[0])
        axis.set_ylabel(c.trade[1])
        axis.legend(fontsize=7)
    with output.plot(workshop.out / "cost.svg", size=(6, 4)) as ((axis,),):
        for row in filter(None, found.values()):
            gained = _gain_of(workshop, row)
            spread = [[gained.mean - gained.low], [gained.high - gained.mean]]
            spent = row.training.cpu_s if row.training else 0.0
            axis.errorbar([spent], [gained.mean], yerr=spread, fmt="o" if row.training else "s", label=row.name)
        axis.axhline(0, color="grey", linewidth=0.5)
        axis.set_xlabel("CPU seconds of training, for one weighting and one policy")
        axis.set_ylabel(f"gain, mean of {' and '.join(c.trade)}")
        axis.legend(fontsize=7)


def _gain_of(workshop: Workshop, row: Row) -> Gain:
    base = _means(workshop, row.questions, row.before)
    each = [_means(workshop, row.questions, answers) for answers in row.after]
    return figures.gain([[new - old for old, new in zip(base, one, strict=True)] for one in each])


def right(cases: Sequence[Path]) -> str:
    """How often the measures behind win, tie and lose are right, on pairs whose faults are known."""
    if not cases:
        return "How often the measures are right: not measured in this run (`--cases`)."
    return measures.accuracy_table(measures.accuracy(measures.read_cases(cases)))


def report(workshop: Workshop, cases: Sequence[Path] = ()) -> str:
    """Write field.md, field.json and the plots."""
    c = workshop.comparison
    found = rows(workshop)
    table, document = quality(workshop, found)
    lines = fronts(workshop)
    parts = [
        table,
        people.table(workshop),
        right(cases),
        front_table(workshop, lines),
        costs(found),
        changes(workshop, found),
        f"Utilisation that the SFT row implies: {hours.utilisation():.2f}\n\n{hours.table()}",
        features.table(),
        features.evidence(),
    ]
    text = "\n\n".join(parts)
    figured = {"comparison": c.model_dump(mode="json"), "methods": document, "fronts": lines}
    spent = {name: row.training for name, row in found.items() if row and row.training}
    output.write(workshop.out, "field", text, figured | {"training": spent})
    draw(workshop, found, lines)
    return text
