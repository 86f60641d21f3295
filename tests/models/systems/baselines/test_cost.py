"""What a training costs: counted tokens, and FLOPs beside those that torch counts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils.flop_counter import FlopCounterMode

from models.systems.baselines.cost import Meter, TrainingCost, flops_a_token
from models.systems.baselines.policy import PolicyModel


@pytest.fixture
def policy(tiny_base: Path, tmp_path: Path) -> PolicyModel:
    return PolicyModel.load(str(tiny_base), tmp_path, "fp32", 5)


@pytest.mark.parametrize("adapted", [False, True])
def test_flops_are_those_that_torch_counts(policy: PolicyModel, adapted: bool) -> None:
    model = policy.model
    if adapted:
        model = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "down_proj"]))
    ids = torch.randint(3, 300, (2, 16))
    forward, backward = flops_a_token(policy.model)
    with FlopCounterMode(display=False) as counter:
        loss = model(input_ids=ids, labels=ids).loss
    assert forward * ids.numel() == pytest.approx(counter.get_total_flops(), rel=0.1)
    with FlopCounterMode(display=False) as counter:
        loss.backward()
    assert backward * ids.numel() == pytest.approx(counter.get_total_flops(), rel=0.1)


def test_tokens_are_counted_where_they_pass(policy: PolicyModel) -> None:
    meter = Meter()
    prompts = [policy.prompt("Why?"), policy.prompt("Why does it rain?")]
    longest = max(len(policy.tokenizer(prompt)["input_ids"]) for prompt in prompts)
    with meter.measure(policy.model):
        policy.write(prompts, temperature=1.0)
        asked = meter.cost_so_far()
        ids = torch.randint(3, 300, (2, 16))
        policy.model.train()
        policy.model(input_ids=ids, labels=ids).loss.backward()
    assert asked.trained == 0
    assert asked.fed == 2 * longest + asked.generated
    assert 0 < asked.generated <= 2 * 4  # the last token that is written is not fed again
    assert (meter.cost.fed - asked.fed, meter.cost.trained) == (32, 32)
    forward, backward = flops_a_token(policy.model)
    assert meter.cost.flops == meter.cost.fed * forward + 32 * backward
    assert meter.cost.peak_mb > 50
    policy.write(prompts)
    assert meter.cost.fed == asked.fed + 32  # nothing is counted behind the block


def test_costs_add_up_but_for_the_peak() -> None:
    total = TrainingCost(1, 2, 3, 4.0, 5.0, 6.0, 70.0) + TrainingCost(1, 1, 1, 1.0, 1.0, 1.0, 9.0)
    assert total == TrainingCost(2, 3, 4, 5.0, 6.0, 7.0, 70.0)
