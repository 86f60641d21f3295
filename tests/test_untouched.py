"""Untouched means untouched: 10,000 generated responses through the real hooks, and not one byte moved.

Four properties of 2,500 examples each: chat and text, whole and streamed. The scripted engine leaves, fails, refuses or
corrects; whenever no choice is corrected the very same objects come back and dump to the same bytes. When one is, the
original object is still as it was and the rest of the copy is equal.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from litellm.proxy._types import UserAPIKeyAuth
from litellm.types.utils import ModelResponse, ModelResponseStream, TextCompletionResponse

from aligner_proxy import guardrail as module
from aligner_proxy.engine.protocol import AlignRequest
from aligner_proxy.engine.scripted import ScriptedEngine
from aligner_proxy.errors import AnswerTooLong, EngineFault
from aligner_proxy.guardrail import AlignerGuardrail
from aligner_proxy.pipeline import Pipeline

pytestmark = [pytest.mark.filterwarnings("ignore::UserWarning"), pytest.mark.slow, pytest.mark.timeout(600)]

EXAMPLES = settings(max_examples=2500, deadline=None, database=None, suppress_health_check=list(HealthCheck))
ODD = [
    "",
    " ",
    "\n",
    "\t\r\n",
    "\u00a0\u2028\u200b",
    "e\u0301",
    "\ud7ff",
    "😀👩‍👩‍👧",
    '{"a": 1}',
    "| Edit: ",
    "a\x00b",
    "你好。",
    "عربي",
]
TEXT = st.one_of(
    st.sampled_from(["Plain words. More of them.", *ODD]),
    st.text(max_size=24),
    st.lists(st.sampled_from(ODD), max_size=4).map(" ".join),
)
MAYBE_TEXT = st.none() | TEXT
FINISH = st.sampled_from([*["stop"] * 12, "length", "content_filter", "tool_calls", None])
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
NOTE = {"type": "url_citation", "url_citation": {"start_index": 0, "end_index": 1, "url": "u", "title": "t"}}
EXTRA = st.dictionaries(st.sampled_from(["x", "citations"]), MAYBE_TEXT, max_size=2)
PROBABILITIES = {"content": [{"token": "A", "logprob": -0.1, "bytes": None, "top_logprobs": []}]}
LOGPROBS = st.sampled_from([*[None] * 12, PROBABILITIES])
# What makes an answer ineligible is rare, or hardly any example would get as far as the engine.
BLOCKERS: list[dict[str, Any]] = [
    {"tool_calls": [CALL]},
    {"function_call": {"name": "f", "arguments": "{}"}},
    {"refusal": "No."},
    {"annotations": [NOTE]},
    {"content": None},
]
MESSAGE = st.builds(
    lambda plain, blocker: {**plain, **blocker},
    st.fixed_dictionaries(
        {"role": st.just("assistant"), "content": TEXT},
        optional={
            "reasoning_content": TEXT,
            "refusal": st.none(),
            "thinking_blocks": st.just([{"type": "thinking", "thinking": "t", "signature": "s"}]),
            "provider_specific_fields": EXTRA,
            "made_up": TEXT,
        },
    ),
    st.sampled_from([*[{}] * 20, *BLOCKERS]),
)
HEAD = st.fixed_dictionaries(
    {"id": TEXT, "created": st.just(1), "model": TEXT},
    optional={
        "system_fingerprint": TEXT,
        "service_tier": TEXT,
        "usage": st.just({"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}),
    },
)
REQUEST = st.fixed_dictionaries(
    {
        "prompt": TEXT | st.lists(TEXT, min_size=3, max_size=3),
        "model": st.sampled_from([*["gpt"] * 8, *["shadow"] * 3, "off", "unsampled", "bare"]),
    },
    optional={
        "n": st.integers(1, 3),
        "response_format": st.sampled_from([*[{"type": "text"}] * 8, {"type": "json_object"}]),
        "tools": st.just([{"type": "function", "function": {"name": "f"}}]),
        "echo": st.sampled_from([*[False] * 8, True]),
        "messages": st.lists(st.fixed_dictionaries({"role": st.just("user"), "content": MAYBE_TEXT}), max_size=2),
        "made_up": TEXT,
    },
)
SCRIPTS: dict[str, Any] = {
    "leave": lambda request: request.answer,
    "fail": lambda _: EngineFault("x"),
    "too long": lambda _: AnswerTooLong("x"),
    "empty": lambda _: "",
    "correct": lambda request: f"{request.answer} fine",
}
MODES = {
    "routes": [
        {"match": {"model": "off"}, "mode": "off", "objectives": ["harmless"]},
        {"match": {"model": "shadow"}, "mode": "shadow", "objectives": ["harmless"]},
        {"match": {"model": "unsampled"}, "sample": 0.0, "objectives": ["harmless"]},
        {"match": {"model": "bare"}},
        {"match": {"model": "*"}, "objectives": ["harmless"]},
    ]
}


class Rig:
    """One guardrail and one event loop for all examples; what a call needs is made per call."""

    def __init__(self, folder: Path) -> None:
        (folder / "policies.yaml").write_text(yaml.safe_dump(MODES))
        self.guard = AlignerGuardrail(guardrail_name="aligner", event_hook="post_call", default_on=True)
        self.runner = asyncio.Runner()
        self.seen: Counter[str] = Counter()

    def whole(self, script: str, request: dict[str, Any], route: str, response: Any) -> tuple[Any, set[str]]:
        """What the success hook makes of `response`, and the statuses."""
        data = self._prepare(script, request)
        result = self.runner.run(
            self.guard.async_post_call_success_hook(data, UserAPIKeyAuth(request_route=route), response)
        )
        return result, self._statuses(data)

    def stream(
        self, script: str, request: dict[str, Any], route: str, items: Sequence[Any]
    ) -> tuple[list[Any], set[str]]:
        """What the iterator hook makes of `items`, without the comment, and the statuses."""
        data = self._prepare(script, request)

        async def flow() -> AsyncIterator[Any]:
            for item in items:
                yield item

        async def play() -> list[Any]:
            user = UserAPIKeyAuth(request_route=route)
            return [item async for item in self.guard.async_post_call_streaming_iterator_hook(user, flow(), data)]

        played = self.runner.run(play())
        assert played.pop().startswith(b": aligner status=")
        return played, self._statuses(data)

    def _prepare(self, script: str, request: dict[str, Any]) -> dict[str, Any]:
        self.guard.pipeline = Pipeline(ScriptedEngine(_named(script)))
        return {"litellm_call_id": "c", "metadata": {}, **request}

    def _statuses(self, data: dict[str, Any]) -> set[str]:
        ledger = module._find(data)
        assert ledger is not None
        assert ledger.settled
        self.seen.update(f"{outcome.status.value} {outcome.reason}" for outcome in ledger.outcomes)
        return {outcome.status.value for outcome in ledger.outcomes}


def _named(script: str) -> Any:
    def play(request: AlignRequest) -> Any:
        return SCRIPTS[script](request)

    return play


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    folder = tmp_path_factory.mktemp("untouched")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_config_folder", lambda: folder)
        patch.setenv("ALIGNER_PROXY_HOME", str(folder / "home"))
        made = Rig(folder)
        yield made
        made.runner.close()


SCRIPT = st.sampled_from(sorted(SCRIPTS))
CHAT_CHOICES = st.lists(
    st.fixed_dictionaries({"message": MESSAGE, "finish_reason": FINISH, "logprobs": LOGPROBS}), min_size=1, max_size=3
)
CHAT_CHUNKS = st.lists(
    st.fixed_dictionaries(
        {"index": st.integers(0, 2), "delta": MESSAGE, "finish_reason": FINISH, "logprobs": LOGPROBS}
    ),
    max_size=5,
)
TEXT_CHOICES = st.lists(
    st.fixed_dictionaries({"text": MAYBE_TEXT, "finish_reason": FINISH}, optional={"made_up": TEXT}),
    min_size=1,
    max_size=3,
)
TEXT_CHUNKS = st.lists(
    st.fixed_dictionaries({"index": st.integers(0, 2), "text": MAYBE_TEXT, "finish_reason": FINISH}), max_size=5
)


@EXAMPLES
@given(SCRIPT, REQUEST, HEAD, CHAT_CHOICES)
def test_chat(rig: Rig, script: str, request_: dict[str, Any], head: dict[str, Any], choices: list[Any]) -> None:
    response = ModelResponse(**head, choices=[{"index": i, **c} for i, c in enumerate(choices)])
    before = response.model_dump_json()
    result, statuses = rig.whole(script, request_, "/v1/chat/completions", response)
    assert response.model_dump_json() == before
    if "corrected" not in statuses:
        assert result is None or result is response
    else:
        for ours, theirs in zip(result.choices, response.choices, strict=True):
            ours.message.content = theirs.message.content
        assert result.model_dump_json() == before


@EXAMPLES
@given(SCRIPT, REQUEST, HEAD, TEXT_CHOICES)
def test_text(rig: Rig, script: str, request_: dict[str, Any], head: dict[str, Any], choices: list[Any]) -> None:
    response = TextCompletionResponse(**head, choices=[{"index": i, **c} for i, c in enumerate(choices)])
    before = response.model_dump_json()
    result, statuses = rig.whole(script, request_, "/v1/completions", response)
    assert response.model_dump_json() == before
    if "corrected" not in statuses:
        assert result is None or result is response
    else:
        for ours, theirs in zip(result.choices, response.choices, strict=True):
            ours.text = theirs.text
        assert result.model_dump_json() == before


@EXAMPLES
@given(SCRIPT, REQUEST, HEAD, CHAT_CHUNKS)
def test_chat_stream(rig: Rig, script: str, request_: dict[str, Any], head: dict[str, Any], chunks: list[Any]) -> None:
    items = [ModelResponseStream(**head, choices=[chunk]) for chunk in chunks]
    before = [item.model_dump_json() for item in items]
    played, statuses = rig.stream(script, request_, "/v1/chat/completions", items)
    assert [item.model_dump_json() for item in items] == before
    if "corrected" not in statuses:
        assert [id(item) for item in played] == [id(item) for item in items]
    else:
        for ours, theirs in zip(played, items, strict=True):
            ours.choices[0].delta.content = theirs.choices[0].delta.content
        assert [item.model_dump_json() for item in played] == before


@EXAMPLES
@given(SCRIPT, REQUEST, HEAD, TEXT_CHUNKS)
def test_text_stream(rig: Rig, script: str, request_: dict[str, Any], head: dict[str, Any], chunks: list[Any]) -> None:
    items = [TextCompletionResponse(**head, choices=[chunk]) for chunk in chunks]
    before = [item.model_dump_json() for item in items]
    played, statuses = rig.stream(script, request_, "/v1/completions", items)
    assert [item.model_dump_json() for item in items] == before
    if "corrected" not in statuses:
        assert [id(item) for item in played] == [id(item) for item in items]
    else:
        for ours, theirs in zip(played, items, strict=True):
            ours.choices[0].text = theirs.choices[0].text
        assert [item.model_dump_json() for item in played] == before


def test_the_examples_were_not_all_of_one_kind(rig: Rig) -> None:
    """Runs last: every status and most reasons must have occurred, or the properties above prove little."""
    kinds = {kind for kind, count in rig.seen.items() if count >= 20}
    assert {"corrected None", "unchanged None", "unchanged gate_empty", "failed engine_error"} <= kinds
    assert {"shadow would_correct", "shadow would_leave", "skipped too_long", "skipped truncated"} <= kinds
    skips = (
        "mode_off",
        "not_sampled",
        "no_objectives",
        "tool_calls",
        "structured_output",
        "non_text",
        "empty",
        "refusal",
    )
    assert {f"skipped {reason}" for reason in skips} <= kinds
