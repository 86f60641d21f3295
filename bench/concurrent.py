"""Corrections per second with sixteen clients at once: our engine compared with transformers, llama.cpp and vLLM.

Fourteen answers are good and two contain an insult, like real traffic on a bad day. Our engine runs with its defaults.
The peers have no detector head, so they rewrite every answer, with the same prompts and weights, their own batching,
and their own n-gram drafts if they have any. Each peer is forced to write as many tokens as the answer has.
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import torch
from rich.progress import Progress

from aligner_proxy.engine.api import AlignRequest
from aligner_proxy.engine.decoding.aligner import Aligner, build_frame
from aligner_proxy.engine.loader import EngineSettings, open_aligner
from aligner_proxy.engine.local import LocalEngine
from aligner_proxy.policy import config
from aligner_proxy.types import Turn
from bench.texts import LONG, OBJECTIVES, add_insult

CLIENTS = 16
_DEFECTIVE = (3, 11)
_FEW = 4
"""Number of clients in a warm-up turn; transformers needs over a minute for sixteen."""
_ONCE = {"transformers_cb", "llama_cpp"}
"""Peers that run only in the first round: they are slow, and too far behind for a second round to tell more."""
# A pause before every turn, because vLLM's worker keeps looking for work for some seconds and slows the next turn.
_WARM_S = 10.0
_PAUSE_S = 5.0


@dataclass(frozen=True, slots=True)
class ClientJob:
    """One client's request: for our engine, and as prompt and number of tokens for a peer."""

    request: AlignRequest
    prompt: list[int]
    tokens: int


Way = Callable[[list[ClientJob]], None]


def make_jobs(aligner: Aligner, tag: str) -> list[ClientJob]:
    """Make new requests that share only the template and the objectives, as requests of a route do."""
    batch = []
    for number in range(CLIENTS):
        question, answer = LONG[number % len(LONG)]
        if number in _DEFECTIVE:
            answer = add_insult(answer)
        turns = (Turn("user", f"{tag} {number}: {question}"),)
        request = AlignRequest(
            request_id=f"{tag}/{number}", turns=turns, answer=answer, objectives=OBJECTIVES, deadline_s=600
        )
        fitted = build_frame(aligner, request).fit_prompt(request.answer)
        answer_ids = aligner.runner.tokenizer.list_ids(fitted.prompt.shown_answer)
        batch.append(ClientJob(request, fitted.ids, len(answer_ids)))
    return batch


def run(model: str, rounds: int, peers: dict[str, Way]) -> dict[str, Any]:
    """Measure all engines in turns: corrections per second, and ratios to ours; raises `WeightsError`."""
    settings = EngineSettings(model=model)
    aligner_future: Future[Aligner] = Future()

    def load() -> Aligner:
        aligner_future.set_result(open_aligner(settings, config.home_folder()))
        return aligner_future.result()

    with asyncio.Runner() as loop:
        engine = LocalEngine(load)
        loop.run(engine.start())
        ways = {"aligner-proxy": _make_own_way(loop, engine), **peers}
        seconds = _run_rounds(aligner_future.result(), ways, rounds)
        loop.run(engine.aclose())
    rows = [_make_row(name, times) for name, times in seconds.items()]
    ours = seconds["aligner-proxy"]
    ratios = {
        f"throughput16_vs_{name}": round(statistics.median(t / o for t, o in zip(times, ours, strict=False)), 2)
        for name, times in seconds.items()
        if times is not ours
    }
    return {"n": rounds * CLIENTS, "threads": torch.get_num_threads(), "rows": rows, **ratios}


def _run_rounds(aligner: Aligner, ways: dict[str, Way], rounds: int) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    with Progress(transient=True) as progress:
        bar = progress.add_task("sixteen at a time", total=(rounds + 1) * len(ways))
        for name, work in ways.items():
            _warm(aligner, name, work)
            progress.advance(bar)
        for turn in range(rounds):
            for name, work in ways.items():
                if turn == 0 or name not in _ONCE:
                    seconds[name].append(_run_turn(aligner, f"{name[:4]} {turn}", work))
                progress.advance(bar)
    return seconds


def _warm(aligner: Aligner, name: str, work: Way) -> None:
    """Run at least one warm-up turn that does not count.

    Meanwhile our engine measures the gain of a second thread.
    """
    warm_s = 0.0
    turns = itertools.count()
    while warm_s < _WARM_S:
        warm_s += _run_turn(aligner, f"{name[:4]} warm {next(turns)}", work, _FEW)


def _run_turn(aligner: Aligner, tag: str, work: Way, clients: int = CLIENTS) -> float:
    """Seconds for this many new requests."""
    batch = make_jobs(aligner, tag)[:clients]
    time.sleep(_PAUSE_S)
    began = time.perf_counter()
    work(batch)
    return time.perf_counter() - began


def _make_row(name: str, times: list[float]) -> dict[str, Any]:
    per = sorted(round(CLIENTS / seconds, 3) for seconds in times)
    return {"name": name, "per_second": round(statistics.median(per), 3), "least": per[0], "most": per[-1]}


def _make_own_way(loop: asyncio.Runner, engine: LocalEngine) -> Way:
    async def align_together(batch: list[ClientJob]) -> None:
        await asyncio.gather(*(engine.align(job.request) for job in batch))

    return lambda batch: loop.run(align_together(batch))
