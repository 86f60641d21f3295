"""A console over an audit store with answers of two tenants, and browsers that visit it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from starlette.testclient import TestClient

from aligner_proxy.audit.entry import make_entry
from aligner_proxy.audit.store import AuditStore
from aligner_proxy.plugins.api import Entry
from aligner_proxy.types import Status
from aligner_proxy_review.console.application import Console
from aligner_proxy_review.console.playground import GatewayClient
from tests.audit.conftest import noted

MASTER = "sk-console-7f3Qm2Vx9LtB4wZk"
REVIEWER = "key-of-a-reviewer-at-acme"
CLIENT = "key-of-an-application"
OF_BOTH = "key-of-a-reviewer-of-both"
EXPIRED = "key-that-is-over"
GUARDRAIL = "aligner_proxy.guardrail.AlignerGuardrail"
TOKEN = re.compile(r'name="token" value="([0-9a-f]{64})"')


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def reviewer(key: str, alias: str, **more: Any) -> dict[str, Any]:
    return {"sha256": digest(key), "alias": alias, "role": "reviewer", **more}


KEYS = [
    reviewer(REVIEWER, "anna", team="acme"),
    reviewer(OF_BOTH, "bert", reviews=["acme", "globex"]),
    reviewer(EXPIRED, "carl", team="acme", expires="2020-01-01"),
    {"sha256": digest(CLIENT), "alias": "app", "team": "acme"},
]


def an_entry(number: int = 0, *, at: float = 1000.0, team: str = "acme", **changes: Any) -> Entry:
    """A corrected answer of a team."""
    status = changes.pop("as_status", Status.CORRECTED)
    return replace(make_entry(noted(number, at=at, status=status)), tenant=f"team:{team}", **changes)


def with_texts(made: Entry, answer: str, edited: str | None = None, question: str = "Is it so?") -> Entry:
    """The same with other texts; what was edited is one change of the whole."""
    assert made.content is not None
    turn = replace(made.content.exchange.turns[0], content=question)
    exchange = replace(made.content.exchange, answer=answer, turns=(turn,))
    changes = () if edited is None else ((0, len(answer), edited),)
    segments = tuple(replace(segment, text=answer) for segment in made.content.segments)
    content = replace(made.content, exchange=exchange, edited=edited or answer, edits=changes, segments=segments)
    return replace(made, content=content)


class Site:
    """The files of a gateway, a console over them, and the requests that the gateway got from it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[httpx.Request] = []
        self.answers: httpx.Response = httpx.Response(500)
        self.audit = folder / "audit.db"
        self.keys = folder / "keys.yaml"
        self.keys.write_text(yaml.safe_dump(KEYS))
        self.write_policies()
        litellm = {
            "model_list": [{"model_name": "gpt", "litellm_params": {"model": "openai/gpt"}}],
            "guardrails": [{"guardrail_name": "aligner", "litellm_params": {"guardrail": GUARDRAIL}}],
            "general_settings": {"master_key": MASTER},
        }
        self.litellm = folder / "litellm.yaml"
        self.litellm.write_text(yaml.safe_dump(litellm))
        gateway = GatewayClient("http://gateway", MASTER, httpx.MockTransport(self._gateway))
        self.console = Console(self.litellm, MASTER, gateway)
        self.application = self.console.application()

    def write_policies(self, **more: Any) -> None:
        policies = {
            "objectives": {"kind": "Kindness: be kind"},
            "routes": [{"match": {"model": "gpt"}, "name": "all", "objectives": ["kind"], "caution": 0.5}],
            "tenants": [{"match": {"team": "acme"}, "name": "acme", "allow": ["*"]}],
            "keys": "keys.yaml",
            "audit": {"enabled": True, "file": str(self.audit)},
            **more,
        }
        (self.folder / "policies.yaml").write_text(yaml.safe_dump(policies))

    def use_engine(self, address: str) -> None:
        """Have teaching and replays ask this engine."""
        self.console.services.files._engine = address

    def add(self, *entries: Entry) -> None:
        store = AuditStore(self.audit)
        for one in entries:
            store.add(one)
        store.close()

    def _gateway(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        return self.answers


class Browser:
    """Somebody's browser: keeps cookies, and sends the tokens of the forms that it was shown."""

    def __init__(self, site: Site) -> None:
        self.http = TestClient(site.application, base_url="http://console", follow_redirects=False)
        self.token = ""

    def get(self, path: str, **more: Any) -> httpx.Response:
        response = self.http.get(path, **more)
        if found := TOKEN.search(response.text):
            self.token = found[1]
        return response

    def send(self, path: str, **fields: str) -> httpx.Response:
        """A form of the page that was shown last."""
        return self.http.post(path, data={"token": self.token, **fields})

    def log_in(self, key: str) -> httpx.Response:
        self.get("/login")
        return self.send("/login", key=key)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setenv("ALIGNER_PROXY_HOME", str(tmp_path / "home"))
    for name in ("KEYS", "POLICIES"):
        monkeypatch.delenv(f"ALIGNER_PROXY_{name}", raising=False)
    return Site(tmp_path)


@pytest.fixture
def browser(site: Site) -> Iterator[Browser]:
    """Nobody's browser."""
    with Browser(site).http as http:
        made = Browser(site)
        made.http = http
        yield made


@pytest.fixture
def operator(site: Site, browser: Browser) -> Browser:
    """The operator's browser, with a store that has one answer of acme and one of globex."""
    site.add(an_entry(1), an_entry(2, at=1001.0, team="globex"))
    assert browser.log_in(MASTER).headers["location"] == "/overview"
    return browser


@pytest.fixture
def anna(site: Site, browser: Browser) -> Browser:
    """The browser of acme's reviewer, over the same store."""
    site.add(an_entry(1), an_entry(2, at=1001.0, team="globex"))
    assert browser.log_in(REVIEWER).headers["location"] == "/overview"
    return browser


def judged(**more: Any) -> httpx.Response:
    """What a gateway says of an answer."""
    segments = [
        {"text": "It is so.", "score": -4.0, "flagged": False, "against": None},
        {"text": "You fool.", "score": 4.0, "flagged": True, "against": "kind"},
    ]
    said = {"id": "x", "answer": "It is so.", "status": "corrected", "reason": None, "segments": segments, "ms": 10.0}
    return httpx.Response(200, content=json.dumps(said | more))
