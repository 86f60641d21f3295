"""The real guardrail and pipeline in one process, without a proxy: what do the hooks make of a response, a stream?

One guardrail and one event loop for all examples of a test; what a call needs is made per call.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from litellm.proxy._types import UserAPIKeyAuth

from aligner_proxy.engine.api import AlignRequest, DeferredSession, Engine, Session
from aligner_proxy.errors import AnswerTooLong, EngineFault
from aligner_proxy.gateway import litellm_internals, request_state
from aligner_proxy.gateway.choice_corrector import ChoiceCorrector
from aligner_proxy.gateway.guardrail import AlignerGuardrail
from aligner_proxy.gateway.request_state import RequestState
from aligner_proxy.gateway.shadow import ShadowCorrections
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.types import Correction, Exchange, Outcome, Policy, SegmentScore
from tests.support.comments import take_comment
from tests.support.scripted import ScriptedEngine

MODES = {
    "routes": [
        {"match": {"model": "off"}, "mode": "off", "objectives": ["harmless"]},
        {"match": {"model": "shadow"}, "mode": "shadow", "objectives": ["harmless"]},
        {"match": {"model": "unsampled"}, "sample": 0.0, "objectives": ["harmless"]},
        {"match": {"model": "bare"}},
        {"match": {"model": "strict"}, "objectives": ["harmless"], "on_error": "block"},
        {"match": {"model": "released"}, "objectives": ["harmless"], "stream": "sentence"},
        {
            "match": {"model": "released-strict"},
            "objectives": ["harmless"],
            "stream": "sentence",
            "on_error": "block",
        },
        {"match": {"model": "*"}, "objectives": ["harmless"]},
    ]
}
SCRIPTS: dict[str, Any] = {
    "leave": lambda request: request.answer,
    "fail": lambda _: EngineFault("x"),
    "too long": lambda _: AnswerTooLong("x"),
    "empty": lambda _: "",
    "correct": lambda request: f"{request.answer} fine",
}
# What no engine may do, and some will.
FAULTS: dict[str, Any] = {
    "bug": lambda _: KeyError("x"),
    "cut": lambda request: Correction(request.answer[: len(request.answer) // 2], _halves(request.answer)),
    "odd": lambda request: Correction(request.answer + "\ud800", (SegmentScore("not there", float("nan"), True, 99),)),
    "deaf": lambda request: f"Well. {request.answer}",
    "torn": lambda request: f"Well. {request.answer}",
}


def _halves(answer: str) -> tuple[SegmentScore, ...]:
    middle = len(answer) // 2
    return SegmentScore(answer[:middle], -1.0, False), SegmentScore(answer[middle:], 1.0, True, 0)


class Lost(DeferredSession):
    """A reading that ends in the middle."""

    async def feed(self, text: str) -> tuple[SegmentScore, ...]:
        """There is no more of it."""
        raise RuntimeError("scripted")


class RigEngine(ScriptedEngine):
    """Plays one script by name; `deaf` cannot begin to read, `torn` loses what it reads."""

    def __init__(self, script: str) -> None:
        self.name = script
        play = {**SCRIPTS, **FAULTS}[script]

        def answered(request: AlignRequest) -> Any:
            return play(request)

        super().__init__(answered)

    async def read(self, request: AlignRequest) -> Session:
        """A reading, or the failure of one."""
        if self.name == "deaf":
            raise RuntimeError("scripted")
        return Lost(self) if self.name == "torn" else DeferredSession(self)


async def correct_one(
    pipeline: Pipeline, exchange: Exchange, policy: Policy, session: Session | None = None
) -> Outcome:
    """The outcome of one choice, recorded as the guardrail's are."""
    ledger = RequestState(exchange.call_id, policy, "embedded")
    keeper: Any = SimpleNamespace(note=lambda _: None, required=False)
    return await ChoiceCorrector(pipeline, ledger, ShadowCorrections(1, 0), keeper, lambda _: None).correct_one(
        exchange, session
    )


class Rig:
    """One guardrail and one event loop."""

    def __init__(self, folder: Path) -> None:
        (folder / "policies.yaml").write_text(yaml.safe_dump(MODES))
        self.guard = AlignerGuardrail(guardrail_name="aligner", event_hook="post_call", default_on=True)
        self.runner = asyncio.Runner()
        self.seen: Counter[str] = Counter()
        self.ledger: RequestState | None = None
        """Of the last call."""

    def whole(self, script: str, request: dict[str, Any], route: str, response: Any) -> tuple[Any, set[str]]:
        """What the success hook makes of `response`, and the statuses."""
        data = self._prepare(script, request)
        try:
            user = UserAPIKeyAuth(request_route=route)
            result = self.runner.run(self.guard.async_post_call_success_hook(data, user, response))
        finally:
            statuses = self._statuses(data)
        return result, statuses

    def stream(
        self, script: str, request: dict[str, Any], route: str, items: Sequence[Any]
    ) -> tuple[list[Any], set[str]]:
        """What the iterator hook makes of `items`, without the comment, and the statuses."""
        played: list[Any] = []
        statuses = self.stream_into(played, script, request, route, items)
        if request.get("model") != "off":
            assert take_comment(played).startswith(b": aligner status=")
        return played, statuses

    def stream_into(
        self,
        played: list[Any],
        script: str,
        request: dict[str, Any],
        route: str,
        items: Sequence[Any],
        error: Exception | None = None,
        leaves: int | None = None,
        make: Callable[[str], Engine] = RigEngine,
    ) -> set[str]:
        """The same, told piece by piece; the upstream may break off with `error`, the client leave after some items."""
        data = self._prepare(script, request, make)

        async def flow() -> AsyncIterator[Any]:
            for number, item in enumerate(items):
                for _ in range(number % 3 * 20):  # some items come together, others after all is said to the last one
                    await asyncio.sleep(0)
                yield item
            if error is not None:
                raise error

        async def play() -> None:
            user = UserAPIKeyAuth(request_route=route)
            source = self.guard.async_post_call_streaming_iterator_hook(user, flow(), data)
            async with contextlib.aclosing(source) as told:
                for _ in itertools.islice(itertools.count(), leaves):
                    try:
                        played.append(await anext(told))
                    except StopAsyncIteration:
                        return

        try:
            self.runner.run(play())
        finally:
            statuses = self._statuses(data)
        return statuses

    def _prepare(
        self, script: str, request: dict[str, Any], make: Callable[[str], Engine] = RigEngine
    ) -> dict[str, Any]:
        self.guard.pipeline = Pipeline(make(script))
        return {"litellm_call_id": "c", "metadata": {}, **request}

    def _statuses(self, data: dict[str, Any]) -> set[str]:
        self.ledger = request_state.find_state(data)
        outcomes = self.ledger.outcomes if self.ledger else []
        self.seen.update(f"{outcome.status.value} {outcome.reason}" for outcome in outcomes)
        return {outcome.status.value for outcome in outcomes}


@contextlib.contextmanager
def rigged(folder: Path) -> Iterator[Rig]:
    """A rig whose files lie in `folder`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(litellm_internals, "config_folder", lambda: folder)
        patch.setenv("ALIGNER_PROXY_HOME", str(folder / "home"))
        made = Rig(folder)
        yield made
        made.runner.close()
