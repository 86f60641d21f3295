"""`python -m bench.small_head [--shape 1.1B] [--rounds N]`: time saved by a small head in front of a big editor.

The embedded aligner scores, and an editor rewrites the flagged segments; it has random weights in Llama's shape, in
four bits. For comparison the same editor alone rewrites every answer. Random weights never emit an end token, so in
both ways they write up to the limit: one and a half times the text that they replace.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from tokenizers import Tokenizer

from aligner_proxy import prompts
from aligner_proxy.engine.api import AlignRequest, Engine
from aligner_proxy.engine.client.completions import CompletionsClient
from aligner_proxy.engine.client.completions_aligner import CompletionsAligner
from aligner_proxy.engine.client.edited_engine import EditedEngine
from aligner_proxy.engine.loader import EngineSettings, open_aligner, prepare
from aligner_proxy.engine.local import LocalEngine
from aligner_proxy.engine.weights import sources
from aligner_proxy.policy import config
from aligner_proxy.types import Turn
from bench import shapes
from bench.isolation import wrap_in_thread
from bench.texts import LONG, OBJECTIVES, add_insult
from demo.processes import free_port, run_process, wait_for
from models.train.export_gguf import export

_WINDOW = 2048
_PATIENCE_S = 600.0
_FAMILY = "ultrafeedback"


def run(shape: str, rounds: int) -> dict[str, Any]:
    """Median seconds per answer, and ratios of pairs."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        wrap_in_thread(_write_editor)(shape, folder)
        port = free_port()
        log = folder / "editor.log"
        command = ["bench.llama_server", str(folder / "editor.gguf"), str(port), "1", str(_WINDOW)]
        child = stack.enter_context(run_process(command, log, os.environ))
        wait_for(f"http://127.0.0.1:{port}/health", child, log, lambda _: None)
        return asyncio.run(_time_ways(f"http://127.0.0.1:{port}/v1", rounds))


def _write_editor(shape: str, folder: Path) -> None:
    """Write the editor to one file, with the embedded model's tokenizer."""
    source = sources.resolve("embedded", None)
    tokenizer = prepare(EngineSettings(), config.home_folder())[1] / "tokenizer.json"
    words = Tokenizer.from_file(str(tokenizer)).get_vocab_size()
    plain = folder / "editor"
    model = shapes.make_model(shape, "cpu", torch.bfloat16, words=words)
    model.save_pretrained(str(plain))
    (plain / tokenizer.name).write_bytes(tokenizer.read_bytes())
    like = source.base.folder / source.base.gguf if source.base.gguf else None
    export(str(plain), folder / "editor.gguf", "q4_1", template=_FAMILY, like=like)


async def _time_ways(address: str, rounds: int) -> dict[str, Any]:
    """Time three ways: head and editor on good answers, the same on insulted ones, and the editor alone."""

    def editor() -> CompletionsAligner:
        return CompletionsAligner(CompletionsClient(address), prompts.find_template(_FAMILY), window=_WINDOW)

    head = LocalEngine(lambda: open_aligner(EngineSettings(), config.home_folder()))
    await head.start()
    both = EditedEngine(head, editor())
    alone = editor()
    ways: dict[str, Callable[[int], Any]] = {
        "head and editor, nothing flagged": partial(_score_good, both),
        "head and editor, an insult put in": partial(_correct_insulted, both),
        "editor alone, the answer as it is": partial(_score_good, alone),
    }
    for way in ways.values():
        await way(-1)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in track(range(rounds), "a head and an editor", transient=True):
        for name, way in ways.items():
            began = time.perf_counter()
            await way(number)
            seconds[name].append(time.perf_counter() - began)
    await both.aclose()
    await alone.aclose()
    return _summarise_times(seconds)


def _summarise_times(seconds: dict[str, list[float]]) -> dict[str, Any]:
    good, insulted, alone = seconds.values()
    rows = [{"way": name, "seconds": round(statistics.median(times), 2)} for name, times in seconds.items()]
    return {
        "rows": rows,
        "n": len(good),
        "alone_over_good": round(statistics.median(a / g for a, g in zip(alone, good, strict=True)), 1),
        "alone_over_insulted": round(statistics.median(a / i for a, i in zip(alone, insulted, strict=True)), 1),
    }


async def _score_good(engine: Engine, number: int) -> None:
    question, answer = LONG[number % len(LONG)]
    await engine.align(_make_request(f"{number} {question}", answer, score_only=True))


async def _correct_insulted(engine: Engine, number: int) -> None:
    question, answer = LONG[number % len(LONG)]
    await engine.align(_make_request(f"{number} {question}", add_insult(answer)))


def _make_request(question: str, answer: str, *, score_only: bool = False) -> AlignRequest:
    return AlignRequest(
        request_id=question,
        turns=(Turn("user", question),),
        answer=answer,
        objectives=OBJECTIVES,
        score_only=score_only,
        deadline_s=_PATIENCE_S,
    )


def main(arguments: list[str] | None = None) -> int:
    """Print a table, and the figures as JSON in the last line."""
    parser = argparse.ArgumentParser(prog="python -m bench.small_head", description=__doc__)
    parser.add_argument("--shape", choices=list(shapes.SHAPES), default="1.1B")
    parser.add_argument("--rounds", type=int, default=4)
    options = parser.parse_args(arguments)
    results = run(options.shape, options.rounds)
    table = Table("", "seconds")
    for row in results["rows"]:
        table.add_row(row["way"], str(row["seconds"]))
    Console().print(table)
    print(json.dumps({"shape": options.shape} | {key: value for key, value in results.items() if key != "rows"}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
