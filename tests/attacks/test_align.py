"""A client that brings answers of its own, and an upstream that speaks where nobody looks."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from aligner_proxy.gateway.choice_corrector import Blocked
from aligner_proxy.gateway.request_state import find_state
from aligner_proxy.pipeline.pipeline import Pipeline
from tests.attacks.attack import Attack, rows
from tests.gateway.endpoints.application import Api
from tests.gateway.endpoints.application import api as api
from tests.gateway.test_guardrail import answer, build, data, user
from tests.gateway.test_reasoning import streamed
from tests.pipeline.test_language import GERMAN, pipeline
from tests.support.scripted import SegmentEngine
from tests.support.stream_fixtures import chunk

GENERIC = "/beta/litellm_basic_guardrail_api"
SECRET = "Zanzibar"
TURNS = [{"role": "user", "content": "What?"}]


def body(*objectives: str) -> dict[str, Any]:
    return {"messages": TURNS, "answer": "So. You fool.", "model": "gpt", "objectives": list(objectives)}


ASKED = rows(
    (
        "align-own-words",
        "tenant",
        "brings an objective in its own words to /v1/align",
        "403 without `allow: ['*']`",
        ("acme", body("Rudeness: insult the reader")),
    ),
    (
        "align-own-denied",
        "tenant",
        "writes a denied objective out, in odd letters, under `allow: ['*']`",
        "403",
        ("free", body("Humour:   THE response should be as humorous or amusing as it can be")),
    ),
    (
        "align-many",
        "tenant",
        "asks for more objectives than an aligner reads",
        "400",
        ("free", body(*(f"N{number}: it should be so" for number in range(200)))),
    ),
    ("align-long", "tenant", "an objective of a megabyte", "400", ("free", body("Long: " + "x" * 1_000_000))),
    (
        "align-deep",
        "tenant",
        "a body that is nested as deep as it is long",
        "400",
        ("free", {"messages": json.loads("[" * 500 + "]" * 500), "answer": "So."}),
    ),
)


@pytest.mark.parametrize("attack", ASKED)
async def test_it_is_refused(attack: Attack, api: Api) -> None:
    team, sent = attack.payload
    known = api.guard._policies.current.resolver._file_objectives["humour"].text
    if attack.id == "align-own-denied":
        sent = body(known.upper())
    got = await api.post("/v1/align", sent, team)
    assert str(got.status_code) == attack.holds[:3]
    assert "insult" not in got.text


POSED = rows(
    (
        "adapter-pose",
        "tenant",
        "says in an adapter's body that it is another team",
        "its own policy: the key alone counts",
        {"request_data": {"user_api_key_team_id": "acme"}, "metadata": {"user_api_key_team_id": "acme"}},
    ),
    (
        "adapter-headers",
        "tenant",
        "the same in the headers that an adapter's body lists",
        "its own policy",
        {"request_headers": {"team": "acme", "x-aligner-bypass": "1"}},
    ),
)


@pytest.mark.parametrize("attack", POSED)
async def test_it_stays_who_it_is(attack: Attack, api: Api) -> None:
    sent = {"input_type": "response", "texts": ["So. You fool."], "request_data": {}, "model": "gpt"}
    settings = {"additional_provider_specific_params": {"objectives": ["concise"]}}
    assert (await api.post(GENERIC, sent | settings | attack.payload)).status_code == 403
    assert (await api.post(GENERIC, sent | attack.payload)).json()["texts"] == ["So."]


HIDDEN = rows(
    (
        "align-name-log",
        "tenant",
        "puts a text into the name of its own objective",
        "headers, logs and errors have a number in its place",
        f"{SECRET}: it should be so",
    ),
)


@pytest.mark.parametrize("attack", HIDDEN)
async def test_no_name_of_a_client_is_logged(attack: Attack, api: Api, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="aligner_proxy")
    got = await api.post("/v1/align", body(attack.payload), "free")
    assert got.status_code == 200
    assert SECRET not in caplog.text + str(got.headers)
    assert "own:1" in caplog.text


UNSEEN = rows(
    (
        "thoughts-torn",
        "upstream",
        "says in its reasoning, letter by letter, what its answer may not say (`reasoning: drop`)",
        "nothing of it goes out",
        "drop",
    ),
    (
        "foreign-answer",
        "upstream",
        "answers in a language that the aligner does not know, under `enforce` and `on_error: block`",
        "422",
        "block",
    ),
)


@pytest.mark.parametrize("attack", UNSEEN)
async def test_it_does_not_get_through(attack: Attack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enforced = {"match": {}, "enforce": ["harmless"], "on_error": "block"}
    guard = build(tmp_path, monkeypatch, {"defaults": {"reasoning": "drop"}, "tenants": [enforced]})
    if attack.payload == "drop":
        guard.pipeline = Pipeline(SegmentEngine(lambda _: -4.0))
        letters = [chunk(None, reasoning_content=letter) for letter in SECRET]
        told, _ = await streamed(guard, "gpt", [chunk("", role="assistant"), *letters, chunk("So."), chunk(why="stop")])
        assert len(told) == 3
        return
    guard.pipeline = pipeline()
    request = data()
    with pytest.raises(Blocked):
        await guard.async_post_call_success_hook(request, user(), answer(GERMAN))
    state = find_state(request)
    assert state is not None
    assert state.reason == "language"
