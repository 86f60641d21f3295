"""`python -m bench.gpu_floor [--parts PART ...] [--out FOLDER] [--rehearse]`: the engine on a GPU, beside its floors.

What a forward must cost is the larger of two times: that of reading every weight and key once, and that of the
arithmetic. Both use the rates that this card shows in `ceilings`. Parts, each of some rows:

- `ceilings`: a copy, a large product, kernels that do nothing, alone and in a graph;
- `kernels`: each of ours beside an fp64 reference, into poisoned outputs; the assembly beside its portable form;
- `products`: our 4-bit product, bitsandbytes', unpacking and multiplying, and bf16 weights, by rows;
- `forwards`: one forward at a context of 768 by rows, with the library's modules, with our stack, and in a graph;
- `edits`: an answer of 256 tokens after a prompt of 512, with edits of 0 to 100 %, beside `generate`;
- `sixteen`: the same for sixteen at once, written whole with and without drafts, and only where it is flagged;
- `peers`: other ways of writing such an answer (`gpu_peers.py`), in NF4 and, where they are compiled, in bf16;
- `equality`: drafts through the graphs write what `generate` writes, in fp32.

Every row is written to FOLDER/gpu_floor.jsonl when it is measured. A second run leaves out what is complete there.
`--rehearse` does everything on the CPU in a tiny shape.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor

from aligner_proxy.engine.decoding.proposer import DraftProposer
from aligner_proxy.engine.decoding.speculative import DraftLimits, Tally, generate
from aligner_proxy.engine.gpu import nf4, plain_kernels
from aligner_proxy.engine.gpu.graphs import run_directly
from aligner_proxy.engine.gpu.step import ChoiceInput, StepInput, find_bucket
from aligner_proxy.engine.model.cost import load_or_measure_costs
from aligner_proxy.engine.model.runner import ModelRunner
from aligner_proxy.engine.scheduling.blocks import BLOCK
from aligner_proxy.engine.scheduling.scheduler import Feed, Job
from aligner_proxy.engine.scheduling.sequence import Ask, Work
from aligner_proxy.engine.scheduling.sequence import Sequence as Tokens
from bench import equality, gpu_peers, shapes
from bench.device_time import free_memory, time_work
from bench.equality import RATES, WORDS
from bench.forced_decoding import edit_tokens, force_engine, force_targets

Row = dict[str, Any]
_CONTEXT = 768
_SEGMENT = 16
"""Tokens of a segment where only flagged segments are written."""
_ROWS = (1, 4, 16, 32, 64, 256, 768)
_PRODUCT_ROWS = (1, 16, 32, 64, 128, 512)
_L2 = 100 * 2**20
"""More bytes than a card's cache holds: weights are rotated, so that each product reads them from memory."""


