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
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from random import Random

import torch

from bench import equality, gpu_peers, shapes
from bench.device_time import free_memory
from bench.equality import WORDS
from bench.gpu_answers import time_edits, time_sixteen
from bench.gpu_device import DeviceBench, Row
from bench.gpu_kernels import check_kernels, time_products
from bench.gpu_models import ModelPair, time_forwards


def measure_ceilings(bench: DeviceBench) -> Iterator[Row]:
    """Measure the rates of this card; `bench` keeps them for the floors."""
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


def time_peers(bench: DeviceBench, pair: ModelPair) -> Iterator[Row]:
    """Seconds of other ways to write an answer, or why one failed."""
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
    """Compare drafts through graphs with `generate`, in fp32."""
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
    """Measure a part with the models of a shape. The first part makes them."""
    if not pairs:
        pairs.append(ModelPair.make(bench, shape))
    yield from part(bench, pairs[0])


class RowRecord:
    """The file of rows. Each row is written when it is measured; complete parts are not measured again."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = folder / "gpu_floor.jsonl"
        rows = [json.loads(line) for line in self._file.read_text().splitlines()] if self._file.exists() else []
        # other parts need the rates of the card, so these are always measured
        self._complete = {(row["part"], row["shape"]) for row in rows if row.get("complete")} - {("ceilings", "")}

    def measure(self, part: str, shape: str, rows: Callable[[], Iterator[Row]]) -> bool:
        """Measure a part, and return whether it is complete. A failure costs only the part's own rows."""
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
