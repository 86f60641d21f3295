"""4-bit layers on a CPU: the short way to the kernel gives the same numbers, and only where it does it is taken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from aligner_proxy.engine import packed, tiles

bnb = pytest.importorskip("bitsandbytes")
WIDE, OUT = 128, 96


def layer(bias: bool = False, dtype: torch.dtype = torch.bfloat16) -> Any:
    torch.manual_seed(0)
    made = bnb.nn.Linear4bit(WIDE, OUT, bias=bias, compute_dtype=dtype, quant_type="nf4")
    return made.to("cpu").eval()


def kernel() -> bool:
    return packed.shorten(nn.Sequential(layer())) == 1


@pytest.fixture(autouse=True)
def no_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a CPU has them, many rows go another way (test_tiles.py)."""
    monkeypatch.setattr(tiles, "there", lambda: False)


needs_kernel = pytest.mark.skipif(not kernel(), reason="this processor has no 4-bit kernel")


@needs_kernel
@pytest.mark.parametrize("shape", [(WIDE,), (1, WIDE), (1, 1, WIDE), (1, 37, WIDE), (2, 5, WIDE), (0, WIDE)])
def test_the_short_way_gives_the_same_numbers(shape: tuple[int, ...]) -> None:
    plain, short = layer(), layer()
    packed.shorten(nn.Sequential(short))
    x = torch.randn(shape, dtype=torch.bfloat16)
    with torch.inference_mode():
        assert short(x).shape == (*shape[:-1], OUT)
        if x.numel():
            assert torch.equal(short(x), plain(x))


@needs_kernel
def test_what_does_not_lie_in_one_piece_is_read_right() -> None:
    plain, short = layer(), layer()
    packed.shorten(nn.Sequential(short))
    x = torch.randn(WIDE, 6, dtype=torch.bfloat16).T
    with torch.inference_mode():
        assert torch.equal(short(x), plain(x.contiguous()))


@needs_kernel
def test_hooks_of_adapters_still_run() -> None:
    short = layer()
    packed.shorten(nn.Sequential(short))
    short.register_forward_hook(lambda _module, _given, out: out + 1)
    x = torch.zeros(1, WIDE, dtype=torch.bfloat16)
    with torch.inference_mode():
        assert torch.equal(short(x), torch.ones(1, OUT, dtype=torch.bfloat16))


def test_layers_of_another_kind_stay_as_they_are() -> None:
    others = nn.Sequential(nn.Linear(WIDE, OUT), layer(bias=True), layer(dtype=torch.float32), nn.SiLU())
    assert packed.shorten(others) == 0


@needs_kernel
def test_a_kernel_that_says_something_else_is_not_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "_call", lambda _: lambda x: torch.zeros(*x.shape[:-1], OUT, dtype=x.dtype))
    assert packed.shorten(nn.Sequential(layer())) == 0


@needs_kernel
def test_the_file_of_a_model_is_let_go_of_and_its_numbers_stay(tmp_path: Path) -> None:
    """What is packed lies elsewhere; a single tensor left in the file would keep all of it in memory."""
    made, kept = {f"{i}": layer().weight for i in range(2)}, torch.randn(4, WIDE)
    tensors = {name: weight.data for name, weight in made.items()}
    codes = {f"{name}.code": weight.quant_state.code for name, weight in made.items()}
    file = tmp_path / "model.safetensors"
    save_file({**tensors, **codes, "kept": kept, "also": kept[0].clone()}, file)
    found = load_file(file)
    model = nn.Sequential(layer(), layer())
    for name, one in model.named_children():
        one.weight.data, one.weight.quant_state.code = found[name], found[f"{name}.code"]
    model.register_parameter("kept", nn.Parameter(found["kept"]))
    model.register_buffer("also", found["also"])
    x = torch.randn(3, WIDE, dtype=torch.bfloat16)
    del found, tensors, codes
    assert str(file) in Path("/proc/self/maps").read_text()
    assert packed.shorten(model) == 2
    assert str(file) not in Path("/proc/self/maps").read_text()
    assert torch.equal(model.kept, kept)
    assert torch.equal(model.also, kept[0])
    with torch.inference_mode():
        assert torch.equal(model[0](x), layer()(x))
