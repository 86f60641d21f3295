"""Do a net's weights beat fixed ones on prompts that nobody trained on? One table, one plot.

    python -m models.meal.compare configs/meal/embedded.yaml [OUT]

Three weightings side by side: uniform; static, which is how often each objective mattered in training; and the net's.
Rank statistics over the probes, with the objectives' texts as trained and in other words; intervals by a bootstrap
over wordings, since probes of one wording are alike. Then the base learner: one step by these weights from where it
began, and whether that step brought it nearer to the preferred answer.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aligner_proxy.engine.weigher import WeightNet
from models import publish
from models.meal import bilevel, data
from models.meal.__main__ import CHECKPOINT, NET, load
from models.meal.encoder import Encoder, uniform
from models.meal.learner import Learner
from models.meal.setting import Meal
from models.rates import Rate

KEPT, TASKS, DRAWS = 3, 36, 2000


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean with its 95 % bootstrap interval over groups."""

    n: int
    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Mapping[str, Sequence[float]]) -> Mean:
        """From values in groups; whole groups are drawn."""
        rng, groups = random.Random(0), list(values.values())
        drawn = sorted(_mean(rng.choices(groups, k=len(groups))) for _ in range(DRAWS))
        low, high = drawn[int(0.025 * DRAWS)], drawn[int(0.975 * DRAWS)]
        return cls(sum(map(len, groups)), _mean(groups), low, high)

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}], n = {self.n}"


def _mean(groups: Sequence[Sequence[float]]) -> float:
    return sum(map(sum, groups)) / sum(map(len, groups))


@dataclass(frozen=True, slots=True)
class Row:
    """One weighting under one wording of the objectives."""

    weights: str
    texts: str
    reciprocal_rank: Mean
    spearman: Mean
    kept: Rate
    """Whether what matters most stays among the three heaviest, ties by the order of the file as in the gateway."""


@dataclass(frozen=True, slots=True)
class Moved:
    """What one step by these weights does to the base learner's preferences on held-out tasks."""

    weights: str
    outer: Mean
    nearer: Rate


def ranks(values: Sequence[float]) -> list[float]:
    """1 for the largest; equals share the mean of their ranks."""
    return [
        sum(other > value for other in values) + (sum(other == value for other in values) + 1) / 2 for value in values
    ]


def spearman(one: Sequence[float], other: Sequence[float]) -> float:
    """Rank correlation; 0 where one of them is constant."""
    a, b = ranks(one), ranks(other)
    middle = (len(a) + 1) / 2
    up = sum((x - middle) * (y - middle) for x, y in zip(a, b, strict=True))
    down = (sum((x - middle) ** 2 for x in a) * sum((y - middle) ** 2 for y in b)) ** 0.5
    return up / down if down else 0.0


def reciprocal(values: Sequence[float], which: int) -> float:
    """1 over the rank; among equals the mean over their orders."""
    above, same = sum(v > values[which] for v in values), sum(v == values[which] for v in values)
    return sum(1 / (above + 1 + i) for i in range(same)) / same


def ranked(name: str, wording: str, weigh: bilevel.Weigh) -> Row:
    """Rank statistics of one weighting over all probes."""
    known = data.material()
    names = list(known.objectives)
    texts = [facet.texts[0 if wording == "trained" else -1] for facet in known.objectives.values()]
    reciprocals: dict[str, list[float]] = {}
    correlations: dict[str, list[float]] = {}
    kept = []
    for kind in known.kinds.values():
        first, second = (names.index(one) for one in kind.matters)
        truth = [2.0 if i == first else 1.0 if i == second else 0.0 for i in range(len(names))]
        for ask in kind.probes.asks:
            for row in weigh([ask.format(x=thing) for thing in kind.probes.about], texts).tolist():
                reciprocals.setdefault(ask, []).append(reciprocal(row, first))
                correlations.setdefault(ask, []).append(spearman(row, truth))
                order = sorted(range(len(row)), key=lambda i: -row[i])
                kept.append(first in order[:KEPT])
    return Row(name, wording, Mean.of(reciprocals), Mean.of(correlations), Rate.of(kept))


