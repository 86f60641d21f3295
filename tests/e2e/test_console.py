"""The console beside the real proxy: what its playground says of an answer is what the traffic got."""

from __future__ import annotations

import itertools
import re
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from html import unescape
from pathlib import Path

import httpx
import pytest
from starlette.testclient import TestClient

from aligner_proxy.audit.store import AuditStore
from aligner_proxy.plugins.api import Entry
from aligner_proxy.types import Status
from aligner_proxy_review.console import escaping
from aligner_proxy_review.console.application import Console
from aligner_proxy_review.console.playground import GatewayClient as Judge
from tests.e2e.clients import MASTER_KEY, Gateway
from tests.e2e.deployment import ProxyPool
from tests.e2e.recorded import FOLDER, RECORDED
from tests.plugins.review.console.conftest import Browser

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
DEPLOYMENT = RECORDED
SCRIPTS = ("rude", "good", "unicode", "insult", "foreign", "foreign_rude", "line", "gate", "refuse", "outdated")
MODELS = ("gpt", "claude", "sentences", "brief")
WAIT_S = 60.0


@pytest.fixture(scope="module")
def operator(proxies: ProxyPool, gateway: Gateway) -> Iterator[Browser]:
    """The operator's browser before the console of this proxy; its playground asks over real sockets."""
    folder = proxies.get(DEPLOYMENT, guarded=True).log.parent
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALIGNER_PROXY_HOME", str(folder / "home"))
        patch.setenv("ALIGNER_PROXY_KEYS", str(folder / "keys.yaml"))
        console = Console(folder / "configs" / "guarded.yaml", MASTER_KEY, Judge(gateway.address, MASTER_KEY))
        browser = Browser.__new__(Browser)
        with TestClient(console.application(), base_url="http://console", follow_redirects=False) as browser.http:
            browser.token = ""
            browser.log_in(MASTER_KEY)
            yield browser


def text_of(answer: httpx.Response) -> str:
    """What the client got."""
    body = answer.json()
    return str(body["content"][0]["text"] if "content" in body else body["choices"][0]["message"]["content"])


def original(entry: Entry) -> str:
    """What the upstream said."""
    assert entry.content is not None
    return entry.content.exchange.answer or ""


def entry_of(folder: Path, answer: httpx.Response) -> Entry:
    """What is on record of an answer."""
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end:
        with closing(AuditStore(folder / FOLDER / "audit.db")) as store:
            found = list(store.select("aligner_id = ?", (answer.headers["x-aligner-id"],)))
        if found:
            return found[0]
        time.sleep(0.05)
    raise AssertionError("it was never recorded")


def scores(page: str) -> list[float]:
    return [float(score) for score in re.findall(r'data-score="([^"]+)"', page)]


def delivered(page: str) -> str:
    """The HTML of what a client gets."""
    found = re.search(r'<h2>What a client gets</h2>\s*<p class="diff">(.*?)</p>', page, re.DOTALL)
    assert found is not None
    return found[1]


def status(page: str) -> str:
    found = re.search(r'<h2>Result</h2>\s*<p><span class="status[^>]*><bdi class="name">([^<]*)<', page)
    assert found is not None, unescape(page)
    return found[1]


def test_the_playground_gives_what_the_traffic_got(gateway: Gateway, operator: Browser, folder: Path) -> None:
    operator.get("/playground")
    seen = Counter[str]()
    for script, model in itertools.product(SCRIPTS, MODELS):
        question = f"{script} to {model}"
        got = gateway.message(question, model) if model == "claude" else gateway.chat(question, model)
        assert got.status_code == 200, got.text
        said = got.headers["x-aligner-status"]
        seen[said] += 1
        entry = None if said == Status.SKIPPED else entry_of(folder, got)
        answer = text_of(got) if entry is None else original(entry)
        page = operator.send("/playground", model=model, question=question, answer=answer).text
        assert status(page) == said, question
        assert delivered(page) == str(escaping.show_text(text_of(got))), question
        if entry is not None:
            assert entry.content is not None
            assert scores(page) == [score for score in entry.content.scores if score is not None], question
    assert min(seen[name] for name in ("corrected", "unchanged", "not_judged", "skipped")) >= 2


def test_the_playground_takes_an_objective_of_the_operators_own(operator: Browser) -> None:
    operator.get("/playground")
    fields = {"model": "gpt", "question": "Is it so?", "answer": "It is so.", "objectives": "Rhyme: it should rhyme"}
    page = operator.send("/playground", **fields).text
    assert 'class="problem"' not in page
    assert 'status-unchanged"' in page


def test_the_overview_reads_the_gateways_metrics(operator: Browser) -> None:
    page = operator.get("/overview").text
    assert "Is it doing its job?" in page
    assert "None has been asked since the gateway started." in page
