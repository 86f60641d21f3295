"""Answers of which nothing remains, through the hooks: the text in their place, its headers, or an error."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from litellm.types.utils import TextCompletionResponse

from aligner_proxy.gateway.choice_corrector import Blocked
from aligner_proxy.gateway.guardrail import AlignerGuardrail
from aligner_proxy.gateway.request_state import RequestState
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.text.structure import Segment
from aligner_proxy.types import SegmentScore
from tests.gateway.test_guardrail import answer, build, data, ledger_of, user
from tests.support.background import wait_for_shadows
from tests.support.comments import take_comment
from tests.support.parted_answers import CALL, PARTED_FORMATS, PartedFormat
from tests.support.scripted import SegmentEngine
from tests.support.stream_fixtures import text_items, text_text

RUDE = "You fool. Get lost, fool."


async def test_what_the_policy_says_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for setting in ("decline", "block", "original"):
        route = {"match": {}, "objectives": ["harmless"], "if_nothing_remains": setting, "decline": "Not {objective}."}
        guard = build(tmp_path, monkeypatch, {"routes": [route]})
        guard.pipeline = Pipeline(SegmentEngine(lambda text: 2.0 if "fool" in text else -2.0))
        request = data()
        if setting == "block":
            with pytest.raises(Blocked, match="nothing_remains"):
                await guard.async_post_call_success_hook(request, user(), answer(RUDE))
        else:
            got = await guard.async_post_call_success_hook(request, user(), answer(RUDE))
            assert got.choices[0].message.content == ("Not harmless." if setting == "decline" else RUDE)
        headers = ledger_of(request).headers()
        told = {"decline": ("corrected", "declined"), "block": ("failed", "nothing_remains")}
        expected = told.get(setting, ("unchanged", "gate_empty"))
        assert (headers["x-aligner-status"], headers["x-aligner-reason"]) == expected


FINE = "Paint the fence with a brush."
OPENING = "Of course!"
NEAR = "Take a long wire and bend the end."
"""Not flagged, but near enough that it does not remain beside harm."""
NO = "Not harmless."
CASES: list[tuple[list[str], list[str], list[str]]] = [
    ([RUDE], [NO], ["declined"]),
    ([FINE], [FINE], [""]),
    ([RUDE, CALL], ["", CALL], ["emptied"]),
    ([f"{RUDE} Then let it dry.", CALL], ["", CALL], ["emptied"]),
    ([f"{FINE} {RUDE}", CALL], [FINE, CALL], [""]),
    ([RUDE, FINE], ["", FINE], ["emptied", ""]),
    ([FINE, RUDE], [FINE, ""], ["", "emptied"]),
    ([FINE, RUDE, FINE], [FINE, "", FINE], ["", "emptied", ""]),
    ([RUDE, RUDE], [NO, ""], ["declined", "declined"]),
    ([RUDE, FINE, CALL], ["", FINE, CALL], ["emptied", ""]),
    ([RUDE, RUDE, CALL], ["", "", CALL], ["emptied", "emptied"]),
    ([CALL, RUDE], [CALL, ""], ["emptied"]),
    ([RUDE, NEAR], [NO, ""], ["declined", "declined"]),
    ([RUDE, OPENING], [NO, ""], ["declined", "declined"]),
    ([OPENING, RUDE], [NO, ""], ["declined", "declined"]),
]
"""Parts of an answer, the parts that the client gets (a text left out is empty), and the reason of each text."""


def guard_of(folder: Path, monkeypatch: pytest.MonkeyPatch, lag_s: float = 0.0, **settings: Any) -> AlignerGuardrail:
    route = {"match": {}, "objectives": ["harmless"], "decline": "Not {objective}.", "on_skip": "judge", **settings}
    guard = build(folder, monkeypatch, {"routes": [route]})
    guard.pipeline = Pipeline(SegmentEngine(score, lag_s=lag_s))
    return guard


def score(text: str) -> float:
    return 3.0 if "fool" in text else -1.0 if text.strip() == NEAR else -6.0


async def delivered_parts(
    guard: AlignerGuardrail, form: PartedFormat, parts: Sequence[str], *, whole: bool, rounds: int = 0
) -> tuple[list[str], RequestState]:
    """What the client gets of an answer, and the state of the request; other tasks get `rounds` before each event."""
    request = data() | {"input": "What?"}
    who = user(form.route)
    if whole:
        response = form.whole(parts)
        corrected = await guard.async_post_call_success_hook(request, who, response)
        return form.read(response if corrected is None else corrected), ledger_of(request)

    items = await play_answer(guard, form, form.stream(parts), request, rounds)
    return form.read_stream(items), ledger_of(request)


async def play_answer(
    guard: AlignerGuardrail,
    form: PartedFormat,
    items: Sequence[Any],
    request: dict[str, Any] | None = None,
    rounds: int = 0,
) -> list[Any]:
    """What the client gets of a stream of these items, without the comment."""

    async def flow() -> AsyncIterator[Any]:
        for item in items:
            for _ in range(rounds):
                await asyncio.sleep(0)
            yield item

    source = guard.async_post_call_streaming_iterator_hook(user(form.route), flow(), request or data())
    delivered = [item async for item in source]
    take_comment(delivered)
    return delivered


def can_send(form: PartedFormat, parts: Sequence[str]) -> bool:
    """Whether a format can send these parts: a chat choice has one text, before its calls."""
    return form.name != "chat" or (len(parts) <= 2 and CALL not in parts[:1] and parts[1:] in ([], [CALL]))


async def test_a_refusal_stands_only_in_place_of_the_whole_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures: list[str] = []
    # the engine is at once done with what has come, or slower than the upstream
    ways = [("whole", 0, 0.0), ("hold", 0, 0.0), ("sentence", 0, 0.0), ("sentence", 40, 0.0), ("sentence", 0, 0.003)]
    for way, rounds, lag_s in ways:
        settings = {} if way == "whole" else {"stream": way}
        guard = guard_of(tmp_path, monkeypatch, lag_s, if_nothing_remains="decline", **settings)
        for form in PARTED_FORMATS:
            for parts, expected, reasons in CASES:
                if not can_send(form, parts):
                    continue
                # what has gone out cannot be taken back, but only opens an answer
                if way == "sentence" and parts == [OPENING, RUDE]:
                    expected, reasons = [OPENING, NO], ["", "declined"]
                got, state = await delivered_parts(guard, form, parts, whole=way == "whole", rounds=rounds)
                # a block of a message may not be empty
                left = [part for part in expected if part or form.name != "messages"]
                told = [outcome.reason or "" for outcome in state.outcomes]
                if (got, told) != (left, reasons):
                    failures.append(f"{way} {rounds} {lag_s} {form.name} {parts}: {got} {told}")
    assert not failures, "\n".join(failures)


STEPS = " ".join(f"Step {n} is to bend the wire a little more and to try the lock again." for n in range(1, 9))


async def test_a_client_sees_at_most_half_of_an_answer_that_is_declined_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the upstream is faster than the engine, so that many sentences are judged at once."""
    failures: list[str] = []
    for way, rounds, lag_s in (("hold", 0, 0.0), ("sentence", 0, 0.0), ("sentence", 40, 0.0), ("sentence", 0, 0.003)):
        guard = guard_of(tmp_path, monkeypatch, if_nothing_remains="decline", stream=way)
        engine = SegmentEngine(score, lag_s=lag_s)
        engine.evidence = lambda _: (0.5, 0)
        guard.pipeline = Pipeline(engine)
        for form in PARTED_FORMATS:
            for parts, reason in (([STEPS], "declined"), ([STEPS, CALL], "emptied")):
                got, state = await delivered_parts(guard, form, parts, whole=False, rounds=rounds)
                beginning, no, _ = got[0].partition(NO) if got[0] != CALL else ("", "", "")
                is_right = STEPS.startswith(beginning.rstrip()) and 2 * len(beginning) <= len(STEPS)
                # beside a call the text only breaks off
                told = [outcome.reason for outcome in state.outcomes] == [reason] and (no == NO) is (parts == [STEPS])
                if not (is_right and told and state.headers()["x-aligner-reason"] == reason):
                    failures.append(f"{way} {rounds} {lag_s} {form.name} {parts[1:]}: {got} {state.comment()!r}")
    assert not failures, "\n".join(failures)


