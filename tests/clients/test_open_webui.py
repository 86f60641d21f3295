"""Open WebUI, set up by its block of docs/guides/recipes.md: callers of its API, and a chat as its page starts it."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.clients.page import ROOT, read_block
from tests.e2e.clients import MASTER_KEY, Gateway
from tests.e2e.processes import Process, free_port
from tests.e2e.scripted_answers import RUDE
from tests.e2e.scripted_engine import INSULT
from tests.e2e.upstream_agents import TITLE

PROGRAM = Path(os.environ.get("RECIPE_WEBUI", ROOT / ".build" / "open-webui" / "bin" / "open-webui"))
"""What `make clients` installs."""
pytestmark = [
    pytest.mark.full,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not PROGRAM.exists(), reason="make clients installs Open WebUI"),
]
KIND = RUDE.replace(INSULT, "")
ADA = {"name": "Ada", "email": "ada@example.org", "password": uuid.uuid4().hex}
TASKS = {"title_generation": True, "tags_generation": True, "follow_up_generation": True}
ENDS_S = 30.0


@pytest.fixture(scope="module")
def webui(gateway: Gateway, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """The client of a logged-in person; the server has the settings of the page and a folder of its own."""
    folder = tmp_path_factory.mktemp("webui")
    port = free_port()
    block = read_block("Open WebUI", "sh", gateway.address, "quick-agent")
    own = {
        "DATA_DIR": str(folder),
        "HOME": str(folder),
        "WEBUI_SECRET_KEY": uuid.uuid4().hex,
        "ALIGNER_KEY": MASTER_KEY,
    }
    # No models of its own: none for documents, and no search for others.
    no_models = {"RAG_EMBEDDING_ENGINE": "openai", "ENABLE_OLLAMA_API": "false", "OFFLINE_MODE": "true"}
    script = f'unset PYTHONPATH\n{block}\nexec "$@"'
    command = ["bash", "-c", script, "webui", str(PROGRAM), "serve", "--host", "127.0.0.1", "--port", str(port)]
    process = Process(command, folder / "webui.log", {**own, **no_models})
    process.start()
    try:
        process.wait_for(f"http://127.0.0.1:{port}/health")
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, verify=False, timeout=60) as client:
            token = client.post("/api/v1/auths/signup", json=ADA).json()["token"]
            client.headers["authorization"] = f"Bearer {token}"
            yield client
    finally:
        process.stop()


def test_it_lists_the_models_of_the_gateway(webui: httpx.Client) -> None:
    listed = {model["id"] for model in webui.get("/api/models").json()["data"]}
    assert {"quick-agent", "sentence-agent"} <= listed


@pytest.mark.parametrize("mode", ["quick", "sentence"])
def test_callers_of_its_api_get_the_corrected_text(webui: httpx.Client, mode: str) -> None:
    asked = {"model": f"{mode}-agent", "messages": [{"role": "user", "content": f"Where? {uuid.uuid4().hex}"}]}
    whole = webui.post("/api/chat/completions", json=asked | {"stream": False})
    assert whole.json()["choices"][0]["message"]["content"] == KIND
    stream = webui.post("/api/chat/completions", json=asked | {"stream": True})
    frames = [line.removeprefix("data: ") for line in stream.text.splitlines() if line.startswith("data: {")]
    deltas = [choice["delta"] for frame in frames for choice in json.loads(frame)["choices"]]
    assert "".join(delta.get("content") or "" for delta in deltas) == KIND
    # Streams keep the headers of the gateway, whole answers lose them.
    assert stream.headers["x-aligner-id"]
    assert "x-aligner-id" not in whole.headers


@pytest.mark.parametrize("mode", ["quick", "sentence"])
def test_a_chat_of_its_page_is_corrected_calls_its_own_tool_and_gets_its_title(
    webui: httpx.Client, gateway: Gateway, mode: str
) -> None:
    number, answer = start_chat(webui, f"{mode}-agent")
    until = time.monotonic() + ENDS_S
    while time.monotonic() < until:
        chat = webui.get(f"/api/v1/chats/{number}").json()
        message = chat["chat"]["history"]["messages"][answer]
        if message.get("followUps") and chat["title"] == TITLE["title"]:
            break
        time.sleep(0.2)
    items = message["output"]
    texts = [part["text"] for item in items if item["type"] == "message" for part in item["content"]]
    assert [text.strip() for text in texts] == [KIND, KIND]
    calls = [item["name"] for item in items if item["type"] == "function_call"]
    assert calls == ["get_current_timestamp"]
    # Title and follow-ups are JSON that a program reads: they come as the model wrote them.
    assert (chat["title"], message["followUps"]) == (TITLE["title"], TITLE["follow_ups"])


def start_chat(webui: httpx.Client, model: str) -> tuple[str, str]:
    """Start a chat as the page does, and return its number and that of the answer to come."""
    question, answer = str(uuid.uuid4()), str(uuid.uuid4())
    text = f"Where? {uuid.uuid4().hex}"
    now = int(time.time())
    user: dict[str, Any] = {"id": question, "parentId": None, "childrenIds": [answer], "role": "user"}
    user |= {"content": text, "timestamp": now, "models": [model]}
    blank: dict[str, Any] = {"id": answer, "parentId": question, "childrenIds": [], "role": "assistant", "content": ""}
    blank |= {"model": model, "modelName": model, "modelIdx": 0, "timestamp": now}
    history = {"messages": {question: user, answer: blank}, "currentId": answer}
    chat = {"title": "New Chat", "models": [model], "history": history, "messages": [user, blank]}
    number = webui.post("/api/v1/chats/new", json={"chat": chat}).json()["id"]
    asked = {
        "stream": True,
        "model": model,
        "messages": [{"role": "user", "content": text}],
        "params": {"function_calling": "native"},
        "session_id": uuid.uuid4().hex,
        "chat_id": number,
        "id": answer,
        "background_tasks": TASKS,
    }
    begun = webui.post("/api/chat/completions", json=asked)
    assert begun.status_code == 200, begun.text
    return number, answer
