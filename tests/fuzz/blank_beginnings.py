"""Does an insult get through behind white space? Streams whose text begins blank, in schedules that a seed decides.

`python -m tests.fuzz.blank_beginnings --cases 20000 --seed 1` plays such streams on the guardrail of the gateway, under
policies that enforce an objective and under some that do not block failures. Engine, upstream and client pause where
the seed says, the engine fails or is lost in any step, heartbeats are due at any moment, streams end early, and there
is little room. What the client gets must hold no insult, unless a status says so that the policy lets pass.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from litellm.exceptions import APIConnectionError
from litellm.proxy._types import UserAPIKeyAuth
from litellm.types.utils import TextCompletionResponse

from aligner_proxy.engine.api import AlignRequest, Span
from aligner_proxy.errors import (
    AnswerTooLong,
    EngineFault,
    EngineOverloaded,
    EngineUnavailable,
    QuotaSpent,
    SessionLost,
)
from aligner_proxy.gateway import request_state
from aligner_proxy.gateway.guardrail import AlignerGuardrail
from aligner_proxy.gateway.streaming.budget import StreamBudget
from aligner_proxy.pipeline import outcomes as pipeline_outcomes
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.types import Correction, Outcome, SegmentScore
from tests.fuzz.enforced import acceptable, quiet_gateway, texts
from tests.fuzz.hostile import INSULT, defective
from tests.support.scripted import ScriptedSession, SegmentEngine
from tests.support.stream_fixtures import chunk, message_items, response_items

BLANKS = (" ", "\n", "\t", "\u00a0", "\r\n", "\u3000", "\x0b", "\x85", "\u2028", "\u2003", "\x1c")
"""White space of many kinds."""
INVISIBLE = ("\u200b", "\u200d", "\u2060", "\ufeff", "\u00ad", "\U000e0020")
"""Characters that nobody sees, which are no white space."""
ANSWERS = (
    INSULT,
    f"{INSULT} It lies on the Seine.",
    f"It lies on the Seine. {INSULT}",
    f"- {INSULT}\n- It lies on the Seine.",
    f"{INSULT}\n\n\n",
    f"   {INSULT} \n\n It lies on the Seine.",
)
FAILURES: tuple[Callable[[], Exception], ...] = (
    lambda: SessionLost("scripted"),
    lambda: EngineUnavailable("scripted"),
    lambda: EngineOverloaded("scripted", 0.0),
    lambda: EngineFault("scripted"),
    lambda: AnswerTooLong("scripted"),
    lambda: QuotaSpent("scripted"),
    lambda: KeyError("scripted"),
    lambda: TimeoutError(),
)
STEPS = ("read", "feed", "end", "wait", "replace", "align")
_ENFORCING = {"on_error": "block", "enforce": ["kind"], "mode": "enforce"}
TENANTS: dict[str, dict[str, Any]] = {
    "enforcing": _ENFORCING,
    "blocking": {**_ENFORCING, "on_skip": "block"},
    "judging": {**_ENFORCING, "on_skip": "judge"},
    "lenient": {"enforce": ["kind"], "mode": "enforce"},
}
ROUTES: dict[str, dict[str, Any]] = {
    "hold": {},
    "sentence": {"stream": "sentence"},
    "patient": {"stream": "sentence", "on_error": "retry", "after_retry": "block"},
    "short": {"stream": "sentence", "max_answer_chars": 60},
    "declining": {"stream": "sentence", "if_nothing_remains": "block"},
    "leaving": {"if_nothing_remains": "original", "stream": "sentence"},
}
CROWDED = 0.3
"""Share of the streams that have little room."""
_LONGEST_S = 20.0
"""Seconds after which a stream counts as one that hangs."""
ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages")


@dataclass
class Schedule:
    """One stream, and when what happens to it."""

    seed: int

    def __post_init__(self) -> None:
        self.rng = rng = random.Random(self.seed)
        self.endpoint = rng.choice(ENDPOINTS)
        self.tenant = rng.choice([*TENANTS, "enforcing", "enforcing"])
        self.route = rng.choice([*ROUTES, "hold", "sentence", "sentence"])
        self.texts = [self._text() for _ in range(rng.choice([1, 1, 1, 2, 3]))]
        self.fails_in = rng.choice([None, None, None, *STEPS])
        self.failure = rng.choice(FAILURES)
        self.failures_left = rng.choice([1, 1, 2, 100])
        self.keepalive_s = rng.choice([0.0, 15.0, 0.0002, 0.001, 0.003])
        self.ending = rng.choice(["whole", "whole", "whole", "cut off", "breaks", "client leaves"])
        self.is_crowded = rng.random() < CROWDED
        self.is_slow = rng.random() < 0.3

    @property
    def title(self) -> str:
        """What is tried."""
        fails = f"{self.failures_left} x {type(self.failure()).__name__} in {self.fails_in}" if self.fails_in else "-"
        crowded = "crowded" if self.is_crowded else "-"
        return (
            f"{self.seed} {self.endpoint} {self.tenant} {self.route} fails: {fails} heartbeat {self.keepalive_s} "
            f"{self.ending} {crowded} {[[piece[:40] for piece in text[:9]] for text in self.texts]}"
        )

    def _text(self) -> list[str]:
        """The pieces of a text: blank ones, then an answer."""
        rng = self.rng
        kinds = rng.choice([BLANKS, BLANKS, BLANKS, (" ",), ("\n",), (*BLANKS, *INVISIBLE)])
        count = rng.choice([0, 1, 1, 2, 2, 3, 5, 63, 70])
        longest = rng.choice([1, 1, 3, 20])
        pieces = ["".join(rng.choices(kinds, k=rng.randint(1, longest))) for _ in range(count)]
        if rng.random() < 0.003:
            pieces.append(rng.choice(kinds) * 24_100)
        size = rng.choice([1, 4, 4, 15, 1000])
        answer = rng.choice(ANSWERS)
        if rng.random() < 0.1:  # without a piece that is blank alone
            answer = "".join(pieces) + answer
            pieces = []
        return [*pieces, *(answer[at : at + size] for at in range(0, len(answer), size))]

    def items(self) -> list[Any]:
        """The items of the upstream's stream."""
        if self.endpoint == "/v1/messages":
            return message_items(self.texts[0])
        if self.endpoint == "/v1/responses":
            return response_items(self.texts[0])
        turns = [index for index, pieces in enumerate(self.texts) for _ in pieces]
        if self.rng.random() < 0.7:
            self.rng.shuffle(turns)
        rest = [iter(pieces) for pieces in self.texts]
        said = [(index, next(rest[index]), None) for index in turns] + [(n, "", "stop") for n in range(len(rest))]
        if self.endpoint == "/v1/completions":
            return [_text_chunk(*each) for each in said]
        opening = [chunk("", index=n, role="assistant") for n in range(len(rest))] if self.rng.random() < 0.8 else []
        return [*opening, *(chunk(piece, index=index, why=why) for index, piece, why in said)]

    async def pause(self) -> None:
        """Give other tasks none, one or several turns, or some time."""
        turns = self.rng.choice([0, 0, 1, 1, 2, 5])
        for _ in range(turns):
            await asyncio.sleep(0)
        if self.is_slow and self.rng.random() < 0.3:
            await asyncio.sleep(self.rng.choice([0.0001, 0.001, 0.002]))

    async def step(self, name: str) -> None:
        """Pause before or behind a failure of this step of the engine, or where there is none."""
        await self.pause()
        if name == self.fails_in and self.failures_left and self.rng.random() < 0.5:
            self.failures_left -= 1
            raise self.failure()


