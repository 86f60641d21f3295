"""A judge through the real proxy: every form of judge on its wire, all endpoints and streams, costs and failures."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from aligner_proxy.types import GuardForm
from tests.e2e.deployment import CLAUDE, INSTRUCT, OPENAI, Deployment
from tests.e2e.processes import EngineProcess
from tests.e2e.scripted_judge import PREFIX

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
# The scripted head scores what is no insult 4 nats below the threshold.
BAND = {"band": 5.0}
CHAT = {"chat": "judge-chat", **BAND}
DEPLOYMENT = Deployment().model("judge-chat", {**OPENAI, "model": f"openai/{PREFIX}chat"}, guardrails=["aligner"])
DEPLOYMENT.model("judge-down", {**OPENAI, "model": f"openai/{PREFIX}down"})
for form in GuardForm:
    DEPLOYMENT.model(form.value, {**OPENAI, "model": f"openai/{PREFIX}{form.value}"})
    guard = {"guard": form.value, "form": form.value, **BAND}
    DEPLOYMENT.case(f"by-{form.value}", objectives=["harmless"], judge=guard, deadline_s=10)
DEPLOYMENT.model("judge-decisions", {**OPENAI, "model": f"openai/{PREFIX}decisions"})
JUDGES: dict[str, dict[str, Any]] = {
    "judged": CHAT,
    "decided": {"decisions": "judge-decisions", **BAND},
    "guarded": {"guard": GuardForm.QWEN3GUARD.value, "form": GuardForm.QWEN3GUARD.value, **BAND},
    "tokens": {"tokens": "facts", **BAND},
    # these two are real models
    "tiny-facts": {"tokens": "tiny-facts", **BAND},
    "tiny-guard": {"tokens": "tiny-guard", **BAND},
}
"""A judge of each kind, by the beginning of the models' names."""
NAMES = {judged: next(iter(judge.values())) for judged, judge in JUDGES.items()}
GUARDS = ("guarded", "tiny-guard")
"""Those that know `harmless` alone."""
for judged, judge in JUDGES.items():
    for mode in ("hold", "sentence"):
        settings: dict[str, Any] = {"judge": judge, "stream": mode, "deadline_s": 60}
        if judged in GUARDS:
            settings["objectives"] = ["harmless"]
        DEPLOYMENT.case(f"{judged}-{mode}", **settings)
        for suffix, kind in (("claude", CLAUDE), ("instruct", INSTRUCT)):
            DEPLOYMENT.model(f"{judged}-{mode}-{suffix}", kind).route(f"{judged}-{mode}-{suffix}", **settings)
    DEPLOYMENT.case(f"{judged}-live", judge=judge, stream="passthrough")
    DEPLOYMENT.case(f"{judged}-shadow", judge=judge, mode="shadow")
DEPLOYMENT.case("tokens-near", judge={"tokens": "facts"})
for objective in ("harmless", "kind"):
    guard = {"tokens": "guard", **BAND}
    DEPLOYMENT.case(f"tokens-guard-{objective}", objectives=[objective], judge=guard, deadline_s=10)
for mode in ("hold", "sentence"):
    held = {"references": ["system"], "judge": {"tokens": "page", **BAND}}
    DEPLOYMENT.case(f"tokens-page-{mode}", stream=mode, deadline_s=10, **held)
FAILING = ("wrong", "late", "absent")
for name in FAILING:
    failing: dict[str, Any] = {"judge": {"tokens": name, **BAND}, "deadline_s": 4}
    DEPLOYMENT.case(f"tokens-{name}", **failing)
    DEPLOYMENT.case(f"tokens-{name}-block", on_error={"judge": "block"}, **failing)
DEPLOYMENT.case("unjudged", judge={"chat": "judge-down", **BAND}, deadline_s=10)
DEPLOYMENT.case("unjudged-block", judge={"chat": "judge-down", **BAND}, deadline_s=10, on_error={"judge": "block"})
BEFORE = "The capital of France is Paris."
BEHIND = "It lies on the Seine."
"""The scripted upstream says these two with an insult between them, which the head flags."""


def text(got: httpx.Response) -> str:
    return str(got.json()["choices"][0]["message"]["content"])


def judge_calls(upstream: str) -> int:
    seen: list[dict[str, Any]] = httpx.get(f"{upstream}/seen?n=100000", trust_env=False, verify=False).json()
    return sum(str(body.get("model")).startswith(PREFIX) for body in seen)


def label_calls(engine: EngineProcess) -> int:
    return engine.log.read_text().count('"labelled"') if engine.log.exists() else 0


@pytest.mark.parametrize("form", list(GuardForm))
def test_each_guard_is_asked_in_its_form(gateway: Any, form: GuardForm) -> None:
    got = gateway.chat(f"rude by {form}", model=f"by-{form.value}")
    assert (got.headers["x-aligner-status"], text(got)) == ("corrected", BEFORE)
    assert got.headers["x-aligner-judge"] == f"{form.value} asked=2 flagged=1 cleared=0 calls=2 read=60 written=12"


def test_a_chat_model_is_asked_in_one_call(gateway: Any, upstream: str) -> None:
    before = judge_calls(upstream)
    got = gateway.chat("rude judged once", model="judged-hold")
    assert text(got) == BEFORE
    assert got.headers["x-aligner-judge"] == "judge-chat asked=2 flagged=1 cleared=0 calls=1 read=30 written=6"
    assert judge_calls(upstream) == before + 1
    again = gateway.chat("rude judged once", model="judged-hold")
    assert (text(again), again.headers["x-aligner-cache"], again.headers.get("x-aligner-judge")) == (
        BEFORE,
        "hit",
        None,
    )
    assert judge_calls(upstream) == before + 1