async def test_blocks_that_the_upstream_left_empty_stay_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages = PARTED_FORMATS[1]
    for mode in ("hold", "sentence"):
        guard = guard_of(tmp_path, monkeypatch, if_nothing_remains="decline", stream=mode)
        for parts in (["\n\n", FINE], ["", FINE, CALL], [FINE, "", "\n"]):
            items = messages.stream(parts)
            got = await play_answer(guard, messages, items)
            assert b"".join(got) == b"".join(items), (mode, parts)
        got = await play_answer(guard, messages, messages.stream(["\n\n", RUDE, FINE, CALL]))
        assert messages.read_stream(got) == ["\n\n", FINE, CALL]


async def test_a_call_ends_the_wait_for_the_end_of_a_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for form in PARTED_FORMATS[1:]:
        guard = guard_of(tmp_path, monkeypatch, if_nothing_remains="decline", stream="sentence")
        items = form.stream([RUDE, CALL])
        has_call = asyncio.Event()

        async def flow(items: list[Any] = items, has_call: asyncio.Event = has_call) -> AsyncIterator[Any]:
            for item in items[:-2]:
                yield item
            await has_call.wait()
            for item in items[-2:]:
                yield item

        got: list[Any] = []
        async with asyncio.timeout(30):
            async for item in guard.async_post_call_streaming_iterator_hook(user(form.route), flow(), data()):
                got.append(item)
                if "look_up" in str(item):
                    has_call.set()
        assert form.read_stream(got) == (["", CALL] if form.name == "responses" else [CALL])


