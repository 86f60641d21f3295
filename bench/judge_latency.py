"""`python -m bench.judge_latency [--rounds N] [--word-s S] [--out FOLDER]`: what a judge adds to an answer in doubt.

An answer arrives word by word from a paced upstream and passes the real stream code, pipeline and judge's code in this
process. The engine and the judge are scripted: the head doubts one sentence, and the judge takes 200 ms to say that it
is fine, or that it is at fault. Each answer is sent without and with the judge, in turns, so that what the gateway
itself takes stands on both sides. `extra` is by how much later the end (and the first character) comes with the judge,
in milliseconds: the median of pairs. The last line of output is JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from aligner_proxy.audit.writer import AuditWriters
from aligner_proxy.correctors.judge import Judges
from aligner_proxy.correctors.model_group import Reply
from aligner_proxy.formats import chat
from aligner_proxy.gateway.choice_corrector import ChoiceCorrector
from aligner_proxy.gateway.request_state import RequestState
from aligner_proxy.gateway.shadow import ShadowCorrections
from aligner_proxy.gateway.streaming import dispatch
from aligner_proxy.gateway.streaming.budget import StreamBudget
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.text import structure
from aligner_proxy.types import NO_JUDGE, Exchange, Judge, JudgeKind, Policy, StreamMode, Turn
from bench.timelines import ANSWER, OBJECTIVE, QUESTION, list_words, make_chunk, read_text
from tests.support.editors import ScriptedChat
from tests.support.judges import judging
from tests.support.scripted import SegmentEngine

JUDGE_S = 0.2
"""Seconds that the judge takes."""
WHOLE = "whole"
"""Stands among the stream modes for a response that is not streamed."""
PLACES: Mapping[str, int] = {"second": 1, "last": -1}
"""Which sentence of the answer is in doubt, by its index."""


@dataclass(slots=True)
class SlowChat(ScriptedChat):
    """A judge that takes its time."""

    async def ask(self, messages: Sequence[Mapping[str, str]], **settings: Any) -> Reply:
        """Play the script after `JUDGE_S`."""
        await asyncio.sleep(JUDGE_S)
        return await ScriptedChat.ask(self, messages, **settings)


@dataclass(frozen=True, slots=True)
class JudgeCase:
    """One way of delivery, the sentence that is in doubt, and what the judge says of it."""

    mode: str
    place: str
    verdict: str

    @property
    def doubtful_sentence(self) -> str:
        """The text of the sentence that is in doubt."""
        return structure.split(ANSWER)[PLACES[self.place]].text


@dataclass(frozen=True, slots=True)
class Delivery:
    """Seconds from the request until the client has the first character, and until it has the whole answer."""

    first: float
    end: float


async def deliver(case: JudgeCase, judge: Judge, word_s: float) -> Delivery:
    """Deliver one answer in one way, with this judge or without one."""
    policy = Policy("bench", (OBJECTIVE,), judge=judge, deadline_s=60)
    script = SlowChat(judging(lambda text: case.verdict == "flagged" and text.strip() == case.doubtful_sentence))
    engine = SegmentEngine(lambda text: -0.2 if text == case.doubtful_sentence else -5.0)
    # judges of its own, because verdicts are remembered
    pipeline = Pipeline(engine, judges=Judges(lambda _: script, lambda _: script))
    began = time.perf_counter()
    if case.mode == WHOLE:
        await asyncio.sleep(word_s * len(list_words(ANSWER)))
        await pipeline.align(Exchange("whole", 0, (Turn("user", QUESTION),), ANSWER), policy)
        times = [time.perf_counter() - began]
    else:
        times = await _deliver_stream(pipeline, replace(policy, stream=StreamMode(case.mode)), word_s, began)
    # a stream in passthrough is judged for the record, after it was delivered
    if judge is not NO_JUDGE and case.mode != StreamMode.PASSTHROUGH and not script.asked:
        raise RuntimeError(f"the judge was not asked: {case}")
    return Delivery(times[0], times[-1])


async def _deliver_stream(pipeline: Pipeline, policy: Policy, word_s: float, began: float) -> list[float]:
    """Stream the answer, and return the seconds at which the client got text, and the end."""
    state = RequestState("judged", policy, "scripted")
    shadow = ShadowCorrections(1, 1)
    corrector = ChoiceCorrector(pipeline, state, shadow, AuditWriters([]), lambda _: None)
    data = {"messages": [{"role": "user", "content": QUESTION}]}

    async def upstream() -> Any:
        for word in list_words(ANSWER):
            await asyncio.sleep(word_s)
            yield make_chunk(word)
        yield make_chunk(None, "stop")

    stream = dispatch.deliver_stream(chat, state, data, upstream(), corrector, StreamBudget())
    times = [time.perf_counter() - began async for item in stream if read_text(item)]
    return [*times, time.perf_counter() - began]


async def measure(case: JudgeCase, rounds: int, word_s: float) -> dict[str, Any]:
    """The medians of pairs, without and with the judge; which comes first changes from pair to pair."""
    judge = Judge(JudgeKind.CHAT, "bench")
    pairs: list[dict[str, Delivery]] = []
    for number in range(rounds):
        order = (("without", NO_JUDGE), ("with", judge))
        deliveries = {name: await deliver(case, one, word_s) for name, one in order[:: 1 if number % 2 else -1]}
        pairs.append(deliveries)
    end = [pair["with"].end - pair["without"].end for pair in pairs]
    first = [pair["with"].first - pair["without"].first for pair in pairs]
    ratios = [pair["with"].end / pair["without"].end for pair in pairs]
    return {
        "mode": case.mode,
        "place": case.place,
        "verdict": case.verdict,
        "without_ms": round(1000 * statistics.median(pair["without"].end for pair in pairs)),
        "extra_first_ms": round(1000 * statistics.median(first)),
        "extra_end_ms": round(1000 * statistics.median(end)),
        "extra_end_most_ms": round(1000 * max(end)),
        "ratio_end": round(statistics.median(ratios), 3),
    }


def main() -> int:
    """Measure and print the figures."""
    parser = argparse.ArgumentParser(prog="python -m bench.judge_latency", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="pairs of each case")
    parser.add_argument("--word-s", type=float, default=0.02, help="pace of the upstream, seconds a word")
    parser.add_argument("--out", type=Path, help="folder for the figures as JSON")
    options = parser.parse_args()
    modes = (WHOLE, *(mode.value for mode in StreamMode))
    cases = [
        JudgeCase(mode, place, verdict) for mode in modes for place in PLACES for verdict in ("cleared", "flagged")
    ]
    rows = []
    for case in cases:
        rows.append(asyncio.run(measure(case, options.rounds, options.word_s)))
        print("  ".join(f"{name} {value}" for name, value in rows[-1].items()), flush=True)
    report = json.dumps({"judge_ms": round(1000 * JUDGE_S), "rounds": options.rounds, "rows": rows})
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "judge_latency.json").write_text(f"{report}\n")
    print(report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
