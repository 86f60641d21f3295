"""Products in tiles: the numbers of 4-bit layers as bf16, the same products but for rounding, a few rows as ever.

They are tried on any CPU that has the 4-bit kernel; without tiles they are only slower.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from aligner_proxy.engine import attention, memory, packed, tiles
from tests.engine.test_packed import OUT, WIDE, layer, needs_kernel

bnb = pytest.importorskip("bitsandbytes")
ROUNDED = {"rtol": 2e-2, "atol": 2e-2}


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "there", lambda: True)


@pytest.fixture(params=["kept", "each time"])
def ways(request: pytest.FixtureRequest, there: None, monkeypatch: pytest.MonkeyPatch) -> int:
    """Whether numbers are kept or not; rows from which on tiles are used."""
    if request.param == "kept":
        return tiles.MANY_KEPT
    monkeypatch.setattr(tiles, "KEPT", 0)
    return tiles.MANY


def numbers() -> Tensor:
    """What the library makes of a layer's weights without packing them, with scales as the kernel has them."""
    weight = layer().weight
    state = weight.quant_state
    scales = bnb.functional.dequantize_blockwise(state.absmax, state.state2) + state.offset
    state.absmax, state.nested, state.dtype = scales.to(torch.bfloat16).float(), False, torch.bfloat16
    return bnb.functional.dequantize_4bit(weight.data, state)  # type: ignore[no-any-return]


@needs_kernel
@torch.inference_mode()
def test_unpacked_weights_are_the_library_s_numbers() -> None:
    made = layer()
    made(torch.zeros(1, WIDE, dtype=torch.bfloat16))  # packs them
    state = made.weight.quant_state
    out = torch.empty((OUT, WIDE), dtype=torch.bfloat16)
    assert torch.equal(tiles.unpack(made.weight.data, state.absmax, state.blocksize, out), numbers())


@needs_kernel
@torch.inference_mode()
def test_many_rows_are_multiplied_with_these_numbers_and_a_few_by_the_kernel(ways: int) -> None:
    plain, made = layer(), nn.Sequential(layer(), layer())
    assert packed.shorten(made) == 2
    few = torch.randn(ways - 1, WIDE, dtype=torch.bfloat16)
    assert torch.equal(made[0](few), plain(few))
    for shape in ((ways, WIDE), (1, 3 * ways, WIDE), (2, ways, WIDE)):
        many = torch.randn(shape, dtype=torch.bfloat16)
        found = [made[0](many), made[1](many)]
        assert torch.equal(*found), "they share a piece of memory, not their numbers"
        torch.testing.assert_close(found[0], nn.functional.linear(many, numbers()), **ROUNDED)
        torch.testing.assert_close(found[0], plain(many), **ROUNDED)
    assert made[0](many.float()).dtype is torch.float32


@needs_kernel
@torch.inference_mode()
def test_what_does_not_lie_in_one_piece_is_read_right(ways: int) -> None:
    made = nn.Sequential(layer())
    packed.shorten(made)
    x = torch.randn(WIDE, ways, dtype=torch.bfloat16).T
    assert torch.equal(made(x), made(x.contiguous()))


def test_only_a_small_model_keeps_them_and_only_where_there_are_tiles_and_memory(
    there: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "available", lambda: 8.0 * tiles.KEPT)
    most = tiles.KEPT // 2
    assert (tiles.kept(most), tiles.kept(most + 1)) == (tiles.KEPT, 0)
    monkeypatch.setattr(memory, "available", lambda: 3.9 * tiles.KEPT)
    assert tiles.kept(most) == 0
    monkeypatch.setattr(memory, "available", lambda: None)
    assert tiles.kept(most) == tiles.KEPT
    monkeypatch.setattr(tiles, "there", lambda: False)
    assert tiles.kept(most) == 0


def test_numbers_of_rows_are_few_and_what_is_added_is_nothing() -> None:
    rows = [torch.randn(3, count, 5) for count in range(257)]
    done = [tiles.rounded(some) for some in rows]
    assert all(torch.equal(one[:, : some.shape[1]], some) for one, some in zip(done, rows, strict=True))
    assert not any(one[:, some.shape[1] :].any() for one, some in zip(done, rows, strict=True))
    assert {one.shape[1] for one in done} == {*range(9), 16, 32, 48, 64, 128, 192, 256}


@pytest.mark.parametrize("rows", [0, 1, 2, tiles.FEW, tiles.FEW + 1])
@torch.inference_mode()
def test_the_output_layer_says_the_same_from_either_side(there: None, rows: int) -> None:
    output, states = nn.Linear(WIDE, 500, bias=False).to(torch.bfloat16), torch.randn(rows, WIDE).to(torch.bfloat16)
    said = tiles.logits(output, states)
    assert said.shape == (rows, 500)
    torch.testing.assert_close(said, output(states), **ROUNDED)


@torch.inference_mode()
def test_in_fp32_nothing_is_turned_round(there: None) -> None:
    output, states = nn.Linear(WIDE, 500, bias=False), torch.randn(3, WIDE)
    assert torch.equal(tiles.logits(output, states), output(states))


def test_scores_of_attention_are_the_same_from_either_side(there: None) -> None:
    queries, keys = (torch.randn(4, 3, count, 64).to(torch.bfloat16) for count in (5, 128))
    found = attention._scores(queries, keys)
    torch.testing.assert_close(found, queries @ keys.transpose(-1, -2), **ROUNDED)
    found.view(4, 3, 5, 1, 128)
