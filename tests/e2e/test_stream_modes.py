"""The three ways of a stream through the real proxy: what arrives, and when."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from aligner_proxy.engine import wire
from tests.attacks.attack import Attack, rows
from tests.e2e.clients import made_up
from tests.e2e.shared import SHARED
from tests.support.comments import events_without_data, without_id

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
DEPLOYMENT = SHARED


FIRST = "The capital of France is Paris."
KIND = f"{FIRST} It lies on the Seine."
LOAD_ROUNDS = 3
RUDE = f"{FIRST} You are an idiot for asking. It lies on the Seine."
# Endpoint and the model behind it, after the mode: natively and translated.
WAYS = [
    ("chat", ""),
    ("chat", "-claude"),
    ("text", "-instruct"),
    ("messages", "-claude"),
    ("messages", ""),
    ("responses", ""),
    ("responses", "-claude"),
]
SOURCES = {"": "OpenAI", "-claude": "Anthropic", "-instruct": "text completions"}
"""Whose answers these models give."""
STRICTLY_READ = rows(
    *(
        (
            f"live-strict-{endpoint}{kind}-{mode}",
            "upstream",
            f"insults somebody, or breaks off, in a stream that a strict client reads ({SOURCES[kind]}, "
            f"read as {endpoint}, {way})",
            "no event is without data: comments stand directly before events; `mode: off` has none",
            (mode, endpoint, kind),
        )
        for mode, way in {
            "quick": "`stream: hold`",
            "sentence": "`stream: sentence`",
            "live": "`stream: passthrough`",
            "off": "`mode: off`",
        }.items()
        for endpoint, kind in WAYS
    )
)


def asked(endpoint: str, model: str, said: str, **more: Any) -> tuple[str, dict[str, Any]]:
    """Path and body of a streamed request."""
    messages = [{"role": "user", "content": said}]
    body: dict[str, Any] = {
        "chat": {"messages": messages},
        "text": {"prompt": said},
        "messages": {"messages": messages, "max_tokens": 99},
        "responses": {"input": said},
    }[endpoint]
    path = {"chat": "/v1/chat/completions", "text": "/v1/completions"}.get(endpoint, f"/v1/{endpoint}")
    return path, {"model": model, "stream": True, **body, **more}


def spoken(event: dict[str, Any]) -> str:
    """What an event of any endpoint adds to the text."""
    if event.get("type") == "content_block_delta":
        return str(event["delta"].get("text") or "")
    if event.get("type") == "response.output_text.delta":
        return str(event["delta"])
    choices = event.get("choices") or ()
    return "".join(c.get("text") or c.get("delta", {}).get("content") or "" for c in choices)


def told(lines: Iterator[str]) -> Iterator[str]:
    """The texts as they come; a comment is told as it stands."""
    for line in lines:
        if line.startswith("data: ") and line != "data: [DONE]":
            yield spoken(json.loads(line[6:]))
        elif line.startswith(": "):
            yield line


def streamed(proxy: Any, endpoint: str, model: str, said: str, **more: Any) -> Any:
    """A whole stream: its text, its data and its comments."""
    path, body = asked(endpoint, model, said, **more)
    raw = proxy.http.post(path, json=body).text
    pieces = list(told(iter(raw.splitlines())))
    text = "".join(piece for piece in pieces if not piece.startswith(": "))
    return text, raw, [without_id(piece) for piece in pieces if piece.startswith(": aligner ")]


@pytest.mark.covering("endpoint kind", "mode endpoint")
@pytest.mark.parametrize(("endpoint", "kind"), WAYS)
@pytest.mark.parametrize(
    ("mode", "text", "status"),
    [("quick", KIND, "corrected"), ("sentence", KIND, "corrected"), ("live", RUDE, "shadow")],
)
def test_every_endpoint_in_every_mode(
    gateway: Any, endpoint: str, kind: str, mode: str, text: str, status: str
) -> None:
    got, raw, comments = streamed(gateway, endpoint, mode + kind, "rude")
    assert got == text
    assert comments == [f": aligner status={status}"]
    assert ("idiot" in got) is (mode == "live")
    if endpoint == "responses":
        events = [json.loads(line[6:]) for line in raw.splitlines() if line.startswith("data: {")]
        wholes = [event["text"] for event in events if event["type"] == "response.output_text.done"]
        (last,) = [event["response"] for event in events if event["type"] == "response.completed"]
        said = [
            part["text"] for item in last["output"] for part in item.get("content", ()) if item["type"] == "message"
        ]
        assert wholes == said == [text]


@pytest.mark.some(11)
@pytest.mark.parametrize("attack", STRICTLY_READ)
def test_no_event_is_without_data(gateway: Any, plain: Any, attack: Attack) -> None:
    mode, endpoint, kind = attack.payload
    for said in ("rude", "break"):
        _, raw, comments = streamed(gateway, endpoint, mode + kind, said)
        assert events_without_data(raw) == []
        assert bool(comments) is (mode != "off"), said
        if mode == "off":
            assert made_up(raw) == made_up(streamed(plain, endpoint, mode + kind, said)[1])


def test_answers_that_were_read_for_nothing_leave_no_place_taken(gateway: Any) -> None:
    """Of an answer that is in the cache nothing is asked, so its reading is let go of while it is being opened."""
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda _: gateway.chat_stream("rude", model="quick").text(), range(24)))
    assert got == [KIND] * len(got)
    assert gateway.chat_stream("rude", model="sentence").comments[-1] == ": aligner status=corrected"


def test_an_engine_whose_places_are_taken_by_readings_is_asked_in_the_end(gateway: Any, engine: Any) -> None:
    """Nobody waits for those who read ahead, so they give way to a whole answer; to one that is read they do not."""
    with httpx.Client(
        transport=httpx.HTTPTransport(uds=str(engine.socket), verify=False), base_url="http://engine"
    ) as client:
        body = {"request_id": "r", "turns": [], "answer": "", "objectives": ["Kind: be kind"], "deadline_s": 9}
        opened = [client.post("/v1/read", json=body, headers=wire.VERSION_HEADERS) for _ in range(9)]
        names = [one.json()["reading"] for one in opened if one.status_code == httpx.codes.OK]
        assert len(names) < len(opened)
        try:
            got = [gateway.chat_stream("rude", model="sentence") for _ in range(2)]
        finally:
            for name in names:
                client.delete(f"/v1/read/{name}", headers=wire.VERSION_HEADERS)
    assert [one.text() for one in got] == [KIND] * 2
    assert [one.comments[-1] for one in got] == [": aligner status=corrected"] * 2


def test_an_engine_that_came_back_reads_again(gateway: Any, engine: Any) -> None:
    engine.kill()
    engine.start()
    got = gateway.chat_stream("rude", model="sentence")
    assert (got.text(), got.comments[-1]) == (KIND, ": aligner status=corrected")


@pytest.mark.parametrize(("endpoint", "kind"), WAYS)
def test_a_clean_stream_is_litellms_own(gateway: Any, plain: Any, endpoint: str, kind: str) -> None:
    ours, theirs = (streamed(proxy, endpoint, f"sentence{kind}", "good") for proxy in (gateway, plain))
    assert ours[0] == theirs[0] != ""
    assert ours[1].count("data: ") == theirs[1].count("data: ")
    assert ours[2] == [": aligner status=unchanged"]


@pytest.mark.parametrize(
    ("endpoint", "kind"), [("chat", ""), ("text", "-instruct"), ("messages", "-claude"), ("responses", "")]
)
@pytest.mark.parametrize("mode", ["sentence", "live", "quick"])
def test_what_arrives_while_the_upstream_is_still_writing(
    gateway: Any, upstream: str, endpoint: str, kind: str, mode: str
) -> None:
    """The upstream goes on only when the client has seen what it has to see by then: who waits would wait forever."""
    gate = uuid.uuid4().hex
    path, body = asked(endpoint, mode + kind, f"paused {gate}")
    due = {"sentence": FIRST.removesuffix("is."), "live": f"{FIRST} You are", "quick": ""}[mode]
    seen = ""
    with gateway.http.stream("POST", path, json=body) as response:
        pieces = told(response.iter_lines())
        while not seen.startswith(due):
            seen += next(pieces)
        if mode == "quick":  # what opens the answer, and heartbeats
            assert {next(pieces) for _ in range(9)} == {""}
        assert "idiot" not in seen or mode == "live"
        httpx.post(f"{upstream}/release/{gate}", trust_env=False, verify=False)
        rest = list(pieces)
    whole = "".join(piece for piece in [seen, *rest] if not piece.startswith(": "))
    assert whole == (RUDE if mode == "live" else KIND)


def test_choices_usage_and_tools_in_mid_stream(gateway: Any, plain: Any) -> None:
    usage = {"stream_options": {"include_usage": True}}
    ours, theirs = (proxy.chat_stream("rude", model="sentence", n=2, **usage) for proxy in (gateway, plain))
    assert ours.text() == KIND
    assert ours.text(1) == theirs.text(1)
    assert [chunk.get("usage") for chunk in ours.chunks] == [chunk.get("usage") for chunk in theirs.chunks]
    assert [finish(chunk) for chunk in ours.chunks] == [finish(chunk) for chunk in theirs.chunks]
    ours, theirs = (proxy.chat_stream("tools", model="sentence") for proxy in (gateway, plain))
    assert (ours.text(), theirs.text()) == (KIND, RUDE)
    assert [calls(chunk) for chunk in ours.chunks if calls(chunk)] == [calls(c) for c in theirs.chunks if calls(c)]
    assert ours.comments[-1] == ": aligner status=corrected"


def calls(chunk: dict[str, Any]) -> list[Any]:
    """The functions that a chunk calls."""
    deltas = [choice["delta"] for choice in chunk["choices"]]
    return [call["function"] for delta in deltas for call in delta.get("tool_calls") or ()]


def finish(chunk: dict[str, Any]) -> list[Any]:
    """Finish reasons of a chunk."""
    return [choice.get("finish_reason") for choice in chunk["choices"]]


def test_the_trail_tells_what_was_flagged(gateway: Any) -> None:
    trail, status = gateway.chat_stream("rude", model="sentence").comments
    assert status == ": aligner status=corrected"
    said = json.loads(trail.removeprefix(": aligner-trail "))
    assert said["choices"] == [{"index": 0, "flagged": [{"segment": 1, "score": 4.0, "objective": "kind"}]}]
    assert said["first_token_ms"] >= 0
    assert "idiot" not in trail


def test_an_engine_that_is_too_slow_lets_the_original_pass(gateway: Any, plain: Any) -> None:
    ours = gateway.chat_stream("slow", model="sentence-hasty")
    assert ours.comments == [": aligner status=failed reason=timeout"]
    assert ours.untouched() == plain.chat_stream("slow", model="sentence-hasty").untouched()


def test_an_engine_that_is_too_slow_may_end_the_stream(gateway: Any) -> None:
    path, body = asked("chat", "sentence-strict", "slow")
    got = gateway.http.post(path, json=body)
    assert "could not be aligned (timeout)" in got.text
    assert "idiot" not in got.text


def test_the_metrics_tell_how_late_a_stream_is(gateway: Any) -> None:
    gateway.chat_stream("good", model="sentence")
    metrics = gateway.http.get("/metrics/").text
    assert 'aligner_first_token_added_seconds_count{stream="sentence"}' in metrics
    assert 'aligner_last_token_added_seconds_count{stream="sentence"}' in metrics


BLANK = rows(
    (
        "live-blank-beginnings",
        "upstream",
        "begins many streams at once with 120 blanks and an insult, in three formats, `stream: hold` and `sentence`",
        "no insult: each is corrected, or an error",
    )
)


@pytest.mark.parametrize("attack", BLANK)
def test_no_insult_passes_behind_white_space_under_load(gateway: Any, attack: Attack) -> None:
    """Many streams at once, so that parts end at any moment; what cannot be judged is an error there."""
    ways = [(endpoint, f"calls-{mode}") for mode in ("hold", "sentence") for endpoint in ("chat", "responses")]
    ways += [("messages", f"calls-{mode}-claude") for mode in ("hold", "sentence")]
    with ThreadPoolExecutor(18) as pool:
        raw = list(pool.map(lambda way: (way, *streamed(gateway, *way, "blank")), ways * LOAD_ROUNDS))
    assert not [(way, *comments) for way, text, events, comments in raw if "idiot" in text or "idiot" in events]
    # an engine with too much to do makes it an error
    assert {text.strip() for _, text, events, _ in raw if "error" not in events} == {"It lies on the Seine."}
