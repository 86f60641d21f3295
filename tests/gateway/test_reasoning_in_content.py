"""Reasoning between tags in the text of an answer, through the hooks: treated as reasoning, and never as the answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from litellm.types.llms.openai import ResponsesAPIResponse
from litellm.types.utils import ModelResponse, TextCompletionResponse

from aligner_proxy.engine.api import AlignRequest, Session
from aligner_proxy.gateway.choice_corrector import Blocked
from aligner_proxy.gateway.guardrail import AlignerGuardrail
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.types import Correction
from tests.formats.test_reasoning import PATHS
from tests.formats.test_think_tags import cuts
from tests.gateway.test_guardrail import build, data, ledger_of, user
from tests.support.background import wait_for_shadows
from tests.support.comments import take_comment
from tests.support.sampling import examples, spread
from tests.support.scripted import SegmentEngine
from tests.support.stream_fixtures import FORMATS, Format, Items, chat_text, chunk, flow

THOUGHT = "The reader is a fool. I will say so."
TAGGED = f"<think>{THOUGHT}</think>"
RUDE = "So it is. You fool."
KIND = "So it is."
MODES = {
    "hold": {},
    "sentence": {"stream": "sentence"},
    "live": {"stream": "passthrough"},
    "shadow": {"mode": "shadow"},
}


def routes() -> list[dict[str, Any]]:
    """A route for each treatment and each way to deliver, and strict ones, which rather answer with an error."""
    loose = [
        {"name": f"{treatment}-{name}", "reasoning": treatment, **mode}
        for treatment in ("pass", "drop", "judge")
        for name, mode in MODES.items()
    ]
    strict = [
        {"name": f"strict-{treatment}-{name}", "reasoning": treatment, "on_error": "block", **MODES[name]}
        for treatment in ("pass", "judge", "block")
        for name in ("hold", "sentence")
    ]
    bare = {"name": "drop-bare", "reasoning": "drop", "objectives": []}
    return [{"match": {"model": each["name"]}, "objectives": ["kind"], **each} for each in (*loose, *strict, bare)]


class KeepingEngine(SegmentEngine):
    """Flags what calls somebody a fool, and keeps every text that it was asked about."""

    def __init__(self) -> None:
        super().__init__(lambda text: 4.0 if "fool" in text else -4.0)
        self.asked: list[str] = []

    async def align(self, request: AlignRequest) -> Correction:
        self.asked.append(request.answer)
        return await super().align(request)

    async def read(self, request: AlignRequest) -> Session:
        session = await super().read(request)
        feed = session.feed

        async def keep(text: str) -> Any:
            self.asked.append(text)
            return await feed(text)

        session.feed = keep  # type: ignore[method-assign]
        return session


@dataclass
class Hooks:
    guard: AlignerGuardrail
    engine: KeepingEngine
    reported: str | None = None
    """What the last header or comment said of the reasoning."""

    async def whole(self, form: Format, model: str, text: str) -> str:
        """The text that a client gets in a whole response."""
        request = data(model) | {"prompt": "What?"}
        response = BODIES[form.name](text)
        before = _dump(response)
        edited = await self.guard.async_post_call_success_hook(request, user(PATHS[form.name]), response)
        assert _dump(response) == before
        self.reported = ledger_of(request).headers().get("x-aligner-reasoning")
        return _text_of(response if edited is None else edited)

    async def stream(self, form: Format, model: str, pieces: Sequence[str]) -> tuple[str, Items, Items]:
        """The text that a client gets in a stream, the items that it gets, and those of the upstream."""
        items = form.tell(pieces)

        request = data(model) | {"prompt": "What?"}
        source = self.guard.async_post_call_streaming_iterator_hook(user(PATHS[form.name]), flow(items), request)
        sent = [item async for item in source]
        comment = take_comment(sent).decode()
        self.reported = comment.partition(" reasoning=")[2].split()[0] if " reasoning=" in comment else None
        return form.read(sent), sent, items


@pytest.fixture
def hooks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hooks:
    objectives = {"kind": "Kindness: the response should never insult the reader"}
    guard = build(tmp_path, monkeypatch, {"objectives": objectives, "routes": routes()})
    engine = KeepingEngine()
    guard.pipeline = Pipeline(engine)
    return Hooks(guard, engine)


def _chat_body(text: str) -> Any:
    message = {"role": "assistant", "content": text}
    return ModelResponse(id="1", created=1, choices=[{"index": 0, "finish_reason": "stop", "message": message}])


def _text_body(text: str) -> Any:
    return TextCompletionResponse(id="1", created=1, choices=[{"index": 0, "finish_reason": "stop", "text": text}])  # type: ignore[list-item]


def _message_body(text: str) -> Any:
    return {
        "type": "message",
        "role": "assistant",
        "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn",
    }


def _response_body(text: str) -> Any:
    part = {"type": "output_text", "text": text, "annotations": []}
    item = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [part]}
    return ResponsesAPIResponse(id="resp_1", created_at=1, status="completed", output=[item])


BODIES: dict[str, Callable[[str], Any]] = {
    "chat": _chat_body,
    "text": _text_body,
    "messages": _message_body,
    "responses": _response_body,
}
every_format = pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)


def _dump(response: Any) -> str:
    return json.dumps(response) if isinstance(response, dict) else response.model_dump_json()


def _text_of(response: Any) -> str:
    if isinstance(response, dict):
        # a block without text is left out
        return "".join(block["text"] for block in response["content"])
    if isinstance(response, ResponsesAPIResponse):
        return response.output[0].content[0].text  # type: ignore[union-attr,return-value]
    choice = response.choices[0]
    return choice.text if isinstance(response, TextCompletionResponse) else choice.message.content  # type: ignore[no-any-return]


# (what the upstream wrote before its answer, behind that and before the answer's words)
BEFORE = [
    (TAGGED, ""),
    (f"\n{TAGGED}", "\n\n"),
    (f"<thinking>{THOUGHT}</thinking>", " "),
    (f"{TAGGED}\n{TAGGED}", "\n"),
]


@pytest.mark.slow
@every_format
async def test_reasoning_is_no_answer_however_it_is_delivered(hooks: Hooks, form: Format) -> None:
    failures = []
    for before, gap in spread(BEFORE, examples(8)):
        text = f"{before}{gap}{RUDE}"
        for treatment in ("pass", "drop", "judge"):
            for mode in MODES:
                model = f"{treatment}-{mode}"
                dropped = treatment == "drop" and mode != "shadow"
                opening = "" if dropped else before
                corrected = f"{opening}{gap}{KIND}"
                hooks.engine.asked.clear()
                whole = await hooks.whole(form, model, text)
                if whole != (text if mode == "shadow" else corrected):
                    failures.append((model, "whole", whole))
                for size in (1, 5, len(text)):
                    pieces = [text[i : i + size] for i in range(0, len(text), size)]
                    streamed, _, _ = await hooks.stream(form, model, pieces)
                    if streamed != (f"{opening}{gap}{RUDE}" if mode in ("shadow", "live") else corrected):
                        failures.append((model, f"pieces of {size}", streamed))
                await wait_for_shadows(hooks.guard._shadows)
                if treatment != "judge" and any("I will" in asked for asked in hooks.engine.asked):
                    failures.append((model, "asked", hooks.engine.asked))
    assert failures == []


@every_format
async def test_pass_does_not_touch_a_stream_whose_answer_stays(hooks: Hooks, form: Format) -> None:
    failures = []
    for before, gap in BEFORE:
        for mode in ("hold", "sentence", "live", "shadow"):
            for pieces in cuts(f"{before}{gap}{KIND}")[: examples(20)]:
                _, sent, items = await hooks.stream(form, f"pass-{mode}", pieces)
                if form.name == "messages":
                    sent, items = [b"".join(sent)], [b"".join(items)]
                if sent != items:
                    failures.append((mode, pieces))
    assert failures == []


@every_format
@pytest.mark.parametrize("mode", ["hold", "sentence"])
async def test_a_stream_that_ends_in_its_reasoning_has_no_answer(hooks: Hooks, form: Format, mode: str) -> None:
    for pieces in cuts(f"<think>{THOUGHT}")[:6]:
        text, _, _ = await hooks.stream(form, f"pass-{mode}", pieces)
        assert text == f"<think>{THOUGHT}"
        text, sent, _ = await hooks.stream(form, f"drop-{mode}", pieces)
        assert text == ""
        assert THOUGHT[:9] not in str(sent)
    assert hooks.engine.asked == []
    assert await hooks.whole(form, "pass-hold", f"<think>{THOUGHT}") == f"<think>{THOUGHT}"
    assert await hooks.whole(form, "drop-hold", f"<think>{THOUGHT}") == ""


@every_format
async def test_what_only_looks_like_reasoning_is_the_answer(hooks: Hooks, form: Format) -> None:
    for mode in ("hold", "sentence"):
        for text, kind in (
            (f"The opening tag is in the prompt.</think> {RUDE}", f"The opening tag is in the prompt.</think> {KIND}"),
            (f"So: <think>Fine.</think> {RUDE}", f"So: <think>Fine.</think> {KIND}"),
            (f"<thin> {RUDE}", f"<thin> {KIND}"),
        ):
            for treatment in ("pass", "drop"):
                assert await hooks.whole(form, f"{treatment}-{mode}", text) == kind
                for pieces in cuts(text)[: examples(12)]:
                    assert (await hooks.stream(form, f"{treatment}-{mode}", pieces))[0] == kind


@every_format
async def test_drop_sends_no_empty_events(hooks: Hooks, form: Format) -> None:
    answer = [KIND[:3], KIND[3:]]
    _, plain, _ = await hooks.stream(form, "drop-hold", answer)
    for model in ("drop-hold", "drop-sentence", "drop-bare"):
        _, sent, _ = await hooks.stream(form, model, ["<think>", THOUGHT[:9], THOUGHT[9:], "</think>", *answer])
        if form.name == "messages":
            assert b"".join(sent) == b"".join(plain)
        elif form.name == "responses":
            assert [item.type for item in sent] == [item.type for item in plain]
        elif form.name == "text":
            assert [item.choices[0].text for item in sent] == [item.choices[0].text for item in plain]
        else:
            assert sent == plain


@every_format
async def test_judge_reports_it_and_edits_nothing(hooks: Hooks, form: Format) -> None:
    text = f"{TAGGED}{RUDE}"
    await hooks.whole(form, "judge-hold", text)
    assert hooks.reported == "1/2:kind"
    for mode in MODES:
        for pieces in cuts(text)[:6]:
            await hooks.stream(form, f"judge-{mode}", pieces)
            assert hooks.reported == "1/2:kind"
    await hooks.stream(form, "pass-hold", [text])
    assert hooks.reported is None
    # the reasoning is judged without its tags, each time once, and the answer without the reasoning
    assert not any("think" in asked for asked in hooks.engine.asked)


@pytest.mark.some(4)
@every_format
@pytest.mark.parametrize("mode", ["hold", "sentence"])
async def test_where_reasoning_may_block_it_does(hooks: Hooks, form: Format, mode: str) -> None:
    harmless = "<think>The reader wants to know the time.</think>"
    passing = [("pass", f"{TAGGED}{KIND}"), ("judge", f"{harmless}{KIND}")]
    passing += [(treatment, f"<think>{' ' * 40}</think>{KIND}") for treatment in ("judge", "block")]
    for treatment, text in passing:
        model = f"strict-{treatment}-{mode}"
        assert await hooks.whole(form, model, text) == text
        for pieces in cuts(text)[:6]:
            assert (await hooks.stream(form, model, pieces))[0] == text
    for treatment, text in (("judge", f"{TAGGED}{RUDE}"), ("judge", TAGGED), ("block", f"{harmless}{KIND}")):
        model = f"strict-{treatment}-{mode}"
        with pytest.raises(Blocked, match="reasoning"):
            await hooks.whole(form, model, text)
        for pieces in cuts(text)[:6]:
            with pytest.raises(Blocked, match="reasoning"):
                await hooks.stream(form, model, pieces)


async def play_choices(hooks: Hooks, model: str, pieces: Sequence[tuple[int, str]]) -> tuple[Items, Items]:
    """What goes out of a chat stream of three choices, without the comment, and what came."""
    items = [*(chunk(piece, index) for index, piece in pieces), *(chunk(index=index, why="stop") for index in range(3))]

    source = hooks.guard.async_post_call_streaming_iterator_hook(user(), flow(items), data(model))
    sent = [item async for item in source]
    take_comment(sent)
    return sent, items


async def test_several_choices_of_a_stream(hooks: Hooks) -> None:
    """Each has its own reasoning, one ends in it, and one has none."""
    said = [f"<think>{THOUGHT}</think>{RUDE}", RUDE, f"<think>{THOUGHT}"]
    pieces = [(index, text[i : i + 4]) for i in range(0, 80, 4) for index, text in enumerate(said) if text[i : i + 4]]
    for mode in ("hold", "sentence"):
        sent, _ = await play_choices(hooks, f"pass-{mode}", pieces)
        assert [chat_text(sent, index) for index in range(3)] == [f"{TAGGED}{KIND}", KIND, said[2]]
        sent, _ = await play_choices(hooks, f"drop-{mode}", pieces)
        assert [chat_text(sent, index) for index in range(3)] == [KIND, KIND, ""]


async def test_events_that_waited_keep_their_place(hooks: Hooks) -> None:
    """The event that decides about the first choice waits for the second, behind which it stands."""
    pieces = [(0, "\n"), (1, "<th"), (0, "So it"), (1, "ink>Fine."), (0, " is."), (1, "</think>"), (2, KIND), (1, KIND)]
    for mode in ("hold", "sentence"):
        sent, items = await play_choices(hooks, f"pass-{mode}", pieces)
        assert [id(item) for item in sent] == [id(item) for item in items]


@pytest.mark.slow
async def test_a_stream_too_long_to_be_held_goes_on_in_parts(hooks: Hooks) -> None:
    """Events that waited for the rest of a tag are played again in their order."""
    opening = f"<think>{THOUGHT}</think>\n<think>{THOUGHT}</think>\n"
    answer = "So it is. " * 1200 + "You fool."
    for size in (1, 9):
        pieces = [opening[i : i + size] for i in range(0, len(opening), size)]
        pieces += [answer[i : i + 9] for i in range(0, len(answer), 9)]
        streamed, _, _ = await hooks.stream(FORMATS[0], "pass-hold", pieces)
        assert streamed.rstrip() == opening + answer.removesuffix(" You fool.")
