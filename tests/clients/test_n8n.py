"""n8n as docs/guides/recipes.md sets it up: one workflow with its nodes for OpenAI, an agent and its HTTP request."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.clients.page import PAGE, PLACE, ROOT
from tests.clients.test_recipe_clients import KIND
from tests.e2e.clients import MASTER_KEY, Gateway

PROGRAMS = Path(os.environ.get("RECIPE_N8N", ROOT / ".build" / "n8n" / "node_modules" / ".bin"))
"""What `N8N=1 make clients` installs, with the Node that it needs."""
pytestmark = [
    pytest.mark.full,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not (PROGRAMS / "n8n").exists(), reason="N8N=1 make clients installs n8n"),
]
CREDENTIAL = {"openAiApi": {"id": "aligner-credential", "name": "aligner"}}
OPENAI = "@n8n/n8n-nodes-langchain"
ENDS_S = 200


def read_section() -> str:
    """What the page says of n8n."""
    text = re.search(r"^## n8n.*\n((?:(?!^## ).*\n)*)", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert text is not None
    return text[1]


class Workflow:
    """Nodes that one trigger starts."""

    def __init__(self, model: str) -> None:
        self.model = {"__rl": True, "mode": "id", "value": model}
        self.nodes: list[dict[str, Any]] = []
        self.connections: dict[str, dict[str, Any]] = {}
        self.add("trigger", "n8n-nodes-base.manualTrigger", 1, {})

    def add(self, name: str, kind: str, version: float, parameters: dict[str, Any]) -> None:
        """A node of its own."""
        node = {"id": name, "name": name, "type": kind, "typeVersion": version, "position": [0, 0]}
        credentials = CREDENTIAL if "OpenAi" in kind or kind.endswith(".openAi") else {}
        self.nodes.append({**node, "parameters": parameters, "credentials": credentials})

    def connect(self, source: str, target: str, kind: str = "main") -> None:
        """A line from one node to another."""
        targets = self.connections.setdefault(source, {}).setdefault(kind, [[]])
        targets[0].append({"node": target, "type": kind, "index": 0})

    def add_chain(self, name: str, version: float, parameters: dict[str, Any], kind: str = "chainLlm") -> None:
        """A node that asks a chat model, and this model."""
        self.add(name, f"{OPENAI}.{kind}", 1.7, {"promptType": "define", "text": f"Where? {name}", **parameters})
        self.add(f"model of {name}", f"{OPENAI}.lmChatOpenAi", version, {"model": self.model, "options": {}})
        self.connect(f"model of {name}", name, "ai_languageModel")
        self.connect("trigger", name)

    def write(self, file: Path) -> None:
        """The file that `n8n import:workflow` reads."""
        head = {"id": "aligner-workflow", "name": "aligner", "active": False, "settings": {}}
        file.write_text(json.dumps([{**head, "nodes": self.nodes, "connections": self.connections}]))


def make_workflow(address: str, model: str) -> Workflow:
    """A chain by chat and one by Responses, an agent with a tool, the node for OpenAI, and the curl of the page."""
    made = Workflow(model)
    made.add_chain("chat", 1.2, {})
    made.add_chain("responses", 1.3, {"responsesApiEnabled": True})
    made.add_chain("agent", 1.2, {}, kind="agent")
    made.add("calculator", f"{OPENAI}.toolCalculator", 1, {})
    made.connect("calculator", "agent", "ai_tool")
    messages = {"values": [{"content": "Where? message"}]}
    made.add("message", f"{OPENAI}.openAi", 1.8, {"modelId": made.model, "messages": messages})
    made.connect("trigger", "message")
    made.add("request", "n8n-nodes-base.httpRequest", 4.2, read_request(address, model))
    made.connect("trigger", "request")
    return made


def read_request(address: str, model: str) -> dict[str, Any]:
    """The parameters that n8n makes of the page's curl command."""
    text = read_section().replace(PLACE, address).replace("gpt-4o-mini", model)
    command = re.search(r"curl (\S+) .*? -d '(.*?)'", text.replace("\\\n", ""))
    assert command is not None
    headers = [{"name": "Authorization", "value": f"Bearer {MASTER_KEY}"}]
    return {
        "method": "POST",
        "url": command[1],
        "sendHeaders": True,
        "headerParameters": {"parameters": headers},
        "sendBody": True,
        "specifyBody": "json",
        "jsonBody": command[2],
        "options": {"response": {"response": {"fullResponse": True}}},
    }


@pytest.fixture(scope="module")
def outputs(gateway: Gateway, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What each node of the workflow has made, by its name."""
    folder = tmp_path_factory.mktemp("n8n")
    base = re.search(rf"base URL `{PLACE}(\S*)`", read_section())
    assert base is not None
    data = {"apiKey": MASTER_KEY, "url": f"{gateway.address}{base[1]}"}
    credential = {**CREDENTIAL["openAiApi"], "type": "openAiApi", "data": data}
    (folder / "credentials.json").write_text(json.dumps([credential]))
    make_workflow(gateway.address, "quick-agent").write(folder / "workflow.json")
    run_n8n(folder, "import:credentials", f"--input={folder / 'credentials.json'}")
    run_n8n(folder, "import:workflow", f"--input={folder / 'workflow.json'}")
    printed = run_n8n(folder, "execute", "--id=aligner-workflow", "--rawOutput")
    result = json.loads(printed[printed.index("{") :])["data"]["resultData"]
    return {name: runs[-1] for name, runs in result["runData"].items()}


def run_n8n(folder: Path, *arguments: str) -> str:
    """What a command of n8n prints; it keeps its files in this folder."""
    own = {"N8N_USER_FOLDER": str(folder), "N8N_DIAGNOSTICS_ENABLED": "false", "HOME": str(folder)}
    env = {**os.environ, **own, "PATH": f"{PROGRAMS}:{os.environ['PATH']}", "NO_PROXY": "*"}
    done = subprocess.run(
        [PROGRAMS / "n8n", *arguments], env=env, capture_output=True, text=True, timeout=ENDS_S, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def read_output(outputs: dict[str, Any], node: str, kind: str = "main") -> dict[str, Any]:
    """The first item that a node has made."""
    made = outputs[node]
    assert made["executionStatus"] == "success", made
    item: dict[str, Any] = made["data"][kind][0][0]["json"]
    return item


def test_its_chat_model_gives_the_corrected_text_by_chat_and_by_responses(outputs: dict[str, Any]) -> None:
    assert [read_output(outputs, name)["text"] for name in ("chat", "responses")] == [KIND, KIND]


def test_its_agent_calls_its_tool_and_says_the_corrected_text(outputs: dict[str, Any]) -> None:
    assert read_output(outputs, "calculator", "ai_tool")["response"] == "42"
    assert read_output(outputs, "agent")["output"] == KIND


def test_its_node_for_openai_gives_the_corrected_text(outputs: dict[str, Any]) -> None:
    assert read_output(outputs, "message")["message"]["content"] == KIND


def test_its_http_request_reads_the_status_beside_the_corrected_text(outputs: dict[str, Any]) -> None:
    response = read_output(outputs, "request")
    assert response["body"]["choices"][0]["message"]["content"] == KIND
    assert response["headers"]["x-aligner-status"] == "corrected"
