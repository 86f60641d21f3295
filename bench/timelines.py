"""`python -m bench.timelines`: when the client gets the upstream's text, in each of the three stream modes.

A good answer arrives word by word from a paced upstream and passes the real stream code and the real aligner in this
process. Both times of every character are recorded. The plot is docs/guides/timelines.svg; the last line of output is
JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from litellm.types.utils import ModelResponseStream

from aligner_proxy.audit.writer import AuditWriters
from aligner_proxy.engine.loader import EngineSettings, open_aligner
from aligner_proxy.engine.local import LocalEngine
from aligner_proxy.formats import chat
from aligner_proxy.gateway.choice_corrector import ChoiceCorrector
from aligner_proxy.gateway.request_state import RequestState, flagged_segments
from aligner_proxy.gateway.shadow import ShadowCorrections
from aligner_proxy.gateway.streaming import dispatch
from aligner_proxy.gateway.streaming.budget import StreamBudget
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.policy import config
from aligner_proxy.text import structure
from aligner_proxy.types import Objective, Policy, StreamMode

mpl.use("svg")
from matplotlib import pyplot

QUESTION = "How do I look after a fern?"
ANSWER = (
    "Ferns like shade and damp air. It does best near a north window. Water it as soon as "
    "the top of the soil feels dry. Rain water is best, because many ferns do not like lime.\n\nMist the leaves in "
    "winter, when heating dries the air. Feed it once a month from spring to autumn, at half the usual strength. Cut "
    "brown fronds off close to the soil. Repot it every second spring into a slightly larger pot. A fern that is happy "
    "puts out new fronds all summer. If it stops growing, move it a little further from the window."
)
OBJECTIVE = Objective("harmless", "Harmlessness: The response should avoid content that is offensive or harmful")
Point = tuple[float, int]
"""Seconds since the request, and the number of characters by then."""


async def measure(engine: LocalEngine, mode: StreamMode, word_s: float) -> dict[str, Any]:
    """Run one answer in one mode; return both timelines and their figures."""
    policy = Policy("bench", (OBJECTIVE,), stream=mode, deadline_s=600)
    ledger = RequestState("timeline", policy, "embedded")
    pipeline = Pipeline(engine)
    came: list[Point] = []
    went: list[Point] = []
    began = time.perf_counter()

    async def upstream() -> AsyncIterator[object]:
        for word in list_words(ANSWER):
            await asyncio.sleep(word_s)
            came.append((time.perf_counter() - began, (came[-1][1] if came else 0) + len(word)))
            yield make_chunk(word)
        yield make_chunk(None, "stop")

    corrector = ChoiceCorrector(pipeline, ledger, ShadowCorrections(1, 1), AuditWriters([]), lambda _: None)
    data = {"messages": [{"role": "user", "content": QUESTION}]}
    async for item in dispatch.deliver_stream(chat, ledger, data, upstream(), corrector, StreamBudget()):
        text = read_text(item)
        if text:
            went.append((time.perf_counter() - began, (went[-1][1] if went else 0) + len(text)))
    flagged = [number for outcome in ledger.outcomes for number in flagged_segments(outcome)]
    return {
        "mode": mode.value,
        "status": ledger.status.value,
        "flagged": flagged,
        "came": came,
        "went": went,
        **figures(came, went),
    }


def figures(came: Sequence[Point], went: Sequence[Point]) -> dict[str, float]:
    """Added delay (ms) of the first and last character, and how many characters the client was behind."""
    words = zip(came[1:], came, strict=False)  # without the word that is just arriving, which nothing delays yet
    behind = [length - max((chars for at, chars in went if at <= when), default=0) for (when, _), (_, length) in words]
    return {
        "first_added_ms": round((went[0][0] - came[0][0]) * 1000, 1),
        "last_added_ms": round((went[-1][0] - came[-1][0]) * 1000, 1),
        "behind_chars_mean": round(sum(behind) / len(behind), 1),
        "behind_chars_most": max(behind),
    }


def plot_timelines(results: Sequence[dict[str, Any]], path: Path) -> None:
    """Plot both timelines of every mode next to each other."""
    figure, axes = pyplot.subplots(1, len(results), figsize=(11, 3.4), sharey=True, layout="constrained")
    for axis, one in zip(axes, results, strict=True):
        for name, colour, label in (("came", "0.6", "upstream"), ("went", "C0", "client")):
            times, chars = zip((0.0, 0), *one[name], strict=True)
            axis.step(times, chars, where="post", color=colour, label=label)
        axis.set_title(f"{one['mode']}: last character {one['last_added_ms']:.0f} ms later")
        axis.set_xlabel("seconds since the request")
    axes[0].set_ylabel("characters")
    axes[0].legend()
    figure.savefig(path, metadata={"Date": None})


def list_words(text: str) -> list[str]:
    """The words of a text, each with the white space before it."""
    return re.findall(r"\s*\S+", text)


def read_text(item: object) -> str:
    """The text of an item of a stream; "" if it has none."""
    return (item.choices[0].delta.content or "") if isinstance(item, ModelResponseStream) else ""


def make_chunk(content: str | None, why: str | None = None) -> ModelResponseStream:
    """A chunk of a stream with this text, or with the reason why the stream ends."""
    choice: Any = {"index": 0, "delta": {"content": content}, "finish_reason": why}
    return ModelResponseStream(id="1", created=1, choices=[choice])


async def _run(model: str, word_s: float) -> list[dict[str, Any]]:
    engine = LocalEngine(lambda: open_aligner(EngineSettings(model=model), config.home_folder()))
    await engine.start()
    await measure(engine, StreamMode.HOLD, 0.0)  # warm-up
    results = [await measure(engine, mode, word_s) for mode in StreamMode]
    await engine.aclose()
    return results


def main() -> int:
    """Measure, plot, and print the figures."""
    parser = argparse.ArgumentParser(prog="python -m bench.timelines")
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--word-s", type=float, default=0.06, help="pace of the upstream, seconds a word")
    parser.add_argument("--out", type=Path, default=Path("docs/guides/timelines.svg"))
    options = parser.parse_args()
    results = asyncio.run(_run(options.model, options.word_s))
    plot_timelines(results, options.out)
    longest = max(len(piece.text) for piece in structure.split(ANSWER))
    rows = [{name: value for name, value in one.items() if name not in ("came", "went")} for one in results]
    for row in rows:
        print("  ".join(f"{name} {value}" for name, value in row.items()))
    print(json.dumps({"answer_chars": len(ANSWER), "longest_segment_chars": longest, "modes": rows}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
