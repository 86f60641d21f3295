"""Speed of one correction compared with rewriting the answer in transformers, by edit rate.

One request at a time, with the same weights and prompts, these take turns: our default way (score, then write flagged
segments only), the whole answer verified as a draft, `generate` token by token, and `generate` with prompt lookup. The
output is forced (`forced_decoding.py`), so all write the same text. Times are end to end, including the prompt's
prefill.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from random import Random
from typing import Any

import torch
from rich.progress import Progress
from transformers import AutoModelForCausalLM

from aligner_proxy import prompts
from aligner_proxy.engine.api import AlignRequest
from aligner_proxy.engine.decoding.aligner import Aligner
from aligner_proxy.engine.decoding.prompt_fit import make_frame
from aligner_proxy.engine.loader import EngineSettings, open_aligner, prepare
from aligner_proxy.engine.loop import correct_alone
from aligner_proxy.policy import config
from aligner_proxy.types import Turn, Verify
from bench.forced_decoding import edit_tokens, find_changed_segments, force_engine, force_model
from bench.texts import LONG, OBJECTIVES

RATES = (0.0, 0.05, 0.2, 1.0)
LOOKUP = {"prompt_lookup_num_tokens": 10}
_ASKED = {"flagged": (0.0,), "lookup": (0.0, 0.05, 0.2)}
"""Edit rates for a way, if not all; prompt lookup finds nothing in an answer that is entirely new."""


@dataclass(slots=True)
class Times:
    """One way at one rate: wall-clock and CPU seconds of each correction, and its forwards."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    forwards: list[int] = field(default_factory=list)

    def spread(self) -> dict[str, float]:
        """Median, least and greatest time, and mean number of forwards."""
        row = {"median_ms": statistics.median(self.wall), "min_ms": min(self.wall), "max_ms": max(self.wall)}
        milliseconds = {name: round(1000 * seconds, 1) for name, seconds in row.items()}
        cpu = {"cpu_ms": round(1000 * statistics.median(self.cpu), 1)}
        return {**milliseconds, **cpu, "forwards": round(statistics.mean(self.forwards), 1) if self.forwards else -1}


@dataclass(frozen=True, slots=True)
class SpeedCase:
    """One request and its target text."""

    request: AlignRequest
    prompt: list[int]
    target: list[int]
    flags: list[bool]
    """The flags that the detector is forced to give."""


class Ways:
    """The four ways of correcting, over the same weights."""

    def __init__(self, model: str) -> None:
        settings = EngineSettings(model=model)
        self.aligner: Aligner = open_aligner(settings, config.home_folder())
        _, folder = prepare(settings, config.home_folder())
        device = "cuda:0" if torch.cuda.is_available() else "cpu"
        self._peer: Any = AutoModelForCausalLM.from_pretrained(str(folder), device_map=device, dtype=torch.bfloat16)
        self.names: dict[str, Callable[[SpeedCase], int]] = {
            "flagged": lambda case: self._correct_by_engine(case, Verify.FLAGGED),
            "verified": lambda case: self._correct_by_engine(case, Verify.ALWAYS),
            "generate": lambda case: self._correct_by_peer(case, {}),
            "lookup": lambda case: self._correct_by_peer(case, LOOKUP),
        }

    def make_case(self, name: str, number: int, rate: float) -> SpeedCase:
        """A case with one of the answers and a new question, so that the answer is prefilled every time."""
        question, answer = LONG[number % len(LONG)]
        request = AlignRequest(
            request_id=f"{name}/{rate}/{number}",
            turns=(Turn("user", f"{name[:3]} {number} {rate}: {question}"),),
            answer=answer,
            objectives=OBJECTIVES,
            deadline_s=600,
        )
        info = self.aligner.info
        tokenizer = self.aligner.runner.tokenizer
        frame = make_frame(request, prompts.find_template(info.template), tokenizer, info.window)
        fitted = frame.fit_prompt(request.answer)
        others = tokenizer.list_ids(LONG[(number + 1) % len(LONG)][1])
        pieces = tokenizer.encode_text(fitted.prompt.shown_answer)
        target = edit_tokens(pieces.ids, rate, Random(number), others)
        flags = find_changed_segments(answer, pieces.offsets, pieces.ids, target)
        return SpeedCase(request, fitted.ids, [*target, tokenizer.eos], flags)

    def _correct_by_engine(self, case: SpeedCase, verify: Verify) -> int:
        request = case.request.model_copy(update={"verify": verify})
        with force_engine(self.aligner.runner, len(case.prompt), case.target, case.flags) as count:
            text = correct_alone(self.aligner, request).text
        if verify is Verify.ALWAYS:
            self._check(case, text)
        return count.generating

    def _correct_by_peer(self, case: SpeedCase, options: dict[str, Any]) -> int:
        ids = torch.tensor([case.prompt], device=self._peer.device)
        with (
            torch.no_grad(),
            _count_forwards(self._peer) as count,
            force_model(self._peer, len(case.prompt), case.target),
        ):
            out = self._peer.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=len(case.target),
                do_sample=False,
                **options,
            )
        if out[0, ids.shape[1] :].tolist() != case.target:
            raise RuntimeError("transformers did not write what it was told")
        return count[0] - 1

    def _check(self, case: SpeedCase, text: str) -> None:
        target = self.aligner.runner.tokenizer.decode(case.target[:-1])
        if text.strip() != target.strip():
            raise RuntimeError(f"the engine did not write what it was told for {case.request.request_id}")


