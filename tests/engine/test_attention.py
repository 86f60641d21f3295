"""Attention on a CPU in bf16: the two products say what torch's kernel says, up to bf16's rounding."""

from __future__ import annotations

import pytest
import torch

from aligner_proxy.engine import attention


@pytest.mark.parametrize(
    ("rows", "fed", "contexts"),
    [(1, 1, (70,)), (1, 150, (150,)), (1, 150, (333,)), (1, 64, (65,)), (3, 5, (9, 40, 17)), (4, 1, (1, 2, 3, 90))],
)
@pytest.mark.parametrize("scores", [1 << 20, 900])
def test_products_agree_with_torchs_kernel(
    rows: int, fed: int, contexts: tuple[int, ...], scores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "_SCORES", scores)
    torch.manual_seed(0)
    context = max(contexts)
    queries = torch.randn(rows, 6, fed, 16, dtype=torch.bfloat16)
    keys, values = (torch.randn(rows, 2, context, 16, dtype=torch.bfloat16) for _ in range(2))
    layout = [attention.Row(i * fed, (i + 1) * fed, torch.arange(own)) for i, own in enumerate(contexts)]
    mask = None if fed == context else attention._mask(layout, fed)
    ours = attention._products(queries, keys, values, mask, None)
    exact = attention._torchs(queries.float(), keys.float(), values.float(), mask, None)
    assert ours.dtype == torch.bfloat16
    torch.testing.assert_close(ours.float(), exact, atol=0.03, rtol=0.03)


def test_bf16_on_a_cpu_goes_by_products_and_fp32_by_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []
    for name in ("_products", "_torchs"):
        plain = getattr(attention, name)
        monkeypatch.setattr(attention, name, lambda *given, n=name, f=plain: called.append(n) or f(*given))

    class Config:
        num_hidden_layers, num_key_value_heads, num_attention_heads, hidden_size = 1, 1, 2, 32

    class Layer:
        layer_idx = 0

    for dtype in (torch.bfloat16, torch.float32):
        store = attention.KVStore(Config, 32, dtype, torch.device("cpu"))
        step = attention.plan(store, torch.arange(4), [attention.Row(0, 4, torch.arange(4))])
        query, key = torch.randn(1, 2, 4, 16, dtype=dtype), torch.randn(1, 1, 4, 16, dtype=dtype)
        out, _ = attention.attend(Layer, query, key, key, None, step=step)
        assert out.shape == (1, 4, 2, 16)
    assert called == ["_products", "_torchs"]
