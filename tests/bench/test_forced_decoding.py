"""What is written in a benchmark is forced; what it costs must not be: a peer gets no word about the target."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bench.forced_decoding import force_model
from tests.support import tiny

PROMPT = [*range(10, 40)]
# Three tokens of the prompt, an edit, and the rest of it.
TARGET = [12, 13, 14, 60, 61, *range(17, 30), 62, 1]
DRAFTED = 10


@pytest.mark.parametrize("lookup", [False, True])
def test_transformers_writes_what_it_is_told(lookup: bool) -> None:
    fed = count_fed_tokens({"prompt_lookup_num_tokens": DRAFTED} if lookup else {})
    assert (len(fed) < len(TARGET)) == lookup


def test_drafts_of_prompt_lookup_are_as_long_as_it_makes_them_also_where_they_are_wrong() -> None:
    """Behind "12" it drafts the ten that follow in the prompt, of which two are right: eleven go through the model."""
    assert count_fed_tokens({"prompt_lookup_num_tokens": DRAFTED})[1] == 1 + DRAFTED


def count_fed_tokens(options: dict[str, Any]) -> list[int]:
    """How many tokens each forward was fed."""
    model = tiny.model()
    fed = list[int]()
    hook = model.register_forward_pre_hook(
        lambda _, __, named: fed.append(named["input_ids"].shape[1]), with_kwargs=True
    )
    ids = torch.tensor([PROMPT])
    with force_model(model, len(PROMPT), TARGET):
        given = {"attention_mask": torch.ones_like(ids), "max_new_tokens": len(TARGET), "do_sample": False}
        out = model.generate(ids, **given, **options)
    hook.remove()
    assert out[0, len(PROMPT) :].tolist() == TARGET
    return fed
