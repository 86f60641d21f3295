"""The policy writes after a training as cheaply as before."""

from __future__ import annotations

from typing import Any

import pytest

from models.systems.baselines import sft

from .conftest import MakeTask, needs_trl


@pytest.mark.full
@needs_trl
def test_the_last_layer_is_given_whole_rows_so_that_torch_copies_no_weights(make_task: MakeTask) -> None:
    task = make_task({"concise": 1.0})
    task.training = task.training.model_copy(update={"batch": 2})
    with task.meter.measure(task.policy.model):
        ask = sft.train(task)
    given: list[bool] = []

    def look(_: Any, states: tuple[Any, ...], __: Any) -> None:
        given.append(states[0].is_contiguous())

    task.policy.model.get_output_embeddings().register_forward_hook(look)
    task.policy.write([ask(f"What is {thing} for?", task.weights) for thing in ("a lamp", "an old spoon", "a cup")])
    assert given
    assert all(given)
