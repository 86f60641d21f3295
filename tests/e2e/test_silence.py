"""How long is a client without an event, while the upstream or we are silent? And what do the official clients read?

The upstream sends what opens the answer and waits, and waits once more in the middle of the text.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from tests.attacks.attack import Attack, rows
from tests.e2e.clients import MASTER_KEY
from tests.e2e.scripted_answers import LATE_S
from tests.e2e.shared import SHARED, STEADY_S
from tests.e2e.test_stream_modes import KIND, SOURCES, WAYS, asked, spoken, streamed
from tests.support.comments import events_without_data

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
DEPLOYMENT = SHARED

LONGEST_S = 2 * STEADY_S  # on a busy machine a heartbeat is late
assert LATE_S > 1.5 * LONGEST_S


def openai_chat(client: Any, model: str) -> str:
    """The official client, which puts a completion together from the chunks."""
    with client.chat.completions.stream(model=model, messages=[{"role": "user", "content": "late"}]) as events:
        for _ in events:
            pass
        message = events.get_final_completion().choices[0].message
    assert message.role == "assistant"
    return str(message.content)


def openai_text(client: Any, model: str) -> str:
    """The official client, text completions."""
    chunks = list(client.completions.create(model=model, prompt="late", stream=True))
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1
    return "".join(chunk.choices[0].text or "" for chunk in chunks)


def openai_responses(client: Any, model: str) -> str:
    """The official client, which puts a response together from the events."""
    with client.responses.stream(model=model, input="late") as events:
        kept = list(events)
        whole = events.get_final_response()
    assert {event.response.id for event in kept if event.type == "response.in_progress"} == {whole.id}
    if "claude" not in model:  # LiteLLM numbers some of the events that it makes itself, in no order
        numbers = [event.sequence_number for event in kept]
        assert numbers == sorted(numbers)
        assert {*numbers} == {*range(max(numbers) + 1)}
    assert "".join(event.delta for event in kept if event.type == "response.output_text.delta") == whole.output_text
    return str(whole.output_text)


def anthropic_messages(client: Any, model: str) -> str:
    """Anthropic's client, which puts a message together from the events."""
    said = [{"role": "user", "content": "late"}]
    with client.messages.stream(model=model, max_tokens=99, messages=said) as events:
        pieces = "".join(events.text_stream)
        (block,) = events.get_final_message().content
    assert pieces == block.text
    return pieces


CLIENTS: dict[str, Callable[[Any, str], str]] = {
    "chat": openai_chat,
    "text": openai_text,
    "responses": openai_responses,
    "messages": anthropic_messages,
}


def silences(gateway: Any, endpoint: str, model: str) -> tuple[list[float], str, str]:
    """Seconds before each event, counted from the request; the text; and the whole stream."""
    path, body = asked(endpoint, model, "late")
    times = [time.monotonic()]
    text = ""
    lines = []
    with gateway.http.stream("POST", path, json=body) as response:
        for line in response.iter_lines():
            lines.append(line)
            if line.startswith("data: "):
                times.append(time.monotonic())
                text += "" if line == "data: [DONE]" else spoken(json.loads(line[6:]))
    return [after - before for before, after in itertools.pairwise(times)], text, "\n".join([*lines, ""])


SILENT = rows(
    *(
        (
            f"live-silent-{endpoint}{kind}-{mode}",
            "upstream",
            f"opens a stream, is silent for seconds, and once more in its text ({SOURCES[kind]}, "
            f"read as {endpoint}, `stream: {stream}`)",
            "no silence is longer than twice `keepalive_s`, and no event is without data",
            (mode, endpoint, kind),
        )
        for mode, stream in {"steady": "hold", "stepwise": "sentence"}.items()
        for endpoint, kind in WAYS
    )
)


@pytest.fixture(scope="module")
def waits(gateway: Any, plain: Any) -> dict[str, tuple[Any, Any]]:
    """The silences of every row with the guardrail and without, all at once: each takes seconds."""

    def measure(proxy: Any, row: Any) -> tuple[list[float], str, str]:
        mode, endpoint, kind = row.values[0].payload
        streamed(proxy, endpoint, mode + kind, "good")  # what is used for the first time takes seconds
        return silences(proxy, endpoint, mode + kind)

    with ThreadPoolExecutor(len(WAYS)) as pool:
        ours, theirs = (list(pool.map(partial(measure, proxy), SILENT)) for proxy in (gateway, plain))
    return {row.values[0].id: pair for row, pair in zip(SILENT, zip(ours, theirs, strict=True), strict=True)}


@pytest.mark.slow
@pytest.mark.parametrize("attack", SILENT)
def test_no_client_is_without_an_event_for_long(waits: dict[str, Any], attack: Attack) -> None:
    """Before LiteLLM has made anything of what the upstream sends, there is nothing to make an event of."""
    ((first, *later), text, raw), ((bare, *_), _, _) = waits[attack.id]
    assert (text, events_without_data(raw)) == (KIND, [])
    assert first <= bare + LONGEST_S
    assert max(later) <= LONGEST_S


def test_the_official_clients_read_through_heartbeats(gateway: Any) -> None:
    import anthropic
    import openai

    def read(mode: str, way: tuple[str, str]) -> str:
        endpoint, kind = way
        client: Any = (
            anthropic.Anthropic(base_url=gateway.address, api_key=MASTER_KEY)
            if endpoint == "messages"
            else openai.OpenAI(base_url=f"{gateway.address}/v1", api_key=MASTER_KEY)
        )
        with client:
            return CLIENTS[endpoint](client, mode + kind)

    ways = list(itertools.product(("steady", "stepwise"), WAYS))
    with ThreadPoolExecutor(len(ways)) as pool:
        texts = list(pool.map(read, *zip(*ways, strict=True)))
    assert [(way, text) for way, text in zip(ways, texts, strict=True) if text != KIND] == []