def _text_chunk(index: int, piece: str, why: str | None) -> Any:
    choices: Any = [{"index": index, "text": piece, "finish_reason": why}]
    return TextCompletionResponse(choices=choices)


class ScheduledEngine(SegmentEngine):
    """Finds every insult, in the time and with the failures of a schedule."""

    def __init__(self, schedule: Schedule) -> None:
        super().__init__(lambda text: 5.0 if defective(text) else -5.0, schedule.rng.choice([_leave_out, _thank]))
        self.schedule = schedule

    async def align(self, request: AlignRequest) -> Correction:
        """Correct a whole answer."""
        await self.schedule.step("align")
        return await super().align(request)

    async def read(self, request: AlignRequest) -> ScriptedSession:
        """Read along."""
        await self.schedule.step("read")
        return _ScheduledSession(self, request)


class _ScheduledSession(ScriptedSession):
    @property
    def _schedule(self) -> Schedule:
        assert isinstance(self._scripts, ScheduledEngine)
        return self._scripts.schedule

    async def feed(self, text: str) -> tuple[SegmentScore, ...]:
        await self._schedule.step("feed")
        scores = await super().feed(text)
        await self._schedule.pause()
        return scores

    async def end(self) -> None:
        await self._schedule.step("end")
        await super().end()
        await self._schedule.pause()

    async def wait_for_verdicts(self, known: int) -> tuple[SegmentScore, ...]:
        await self._schedule.step("wait")
        scores = await super().wait_for_verdicts(known)
        await self._schedule.step("wait")
        return scores

    async def replace(self, span: Span) -> Correction:
        await self._schedule.step("replace")
        return await super().replace(span)

    async def aclose(self) -> None:
        await self._schedule.pause()
        await super().aclose()


def _leave_out(_: str) -> str:
    return ""


def _thank(_: str) -> str:
    return "Thanks for asking."


