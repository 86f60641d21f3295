"""Comparison of a net's weights with fixed ones on prompts that nobody trained on: three tables, one plot.

    python -m models.systems.meal.compare configs/meal/embedded.yaml [OUT]

Weightings side by side: uniform; static, which is how often each objective mattered in training; the net's, and the net
as it was before training. Rank statistics over the probes (`ranks.py`), with the objectives' texts as trained and in
other words, and the differences probe by probe. Then the base learner: one step by these weights from where it began,
and whether that step brought it nearer to the preferred answer; there `told` is a weighting that knows what matters, so
that it can be seen how much weights could bring at all. Without a run of one's own the shipped net is measured.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import aligner_proxy
from models.reporting import output
from models.reporting.statistics import Rate

from . import bilevel, data
from .config import Meal
from .encoder import Encoder, uniform_weights
from .learner import Learner
from .net import TorchWeightNet
from .ranks import KEPT, PROBES, Mean, ProbeRank, RankRow, compare_ranks, fresh_prompts, make_row, rank_probes
from .train import CHECKPOINT, NET, load_models, make_net

UNTRAINED = "net before training"
TASKS = 60
BESIDE = ("uniform", "static", UNTRAINED)
TOLD = (0.6, 0.3)
"""What `told` weighs, of that which matters most and second; the rest shares what is left."""
_SHIPPED = Path(aligner_proxy.__file__).parents[1] / "plugins" / "aligner_proxy_systems" / "meal" / NET


@dataclass(frozen=True, slots=True)
class StepEffect:
    """What one step by some weights does to the base learner's preferences on held-out tasks."""

    weights: str
    outer: Mean
    below: tuple[Mean, ...]
    """By how much the outer loss is below that of each of `BESIDE`, task by task."""
    nearer: Rate


def measure_steps(meal: Meal, learner: Learner, weightings: dict[str, bilevel.Weigh]) -> list[StepEffect]:
    """Measure the base learner after one step by each weighting.

    Only the step differs: prompts are always read with equal weights.
    """
    start = learner.initial_params(meal.trained)
    losses: dict[str, dict[str, list[float]]] = {name: {} for name in weightings}
    nearer: dict[str, list[bool]] = {name: [] for name in weightings}
    for task in data.draw_probe_tasks(meal.seed + 1, TASKS, meal.objectives):
        with torch.no_grad():
            margins_before = bilevel.compute_margins(learner, start, uniform_weights, task)
        for name, weigh in weightings.items():
            params = bilevel.take_inner_step(learner, start, weigh, task, lr=meal.inner_lr)
            with torch.no_grad():
                margins_after = bilevel.compute_margins(learner, params, uniform_weights, task)
            nearer[name] += (margins_after > margins_before).tolist()
            loss = float(torch.nn.functional.softplus(-meal.beta * margins_after).mean())
            losses[name].setdefault(task.kind, []).append(loss)
    return [
        StepEffect(
            name,
            Mean.from_groups(loss),
            tuple(Mean.from_groups(_subtract_losses(losses[other_name], loss)) for other_name in BESIDE),
            Rate.from_outcomes(nearer[name]),
        )
        for name, loss in losses.items()
    ]


def _subtract_losses(losses: dict[str, list[float]], other_losses: dict[str, list[float]]) -> dict[str, list[float]]:
    """one - other, task by task in each kind."""
    return {
        kind: [loss - other_loss for loss, other_loss in zip(losses[kind], other_losses[kind], strict=True)]
        for kind in losses
    }


def static_weights(prompts: Sequence[str], texts: Sequence[str]) -> Tensor:
    """Weights that are the same for every prompt: how often each objective matters in the training kinds."""
    material = data.material()
    levels = dict.fromkeys(material.objectives, 0.5)
    for kind in material.kinds.values():
        levels[kind.matters[0]] += 2.0
        levels[kind.matters[1]] += 1.0
    by_text = {text: levels[name] for name, facet in material.objectives.items() for text in facet.texts}
    weights = torch.tensor([by_text[text] for text in texts])
    return (weights / weights.sum()).expand(len(prompts), -1)


def informed_weights(prompts: Sequence[str], texts: Sequence[str]) -> Tensor:
    """Weights [prompts, texts] of someone who knows the kind of each probe, and so the two objectives that matter.

    These get the shares `TOLD`; the others divide the rest equally.
    """
    material = data.material()
    kinds = {text: kind for kind in material.kinds.values() for text in kind.probes.prompts()}
    names_by_text = {text: name for name, facet in material.objectives.items() for text in facet.texts}
    rows = []
    for prompt in prompts:
        heavy = dict(zip(kinds[prompt].matters, TOLD, strict=True))
        weights = [heavy.get(names_by_text[text], (1 - sum(TOLD)) / max(1, len(texts) - 2)) for text in texts]
        rows.append([weight / sum(weights) for weight in weights])
    return torch.tensor(rows)