class DeviceBench:
    """The device, its measured rates, and the answers' sizes."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.device = torch.device(options.device)
        self.on_gpu = self.device.type == "cuda"
        self.together = 16 if self.on_gpu else 3
        self.bandwidth = 3.0e12
        self.arithmetic = 7.9e14

    def time_call(self, call: Callable[[], Any], rounds: int = 20) -> float:
        """Milliseconds of a call, as the median of rounds; on a GPU between two events."""
        call()
        times = []
        for _ in range(rounds if self.on_gpu else 2):
            if not self.on_gpu:
                began = time.perf_counter()
                call()
                times.append(1000 * (time.perf_counter() - began))
                continue
            events: list[Any] = [torch.cuda.Event(enable_timing=True) for _ in range(2)]  # type: ignore[no-untyped-call]
            events[0].record()
            call()
            events[1].record()
            events[1].synchronize()
            times.append(events[0].elapsed_time(events[1]))
        return statistics.median(times)

    def time_in_graph(self, calls: Sequence[Callable[[], Any]], rounds: int = 10) -> float:
        """Milliseconds of one of several calls, all recorded in one graph one after the other."""
        if not self.on_gpu:
            return self.time_call(calls[0])
        for call in calls:
            call()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for call in calls:
                call()
        return self.time_call(graph.replay, rounds) / len(calls)

    def floor_of_forward(self, shape: str, rows: int, context: int, logit_rows: int = 1) -> float:
        """Milliseconds that a forward of NF4 weights must take, with rates as measured."""
        sizes = shapes.SHAPES[shape]
        hidden = sizes["hidden_size"]
        layers = sizes["num_hidden_layers"]
        key_width = shapes.count_key_heads(shape) * hidden // sizes["num_attention_heads"]
        linear = layers * (2 * hidden * hidden + 2 * hidden * key_width + 3 * hidden * sizes["intermediate_size"])
        head = shapes.VOCABULARY * hidden
        cache_bytes = 2 * layers * key_width * 2 * context
        bytes_read = linear * 0.5159 + head * 2 + cache_bytes
        operations = 2 * linear * rows + 4 * hidden * layers * rows * context + 2 * head * logit_rows
        return 1000 * max(bytes_read / self.bandwidth, operations / self.arithmetic)


def measure_ceilings(bench: DeviceBench) -> Iterator[Row]:
    """The rates of this card."""
    size = 2**30 if bench.on_gpu else 2**20
    source = torch.empty(size, dtype=torch.uint8, device=bench.device).random_()
    target = torch.empty_like(source)
    ms = bench.time_call(partial(target.copy_, source))
    bench.bandwidth = 2 * size / ms * 1000
    yield {"name": "copy", "ms": ms, "TB_per_s": bench.bandwidth / 1e12}
    del source, target
    width = 8192 if bench.on_gpu else 256
    matrix = torch.randn(width, width, device=bench.device, dtype=torch.bfloat16)
    ms = bench.time_call(partial(torch.matmul, matrix, matrix))
    bench.arithmetic = 2 * width**3 / ms * 1000
    yield {"name": "product in bf16", "ms": ms, "TFLOP_per_s": bench.arithmetic / 1e12}
    small = torch.zeros(1, device=bench.device)
    count = 1000

    def start_many() -> None:
        for _ in range(count):
            small.add_(1)

    yield {"name": "kernel alone, microseconds", "ms": bench.time_call(start_many, 3) * 1000 / count}
    yield {"name": "kernel in a graph, microseconds", "ms": bench.time_in_graph([start_many], 3) * 1000 / count}


def _relative_difference(got: Tensor, expected: Tensor) -> float:
    return float((got.double() - expected.double()).norm() / expected.double().norm())


def check_kernels(bench: DeviceBench) -> Iterator[Row]:
    """Relative differences from references in fp64."""
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
        values = packed.coarse_book.double()[nf4.order_numbers(packed.words).int()]
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


def _copy_to_cpu(choice_input: ChoiceInput) -> ChoiceInput:
    return ChoiceInput(choice_input.rows.cpu(), choice_input.favoured.cpu(), choice_input.caution.cpu())


def _make_step(new: list[int], contexts: list[int], heads: tuple[int, int], device: torch.device) -> tuple[Any, int]:
    """A step of sequences that feed their last tokens, and the slots that it needs."""
    counts = [-(-length // BLOCK) for length in contexts]
    places = Random(0).sample(range(sum(counts) + 3), sum(counts))
    feeds = []
    for fresh, length, count in zip(new, contexts, counts, strict=True):
        sequence = Tokens(ids=[5] * length, blocks=[places.pop() for _ in range(count)])
        feeds.append(_make_feed(sequence, length - fresh))
    step_input = StepInput(max(contexts) + BLOCK, *heads, (sum(counts) + 3) * BLOCK, device)
    rows, _ = step_input.fill(feeds)
    return step_input.view(rows), (sum(counts) + 4) * BLOCK


def _make_feed(sequence: Tokens, start: int, draft: int = 0) -> Feed:
    nothing: Any = iter(())
    job = Job("-", nothing, lambda _: None, sequence=sequence, ask=Ask([], draft=[0] * draft))
    return Feed(job, start, len(sequence.ids))


def _make_quantised_layer(outputs: int, inputs: int, device: torch.device) -> Any:
    import bitsandbytes

    kinds: Any = bitsandbytes.nn
    layer = kinds.Linear4bit(inputs, outputs, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4", device="meta")
    weight = torch.randn(outputs, inputs, dtype=torch.bfloat16)
    layer.weight = kinds.Params4bit(weight, requires_grad=False, quant_type="nf4").to(device)
    return layer


def _dequantise(layer: Any) -> Tensor:
    from bitsandbytes.functional import dequantize_4bit

    weight: Tensor = dequantize_4bit(layer.weight.data, layer.weight.quant_state).to(torch.bfloat16)
    return weight


@torch.inference_mode()
def time_products(bench: DeviceBench) -> Iterator[Row]:
    """Microseconds of a product by rows, for the joined weights of two shapes."""
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
                outputs * inputs * 0.5159 / bench.bandwidth, 2 * outputs * inputs * rows / bench.arithmetic
            )
            for way, calls in ways.items():
                row[f"{way}_us"] = 1000 * bench.time_in_graph(calls)
            yield row
        del layers, packed, wide
        free_memory()


@dataclass(frozen=True, slots=True)
class ModelPair:
    """Two equal models of a shape: one as the library runs it, and one as the engine does.

    `recording_s` and `gigabytes` are what the recorded forward passes took.
    """

    shape: str
    peer: Any
    runner: ModelRunner
    recording_s: float
    gigabytes: float

    @classmethod
    def make(cls, bench: DeviceBench, shape: str) -> ModelPair:
        """Make both; on a GPU that takes up to half a minute."""
        peer = _make(bench, shape)
        tokens = max(4 * 2048, bench.together * (4 * bench.options.answer + 64))
        runner = shapes.make_runner(_make(bench, shape), tokens, accelerated=False)
        free_memory()
        before = torch.cuda.memory_allocated() if bench.on_gpu else 0
        began = time.perf_counter()
        _accelerate(runner)
        seconds = time.perf_counter() - began
        runner.costs = load_or_measure_costs(runner, Path("/dev/null/not-kept"))
        return cls(
            shape, peer, runner, seconds, (torch.cuda.memory_allocated() - before) / 1e9 if bench.on_gpu else 0.0
        )


def time_forwards(bench: DeviceBench, pair: ModelPair) -> Iterator[Row]:
    """Milliseconds of one step by rows at a context of 768, as the engine runs it."""
    runner = pair.runner
    yield {
        "name": "recording",
        "s": pair.recording_s,
        "recorded": runner.recorded is not None,
        "copied": bool(runner.recorded and runner.recorded.stack.products[0].weight is not None),
        "GB": pair.gigabytes,
    }
    yield {"name": "costs", "points": [list(point) for point in runner.costs.points]}
    library = shapes.make_runner(pair.peer, 2048, accelerated=False)
    for count in _ROWS if bench.on_gpu else (1, 16):
        ms = _time_step(bench, runner, count, 20)
        floor = bench.floor_of_forward(pair.shape, count, _CONTEXT)
        yield {
            "name": "forward",
            "rows": count,
            "library_ms": _time_step(bench, library, count, 5),
            "ms": ms,
            "device_ms": _time_replay(bench, runner, count),
            "floor_ms": floor,
            "over_floor": ms / floor,
        }


def _make(bench: DeviceBench, shape: str) -> Any:
    return shapes.make_model(shape, str(bench.device), torch.bfloat16, four_bits=True)


def _accelerate(runner: ModelRunner) -> None:
    """As at load on a GPU; on a CPU, our stack with plain kernels."""
    if runner.device == "cpu":
        runner.use_recorded(plain_kernels, run_directly)
        return
    from aligner_proxy.engine.model import acceleration

    acceleration.accelerate(runner)


def _time_step(bench: DeviceBench, runner: ModelRunner, count: int, rounds: int) -> float:
    """Milliseconds of `run` for one sequence with so many new tokens after a context, the wait at its end included."""
    context = _CONTEXT if bench.on_gpu else 64
    sequence = Tokens(ids=[5] * (context + count))
    sequence.blocks = [runner.pool.take() for _ in range(-(-len(sequence.ids) // BLOCK))]
    try:
        times = []
        feed = _make_feed(sequence, context)
        for _ in range(3 + rounds if bench.on_gpu else 4):
            began = time.perf_counter()
            runner.run([feed])
            times.append(1000 * (time.perf_counter() - began))
        return statistics.median(times[3:])
    finally:
        runner.pool.give_back(sequence.blocks)


def _time_replay(bench: DeviceBench, runner: ModelRunner, count: int) -> float | None:
    """Milliseconds of the recorded forward alone, on the device; its input is that of the last step."""
    if not bench.on_gpu or runner.recorded is None:
        return None
    with torch.inference_mode():
        return bench.time_call(runner.recorded.find_forward(find_bucket(count)))


def time_edits(bench: DeviceBench, pair: ModelPair) -> Iterator[Row]:
    """One answer at a time: ours with drafts and without, beside `generate` with the library's modules."""
    runner = pair.runner
    answer_tokens = bench.options.answer
    plain_s = _time_generate(bench, pair.peer, answer_tokens)
    yield {"name": "generate", "ms": 1000 * plain_s}
    for rate in RATES:
        for way in ("drafts", "no drafts") if rate in (0.0, 1.0) else ("drafts",):
            seconds = []
            forwards = []
            for number in range(bench.options.rounds + 1):
                rng = Random(number)
                prompt = rng.choices(WORDS, k=2 * answer_tokens)
                answer = rng.choices(WORDS, k=answer_tokens)
                target = [*edit_tokens(answer, rate, rng, WORDS), shapes.EOS]
                with force_engine(runner, len(prompt), target, ()) as count:
                    took_s, ids = time_work(partial(_write, runner, prompt, answer, target, way))
                if ids != target:
                    raise RuntimeError("the engine did not write what it was told")
                if number:
                    seconds.append(took_s)
                    forwards.append(count.generating)
            ms = 1000 * statistics.median(seconds)
            yield {
                "name": f"edits {rate:.0%} {way}",
                "ms": ms,
                "forwards": statistics.mean(forwards),
                "over_generate": 1000 * plain_s / ms,
            }


