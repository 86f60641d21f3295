"""The systems of the field through the real proxy: one line of policy is all that is between them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.scripted_answers import GOOD
from tests.e2e.shared import SHARED
from tests.e2e.systems import SYSTEMS

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
DEPLOYMENT = SHARED

KIND = "The capital of France is Paris. It lies on the Seine."
WISH = {"metadata": {"aligner": {"preference": "Write in capital letters."}}}


def asked(name: str) -> dict[str, Any]:
    return {"model": f"field-{name}", **(WISH if name == "metaalign" else {})}


def wanted(name: str) -> str:
    return KIND.upper() if name == "metaalign" else KIND


def check(name: str, headers: Any) -> None:
    correctors = {"aligner": "aligner", "self-refine": "self_refine"}
    assert headers["x-aligner-model"] == correctors.get(name, "embedded")
    assert headers.get("x-aligner-weights") == ("humour=0.750,kind=0.250" if name == "meal" else None)


@pytest.mark.parametrize("name", SYSTEMS)
def test_each_corrects_an_answer(tenants: Any, single_purpose: Any, name: str) -> None:
    script = f"rude systems {name}"
    got = tenants["vip"].chat(script, **asked(name))
    assert got.json()["choices"][0]["message"]["content"] == wanted(name)
    assert got.headers["x-aligner-status"] == "corrected"
    check(name, got.headers)
    again = tenants["vip"].chat(script, **asked(name))
    assert (got.headers["x-aligner-cache"], again.headers["x-aligner-cache"]) == ("miss", "hit")


@pytest.mark.parametrize("name", SYSTEMS)
def test_each_corrects_a_stream(tenants: Any, single_purpose: Any, name: str) -> None:
    stream = tenants["vip"].chat_stream("rude systems streamed", **asked(name))
    assert stream.text() == wanted(name)
    assert stream.comments[-1].startswith(": aligner status=corrected")
    check(name, stream.headers)


@pytest.mark.parametrize("name", [name for name in SYSTEMS if name != "metaalign"])
def test_each_leaves_a_good_answer_alone(tenants: Any, single_purpose: Any, name: str) -> None:
    got = tenants["vip"].chat("good systems", **asked(name))
    assert got.json()["choices"][0]["message"]["content"] == GOOD
    assert got.headers["x-aligner-status"] == "unchanged"


def test_drafts_are_asked_for_and_read(tenants: Any, engine: Any) -> None:
    before = len(engine.calls())
    got = tenants["vip"].chat("rude systems drafted", model="field-best-of")
    assert got.headers["x-aligner-status"] == "corrected"
    assert len(engine.calls()) - before == 3 + 2  # three drafts, which agree, and a reading of theirs and the original
