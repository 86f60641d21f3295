"""A request that has begun its answer in a form, or asks for the middle of a text, asks for structured output."""

from __future__ import annotations

from typing import Any

from aligner_proxy.formats import Wire, chat, messages, responses, text
from tests.support.stream_fixtures import FORMATS, decoded
from tests.text.programs import FORMS_BEGUN, MIDDLES, NO_MIDDLES, PROSE_BEGUN

USER = {"role": "user", "content": "When does it open?"}


def conversation(wire: Wire, *turns: dict[str, Any]) -> dict[str, Any]:
    return {"input" if wire is responses else "messages": [USER, *turns]}


def is_structured(wire: Wire, data: dict[str, Any]) -> bool:
    """Read from a stream, at its beginning and at its end, which must agree."""
    (form,) = (form for form in FORMATS if form.wire is wire)
    (exchange,) = decoded(wire, data, form.tell(["It opens ", "at nine."]))
    decoder = wire.decoder(data)
    assert decoder.exchange_without_text(0).structured is exchange.structured
    return exchange.structured


def test_a_prefill_that_begins_a_form_is_structured() -> None:
    for wire in (chat, messages, responses):
        for prefill in FORMS_BEGUN:
            for content in (prefill, [{"type": "text", "text": prefill}]):
                assert is_structured(wire, conversation(wire, {"role": "assistant", "content": content})), prefill


def test_a_prefill_in_prose_is_not() -> None:
    for wire in (chat, messages, responses):
        for prefill in PROSE_BEGUN:
            assert not is_structured(wire, conversation(wire, {"role": "assistant", "content": prefill})), prefill


def test_only_the_last_turn_is_a_prefill() -> None:
    begun = {"role": "assistant", "content": '{"answer": "'}
    for wire in (chat, messages, responses):
        assert not is_structured(wire, conversation(wire, begun, USER))
    assert not is_structured(responses, conversation(responses, begun, {"type": "function_call_output", "output": "7"}))
    assert not is_structured(chat, conversation(chat, {"role": "user", "content": "{"}))
    assert not is_structured(responses, {"input": "{"})


def test_a_whole_response_is_read_like_a_stream() -> None:
    data = conversation(messages, {"role": "assistant", "content": "{"})
    whole = {"type": "message", "content": [{"type": "text", "text": '"a": 1}'}], "stop_reason": "end_turn"}
    assert [exchange.structured for exchange in messages.exchanges(data, whole)] == [True]


def test_prompts_that_ask_for_the_middle_are_structured() -> None:
    for prompt in MIDDLES:
        assert is_structured(text, {"prompt": prompt})
        assert is_structured(text, {"prompt": [prompt]})
    assert not any(is_structured(text, {"prompt": prompt}) for prompt in NO_MIDDLES)
    assert not is_structured(text, {"prompt": [1, 2, 3]})