def _time_generate(bench: DeviceBench, peer: Any, answer_tokens: int) -> float:
    """Median seconds in which `generate` writes an answer after a prompt twice as long."""
    times = []
    for number in range(bench.options.rounds + 1):
        rng = Random(number)
        ids = torch.tensor([rng.choices(WORDS, k=2 * answer_tokens)], device=bench.device)
        options: Row = {"max_new_tokens": answer_tokens + 1, "min_new_tokens": answer_tokens + 1, "do_sample": False}
        with torch.inference_mode():
            times.append(time_work(partial(peer.generate, ids, attention_mask=torch.ones_like(ids), **options))[0])
    return statistics.median(times[1:])


def _propose(runner: ModelRunner, answer: list[int], way: str) -> DraftProposer:
    """Drafts from the answer, as long as the costs say; or none."""
    rule = runner.choose_draft_length if way == "drafts" else lambda _acceptance, _room: 0
    return DraftProposer([*answer, shapes.EOS], rule)


def _write(runner: ModelRunner, prompt: list[int], answer: list[int], target: list[int], way: str) -> list[int]:
    sequence = Tokens()
    first = Ask(prompt, prompt=True)
    limits = DraftLimits(len(target))
    work = generate(sequence, first, _propose(runner, answer, way), limits, Tally(), frozenset({shapes.EOS}))
    return equality.written_ids(equality.run_works(runner, [(sequence, work)])[0])


