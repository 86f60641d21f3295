"""Kernels of 4-bit layers on a CPU: called directly, the same numbers; in tiles, the same but for rounding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from aligner_proxy.engine.model import attention, cpu_kernels
from aligner_proxy.engine.weights import memory

bnb = pytest.importorskip("bitsandbytes")
WIDE = 128
OUT = 96
ROUNDED = {"rtol": 2e-2, "atol": 2e-2}


def layer(bias: bool = False, dtype: torch.dtype = torch.bfloat16) -> Any:
    torch.manual_seed(0)
    made = bnb.nn.Linear4bit(WIDE, OUT, bias=bias, compute_dtype=dtype, quant_type="nf4")
    return made.to("cpu").eval()


@pytest.fixture(autouse=True)
def no_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a CPU has them, many rows go another way, which tests ask for by `tiles`."""
    monkeypatch.setattr(cpu_kernels, "has_amx", lambda: False)


@pytest.fixture
def tiles(no_tiles: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles are tried on any CPU that has the 4-bit kernel; without them they are only slower."""
    monkeypatch.setattr(cpu_kernels, "has_amx", lambda: True)


HAS_KERNEL = cpu_kernels.has_kernel()
needs_kernel = pytest.mark.skipif(not HAS_KERNEL, reason="this processor has no 4-bit kernel")


@pytest.fixture
def without_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a processor that has no 4-bit kernel, with memory for unpacked weights."""
    monkeypatch.setattr(cpu_kernels, "has_kernel", lambda: False)
    monkeypatch.setattr(memory, "measure_free_bytes", lambda: None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("available", [None, 4.0 * 4 * WIDE * OUT, 1000.0])
@torch.inference_mode()
def test_a_processor_without_the_kernel_computes_in_fp32(
    without_kernel: None, monkeypatch: pytest.MonkeyPatch, available: float | None, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(memory, "measure_free_bytes", lambda: available)
    one_layer = layer()
    weights = bnb.functional.dequantize_4bit(one_layer.weight.data, one_layer.weight.quant_state).float()
    # with too little memory the layer unpacks its weights at every use
    assert cpu_kernels.install(nn.Sequential(one_layer)) == (0 if available == 1000.0 else 1)
    shapes: list[tuple[int, ...]] = [(WIDE,), (1, WIDE), (2, 5, WIDE)]
    # the library calls its kernel on a processor that has one, and no rows at all end the process there
    if not (HAS_KERNEL and available == 1000.0):
        shapes.append((0, WIDE))
    for shape in shapes:
        x = torch.randn(shape, dtype=dtype)
        out = one_layer(x)
        assert out.dtype is dtype
        if available != 1000.0:
            assert torch.equal(out, nn.functional.linear(x.float(), weights).to(dtype))
    if available == 1000.0:
        assert one_layer.compute_dtype is torch.float32


def test_unpacked_weights_of_a_processor_without_the_kernel_take_a_quarter_of_its_memory(
    without_kernel: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "measure_free_bytes", lambda: 16_000.0)
    assert (cpu_kernels.count_copy_bytes(1000), cpu_kernels.count_copy_bytes(1001)) == (4000, 0)


@needs_kernel
@pytest.mark.parametrize("shape", [(WIDE,), (1, WIDE), (1, 1, WIDE), (1, 37, WIDE), (2, 5, WIDE), (0, WIDE)])
def test_the_short_way_gives_the_same_numbers(shape: tuple[int, ...]) -> None:
    plain = layer()
    short = layer()
    cpu_kernels.install(nn.Sequential(short))
    x = torch.randn(shape, dtype=torch.bfloat16)
    with torch.inference_mode():
        assert short(x).shape == (*shape[:-1], OUT)
        if x.numel():
            assert torch.equal(short(x), plain(x))


@needs_kernel
def test_what_does_not_lie_in_one_piece_is_read_right() -> None:
    plain = layer()
    short = layer()
    cpu_kernels.install(nn.Sequential(short))
    x = torch.randn(WIDE, 6, dtype=torch.bfloat16).T
    with torch.inference_mode():
        assert torch.equal(short(x), plain(x.contiguous()))


@needs_kernel
def test_hooks_of_adapters_still_run() -> None:
    short = layer()
    cpu_kernels.install(nn.Sequential(short))
    short.register_forward_hook(lambda _module, _given, out: out + 1)
    x = torch.zeros(1, WIDE, dtype=torch.bfloat16)
    with torch.inference_mode():
        assert torch.equal(short(x), torch.ones(1, OUT, dtype=torch.bfloat16))


def test_layers_of_another_kind_stay_as_they_are() -> None:
    others = nn.Sequential(nn.Linear(WIDE, OUT), layer(bias=True), layer(dtype=torch.float32), nn.SiLU())
    assert cpu_kernels.install(others) == 0


@needs_kernel
def test_a_kernel_that_says_something_else_is_not_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        cpu_kernels, "_make_kernel_call", lambda _: lambda x: torch.zeros(*x.shape[:-1], OUT, dtype=x.dtype)
    )
    assert cpu_kernels.install(nn.Sequential(layer())) == 0


@needs_kernel
def test_the_file_of_a_model_is_let_go_of_and_its_numbers_stay(tmp_path: Path) -> None:
    """What is packed lies elsewhere; a single tensor left in the file would keep all of it in memory."""
    made = {f"{i}": layer().weight for i in range(2)}
    kept = torch.randn(4, WIDE)
    tensors = {name: weight.data for name, weight in made.items()}
    codes = {f"{name}.code": weight.quant_state.code for name, weight in made.items()}
    file = tmp_path / "model.safetensors"
    save_file({**tensors, **codes, "kept": kept, "also": kept[0].clone()}, file)
    found = load_file(file)
    model = nn.Sequential(layer(), layer())
    for name, one in model.named_children():
        one.weight.data = found[name]
        one.weight.quant_state.code = found[f"{name}.code"]
    model.register_parameter("kept", nn.Parameter(found["kept"]))
    model.register_buffer("also", found["also"])
    x = torch.randn(3, WIDE, dtype=torch.bfloat16)
    del found, tensors, codes
    assert str(file) in Path("/proc/self/maps").read_text()
    assert cpu_kernels.install(model) == 2
    assert str(file) not in Path("/proc/self/maps").read_text()
    assert torch.equal(model.kept, kept)
    assert torch.equal(model.also, kept[0])
    with torch.inference_mode():
        assert torch.equal(model[0](x), layer()(x))


@pytest.fixture(params=["kept", "each time"])
def ways(request: pytest.FixtureRequest, tiles: None, monkeypatch: pytest.MonkeyPatch) -> int:
    """Whether numbers are kept or not; rows from which on tiles are used."""
    if request.param == "kept":
        return cpu_kernels.MIN_KEPT_ROWS
    monkeypatch.setattr(cpu_kernels, "MAX_KEPT_BYTES", 0)
    return cpu_kernels.MIN_UNPACKED_ROWS


def numbers() -> Tensor:
    """What the library makes of a layer's weights without packing them, with scales as the kernel has them."""
    weight = layer().weight
    state = weight.quant_state
    scales = bnb.functional.dequantize_blockwise(state.absmax, state.state2) + state.offset
    state.absmax = scales.to(torch.bfloat16).float()
    state.nested = False
    state.dtype = torch.bfloat16
    return bnb.functional.dequantize_4bit(weight.data, state)  # type: ignore[no-any-return]


@needs_kernel
@torch.inference_mode()
def test_unpacked_weights_are_the_library_s_numbers() -> None:
    made = layer()
    made(torch.zeros(1, WIDE, dtype=torch.bfloat16))  # packs them
    state = made.weight.quant_state
    out = torch.empty((OUT, WIDE), dtype=torch.bfloat16)
    assert torch.equal(cpu_kernels.unpack(made.weight.data, state.absmax, state.blocksize, out), numbers())


@needs_kernel
@torch.inference_mode()
def test_many_rows_are_multiplied_with_these_numbers_and_a_few_by_the_kernel(ways: int) -> None:
    plain = layer()
    made = nn.Sequential(layer(), layer())
    assert cpu_kernels.install(made) == 2
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
def test_many_rows_that_do_not_lie_in_one_piece_are_read_right(ways: int) -> None:
    made = nn.Sequential(layer())
    cpu_kernels.install(made)
    x = torch.randn(WIDE, ways, dtype=torch.bfloat16).T
    assert torch.equal(made(x), made(x.contiguous()))


def test_only_a_small_model_keeps_them_and_only_where_there_are_tiles_and_memory(
    tiles: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_kernels, "has_kernel", lambda: True)
    monkeypatch.setattr(memory, "measure_free_bytes", lambda: 8.0 * cpu_kernels.MAX_KEPT_BYTES)
    most = cpu_kernels.MAX_KEPT_BYTES // 2
    assert (cpu_kernels.count_copy_bytes(most), cpu_kernels.count_copy_bytes(most + 1)) == (
        cpu_kernels.MAX_KEPT_BYTES,
        0,
    )
    monkeypatch.setattr(memory, "measure_free_bytes", lambda: 3.9 * cpu_kernels.MAX_KEPT_BYTES)
    assert cpu_kernels.count_copy_bytes(most) == 0
    monkeypatch.setattr(memory, "measure_free_bytes", lambda: None)
    assert cpu_kernels.count_copy_bytes(most) == cpu_kernels.MAX_KEPT_BYTES
    monkeypatch.setattr(cpu_kernels, "has_amx", lambda: False)
    assert cpu_kernels.count_copy_bytes(most) == 0


def test_numbers_of_rows_are_few_and_what_is_added_is_nothing() -> None:
    rows = [torch.randn(3, count, 5) for count in range(257)]
    done = [cpu_kernels.pad_rows(some) for some in rows]
    assert all(torch.equal(one[:, : some.shape[1]], some) for one, some in zip(done, rows, strict=True))
    assert not any(one[:, some.shape[1] :].any() for one, some in zip(done, rows, strict=True))
    assert {one.shape[1] for one in done} == {*range(9), 16, 32, 48, 64, 128, 192, 256}


@pytest.mark.parametrize("rows", [0, 1, 2, cpu_kernels.MAX_TRANSPOSED_ROWS, cpu_kernels.MAX_TRANSPOSED_ROWS + 1])
@torch.inference_mode()
def test_the_output_layer_says_the_same_from_either_side(tiles: None, rows: int) -> None:
    output = nn.Linear(WIDE, 500, bias=False).to(torch.bfloat16)
    states = torch.randn(rows, WIDE).to(torch.bfloat16)
    said = cpu_kernels.compute_logits(output, states)
    assert said.shape == (rows, 500)
    torch.testing.assert_close(said, output(states), **ROUNDED)


@torch.inference_mode()
def test_in_fp32_nothing_is_turned_round(tiles: None) -> None:
    output = nn.Linear(WIDE, 500, bias=False)
    states = torch.randn(3, WIDE)
    assert torch.equal(cpu_kernels.compute_logits(output, states), output(states))


def test_scores_of_attention_are_the_same_from_either_side(tiles: None) -> None:
    queries, keys = (torch.randn(4, 3, count, 64).to(torch.bfloat16) for count in (5, 128))
    found = attention._multiply(queries, keys)
    torch.testing.assert_close(found, queries @ keys.transpose(-1, -2), **ROUNDED)
    found.view(4, 3, 5, 1, 128)


def test_the_installed_libraries_are_those_that_the_kernels_were_seen_with() -> None:
    """Another version: run these tests on a CPU with the 4-bit kernel and with tiles, then change `TESTED_VERSIONS`."""
    cpu_kernels.check_versions.cache_clear()
    assert cpu_kernels.check_versions()


def test_other_libraries_turn_the_kernels_off(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cpu_kernels, "TESTED_VERSIONS", {"torch": "1.9"})
    cpu_kernels.check_versions.cache_clear()
    try:
        assert cpu_kernels.install(nn.Sequential(layer())) == 0
        assert cpu_kernels.count_copy_bytes(1) == 0
    finally:
        cpu_kernels.check_versions.cache_clear()
    assert len(caplog.records) == 1
    assert "untested with torch" in caplog.text
