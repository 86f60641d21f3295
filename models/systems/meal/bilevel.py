"""The two levels of a step: the base learner's update, and the gradient of the net through it.

Inner: one step of gradient descent on the answers, weighed by the net. Outer: a preference between two answers to
another prompt, as the base learner sees it after that step. `unrolled` differentiates the step itself, second
derivatives included. `first_order` leaves out how weights change gradients otherwise than by weighing them: what the
net learns of an answer is how well its own gradient goes along with that of the preference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .data import WeighingTask
from .learner import Learner, LearnerRow, Params

Weigh = Callable[[Sequence[str], Sequence[str]], Tensor]
"""Prompts and objective texts to weights [prompts, texts]; each row sums to 1."""


@dataclass(frozen=True, slots=True)
class StepResult:
    """`outer` (nats) is to be differentiated by the net; `inner` is the base learner's loss, `moved` where it went."""

    outer: Tensor
    inner: float
    moved: Params
    weights: Tensor


def step(
    learner: Learner, params: Params, weigh: Weigh, task: WeighingTask, *, lr: float, beta: float, unrolled: bool
) -> StepResult:
    """One inner step and the outer loss behind it."""
    weights = weigh([one.query for one in task.inner], task.texts)
    losses = _inner_losses(learner, params, task, weights)
    inner = (weights * losses).sum(-1).mean()
    names = list(params)
    gradients = torch.autograd.grad(inner, [params[n] for n in names], create_graph=unrolled, retain_graph=True)
    moved = {n: params[n] - lr * g for n, g in zip(names, gradients, strict=True)}
    if unrolled:
        outer = preference_loss(learner, moved, weigh, task, beta)
    else:
        moved = {n: p.detach().requires_grad_() for n, p in moved.items()}
        outer = preference_loss(learner, moved, weigh, task, beta)
        outer = outer + _weight_surrogate(params, losses, weights, moved, outer, lr)
    return StepResult(outer, inner.item(), {n: p.detach().requires_grad_() for n, p in moved.items()}, weights.detach())


def take_inner_step(learner: Learner, params: Params, weigh: Weigh, task: WeighingTask, *, lr: float) -> Params:
    """Where one inner step leads, and nothing else; no gradient reaches the weights, which is several times cheaper."""
    with torch.no_grad():
        weights = weigh([one.query for one in task.inner], task.texts)
    inner = (weights * _inner_losses(learner, params, task, weights)).sum(-1).mean()
    names = list(params)
    gradients = torch.autograd.grad(inner, [params[n] for n in names])
    return {n: (params[n] - lr * g).detach() for n, g in zip(names, gradients, strict=True)}


def preference_loss(learner: Learner, params: Params, weigh: Weigh, task: WeighingTask, beta: float) -> Tensor:
    """Mean nats by which the base learner is surprised that the preferred answer is preferred (Bradley-Terry)."""
    return F.softplus(-beta * margins(learner, params, weigh, task)).mean()


def margins(learner: Learner, params: Params, weigh: Weigh, task: WeighingTask) -> Tensor:
    """By how many nats a token each preferred answer is likelier than the other, [pairs]."""
    weights = weigh([prompt.query for prompt, _, _ in task.pairs], task.texts)
    rows = [
        LearnerRow(prompt, task.texts, own, answer)
        for (prompt, better, worse), own in zip(task.pairs, weights, strict=True)
        for answer in (better, worse)
    ]
    better, worse = learner.losses(params, rows).view(-1, 2).T
    return worse - better


def _inner_losses(learner: Learner, params: Params, task: WeighingTask, weights: Tensor) -> Tensor:
    """Of every answer to every prompt, [prompts, objectives]."""
    rows = [
        LearnerRow(prompt, task.texts, own, answer)
        for prompt, answers, own in zip(task.inner, task.targets, weights, strict=True)
        for answer in answers
    ]
    return learner.losses(params, rows).view(len(task.inner), -1)


def _weight_surrogate(
    params: Params, losses: Tensor, weights: Tensor, moved: Params, outer: Tensor, lr: float
) -> Tensor:
    """Worth 0, with the gradient that the weights get through the step: each answer's own one against the outer one."""
    directions = torch.autograd.grad(outer, list(moved.values()), retain_graph=True)
    influence = torch.zeros_like(weights)
    for place in torch.cartesian_prod(*(torch.arange(n) for n in losses.shape)).tolist():
        own = torch.autograd.grad(losses[tuple(place)], list(params.values()), retain_graph=True)
        influence[tuple(place)] = -lr / len(losses) * sum((g * v).sum() for g, v in zip(own, directions, strict=True))
    surrogate = (weights * influence).sum()
    return surrogate - surrogate.detach()
