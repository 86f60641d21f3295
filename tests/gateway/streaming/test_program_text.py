"""Calls, data and forms that a request began, in streams of every wire format, however the stream is delivered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from aligner_proxy.audit.writer import AuditWriters
from aligner_proxy.gateway.choice_corrector import ChoiceCorrector
from aligner_proxy.gateway.request_state import RequestState
from aligner_proxy.gateway.shadow import ShadowCorrections
from aligner_proxy.gateway.streaming.delivery import StreamRequest
from aligner_proxy.gateway.streaming.held import HeldStream, LiveStream
from aligner_proxy.gateway.streaming.released import ReleasedStream
from aligner_proxy.pipeline import outcomes
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.types import Mode, Objective, OnSkip, Outcome, Policy, SkipPolicy, Status, StreamMode
from tests.support.comments import take_comment
from tests.support.scripted import SegmentEngine
from tests.support.stream_fixtures import FORMATS, Format
from tests.text.programs import CALLS, DATA, PROSE

KIND = (Objective("kind", "Kind: never insult"),)
FOOL = "You fool."
ASKED = {"role": "user", "content": "When does it open?"}
BEGUN = {"role": "assistant", "content": '{"answer": "'}


class Refused(Exception):
    """What a client gets in place of an answer that is blocked."""


class Corrector(ChoiceCorrector):
    """Refuses as the gateway does."""

    def raise_if_blocked(self, outcome: Outcome) -> None:
        if outcomes.blocks(outcome):
            raise Refused(outcome.reason)


def policy(stream: StreamMode, reaction: OnSkip) -> Policy:
    return Policy("p", KIND, stream=stream, on_skip=SkipPolicy(tool_calls=reaction, structured_output=reaction))


async def slowly(items: Sequence[object]) -> AsyncIterator[object]:
    for item in items:
        for _ in range(30):
            await asyncio.sleep(0)
        yield item


async def play(
    form: Format,
    answer: str,
    way: Policy,
    data: dict[str, Any] | None = None,
    pieces: Sequence[str] = (),
) -> tuple[list[Any], RequestState]:
    """The items that a client gets, and the state of the request; the answer comes in these pieces."""
    ledger = RequestState("call-1", way, "m")
    engine = SegmentEngine(lambda text: 2.0 if "fool" in text else -2.0)
    corrector = Corrector(Pipeline(engine), ledger, ShadowCorrections(1, 1), AuditWriters([]), lambda _: None)
    kinds = {StreamMode.SENTENCE: ReleasedStream, StreamMode.HOLD: HeldStream, StreamMode.PASSTHROUGH: LiveStream}
    kind: Any = kinds[way.stream]
    data = data or {"messages": [ASKED], "input": [ASKED], "prompt": "When does it open?"}
    made = kind(StreamRequest(form.wire, data, ledger, corrector))
    items = form.tell(pieces or [answer[at : at + 9] for at in range(0, len(answer), 9)])
    got = [item async for item in made.deliver(slowly(items))]
    take_comment(got)
    return got, ledger


MODES = pytest.mark.parametrize("mode", [StreamMode.HOLD, StreamMode.SENTENCE])
EVERY_FORMAT = pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)


@MODES
@EVERY_FORMAT
async def test_calls_and_data_pass_unchanged(form: Format, mode: StreamMode) -> None:
    way = policy(mode, OnSkip.PASSTHROUGH)
    for text, reason in (
        (CALLS["cline"], "tool_calls"),
        (CALLS["react"], "tool_calls"),
        (DATA["commas"], "structured_output"),
    ):
        answer = text.replace("Brest", FOOL) if reason == "structured_output" else f"{text}\n{FOOL} It goes on."
        got, ledger = await play(form, answer, way)
        assert form.read(got) == answer
        assert (ledger.status, ledger.outcomes[0].reason) == (Status.SKIPPED, reason)


@MODES
@EVERY_FORMAT
async def test_prose_with_a_fenced_call_is_edited(form: Format, mode: StreamMode) -> None:
    answer = f"{PROSE['fenced call']}\n\n{FOOL}\n\nBye."
    got, ledger = await play(form, answer, policy(mode, OnSkip.PASSTHROUGH))
    assert form.read(got) == answer.replace(f"{FOOL}\n\n", "")
    assert ledger.status is Status.CORRECTED


@EVERY_FORMAT
async def test_a_released_stream_is_edited_up_to_the_call(form: Format) -> None:
    answer = f"{FOOL} I write it. It is short.\n\n{CALLS['cline at once']}\n\n{FOOL} Done."
    got, ledger = await play(form, answer, policy(StreamMode.SENTENCE, OnSkip.PASSTHROUGH))
    assert form.read(got) == answer.removeprefix(f"{FOOL} ")
    assert (ledger.status, ledger.outcomes[0].reason) == (Status.CORRECTED, "tool_calls")


@MODES
@EVERY_FORMAT
async def test_a_blocked_call_does_not_go_out(form: Format, mode: StreamMode) -> None:
    with pytest.raises(Refused, match="tool_calls"):
        await play(form, f"I write it. It is short.\n\n{CALLS['cline at once']}\n\nDone.", policy(mode, OnSkip.BLOCK))


@MODES
@EVERY_FORMAT
async def test_the_rest_of_what_a_request_began_passes_unchanged(form: Format, mode: StreamMode) -> None:
    data = {"messages": [ASKED, BEGUN], "input": [ASKED, BEGUN], "prompt": "<PRE> a <SUF> b <MID>"}
    answer = f'It opens at nine. {FOOL} Bye."}}'
    got, ledger = await play(form, answer, policy(mode, OnSkip.PASSTHROUGH), data)
    assert form.read(got) == answer
    assert (ledger.status, ledger.outcomes[0].reason) == (Status.SKIPPED, "structured_output")
    got, ledger = await play(form, answer, policy(mode, OnSkip.JUDGE), data)
    assert form.read(got) == answer
    assert ledger.outcomes[0].reason == "gate_json_schema", "it is judged, but no edit can be checked"


@pytest.mark.parametrize(
    ("answer", "is_held"), [(DATA["workflow"], True), (DATA["commas"], True), (PROSE["labels"], False)]
)
async def test_a_stream_that_may_become_data_is_held_and_prose_with_labels_is_not(answer: str, is_held: bool) -> None:
    chat = FORMATS[0]
    ledger = RequestState("call-1", policy(StreamMode.SENTENCE, OnSkip.PASSTHROUGH), "m")
    corrector = Corrector(
        Pipeline(SegmentEngine(lambda _: -2.0)), ledger, ShadowCorrections(1, 1), AuditWriters([]), lambda _: None
    )
    items = chat.tell([answer[at : at + 9] for at in range(0, len(answer), 9)])
    got: list[Any] = []
    lengths: list[int] = []

    async def source() -> AsyncIterator[object]:
        async for item in slowly(items):
            lengths.append(len(chat.read(got)))
            yield item

    request = StreamRequest(chat.wire, {"messages": [ASKED]}, ledger, corrector)
    async for item in ReleasedStream(request).deliver(source()):
        got.append(item)
    before_finish = lengths[-2]
    assert (before_finish == 0) is is_held


@EVERY_FORMAT
async def test_a_stream_that_only_passes_is_the_upstreams_and_recorded(form: Format) -> None:
    way = replace(policy(StreamMode.PASSTHROUGH, OnSkip.PASSTHROUGH), mode=Mode.SHADOW)
    answer = f"{CALLS['cline']}\n{FOOL} It goes on."
    got, ledger = await play(form, answer, way)
    assert form.read(got) == answer
    assert (ledger.status, ledger.outcomes[0].reason) == (Status.SKIPPED, "tool_calls")