def time_sixteen(bench: DeviceBench, pair: ModelPair) -> Iterator[Row]:
    """Sixteen answers at once, a fifth of their segments rewritten: whole without and with drafts, and only those."""
    for rate in (0.2, 0.0, 1.0):
        for way in ("whole, no drafts", "whole, drafts", "flagged"):
            seconds = []
            for number in range(bench.options.rounds + 1):
                took_s = _time_together(bench, pair.runner, bench.together, rate, way, number)
                seconds += [took_s] * bool(number)
            yield {"name": f"sixteen {rate:.0%} {way}", "ms": 1000 * statistics.median(seconds)}


def _time_together(bench: DeviceBench, runner: ModelRunner, count: int, rate: float, way: str, seed: int) -> float:
    """Seconds for all answers."""
    targets: dict[int, tuple[int, list[int]]] = {}
    works: list[tuple[Tokens, Work]] = []
    answer_tokens = bench.options.answer
    for number in range(count):
        rng = Random(1000 * seed + number)
        prompt = rng.choices(WORDS, k=2 * answer_tokens)
        answer = rng.choices(WORDS, k=answer_tokens)
        segments = answer_tokens // _SEGMENT
        flagged = sorted(rng.sample(range(segments), round(rate * segments)))
        target = list(answer)
        for segment in flagged:
            target[segment * _SEGMENT : (segment + 1) * _SEGMENT] = rng.choices(WORDS, k=_SEGMENT)
        sequence = Tokens()
        targets[id(sequence)] = (len(prompt), [*target, shapes.EOS])
        if way == "flagged":
            work = _write_flagged(runner, sequence, prompt, answer, target, flagged)
        else:
            proposer = _propose(runner, answer, "drafts" if way == "whole, drafts" else "no drafts")
            limits = DraftLimits(len(target) + 1)
            first = Ask(prompt, prompt=True)
            work = generate(sequence, first, proposer, limits, Tally(), frozenset({shapes.EOS}))
        works.append((sequence, work))
    with force_targets(runner, lambda sequence: targets[id(sequence)]):
        return time_work(partial(equality.run_works, runner, works))[0]


