"""The two levels of a step: the base learner's update, and the gradient of the net through it.

Inner: one step of gradient descent on the answers, weighed by the net. Outer: a preference between two answers to
another prompt, as the base learner sees it after that step. `unrolled` differentiates the step itself, second
derivatives included. `first_order` leaves out how weights change gradients otherwise than by weighing them: what the
net learns of an answer is how well its own gradient goes along with that of the preference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from .data import WeighingTask
from .learner import Learner, LearnerRow, Params

Weigh = Callable[[Sequence[str], Sequence[str]], Tensor]
"""Prompts and objective texts to weights [prompts, texts]; each row sums to 1."""


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one step gave."""

    outer: Tensor
    """The outer loss (nats), which the net differentiates."""
    inner: float
    """The base learner's loss before the step."""
    moved: Params
    """The base learner's parameters after the step."""
    weights: Tensor
    """[prompts, objectives], without a gradient."""


def step(
    learner: Learner, params: Params, weigh: Weigh, task: WeighingTask, *, lr: float, beta: float, unrolled: bool
) -> StepResult:
    """Take one inner step of the base learner, and compute the outer loss after it.

    `unrolled` differentiates through the step exactly; else `_weight_surrogate` gives the gradient of the weights.
    """
    weights = weigh([prompt.query for prompt in task.inner], task.texts)
    losses = _inner_losses(learner, params, task, weights)
    inner = (weights * losses).sum(-1).mean()
    names = list(params)
    gradients = torch.autograd.grad(inner, [params[name] for name in names], create_graph=unrolled, retain_graph=True)
    stepped = {name: params[name] - lr * gradient for name, gradient in zip(names, gradients, strict=True)}
    if unrolled:
        outer = preference_loss(learner, stepped, weigh, task, beta)
    else:
        stepped = {name: parameter.detach().requires_grad_() for name, parameter in stepped.items()}
        outer = preference_loss(learner, stepped, weigh, task, beta)
        outer = outer + _weight_surrogate(params, losses, weights, stepped, outer, lr)
    return StepResult(
        outer,
        inner.item(),
        {name: parameter.detach().requires_grad_() for name, parameter in stepped.items()},
        weights.detach(),
    )


def take_inner_step(learner: Learner, params: Params, weigh: Weigh, task: WeighingTask, *, lr: float) -> Params:
    """The parameters after one inner step. No gradient reaches the weights, which is several times cheaper."""
    with torch.no_grad():
        weights = weigh([prompt.query for prompt in task.inner], task.texts)
    inner = (weights * _inner_losses(learner, params, task, weights)).sum(-1).mean()
    names = list(params)
    gradients = torch.autograd.grad(inner, [params[name] for name in names])
    return {name: (params[name] - lr * gradient).detach() for name, gradient in zip(names, gradients, strict=True)}


def preference_loss(learner: Learner, params: Params, weigh: Weigh, task: WeighingTask, beta: float) -> Tensor:
    """Mean loss (nats) of the preferences under Bradley-Terry: low where preferred answers are likelier."""
    return F.softplus(-beta * compute_margins(learner, params, weigh, task)).mean()


def compute_margins(learner: Learner, params: Params, weigh: Weigh, task: WeighingTask) -> Tensor:
    """By how many nats a token the preferred answer of each pair is likelier than the other: [pairs]."""
    weights = weigh([prompt.query for prompt, _, _ in task.pairs], task.texts)
    rows = [
        LearnerRow(prompt, task.texts, weights_of_pair, answer)
        for (prompt, better, worse), weights_of_pair in zip(task.pairs, weights, strict=True)
        for answer in (better, worse)
    ]
    better, worse = learner.losses(params, rows).view(-1, 2).T
    return worse - better


def _inner_losses(learner: Learner, params: Params, task: WeighingTask, weights: Tensor) -> Tensor:
    """The loss (nats a token) of each objective's answer to each prompt: [prompts, objectives]."""
    rows = [
        LearnerRow(prompt, task.texts, weights_of_prompt, answer)
        for prompt, answers, weights_of_prompt in zip(task.inner, task.targets, weights, strict=True)
        for answer in answers
    ]
    return learner.losses(params, rows).view(len(task.inner), -1)


def _weight_surrogate(
    params: Params, losses: Tensor, weights: Tensor, moved: Params, outer: Tensor, lr: float
) -> Tensor:
    """A term worth 0 whose gradient is that of the weights through the inner step.

    The inner step moves the parameters against the weighted gradients of the answers' losses. So a weight changes the
    outer loss by -lr times the product of its answer's gradient (at `params`) and the outer gradient (at `moved`).
    """
    outer_gradients = torch.autograd.grad(outer, list(moved.values()), retain_graph=True)
    influence = torch.zeros_like(weights)
    # every (prompt, objective)
    for place in product(*map(range, losses.shape)):
        answer_gradients = torch.autograd.grad(losses[place], list(params.values()), retain_graph=True)
        pairs = zip(answer_gradients, outer_gradients, strict=True)
        dot_product = sum((answer * outer_gradient).sum() for answer, outer_gradient in pairs)
        influence[place] = -lr / len(losses) * dot_product
    surrogate = (weights * influence).sum()
    return surrogate - surrogate.detach()
