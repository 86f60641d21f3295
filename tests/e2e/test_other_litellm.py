"""Another LiteLLM proxy, which knows nothing of us but our address: `generic_guardrail_api`."""

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

    def __init__(self, address: str) -> None:
        super().__init__(())
        self._address = address

    def litellm(self, guarded: bool) -> dict[str, Any]:
        """LiteLLM's YAML."""
        params = {
            "guardrail": "generic_guardrail_api",
            "mode": "post_call",
            "default_on": True,
            "api_base": self._address,
            "api_key": KEYS["strict"],
            "streaming_end_of_stream_only": True,
            "streaming_transform_mode": "incremental_diff",
        }
        return super().litellm(guarded) | {"guardrails": [{"guardrail_name": "aligner", "litellm_params": params}]}


@pytest.fixture(scope="module")
def other(gateway: Gateway, folder: Path, upstream: str, engine: EngineProcess) -> Iterator[Gateway]:
    """A client of the other proxy."""
    models = Other(gateway.address).model("gpt").model("claude", CLAUDE)
    started = proxy(models, folder / "other", folder, upstream, engine, guarded=False)
    with contextlib.ExitStack() as stack:
        stack.callback(started.process.stop)
        started.process.start()
        started.wait()
        yield stack.enter_context(contextlib.closing(Gateway(started.address, log=started.log)))


def test_whole_answers_are_corrected(other: Gateway) -> None:
    better = RUDE.replace(INSULT, "")
    assert other.chat("rude").json()["choices"][0]["message"]["content"] == better
    assert other.chat("good").json()["choices"][0]["message"]["content"] == GOOD
    assert other.message("rude").json()["content"][0]["text"] == better
    assert other.respond("rude").json()["output"][0]["content"][0]["text"] == better


def test_streams_of_chat_are_corrected(other: Gateway) -> None:
    assert other.chat_stream("rude").text() == RUDE.replace(INSULT, "")
    assert other.chat_stream("good").text() == GOOD