@contextmanager
def _count_forwards(model: Any) -> Iterator[list[int]]:
    """Count the forwards of a model, including those of the prompt."""
    count = [0]

    def count_forward(*_: object) -> None:
        count[0] += 1

    hook = model.register_forward_pre_hook(count_forward)
    try:
        yield count
    finally:
        hook.remove()


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Run every way at every rate, in turns, `rounds` times over `answers` answers; raises `WeightsError`."""
    ways = Ways(options.model)
    count: int = options.rounds * options.answers
    for name, work in ways.names.items():
        work(ways.make_case(name, -1, 0.0))
    times = {(rate, name): Times() for rate in RATES for name in ways.names if rate in _ASKED.get(name, RATES)}
    with Progress(transient=True) as progress:
        bar = progress.add_task("one at a time", total=count * len(times))
        for number in range(count):
            for (rate, name), row in times.items():
                _time_work(row, ways.names[name], ways.make_case(name, number, rate))
                progress.advance(bar)
    rows = [{"rate": rate, "way": name, **row.spread()} for (rate, name), row in times.items()]
    about = {"aligner": asdict(ways.aligner.info), "n": count, "threads": torch.get_num_threads()}
    return {**about, "rows": rows, **_ratios(times)}


def _time_work(row: Times, work: Callable[[SpeedCase], int], case: SpeedCase) -> None:
    wall = time.perf_counter()
    cpu = time.process_time()
    row.forwards.append(work(case))
    row.wall.append(time.perf_counter() - wall)
    row.cpu.append(time.process_time() - cpu)


def _ratios(times: dict[tuple[float, str], Times]) -> dict[str, Any]:
    """Medians of ratios between corrections of the same answer, made right after each other."""

    def find_ratio(peer: str, rate: float, way: str = "verified") -> float:
        pairs = zip(times[rate, peer].wall, times[rate, way].wall, strict=True)
        return round(statistics.median(theirs / ours for theirs, ours in pairs), 2)

    def mean_forwards(rate: float, way: str = "verified") -> float:
        return round(statistics.mean(times[rate, way].forwards), 1)

    return {
        "speedup_0": find_ratio("generate", 0.0, "flagged"),
        "speedup_0_verify": find_ratio("generate", 0.0),
        **{f"speedup_{round(100 * rate)}": find_ratio("generate", rate) for rate in RATES if rate},
        "vs_lookup_min_0_20": min(find_ratio("lookup", rate) for rate in _ASKED["lookup"]),
        "forwards_0": mean_forwards(0.0, "flagged"),
        "forwards_0_verify": mean_forwards(0.0),
        "forwards_5": mean_forwards(0.05),
        "forwards_20": mean_forwards(0.2),
    }
