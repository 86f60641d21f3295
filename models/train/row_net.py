"""A small net over the rows of the detector head: a linear part, and hidden units.

It is learned on the rows' principal components, because a row has more numbers than there are examples. It is stored
with weights for the rows themselves.
"""

from __future__ import annotations

import math
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Self, TypeVar

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn


class NetRecipe(BaseModel):
    """How a net is learned; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    axes: int
    """Number of principal components that are learned from."""
    hidden: int
    steps: int
    batch: int
    """Examples a step."""
    lr: float = 2e-3
    decay: float = 0.05
    dropout: float
    seed: int = 1

    @classmethod
    def add_options(cls, parser: ArgumentParser) -> None:
        """Add an option for each field: `--lr`, `--dropout` and so on."""
        for name, field in cls.model_fields.items():
            parser.add_argument(f"--{name.replace('_', '-')}", type=type(field.default), default=field.default)

    @classmethod
    def from_options(cls, arguments: Namespace) -> Self:
        """The recipe that the command line asks for."""
        return cls(**{name: getattr(arguments, name) for name in cls.model_fields})


class RowNet(nn.Module):
    """A net whose output is one number for each row, in nats; the weights of its linear part begin at 0."""

    mean: Tensor
    axes: Tensor

    def __init__(self, rows: Tensor, axes: int, hidden: int) -> None:
        """A net over the first `axes` principal components of these rows [segments, width]."""
        super().__init__()
        mean, directions = find_principal_axes(rows, axes)
        self.register_buffer("mean", mean)
        self.register_buffer("axes", directions)
        self.linear = nn.Linear(axes, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        self.inner = nn.Linear(axes, hidden)
        self.outer = nn.Linear(hidden, 1, bias=False)
        nn.init.normal_(self.outer.weight, std=0.05)
        nn.init.normal_(self.inner.weight, std=0.3 / math.sqrt(axes))

    def project(self, rows: Tensor) -> Tensor:
        """The principal components [segments, axes] of rows."""
        return (rows - self.mean) @ self.axes

    def compute_output(self, parts: Tensor) -> Tensor:
        """The output [segments], in nats, for principal components [segments, axes]."""
        output: Tensor = self.linear(parts)[:, 0] + self.outer(F.gelu(self.inner(parts)))[:, 0]
        return output

    @torch.no_grad()
    def pack_numbers(self) -> tuple[float, bytes]:
        """The constant of the output, and all other numbers as a taught head stores them, both for rows themselves."""
        weight = self.axes @ self.linear.weight[0]
        inner = self.inner.weight @ self.axes.T
        offsets = self.inner.bias - inner @ self.mean
        bias = float(self.linear.bias[0] - weight @ self.mean)
        numbers = torch.cat([weight, inner.flatten(), offsets, self.outer.weight[0]]).half().numpy()
        return bias, numbers.astype("<f2").tobytes()


Net = TypeVar("Net", bound=RowNet)
Recipe = TypeVar("Recipe", bound=NetRecipe)


def join_nets(nets: Sequence[Net]) -> Net:
    """One net with the hidden units of all, whose output is the mean of theirs; all have the same principal axes."""
    joined = deepcopy(nets[0])
    joined.inner = nn.Linear(joined.inner.in_features, sum(net.inner.out_features for net in nets))
    joined.outer = nn.Linear(joined.inner.out_features, 1, bias=False)
    with torch.no_grad():
        joined.linear.weight.copy_(torch.stack([net.linear.weight for net in nets]).mean(0))
        joined.linear.bias.copy_(torch.stack([net.linear.bias for net in nets]).mean(0))
        joined.inner.weight.copy_(torch.cat([net.inner.weight for net in nets]))
        joined.inner.bias.copy_(torch.cat([net.inner.bias for net in nets]))
        joined.outer.weight.copy_(torch.cat([net.outer.weight for net in nets], dim=1) / len(nets))
    return joined


def fit_joined_net(fit: Callable[[Recipe], Net], recipe: Recipe, count: int) -> Net:
    """Fit `count` nets, with the seed of `recipe` and those that follow it, and join them (`join_nets`)."""
    seeds = range(recipe.seed, recipe.seed + count)
    return join_nets([fit(recipe.model_copy(update={"seed": seed})) for seed in seeds])


def minimise_loss(net: RowNet, count: int, recipe: NetRecipe, compute_loss: Callable[[Tensor], Tensor]) -> None:
    """Train a net on `count` examples, in random order; `compute_loss` is given the numbers of a batch's examples."""
    optimizer = torch.optim.AdamW(net.parameters(), lr=recipe.lr, weight_decay=recipe.decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.lr, recipe.steps, pct_start=0.1)
    order = torch.zeros(0, dtype=torch.long)
    for _ in range(recipe.steps):
        while len(order) < recipe.batch:
            order = torch.cat([order, torch.randperm(count)])
        loss = compute_loss(order[: recipe.batch])
        order = order[recipe.batch :]
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    net.eval()


def find_principal_axes(rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The mean [width] of rows and their first principal axes [width, count], computed on standardised numbers."""
    mean = rows.mean(0)
    spread = rows.std(0) + 1e-3
    scaled = (rows - mean) / spread
    _, vectors = torch.linalg.eigh(scaled.T @ scaled / len(scaled))
    return mean, vectors[:, -count:] / spread[:, None]