def test_a_token_classifier_of_the_engine_is_asked_in_one_call(gateway: Any, engine: EngineProcess) -> None:
    before = label_calls(engine)
    for cache in ("miss", "hit"):
        got = gateway.chat("rude tokens once", model="tokens-hold")
        assert (text(got), got.headers["x-aligner-cache"]) == (BEFORE, cache)
        use = "facts asked=2 flagged=1 cleared=0 calls=1 read=17 written=0" if cache == "miss" else None
        assert got.headers.get("x-aligner-judge") == use
        assert label_calls(engine) == before + 1
    near = gateway.chat("rude tokens beyond the band", model="tokens-near")
    assert (text(near), near.headers.get("x-aligner-judge")) == (f"{BEFORE} {BEHIND}", None)
    assert label_calls(engine) == before + 1, "beyond the band there is no call"


def test_a_guard_of_tokens_is_asked_about_its_categories_alone(gateway: Any) -> None:
    got = gateway.chat("rude tokens of a guard", model="tokens-guard-harmless")
    assert text(got) == BEFORE
    assert got.headers["x-aligner-judge"].startswith("guard asked=2 flagged=1")
    got = gateway.chat("rude tokens of a guard", model="tokens-guard-kind")
    assert (text(got), got.headers.get("x-aligner-judge")) == (f"{BEFORE} {BEHIND}", None)


@pytest.mark.parametrize("mode", ["hold", "sentence"])
def test_a_token_classifier_holds_an_answer_to_the_page_of_its_policy(gateway: Any, mode: str) -> None:
    for page, expected in (("Paris has a river.", BEFORE), ("Paris lies on the Seine.", f"{BEFORE} {BEHIND}")):
        script = f"rude tokens of a page {mode}"
        messages = [{"role": "system", "content": page}, {"role": "user", "content": script}]
        assert text(gateway.chat(script, model=f"tokens-page-{mode}", messages=messages)) == expected
        stream = gateway.chat_stream(script, model=f"tokens-page-{mode}", messages=messages)
        assert stream.text() == expected


@pytest.mark.covering("mode", "judged")
@pytest.mark.parametrize("judged", list(JUDGES))
@pytest.mark.parametrize("mode", ["hold", "sentence"])
def test_a_stream_gets_the_same(gateway: Any, mode: str, judged: str) -> None:
    stream = gateway.chat_stream(f"rude {judged} stream {mode}", model=f"{judged}-{mode}")
    assert stream.text() == BEFORE
    assert stream.comments == [": aligner status=corrected judge=2/1/0"]


@pytest.mark.covering("mode", "judged")
@pytest.mark.parametrize("judged", list(JUDGES))
@pytest.mark.parametrize("mode", ["hold", "sentence"])
def test_other_endpoints_get_the_same(gateway: Any, mode: str, judged: str) -> None:
    for got in (
        gateway.respond(f"rude {judged} response {mode}", model=f"{judged}-{mode}"),
        gateway.message(f"rude {judged} message {mode}", model=f"{judged}-{mode}-claude"),
        gateway.complete(f"rude {judged} text {mode}", model=f"{judged}-{mode}-instruct"),
    ):
        assert BEFORE in got.text
        assert "Seine" not in got.text
        assert got.headers["x-aligner-judge"].startswith(f"{NAMES[judged]} asked=2 flagged=1")
    stream = gateway.message_stream(f"rude {judged} message stream {mode}", model=f"{judged}-{mode}-claude")
    assert "".join(stream.parts("content_block_delta", "index", "text")) == BEFORE
    stream = gateway.respond_stream(f"rude {judged} response stream {mode}", model=f"{judged}-{mode}")
    assert "".join(stream.parts("response.output_text.delta", "content_index", "delta")) == BEFORE
    stream = gateway.complete_stream(f"rude {judged} text stream {mode}", model=f"{judged}-{mode}-instruct")
    assert stream.text() == BEFORE


@pytest.mark.parametrize("judged", list(JUDGES))
def test_shadow_mode_and_passthrough_only_record(gateway: Any, judged: str) -> None:
    assert BEHIND in text(gateway.chat(f"rude {judged} shadow", model=f"{judged}-shadow"))
    assert BEHIND in gateway.chat_stream(f"rude {judged} live", model=f"{judged}-live").text()


@pytest.mark.parametrize("name", FAILING)
def test_a_token_classifier_that_fails_leaves_the_verdict_to_the_head(gateway: Any, name: str) -> None:
    got = gateway.chat(f"rude tokens {name}", model=f"tokens-{name}")
    assert (got.headers["x-aligner-status"], text(got)) == ("corrected", f"{BEFORE} {BEHIND}")
    assert got.headers["x-aligner-judge"].endswith(" failed=1")
    stream = gateway.chat_stream(f"rude tokens stream {name}", model=f"tokens-{name}")
    assert stream.text() == f"{BEFORE} {BEHIND}"
    got = gateway.chat(f"rude tokens block {name}", model=f"tokens-{name}-block")
    assert (got.status_code, got.headers["x-aligner-reason"]) == (503, "judge_failed")
    if name == "absent":
        assert "has no judge 'absent'; it has: facts, late, " in gateway.log.read_text()


def test_a_judge_that_is_down_leaves_the_verdict_to_the_head(gateway: Any) -> None:
    got = gateway.chat("rude judged by nobody", model="unjudged")
    assert (got.headers["x-aligner-status"], text(got)) == ("corrected", f"{BEFORE} {BEHIND}")
    assert got.headers["x-aligner-judge"].endswith(" failed=1")
    got = gateway.chat("rude judged by nobody", model="unjudged-block")
    assert (got.status_code, got.headers["x-aligner-reason"]) == (503, "judge_failed")
