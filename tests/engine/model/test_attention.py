"""Attention on a CPU in bf16: the two products say what torch's kernel says, up to bf16's rounding."""

from __future__ import annotations

import pytest
import torch

from aligner_proxy.engine.model import attention


class Config:
    num_hidden_layers = 1
    num_key_value_heads = 2
    num_attention_heads = 6
    hidden_size = 96


class Layer:
    layer_idx = 0


def fill_store(dtype: torch.dtype, contexts: tuple[int, ...]) -> tuple[attention.KVStore, list[torch.Tensor]]:
    """A store in which each context has slots of its own, between slots that nobody wrote and that hold no numbers."""
    store = attention.KVStore(Config, 2000, dtype, torch.device("cpu"))
    slots_of_contexts = list[torch.Tensor]()
    first = 0
    store._keys.fill_(torch.nan), store._values.fill_(torch.nan)
    made = torch.Generator().manual_seed(0)
    for own in contexts:
        slots = torch.arange(first + 7, first + 7 + own)
        both = (torch.randn(2, own, 16, generator=made).to(torch.bfloat16).to(dtype) for _ in range(2))
        store.put(0, slots, *both)
        slots_of_contexts.append(slots)
        first += own + 20
    return store, slots_of_contexts


@pytest.mark.parametrize(
    ("fed", "contexts"),
    [
        ((1,), (70,)), ((150,), (150,)), ((128,), (128,)), ((150,), (333,)), ((64,), (65,)), ((5, 5, 5), (9, 40, 17)),
        ((1, 1, 1, 1), (1, 2, 3, 90)), ((1,), (1,)), ((33, 4), (33, 100)), ((20,), (64,)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("scores", [1 << 20, 900])
def test_products_agree_with_torchs_kernel(
    fed: tuple[int, ...], contexts: tuple[int, ...], scores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "_MAX_SCORES", scores)
    query = torch.randn(1, 6, sum(fed), 16, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)
    found = []
    for dtype in (torch.bfloat16, torch.float32):
        store, slots_of_contexts = fill_store(dtype, contexts)
        slots = torch.cat([context[-own:] for own, context in zip(fed, slots_of_contexts, strict=True)])
        new = [torch.stack([s[0].index_select(1, slots)]) for s in (store._keys, store._values)]
        step = attention.plan_attention(store, slots_of_contexts, fed)
        found.append(attention.attend(Layer, query.to(dtype), *new, None, plan=step)[0])
    ours, exact = found
    assert ours.dtype == torch.bfloat16
    torch.testing.assert_close(ours.float(), exact, atol=0.03, rtol=0.03)


def test_contexts_of_a_few_lengths_are_one_shape() -> None:
    store, slots_of_contexts = fill_store(torch.bfloat16, (70, 71, 128, 129))
    plans = [attention.plan_attention(store, [context], [1]) for context in slots_of_contexts]
    assert [plan.groups[0].slots.shape[1] for plan in plans] == [128, 128, 128, 192]


def test_bf16_on_a_cpu_goes_by_products_and_fp32_by_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []
    for name in ("_attend_by_products", "_attend_by_kernel"):
        plain = getattr(attention, name)
        monkeypatch.setattr(attention, name, lambda *given, n=name, f=plain: called.append(n) or f(*given))

    for dtype in (torch.bfloat16, torch.float32):
        store = attention.KVStore(Config, 32, dtype, torch.device("cpu"))
        step = attention.plan_attention(store, [torch.arange(4)], [4])
        query = torch.randn(1, 6, 4, 16, dtype=dtype)
        key = torch.randn(1, 2, 4, 16, dtype=dtype)
        out, _ = attention.attend(Layer, query, key, key, None, plan=step)
        assert out.shape == (1, 4, 6, 16)
    assert called == ["_attend_by_products", "_attend_by_kernel"]