def _write_flagged(
    runner: ModelRunner, sequence: Tokens, prompt: list[int], answer: list[int], target: list[int], flagged: list[int]
) -> Work:
    """Read the prompt; then for each flagged segment feed what was kept before it, and write only the segment."""
    step = yield Ask(prompt, prompt=True)
    for segment in flagged:
        first = segment * _SEGMENT
        context = [*prompt, *target[:first]]
        start = min(len(sequence.ids), len(context) - 1)
        sequence.crop(start)
        # as in the engine, the first draft is the text after the segment, as if it were removed
        old = answer[first : first + _SEGMENT]
        then = answer[first + _SEGMENT : first + 2 * _SEGMENT]
        proposer = DraftProposer([*old, *then, shapes.EOS], runner.choose_draft_length, anchors=(len(old),))
        limits = DraftLimits(_SEGMENT)
        yield from generate(sequence, Ask(context[start:]), proposer, limits, Tally(), frozenset({shapes.EOS}))
    return step


def time_peers(bench: DeviceBench, pair: ModelPair) -> Iterator[Row]:
    """Seconds of other ways of writing an answer, or why one failed."""
    tokens = bench.options.answer
    prompt = Random(0).choices(WORDS, k=2 * tokens)
    options: Row = {"compiled": bench.on_gpu, "prompts": bench.together}
    for peer in gpu_peers.list_peers(pair.peer, prompt, tokens, str(bench.device), **options):
        yield {**gpu_peers.time_peer(peer, bench.options.rounds), "weights": "NF4"}
    wide = shapes.make_model(pair.shape, str(bench.device), torch.bfloat16)
    for make in (gpu_peers.make_decoder_peer, gpu_peers.make_static_peer):
        peer = make(wide, prompt, tokens, str(bench.device), compiled=bench.on_gpu)
        yield {**gpu_peers.time_peer(peer, bench.options.rounds), "weights": "bf16"}


