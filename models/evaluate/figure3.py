"""Figure 3 of the paper: does an aligner keep up as objectives are added, seen and unseen ones?

    python -m models.evaluate.figure3 aligner_proxy/embedded --data DATA --out runs/by_objectives --each 40

Objectives join a policy one by one: some that training knows, then all whose kinds of defect it never saw. After each,
answers with a defect against any of those so far are corrected under all of them, gate included. Repaired: nothing is
left that one of them asks to remove, and everything else is there; the truth is the generators'. Beside it the share
of good answers that come back identical. Prompts and wordings are those of the test side.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random

from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.text.structure import split
from aligner_proxy.types import Objective as PolicyObjective
from aligner_proxy.types import Verify
from models.data.answers import load_pool
from models.data.labels import joint_relation, relation
from models.data.mixture import Mixer
from models.data.pairs import CHANGES, STAYS, UNKNOWN, Pair
from models.data.upstream_completions import UpstreamCompletion
from models.defects import ALL_KINDS, UNSEEN_KINDS, ObjectiveWording
from models.defects.objectives import draw_theme_objective
from models.reporting import output
from models.reporting.statistics import Rate

from .gateway import command_line, deliver, open_gateway
from .test_sets import SetCase

TRAINED_THEMES = ("harmless", "non-repetitive", "single-reply", "no-marketing", "readable")
RECIPES = ("insult", "other_wordings", "turns", "unseen_kinds")
_TRIES = 400  # draws of each recipe for one wanted case an objective
_SOUND_TRIES = 20  # draws of good answers for each that is wanted


@dataclass(frozen=True, slots=True)
class ObjectiveStep:
    """The figures after one more objective.

    `repaired` has the rate of each objective so far, `alone` is the rate of good answers that were left unchanged.
    """

    added: str
    text: str
    unseen: bool
    repaired: dict[str, Rate]
    identical: Rate

    @property
    def repaired_overall(self) -> Rate:
        """The rate of repaired answers over all objectives so far."""
        return Rate.from_counts(
            sum(rate.hits for rate in self.repaired.values()), sum(rate.n for rate in self.repaired.values())
        )


def list_joining_objectives(seed: int) -> list[ObjectiveWording]:
    """The objectives in the order in which they are added; for those that are not built in, a wording is drawn."""
    rng = Random(f"joining:{seed}")
    return [
        *(draw_theme_objective(rng, theme) for theme in TRAINED_THEMES),
        *(kind.draw_objective(rng, held_out=True) for kind in UNSEEN_KINDS),
    ]


def restate_pair(pair: Pair, objectives: Sequence[ObjectiveWording]) -> Pair:
    """The same answer under other objectives, with labels that follow from the kinds of its segments.

    No correction under these objectives is known, so the target is the answer itself.
    """
    themes = tuple(objective.theme for objective in objectives)
    labels = tuple(
        _label(segment.text, kind, themes) for segment, kind in zip(split(pair.answer), pair.kinds, strict=True)
    )
    texts = tuple(objective.text for objective in objectives)
    return replace(pair, objectives=texts, themes=themes, labels=labels, target=pair.answer)


def _label(text: str, kind: str, themes: Sequence[str]) -> int:
    """Whether a segment must change under any of the objectives. `kind` is its defect, "" for none."""
    if not kind and any(_occurs_by_nature(text, theme) for theme in themes):
        return UNKNOWN  # a real answer may hold by itself what nobody put in
    return joint_relation(kind, themes)


def _occurs_by_nature(text: str, theme: str) -> bool:
    return any(kind.occurs_in(text) for kind in ALL_KINDS if relation(kind.name, theme) == CHANGES)


def draw_defective_pairs(mixer: Mixer, objectives: Sequence[ObjectiveWording], each: int) -> dict[str, list[Pair]]:
    """Up to `each` answers with a defect against each objective, by its theme."""
    cases: dict[str, list[Pair]] = {objective.theme: [] for objective in objectives}
    used_answers: set[str] = set()
    for pair in _draw_pairs(mixer, each * _TRIES):
        missing = [theme for theme, drawn_pairs in cases.items() if len(drawn_pairs) < each]
        violated = [theme for theme in missing if any(relation(kind, theme) == CHANGES for kind in pair.kinds)]
        if violated and pair.answer not in used_answers:
            used_answers.add(pair.answer)
            cases[violated[0]].append(pair)
        if not missing:
            break
    return cases


def draw_sound_pairs(mixer: Mixer, objectives: Sequence[ObjectiveWording], each: int) -> list[Pair]:
    """Draw up to `each` different good answers of which every segment surely stays under all objectives."""
    pair_by_answer: dict[str, Pair] = {}
    for _ in range(each * _SOUND_TRIES):
        pair = restate_pair(mixer.make_pair("clean"), objectives)
        if set(pair.labels) == {STAYS}:
            pair_by_answer[pair.answer] = pair
        if len(pair_by_answer) == each:
            break
    return list(pair_by_answer.values())


def _draw_pairs(mixer: Mixer, most: int) -> Iterator[Pair]:
    for i in range(most):
        yield mixer.make_pair(RECIPES[i % len(RECIPES)])


async def correct_pairs(
    pipeline: Pipeline, pairs: Sequence[Pair], objectives: Sequence[ObjectiveWording], **dial: object
) -> list[SetCase]:
    """Send the answers through the gateway under these objectives; `dial` has further options of `deliver`."""
    policy_objectives = [PolicyObjective(objective.theme, objective.text) for objective in objectives]
    answers = [UpstreamCompletion("generated", pair.query, pair.answer) for pair in pairs]
    title = f"{len(objectives)}: {objectives[-1].theme}"
    delivered = await deliver(pipeline, answers, policy_objectives, title=title, **dial)  # type: ignore[arg-type]
    return [
        SetCase(restate_pair(pair, objectives), delivery.text, ())
        for pair, delivery in zip(pairs, delivered, strict=True)
    ]


async def measure_steps(
    pipeline: Pipeline,
    objectives: Sequence[ObjectiveWording],
    defects: dict[str, list[Pair]],
    good: Sequence[Pair],
    **dial: object,
) -> list[ObjectiveStep]:
    """The figures step by step; each step adds one objective."""
    unseen_names = {kind.name for kind in UNSEEN_KINDS}
    results = []
    for i, added in enumerate(objectives):
        so_far = objectives[: i + 1]
        repaired = {}
        for earlier in so_far:
            cases = await correct_pairs(pipeline, defects[earlier.theme], so_far, **dial)
            repaired[earlier.theme] = Rate.from_outcomes(case.gone and case.kept for case in cases)
        identical = Rate.from_outcomes(case.same for case in await correct_pairs(pipeline, good, so_far, **dial))
        results.append(ObjectiveStep(added.theme, added.text, added.theme in unseen_names, repaired, identical))
    return results


def format_tables(results: Sequence[ObjectiveStep]) -> str:
    """Two tables in Markdown: step by step, and every objective at every step."""
    head = ("objectives", "added", "its text", "trained", "repaired, this one", "repaired, all", "good, identical")
    rows = [
        (
            i,
            step.added,
            step.text,
            "no" if step.unseen else "yes",
            step.repaired[step.added],
            step.repaired_overall,
            step.identical,
        )
        for i, step in enumerate(results, 1)
    ]
    matrix = [
        (theme, *(step.repaired.get(theme, "") for step in results)) for theme in (step.added for step in results)
    ]
    return f"{output.table(head, rows)}\n\n{output.table(('repaired', *map(str, range(1, len(results) + 1))), matrix)}"


def plot(results: Sequence[ObjectiveStep], path: Path) -> None:
    """A line for each objective from where it joined the policy.

    Broken lines are objectives that were never trained.
    """
    with output.plot(path, 1, 2, size=(11, 4.5), sharey=True) as ((left_axis, right_axis),):
        for start, joined in enumerate(results):
            rates = [step.repaired[joined.added] for step in results[start:]]
            places = [start + 1 + i + 0.03 * start for i in range(len(rates))]
            _line(left_axis, places, rates, label=joined.added, linestyle="--" if joined.unseen else "-")
        left_axis.set_ylabel("repaired, %")
        left_axis.legend(fontsize=6)
        count = range(1, len(results) + 1)
        _line(right_axis, list(count), [step.identical for step in results], label="good answers identical")
        _line(
            right_axis,
            [i + 0.1 for i in count],
            [step.repaired_overall for step in results],
            label="repaired, all so far",
        )
        right_axis.legend(fontsize=6)
        for axis in (left_axis, right_axis):
            axis.set_xlabel("objectives in the policy")
            axis.set_ylim(-2, 102)


def _line(axis: object, places: Sequence[float], rates: Sequence[Rate], **style: str) -> None:
    spread = list(zip(*(rate.whiskers for rate in rates), strict=True))
    axis.errorbar(
        places, [rate.percent for rate in rates], yerr=spread, marker="o", markersize=3, elinewidth=0.4, **style
    )  # type: ignore[attr-defined]


async def run(arguments: argparse.Namespace) -> list[ObjectiveStep]:
    """All steps, on answers of the test side."""
    objectives = list_joining_objectives(arguments.seed)[: arguments.most]
    mixer = Mixer(load_pool(arguments.data, "test"), Random(f"growing:{arguments.seed}"), held_out=True)
    defects = draw_defective_pairs(mixer, objectives, arguments.each)
    good = draw_sound_pairs(mixer, objectives, arguments.each)
    async with open_gateway(arguments.aligner, arguments.out / "texts") as pipeline:
        return await measure_steps(
            pipeline, objectives, defects, good, caution=arguments.caution, verify=arguments.verify
        )


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = command_line(__doc__)
    parser.add_argument("--each", type=int, default=40, help="answers an objective")
    parser.add_argument("--most", type=int, default=20, help="objectives in the end")
    parser.add_argument("--caution", type=float, default=0.0)
    parser.add_argument("--verify", type=Verify, default=Verify.FLAGGED, choices=list(Verify))
    arguments = parser.parse_args(argv)
    results = asyncio.run(run(arguments))
    tables = format_tables(results)
    output.write(
        arguments.out, "by_objectives", tables, [asdict(step) | {"together": step.repaired_overall} for step in results]
    )
    plot(results, arguments.out / "by_objectives.svg")
    print(tables)


if __name__ == "__main__":
    main()