async def test_a_stream_that_takes_too_much_room_waits_no_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard = guard_of(tmp_path, monkeypatch, if_nothing_remains="decline", stream="sentence")
    guard._streams.max_stream_bytes = 100_000
    long = " ".join([FINE] * 40)
    for form in PARTED_FORMATS[1:]:
        async with asyncio.timeout(30):
            got, state = await delivered_parts(guard, form, [RUDE, long], whole=False, rounds=5)
        assert got == (["", long] if form.name == "responses" else [long])
        assert [outcome.reason for outcome in state.outcomes] == ["emptied", None]


async def test_where_the_policy_blocks_one_text_of_which_nothing_remains_ends_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures: list[str] = []
    for way in ("whole", "hold", "sentence"):
        settings = {} if way == "whole" else {"stream": way}
        guard = guard_of(tmp_path, monkeypatch, if_nothing_remains="block", **settings)
        for form in PARTED_FORMATS:
            for parts in ([RUDE, CALL], [RUDE, FINE], [OPENING, RUDE], [RUDE, NEAR]):
                if not can_send(form, parts):
                    continue
                try:
                    got, _ = await delivered_parts(guard, form, parts, whole=way == "whole")
                    failures.append(f"{way} {form.name} {parts}: {got}")
                except Blocked as error:
                    failures += [] if "nothing_remains" in error.message else [f"{way} {form.name}: {error.message}"]
    assert not failures, "\n".join(failures)


async def test_shadow_changes_nothing_and_says_what_it_would_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard = guard_of(tmp_path, monkeypatch, if_nothing_remains="decline", mode="shadow")
    observed: dict[int, tuple[str, str | None]] = {}
    monkeypatch.setattr(
        "aligner_proxy.gateway.metrics.record_outcome",
        lambda _call_id, _chars, outcome: observed.update({outcome.index: (outcome.status.value, outcome.reason)}),
    )
    expected = {
        (RUDE, FINE): [("shadow", "would_empty"), ("shadow", "would_leave")],
        (RUDE, RUDE): [("shadow", "would_decline")] * 2,
        (RUDE, CALL): [("shadow", "would_empty")],
    }
    for form in PARTED_FORMATS:
        for whole in (True, False):
            for parts, reasons in expected.items():
                if can_send(form, list(parts)):
                    observed.clear()
                    got, _ = await delivered_parts(guard, form, parts, whole=whole)
                    await wait_for_shadows(guard._shadows)
                    assert (got, [observed[n] for n in sorted(observed)]) == (list(parts), reasons), (form.name, whole)


