"""openai and anthropic for Python. Streams are read by the clients' own accumulators where they have them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import anthropic
import openai

from tests.clients.readings import Case, ReadBatch, Reading

_WITH_USAGE = {"stream_options": {"include_usage": True}}


def _chat_body(case: Case) -> dict[str, Any]:
    return {"model": case.model, "messages": [{"role": "user", "content": case.prompt}]}


def _chat_reading(answer: Any, events: int) -> Reading:
    choice = answer.choices[0]
    usage = (answer.usage.prompt_tokens, answer.usage.completion_tokens)
    return Reading(choice.message.content, choice.finish_reason, usage, events)


def _read_chat_stream(client: Any, case: Case) -> Reading:
    with client.chat.completions.stream(**_chat_body(case), **_WITH_USAGE) as stream:
        events = sum(1 for event in stream if event.type == "chunk")
        return _chat_reading(stream.get_final_completion(), events)


def _read_text(client: Any, case: Case) -> Reading:
    answer = client.completions.create(model=case.model, prompt=case.prompt)
    usage = (answer.usage.prompt_tokens, answer.usage.completion_tokens)
    return Reading(answer.choices[0].text, answer.choices[0].finish_reason, usage, 1)


def _read_text_stream(client: Any, case: Case) -> Reading:
    chunks = list(client.completions.create(model=case.model, prompt=case.prompt, stream=True, **_WITH_USAGE))
    choices = [choice for chunk in chunks for choice in chunk.choices]
    text = "".join(choice.text or "" for choice in choices)  # LiteLLM's last one has none
    finish = next((choice.finish_reason for choice in choices if choice.finish_reason), None)
    usages = ((chunk.usage.prompt_tokens, chunk.usage.completion_tokens) for chunk in chunks if chunk.usage)
    return Reading(text, finish, next(usages, None), len(chunks))


def _response_reading(answer: Any, events: int) -> Reading:
    return Reading(answer.output_text, answer.status, (answer.usage.input_tokens, answer.usage.output_tokens), events)


def _read_response_stream(client: Any, case: Case) -> Reading:
    with client.responses.stream(model=case.model, input=case.prompt) as stream:
        events = sum(1 for _ in stream)
        return _response_reading(stream.get_final_response(), events)


def _message_body(case: Case) -> dict[str, Any]:
    return {**_chat_body(case), "max_tokens": 99}


def _message_reading(answer: Any, events: int) -> Reading:
    text = "".join(block.text for block in answer.content)
    return Reading(text, answer.stop_reason, (answer.usage.input_tokens, answer.usage.output_tokens), events)


def _read_message_stream(client: Any, case: Case) -> Reading:
    with client.messages.stream(**_message_body(case)) as stream:
        events = sum(1 for _ in stream)
        return _message_reading(stream.get_final_message(), events)


_OPENAI: Mapping[str, Callable[[Any, Case], Reading]] = {
    "chat whole": lambda client, case: _chat_reading(client.chat.completions.create(**_chat_body(case)), 1),
    "chat stream": _read_chat_stream,
    "text whole": _read_text,
    "text stream": _read_text_stream,
    "responses whole": lambda client, case: _response_reading(
        client.responses.create(model=case.model, input=case.prompt), 1
    ),
    "responses stream": _read_response_stream,
}
_ANTHROPIC: Mapping[str, Callable[[Any, Case], Reading]] = {
    "messages whole": lambda client, case: _message_reading(client.messages.create(**_message_body(case)), 1),
    "messages stream": _read_message_stream,
}


def _read(client: Any, readers: Mapping[str, Callable[[Any, Case], Reading]], case: Case) -> Reading:
    try:
        return readers[case.way](client, case)
    except Exception as error:  # noqa: BLE001 - whatever it raises is what the client holds
        return Reading(error=type(error).__name__, status=getattr(error, "status_code", None), message=str(error))


def _batches_of(client: Any, readers: Mapping[str, Callable[[Any, Case], Reading]]) -> ReadBatch:
    def read_batch(cases: Sequence[Case]) -> list[Reading]:
        with ThreadPoolExecutor(len(cases)) as pool:
            return list(pool.map(lambda case: _read(client, readers, case), cases))

    return read_batch


@contextmanager
def run_openai(base: str, key: str) -> Iterator[ReadBatch]:
    """The client for OpenAI's endpoints."""
    with openai.OpenAI(base_url=f"{base}/v1", api_key=key) as client:
        yield _batches_of(client, _OPENAI)


@contextmanager
def run_anthropic(base: str, key: str) -> Iterator[ReadBatch]:
    """The client for Messages."""
    with anthropic.Anthropic(base_url=base, auth_token=key) as client:
        yield _batches_of(client, _ANTHROPIC)