def moved(name: str, meal: Meal, learner: Learner, weigh: bilevel.Weigh) -> Moved:
    """The base learner after one step by these weights; only the step differs, the prompt says nothing of weights."""
    start = learner.initial(meal.trained)
    outer: dict[str, list[float]] = {}
    nearer = []
    for task in data.held_out(meal.seed + 1, TASKS, meal.objectives):
        done = bilevel.step(learner, start, weigh, task, lr=meal.inner_lr, beta=meal.beta, unrolled=True)
        before = bilevel.margins(learner, start, uniform, task).detach()
        after = bilevel.margins(learner, done.moved, uniform, task).detach()
        nearer += (after > before).tolist()
        outer.setdefault(task.kind, []).append(float(torch.nn.functional.softplus(-meal.beta * after).mean()))
    return Moved(name, Mean.of(outer), Rate.of(nearer))


def static(prompts: Sequence[str], texts: Sequence[str]) -> Tensor:
    """How much each objective mattered over the kinds of the training set, whatever the prompt."""
    known = data.material()
    told = dict.fromkeys(known.objectives, 0.5)
    for kind in known.kinds.values():
        told[kind.matters[0]] += 2.0
        told[kind.matters[1]] += 1.0
    by_text = {text: told[name] for name, facet in known.objectives.items() for text in facet.texts}
    weights = torch.tensor([by_text[text] for text in texts])
    return (weights / weights.sum()).expand(len(prompts), -1)


def trained(meal: Meal) -> WeightNet:
    """The net of a run: the finished one, else that of the last checkpoint."""
    if (meal.out / NET).exists():
        return WeightNet.load(meal.out / NET)
    state: dict[str, Any] = torch.load(meal.out / CHECKPOINT, weights_only=True)["net"]
    width, size = state["prompt.weight"].shape
    layers = state["layers"].tolist()
    net = WeightNet(size // len(layers), layers, width)
    net.load_state_dict(state)
    return net.eval()


def _sections(rows: Sequence[Row], steps: Sequence[Moved]) -> str:
    head = ("weights", "objectives' texts", "reciprocal rank", "Spearman", f"kept among {KEPT}")
    first = publish.table(head, [(r.weights, r.texts, r.reciprocal_rank, r.spearman, r.kept) for r in rows])
    second = publish.table(("weights", "outer loss (nats)", "nearer"), [(m.weights, m.outer, m.nearer) for m in steps])
    return f"{first}\n\n{second}"


def _draw(path: Path, rows: Sequence[Row]) -> None:
    labels = [f"{row.weights}, {row.texts}" for row in rows]
    with publish.plot(path, columns=2, size=(9, 3), sharey=True) as ((left, right),):
        publish.whiskers(left, [row.kept for row in rows], labels)
        left.set_xlabel(f"what matters most is among the {KEPT} heaviest (%)")
        means = [row.reciprocal_rank for row in rows]
        spread = [[m.mean - m.low for m in means], [m.high - m.mean for m in means]]
        right.errorbar([m.mean for m in means], list(range(len(rows), 0, -1)), xerr=spread, fmt="o")
        right.set_xlabel("reciprocal rank of what matters most")


def main(config: Path, out: Path | None = None) -> None:
    """Write compare.md, .json and .svg."""
    meal = Meal.read(config)
    folder = out or meal.out
    model, base, tokenizer = load(meal)
    net = trained(meal).to(torch.float64 if meal.dtype == "float64" else torch.float32)
    encoder = Encoder(model, tokenizer, net.layers.tolist())
    weightings: dict[str, Callable[[Sequence[str], Sequence[str]], Tensor]] = {
        "uniform": uniform,
        "static": static,
        "net": lambda prompts, texts: partial(encoder.weigh, net)(prompts, texts).detach(),
    }
    learner = Learner(base, tokenizer, meal.template, embedded=meal.weights_as == "embedding")
    rows = [ranked(name, wording, by) for wording in ("trained", "others") for name, by in weightings.items()]
    steps = [moved(name, meal, learner, by) for name, by in weightings.items()]
    text = _sections(rows, steps)
    publish.write(folder, "compare", text, {"ranks": rows, "steps": steps})
    _draw(folder / "compare.svg", rows)
    print(text)


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(Path(sys.argv[1]), *(Path(name) for name in sys.argv[2:]))
