"""Errors that LiteLLM makes of what it cannot read: none of them quotes an answer that a policy covers."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.shared import SHARED

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
DEPLOYMENT = SHARED

RUDE = "You are an idiot"
WITHHELD = "its message is withheld"


def ask(send: Callable[..., Any], script: str, **more: Any) -> Any:
    """The response, once LiteLLM tries the upstream again after an earlier failure."""
    for _ in range(60):
        got = send(script, **more)
        if got.status_code != 429:
            break
        time.sleep(0.5)
    return got


@pytest.mark.parametrize(
    ("endpoint", "model"),
    [("chat", "cut"), ("complete", "cut-instruct"), ("respond", "cut"), ("message", "cut-claude")],
)
def test_an_answer_that_was_cut_off_is_in_no_error(gateway: Any, plain: Any, endpoint: str, model: str) -> None:
    got, alone = (ask(getattr(who, endpoint), "cut", model=model) for who in (gateway, plain))
    assert got.status_code == alone.status_code == 500
    assert RUDE not in got.text
    # otherwise the error says what it says without us
    assert (WITHHELD in got.text) is (RUDE in alone.text)


@pytest.mark.parametrize("query", ["", "?stream=true"])
@pytest.mark.parametrize("script", ["rude", "kept_cut"])
def test_a_stored_answer_that_cannot_be_read_is_in_no_error(gateway: Any, plain: Any, query: str, script: str) -> None:
    answers = []
    for who in (plain, gateway):
        number = ask(who.respond, script, model="cut").json()["id"]
        answers.append(who.http.get(f"/v1/responses/{number}{query}"))
    alone, got = answers
    assert RUDE in alone.text
    assert RUDE not in got.text
    if got.status_code != 200:
        assert got.status_code == alone.status_code
        assert WITHHELD in got.text


def test_with_mode_off_errors_are_litellms(gateway: Any) -> None:
    got = ask(gateway.respond, "cut", model="off-cut")
    assert got.status_code == 500
    assert RUDE in got.text