def load_net(meal: Meal) -> TorchWeightNet:
    """The net of a run: the finished one, else the last checkpoint's, else the one that the plugin serves."""
    if (meal.out / NET).exists():
        return TorchWeightNet.load(meal.out / NET)
    if meal.base == "embedded" and not (meal.out / CHECKPOINT).exists():
        return TorchWeightNet.load(_SHIPPED)
    state: dict[str, Any] = torch.load(meal.out / CHECKPOINT, weights_only=True)["net"]
    width, size = state["prompt.weight"].shape
    layers = state["layers"].tolist()
    net = TorchWeightNet(size // len(layers), layers, width)
    net.load_state_dict(state)
    return net.eval()


def _format_sections(
    rows: Sequence[RankRow], leads: Sequence[tuple[str, str, str, Mean, Mean]], steps: Sequence[StepEffect]
) -> str:
    """The tables of ranks, of leads over other weightings, and of single steps."""
    head = ("weights", "probes", "objectives' texts", "reciprocal rank", "Spearman", f"kept among {KEPT}")
    tables = [
        output.table(
            head, [(row.weights, row.probes, row.texts, row.reciprocal_rank, row.spearman, row.kept) for row in rows]
        ),
        output.table(("the net above", "probes", "objectives' texts", "reciprocal rank", "Spearman"), leads),
    ]
    if steps:
        cells = [(step.weights, step.outer, *step.below, step.nearer) for step in steps]
        columns = ("weights", "outer loss (nats)", *(f"below {name}" for name in BESIDE), "nearer")
        tables.append(output.table(columns, cells))
    return "\n\n".join(tables)


def _draw(path: Path, rows: Sequence[RankRow]) -> None:
    labels = [f"{row.weights}, {row.probes}, {row.texts}" for row in rows]
    with output.plot(path, columns=2, size=(9, 1.2 + 0.25 * len(rows)), sharey=True) as ((left_axis, right_axis),):
        output.whiskers(left_axis, [row.kept for row in rows], labels)
        left_axis.set_xlabel(f"what matters most is among the {KEPT} heaviest (%)")
        means = [row.reciprocal_rank for row in rows]
        spread = [[mean.mean - mean.low for mean in means], [mean.high - mean.mean for mean in means]]
        right_axis.errorbar([mean.mean for mean in means], list(range(len(rows), 0, -1)), xerr=spread, fmt="o")
        right_axis.set_xlabel("reciprocal rank of what matters most")


def main(config: Path, out: Path | None = None) -> None:
    """Write compare.md, .json and .svg; the ranks first, since they are quick."""
    meal = Meal.read(config)
    folder = out or meal.out
    torch.manual_seed(meal.seed)
    model, base, tokenizer = load_models(meal)
    dtype = torch.float64 if meal.dtype == "float64" else torch.float32
    net = load_net(meal).to(dtype)
    encoder = Encoder(model, tokenizer, net.layers.tolist())

    def weigh_with(some: TorchWeightNet) -> bilevel.Weigh:
        return lambda prompts, texts: partial(encoder.weigh, some)(prompts, texts).detach()

    fixed: dict[str, Callable[[Sequence[str], Sequence[str]], Tensor]] = {
        "uniform": uniform_weights,
        "static": static_weights,
    }
    weightings = {
        **fixed,
        UNTRAINED: weigh_with(make_net(meal, encoder, model.config).to(dtype)),
        "net": weigh_with(net),
    }
    rows = list[RankRow]()
    leads = list[tuple[str, str, str, Mean, Mean]]()
    for which in PROBES:
        for wording in ("trained", "others"):
            ranks_by_name: dict[str, list[ProbeRank]] = {
                name: rank_probes(which, wording, weigh) for name, weigh in weightings.items()
            }
            rows += [make_row(name, which, wording, named_ranks) for name, named_ranks in ranks_by_name.items()]
            leads += [
                (name, which, wording, *compare_ranks(ranks_by_name["net"], ranks_by_name[name]))
                for name in ranks_by_name
                if name != "net"
            ]
    _write(folder, rows, leads, ())
    learner = Learner(base, tokenizer, meal.template, embedded=meal.weights_as == "embedding")
    _write(folder, rows, leads, measure_steps(meal, learner, {**weightings, "told": informed_weights}))
    print((folder / "compare.md").read_text())


def _write(
    folder: Path,
    rows: Sequence[RankRow],
    leads: Sequence[tuple[str, str, str, Mean, Mean]],
    steps: Sequence[StepEffect],
) -> None:
    document = {"ranks": rows, "leads": leads, "steps": steps, "fresh": sum(map(len, fresh_prompts().values()))}
    output.write(folder, "compare", _format_sections(rows, leads, steps), document)
    _draw(folder / "compare.svg", rows)


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(Path(sys.argv[1]), *(Path(name) for name in sys.argv[2:]))