def check_equality(bench: DeviceBench) -> Iterator[Row]:
    """Drafts through graphs against `generate`, in fp32 with four layers."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    for shape in bench.options.equal_shapes:
        tokens = 64 if bench.on_gpu else 16
        comparison = equality.compare(shape, str(bench.device), bench.options.cases, tokens)
        yield {"name": f"{shape} equality", "cases": bench.options.cases, **asdict(comparison)}
        free_memory()


OF_THE_CARD: dict[str, Callable[[DeviceBench], Iterator[Row]]] = {
    "ceilings": measure_ceilings,
    "kernels": check_kernels,
    "products": time_products,
    "equality": check_equality,
}
OF_A_SHAPE: dict[str, Callable[[DeviceBench, ModelPair], Iterator[Row]]] = {
    "forwards": time_forwards,
    "edits": time_edits,
    "sixteen": time_sixteen,
    "peers": time_peers,
}


def main(arguments: list[str] | None = None) -> int:
    """Measure the parts that are not complete yet, and print a line for each row."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu_floor", description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=[*OF_THE_CARD, *OF_A_SHAPE], default=[*OF_THE_CARD, *OF_A_SHAPE])
    parser.add_argument("--shapes", nargs="+", choices=list(shapes.SHAPES), default=["1.1B", "7B", "13B"])
    parser.add_argument("--equal-shapes", nargs="+", choices=list(shapes.SHAPES), default=["1.1B", "7B"])
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--answer", type=int, default=256, help="tokens of an answer; prompts are twice as long")
    parser.add_argument("--rounds", type=int, default=3, help="timed answers, after one that warms up")
    parser.add_argument("--cases", type=int, default=8, help="answers compared in fp32")
    parser.add_argument("--out", type=Path, default=Path(".build/gpu"))
    parser.add_argument("--rehearse", action="store_true", help="all steps on the CPU in a tiny shape")
    options = parser.parse_args(arguments)
    if options.rehearse:
        tiny = {"shapes": ["tiny"], "equal_shapes": ["tiny"], "device": "cpu", "answer": 32, "rounds": 1}
        options = argparse.Namespace(**vars(options) | tiny)
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        sys.stderr.write("gpu-floor needs a CUDA device and found none; nothing was measured\n")
        return 1
    record = RowRecord(options.out)
    bench = DeviceBench(options)
    done = [
        record.measure(part, "", partial(OF_THE_CARD[part], bench)) for part in OF_THE_CARD if part in options.parts
    ]
    for shape in options.shapes:
        pairs = list[ModelPair]()
        for part in OF_A_SHAPE:
            if part in options.parts:
                done.append(record.measure(part, shape, partial(_measure_pair, bench, shape, pairs, OF_A_SHAPE[part])))
        del pairs
        free_memory()
    return int(not all(done))


def _measure_pair(
    bench: DeviceBench, shape: str, pairs: list[ModelPair], part: Callable[[DeviceBench, ModelPair], Iterator[Row]]
) -> Iterator[Row]:
    """Measure a part with the shape's models, which the first part makes."""
    if not pairs:
        pairs.append(ModelPair.make(bench, shape))
    yield from part(bench, pairs[0])


class RowRecord:
    """The file of rows: each is written when it is measured, and what is complete is not measured again."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = folder / "gpu_floor.jsonl"
        rows = [json.loads(line) for line in self._file.read_text().splitlines()] if self._file.exists() else []
        # other parts need the rates of the card, so these are always measured
        self._complete = {(row["part"], row["shape"]) for row in rows if row.get("complete")} - {("ceilings", "")}

    def measure(self, part: str, shape: str, rows: Callable[[], Iterator[Row]]) -> bool:
        """Measure a part, and return whether it is complete; one that fails costs only its own rows."""
        if (part, shape) in self._complete:
            return True
        began = time.perf_counter()
        error = None
        try:
            for row in rows():
                self._keep({"part": part, "shape": shape, **row})
        except Exception as failure:  # noqa: BLE001 - whatever a card raises, the other parts are measured
            error = f"{type(failure).__name__}: {failure}"[:600]
        end: Row = {"part": part, "shape": shape, "complete": error is None, "s": time.perf_counter() - began}
        self._keep(end | ({"error": error} if error else {}))
        free_memory()
        return error is None

    def _keep(self, row: Row) -> None:
        rounded = {key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in row.items()}
        line = json.dumps(rounded) + "\n"
        with self._file.open("a") as lines:
            lines.write(line)
        sys.stdout.write(line)
        sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