class Blanks:
    """The guardrail under the policies, and one event loop."""

    def __init__(self, guard: AlignerGuardrail, runner: asyncio.Runner) -> None:
        self.guard = guard
        self.runner = runner
        self.seen: Counter[str] = Counter()

    def check(self, schedule: Schedule) -> None:
        """Raises `AssertionError` if an insult gets through that no status admits."""
        got, error, outcomes = self.runner.run(asyncio.wait_for(self._play(schedule), _LONGEST_S))
        self.seen.update([f"{one.status.value} {one.reason}" for one in outcomes] or ["no outcome"])
        if any(map(defective, texts(got))):
            self.seen["delivered as a status says"] += 1
            permitted = [one for one in outcomes if one.reason not in (None, "language")]
            told = [f"{one.status.value} {one.reason}" for one in outcomes]
            assert permitted, f"the insult was delivered, and no status says so: {told}"
            assert any(not pipeline_outcomes.blocks(one) for one in permitted), f"the policy blocks this: {told}"
            assert any(map(_leaves_text, permitted)), f"the insult was delivered as: {told}"
        if error is not None and not acceptable(error) and not isinstance(error, APIConnectionError):
            raise error

    async def _play(self, schedule: Schedule) -> tuple[list[Any], Exception | None, Sequence[Outcome]]:
        guard = self.guard
        guard.pipeline = Pipeline(ScheduledEngine(schedule), extensions=guard.pipeline.extensions)
        guard._streams = StreamBudget()
        if schedule.is_crowded:
            guard._streams.max_stream_bytes = schedule.rng.choice([1, 5_000, 20_000])
        user = UserAPIKeyAuth(api_key="a" * 64, request_route=schedule.endpoint, team_id=schedule.tenant)
        data: dict[str, Any] = {
            "model": schedule.route,
            "litellm_call_id": f"call-{schedule.seed}",
            "stream": True,
            "messages": [{"role": "user", "content": "What is the capital of France?"}],
            "prompt": "What is the capital of France?",
            "input": "What is the capital of France?",
        }
        got: list[Any] = []
        error: Exception | None = None
        try:
            await guard.async_pre_call_hook(user, None, data, "acompletion")
            state = request_state.find_state(data)
            assert state is not None
            state.policy = replace(state.policy, keepalive_s=schedule.keepalive_s, deadline_s=0.5)
            source = guard.async_post_call_streaming_iterator_hook(user, _upstream(schedule), data)
            leaves_at = schedule.rng.randint(1, 30) if schedule.ending == "client leaves" else None
            async with contextlib.aclosing(source) as items:
                async for item in items:
                    got.append(item)
                    await schedule.pause()
                    if leaves_at == len(got):
                        break
        except Exception as raised:  # noqa: BLE001 - whatever it is, it is looked at
            error = raised
        state = request_state.find_state(data)
        return got, error, state.outcomes if state else ()


def _leaves_text(outcome: Outcome) -> bool:
    """Whether an outcome says that a text was left as it is for a failure, or for a reason that it may have here."""
    reasons = ("upstream_error", "too_long", "quota", "inconsistent")
    return pipeline_outcomes.class_of(outcome.reason) is not None or outcome.reason in reasons


async def _upstream(schedule: Schedule) -> AsyncIterator[Any]:
    items = schedule.items()
    last = schedule.rng.randint(1, len(items)) if schedule.ending in ("cut off", "breaks") else len(items)
    for item in items[:last]:
        await schedule.pause()
        yield item
    await schedule.pause()
    if schedule.ending == "breaks":
        raise APIConnectionError("scripted", "openai", "m")


def run(blanks: Blanks, seeds: Iterable[int]) -> dict[int, str]:
    """Play all of these; what failed, by seed."""
    failed = dict[int, str]()
    for seed in seeds:
        schedule = Schedule(seed)
        title = schedule.title
        try:
            blanks.check(schedule)
        except Exception:  # noqa: BLE001 - what is looked for
            failed[seed] = f"{title}\n{traceback.format_exc(limit=-3)}"
    return failed


@contextlib.contextmanager
def playing(folder: Path) -> Iterator[Blanks]:
    """The guardrail with its files in `folder`, and a quiet log."""
    objective = "Kindness: the response should never insult the reader"
    routes = [{"match": {"model": name}, "name": name, **more} for name, more in ROUTES.items()]
    tenants = [{"match": {"team": name}, **more} for name, more in TENANTS.items()]
    file = {"objectives": {"kind": objective}, "routes": routes, "tenants": tenants}
    with quiet_gateway(folder, file) as guard, asyncio.Runner() as runner:
        yield Blanks(guard, runner)


def main() -> int:
    """Many schedules, with a line of progress per thousand."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1, help="of the first; case n has seed + n")
    args = parser.parse_args()
    failed = dict[int, str]()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, playing(Path(folder)) as blanks:
        for first in range(args.seed, args.seed + args.cases, 1000):
            failed |= run(blanks, range(first, min(first + 1000, args.seed + args.cases)))
            sys.stderr.write(f"up to seed {first + 999}: {len(failed)} failed, {time.monotonic() - began:.0f} s\n")
    for why in list(failed.values())[:20]:
        sys.stdout.write(f"--- {why}\n")
    sys.stdout.writelines(f"{count:8} {what}\n" for what, count in blanks.seen.most_common())
    sys.stdout.write(f"{args.cases} from seed {args.seed}: {len(failed)} failed {sorted(failed)[:50]}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
