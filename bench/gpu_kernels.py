"""The parts of `bench.gpu_floor` about single kernels: how exact each is, and how fast products are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from random import Random
from typing import Any

import torch
from torch import Tensor

from aligner_proxy.engine.gpu import nf4
from aligner_proxy.engine.gpu.step import ChoiceInput, StepInput
from aligner_proxy.engine.scheduling.blocks import BLOCK
from aligner_proxy.engine.scheduling.scheduler import Feed, Job
from aligner_proxy.engine.scheduling.sequence import Ask, TokenSequence
from bench.device_time import free_memory
from bench.gpu_device import NF4_BYTES, DeviceBench, Row
from tests.engine.gpu import plain_kernels

_PRODUCT_ROWS = (1, 16, 32, 64, 128, 512)
_L2 = 100 * 2**20
"""More bytes than a card's cache holds: weights are rotated, so that each product reads them from memory."""


def check_kernels(bench: DeviceBench) -> Iterator[Row]:
    """The relative difference of each kernel's result from a reference in fp64."""
    kernels: Any = plain_kernels
    if bench.on_gpu:
        from aligner_proxy.engine.gpu import triton_kernels

        kernels = triton_kernels
    torch.manual_seed(1)
    device = bench.device
    for heads, key_heads, size in ((32, 4, 64), (32, 32, 128), (9, 3, 64)):
        for new, contexts in (
            ([1], [777]),
            ([17], [600]),
            ([1] * 16, [*range(40, 840, 50)]),
            ([300, 9, 1], [300, 77, 5]),
        ):
            for dtype in (torch.float32, torch.bfloat16):
                step, slots = _make_step(new, contexts, (heads, key_heads), device)
                cache = torch.full((2, key_heads, slots, size), torch.nan, dtype=dtype, device=device)
                for number, length in enumerate(contexts):
                    places = torch.arange(length, device=device)
                    at = step.table[number, places // BLOCK].long() * BLOCK + places % BLOCK
                    cache[:, :, at] = torch.randn(2, key_heads, length, size, device=device).to(dtype)
                queries = torch.randn(step.rows, heads, size, device=device).to(dtype)
                got = kernels.attend(queries, cache[0], cache[1], step, size**-0.5)[: sum(new)]
                expected = plain_kernels.attend(queries.double(), cache[0], cache[1], step, size**-0.5)[: sum(new)]
                name = f"attention {heads}/{key_heads}/{size} {len(new)} sequences {str(dtype)[6:]}"
                yield {"name": name, "difference": _relative_difference(got, expected)}
    for outputs, inputs in ((2560, 2048), (2048, 5632), (576, 1536)):
        layer = _make_quantised_layer(outputs, inputs, device)
        expected_weights = _dequantise(layer)
        packed = nf4.pack([layer])
        yield {
            "name": f"unpacking {outputs} x {inputs}, equal to bitsandbytes",
            "equal": bool(torch.equal(kernels.unpack(packed), expected_weights)),
        }
        values = packed.coarse_book.double()[plain_kernels.order_numbers(packed.words).int()]
        scales = packed.scales.transpose(1, 2).reshape(outputs, -1).double().repeat_interleave(nf4.TILE, dim=1)
        for rows in (1, 5, 16, 33, 128):
            sample = torch.randn(rows, inputs, device=device).to(torch.bfloat16)
            got = kernels.multiply(sample, packed).sum(0)
            own = _relative_difference(got, sample.double() @ (values * scales).T)
            theirs = (
                _relative_difference(layer(sample), sample.double() @ (values * scales).T) if bench.on_gpu else None
            )
            yield {"name": f"product {rows} x {outputs} x {inputs}", "difference": own, "bitsandbytes": theirs}
    logits = torch.randn(64, 32000, device=device).to(torch.bfloat16)
    choice_input = ChoiceInput(
        torch.arange(64, device=device, dtype=torch.int32),
        torch.randint(-1, 32000, (64,), device=device, dtype=torch.int32),
        torch.rand(64, device=device) * 4,
    )
    choices = kernels.choose(logits, choice_input).tolist()
    yield {
        "name": "choice",
        "equal": choices == plain_kernels.choose(logits.cpu(), _copy_to_cpu(choice_input)).tolist(),
    }


def _relative_difference(got: Tensor, expected: Tensor) -> float:
    return float((got.double() - expected.double()).norm() / expected.double().norm())


def _copy_to_cpu(choice_input: ChoiceInput) -> ChoiceInput:
    return ChoiceInput(choice_input.rows.cpu(), choice_input.favoured.cpu(), choice_input.caution.cpu())


def _make_step(new: list[int], contexts: list[int], heads: tuple[int, int], device: torch.device) -> tuple[Any, int]:
    """(a step in which each sequence feeds its last `new` tokens, the slots of its cache)."""
    counts = [-(-length // BLOCK) for length in contexts]
    places = Random(0).sample(range(sum(counts) + 3), sum(counts))
    feeds = []
    for fresh, length, count in zip(new, contexts, counts, strict=True):
        sequence = TokenSequence(ids=[5] * length, blocks=[places.pop() for _ in range(count)])
        feeds.append(make_feed(sequence, length - fresh))
    step_input = StepInput(max(contexts) + BLOCK, *heads, (sum(counts) + 3) * BLOCK, device)
    rows, _ = step_input.fill(feeds)
    return step_input.view(rows), (sum(counts) + 4) * BLOCK


def make_feed(sequence: TokenSequence, start: int) -> Feed:
    """A step's feed of the sequence's tokens from `start` on."""
    nothing: Any = iter(())
    job = Job("-", nothing, lambda _: None, sequence=sequence, ask=Ask([]))
    return Feed(job, start, len(sequence.ids))


@torch.inference_mode()
def time_products(bench: DeviceBench) -> Iterator[Row]:
    """Microseconds of a product in each way, by rows, for the joined weights of 1.1B and 7B."""
    if not bench.on_gpu:
        return
    from bitsandbytes.functional import dequantize_4bit

    from aligner_proxy.engine.gpu import triton_kernels

    sizes_by_name = {
        "1.1B qkv": (2560, 2048),
        "1.1B output": (2048, 2048),
        "1.1B gates": (11264, 2048),
        "1.1B down": (2048, 5632),
    }
    sizes_by_name |= {
        "7B qkv": (12288, 4096),
        "7B output": (4096, 4096),
        "7B gates": (22016, 4096),
        "7B down": (4096, 11008),
    }
    for name, (outputs, inputs) in sizes_by_name.items():
        copies = max(2, min(24, _L2 // (outputs * inputs // 2)))
        layers = [_make_quantised_layer(outputs, inputs, bench.device) for _ in range(copies)]
        packed = [nf4.pack([layer]) for layer in layers]
        wide = [triton_kernels.unpack(one) for one in packed]
        for rows in _PRODUCT_ROWS:
            x = torch.randn(rows, inputs, device=bench.device).to(torch.bfloat16)
            ways: dict[str, list[Callable[[], Any]]] = {
                "bitsandbytes": [partial(layer, x) for layer in layers],
                "unpack": [
                    partial(lambda w, x: x @ dequantize_4bit(w.data, w.quant_state).T, layer.weight, x)
                    for layer in layers
                ],
                "bf16": [partial(torch.nn.functional.linear, x, one) for one in wide],
            }
            if rows <= 128:
                ways["ours"] = [partial(triton_kernels.multiply, x, one) for one in packed]
            else:
                ways["ours"] = [
                    partial(lambda p, x: torch.nn.functional.linear(x, triton_kernels.unpack(p)), one, x)
                    for one in packed
                ]
            row: Row = {"name": name, "rows": rows}
            row["floor_us"] = 1e6 * max(
                outputs * inputs * NF4_BYTES / bench.bandwidth, 2 * outputs * inputs * rows / bench.arithmetic
            )
            for way, calls in ways.items():
                row[f"{way}_us"] = 1000 * bench.time_in_graph(calls)
            yield row
        del layers, packed, wide
        free_memory()


def _make_quantised_layer(outputs: int, inputs: int, device: torch.device) -> Any:
    """A linear layer of random weights in NF4, as bitsandbytes makes it."""
    import bitsandbytes

    kinds: Any = bitsandbytes.nn
    layer = kinds.Linear4bit(inputs, outputs, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4", device="meta")
    weight = torch.randn(outputs, inputs, dtype=torch.bfloat16)
    layer.weight = kinds.Params4bit(weight, requires_grad=False, quant_type="nf4").to(device)
    return layer


def _dequantise(layer: Any) -> Tensor:
    """The layer's weights in bf16, as bitsandbytes unpacks them."""
    from bitsandbytes.functional import dequantize_4bit

    weight: Tensor = dequantize_4bit(layer.weight.data, layer.weight.quant_state).to(torch.bfloat16)
    return weight