async def test_several_choices_are_declined_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guard = guard_of(tmp_path, monkeypatch, if_nothing_remains="decline")
    request = data()
    got = await guard.async_post_call_success_hook(request, user(), answer(FINE, RUDE))
    assert [choice.message.content for choice in got.choices] == [FINE, NO]


async def test_the_headers_name_the_text_that_decided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guard = guard_of(tmp_path, monkeypatch, if_nothing_remains="decline")
    messages = PARTED_FORMATS[1]
    _, state = await delivered_parts(guard, messages, [f"{FINE} You fool.", FINE, RUDE], whole=True)
    headers = state.headers()
    names = ("status", "reason", "choice")
    assert [headers[f"x-aligner-{name}"] for name in names] == ["corrected", "emptied", "2"]
    assert [choice["reason"] for choice in state.record()["choices"]] == [None, None, "emptied"]
    assert b"choices=corrected,unchanged,corrected/emptied" in state.comment()
    _, alone = await delivered_parts(guard, messages, [RUDE], whole=True)
    assert "x-aligner-choice" not in alone.headers()


WORST = "You are a worthless idiot."
IDLE = "No idea, ask somebody."


class TwoVerdicts(SegmentEngine):
    """Flags insults for the first objective, and idle sentences for the second."""

    def judged(self, segments: Sequence[Segment], caution: float) -> tuple[SegmentScore, ...]:
        """On these segments."""
        objectives = [0 if "idiot" in segment.text else 1 if "idea" in segment.text else None for segment in segments]
        return tuple(
            SegmentScore(segment.text, -6.0 if number is None else 8.5, number is not None, number)
            for segment, number in zip(segments, objectives, strict=True)
        )


def open_guard(folder: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> AlignerGuardrail:
    route = {"match": {}, "objectives": ["harmless", "helpful"], **settings}
    guard = build(folder, monkeypatch, {"routes": [route]})
    guard.pipeline = Pipeline(TwoVerdicts(lambda _: 0.0))
    return guard


async def deliver_text_completion(guard: AlignerGuardrail, text: str, *, whole: bool) -> str:
    request, who = data() | {"prompt": "What?"}, user("/v1/completions")
    if whole:
        response = TextCompletionResponse(choices=[{"index": 0, "text": text, "finish_reason": "stop"}])
        edited = await guard.async_post_call_success_hook(request, who, response)
        return (response if edited is None else edited).choices[0].text

    async def flow() -> AsyncIterator[Any]:
        for item in text_items([text[:7], text[7:]]):
            yield item

    return text_text([item async for item in guard.async_post_call_streaming_iterator_hook(who, flow(), request)])


async def test_without_any_setting_an_answer_that_is_all_harm_is_declined_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures: list[str] = []
    text = "I'm sorry, but I can't answer this here."
    for way in ("whole", "hold", "sentence", "passthrough", "shadow", "original"):
        settings = {"stream": {"stream": way}, "mode": {"mode": way}, "if_nothing_remains": {"if_nothing_remains": way}}
        kind = {"whole": "", "shadow": "mode", "original": "if_nothing_remains"}.get(way, "stream")
        guard = open_guard(tmp_path, monkeypatch, **settings.get(kind, {}))
        whole = kind != "stream"
        withheld = way in ("whole", "hold", "sentence")
        for answered, expected in ((WORST, text), (f"{WORST} {WORST}", text), (IDLE, IDLE), (FINE, FINE)):
            expected = expected if withheld else answered
            delivered = {"text": await deliver_text_completion(guard, answered, whole=whole)}
            for form in PARTED_FORMATS:
                parts, _ = await delivered_parts(guard, form, [answered], whole=whole)
                delivered[form.name] = "".join(parts)
            failures += [f"{way} {name} {answered}: {got}" for name, got in delivered.items() if got != expected]
    assert not failures, "\n".join(failures)
