"""Another LiteLLM proxy, which knows nothing of us but our address: `generic_guardrail_api`, and `decision_model`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.clients import KEYS, Gateway
from tests.e2e.deployment import CLAUDE, Deployment, proxy
from tests.e2e.processes import EngineProcess
from tests.e2e.scripted_answers import GOOD, RUDE
from tests.e2e.scripted_engine import INSULT
from tests.e2e.shared import SHARED

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
DEPLOYMENT = SHARED


class Other(Deployment):
    """A LiteLLM whose guardrail is a gateway of ours, with the settings of docs/guides/adapters.md."""

    def __init__(self, address: str, **streams: Any) -> None:
        super().__init__(())
        self._address = address
        self._streams = streams or {"streaming_end_of_stream_only": True}

    def litellm(self, guarded: bool) -> dict[str, Any]:
        """LiteLLM's YAML."""
        params = {
            "guardrail": "generic_guardrail_api",
            "mode": "post_call",
            "default_on": True,
            "api_base": self._address,
            "api_key": KEYS["strict"],
            "streaming_transform_mode": "incremental_diff",
            **self._streams,
        }
        return super().litellm(guarded) | {"guardrails": [{"guardrail_name": "aligner", "litellm_params": params}]}


class Deciding(Deployment):
    """A LiteLLM whose own guardrail asks our gateway as a decision model, as in docs/guides/decide.md."""

    def litellm(self, guarded: bool) -> dict[str, Any]:
        """LiteLLM's YAML."""
        params = {
            "guardrail": "decision_model",
            "mode": "post_call",
            "default_on": True,
            "decision_model": "aligner",
            "streaming_buffer_until_moderated": True,
            "checks": [{"name": "insult", "instructions": "kind", "threshold": 0.7, "action": "block"}],
        }
        return super().litellm(guarded) | {"guardrails": [{"guardrail_name": "insults", "litellm_params": params}]}


@contextlib.contextmanager
def serving(models: Deployment, folder: Path, shared: Path, upstream: str, engine: EngineProcess) -> Iterator[Gateway]:
    """A client of another proxy with these models."""
    started = proxy(models, folder, shared, upstream, engine, guarded=False)
    with contextlib.ExitStack() as stack:
        stack.callback(started.process.stop)
        started.process.start()
        started.wait()
        yield stack.enter_context(contextlib.closing(Gateway(started.address, log=started.log)))


@pytest.fixture(scope="module")
def other(gateway: Gateway, folder: Path, upstream: str, engine: EngineProcess) -> Iterator[Gateway]:
    """A client of the other proxy."""
    models = Other(gateway.address).model("gpt").model("claude", CLAUDE)
    with serving(models, folder / "other", folder, upstream, engine) as client:
        yield client


def test_whole_answers_are_corrected(other: Gateway) -> None:
    better = RUDE.replace(INSULT, "")
    assert other.chat("rude").json()["choices"][0]["message"]["content"] == better
    assert other.chat("good").json()["choices"][0]["message"]["content"] == GOOD
    assert other.message("rude").json()["content"][0]["text"] == better
    assert other.respond("rude").json()["output"][0]["content"][0]["text"] == better


def test_streams_of_chat_are_corrected(other: Gateway) -> None:
    assert other.chat_stream("rude").text() == RUDE.replace(INSULT, "")
    assert other.chat_stream("good").text() == GOOD


def test_streams_are_corrected_while_they_come(
    gateway: Gateway, folder: Path, upstream: str, engine: EngineProcess
) -> None:
    models = Other(gateway.address, streaming_end_of_stream_only=False, streaming_sampling_rate=1).model("gpt")
    with serving(models, folder / "held", folder, upstream, engine) as client:
        stream = client.chat_stream("rude")
        assert stream.text() == RUDE.replace(INSULT, "")
        pieces = [choice["delta"].get("content") for chunk in stream.chunks for choice in chunk["choices"]]
        assert len([piece for piece in pieces if piece]) > 1, "it all came at the end"
        assert client.chat_stream("good").text() == GOOD
        assert client.chat("rude").json()["choices"][0]["message"]["content"] == RUDE.replace(INSULT, "")


def test_its_decision_model_guardrail_asks_us(
    gateway: Gateway, folder: Path, upstream: str, engine: EngineProcess
) -> None:
    ours = {"model": "openai/aligner", "api_base": f"{gateway.address}/aligner", "api_key": KEYS["strict"]}
    system_one = {**ours, "model": "hosted_vllm/aligner"}
    models = Deciding().model("gpt").model("aligner", ours).model("aligner-one", system_one)
    models.model("aligner-locked", {**ours, "api_key": "sk-nobody"})
    with serving(models, folder / "deciding", folder, upstream, engine) as client:
        assert client.chat("good").json()["choices"][0]["message"]["content"] == GOOD
        refused = client.chat("rude")
        assert refused.status_code == 400, refused.text
        assert "insult" in refused.text
        assert INSULT.strip() not in refused.text
        streamed = client.chat_stream("rude")
        assert INSULT.strip() not in streamed.text()
        for model in ("aligner", "aligner-one"):
            question = {"type": "predicate", "name": "insult", "instructions": "kind"}
            body = {"model": model, "input": RUDE, "questions": [question]}
            got = client.http.post("/v1/decisions", json=body)
            assert got.json()["answers"][0]["probability"] > 0.7, got.text
            body = {"model": model, "state": GOOD, "questions": {"insult": {"type": "noul", "instructions": "kind"}}}
            got = client.http.post("/v1/systemone", json=body)
            assert got.json()["answers"]["insult"]["noul"] < 0.7, got.text
        body = {"model": "aligner-locked", "input": RUDE, "questions": [question]}
        assert client.http.post("/v1/decisions", json=body).status_code == 401
