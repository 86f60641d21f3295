"""Another site against the console, in a real browser: what its own rules on cookies, frames and origins make of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from aligner_proxy_review.console.answer_queries import answer_handle
from tests.attacks.attack import Attack, rows
from tests.plugins.review.browser.conftest import chromium as chromium
from tests.plugins.review.browser.conftest import log_in_by_hand
from tests.plugins.review.browser.conftest import window as window
from tests.plugins.review.conftest import reviews_in
from tests.plugins.review.console.conftest import Site, an_entry
from tests.plugins.review.console.conftest import site as site
from tests.support.chromium import Chromium, needs_chromium

pytestmark = needs_chromium
WAITS = replace(an_entry(1, at=time.time() - 60), aligner_id="1" * 32)
FORM = """<form method="post" action="{console}{path}" target="there"><input name="act" value="harm">
<input name="answer" value="{answer}"><input name="token" value="{token}"></form><iframe name="there"></iframe>
<script>document.forms[0].submit(); document.querySelector("iframe").onload = () => document.title = "sent";</script>"""
FRAME = """<iframe src="{console}/review"></iframe>
<script>document.querySelector("iframe").onload = () => document.title = "sent";</script>"""
FETCH = """<script>
const said = {{method: "POST", credentials: "include", mode: "no-cors", body: "act=harm&answer={answer}&token={token}",
  headers: {{"content-type": "{kind}"}}}};
fetch("{console}/review", said).finally(() => document.title = "sent");
</script>"""
READ = """<script>
fetch("{console}/live", {{credentials: "include"}}).then((got) => got.text())
  .then((text) => document.title = "sent " + text.length, () => document.title = "sent");
</script>"""


class Evil:
    """Another site: one page, at the console's own host with another port, or at another name of the machine."""

    def __init__(self) -> None:
        site = self
        self.page = ""

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("content-type", "text/html")
                self.end_headers()
                self.wfile.write(f"<!doctype html><title>begun</title><body>{site.page}".encode())

            def log_message(self, *_: object) -> None:
                """Nobody reads it."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]


@pytest.fixture
def evil() -> Iterator[Evil]:
    made = Evil()
    serving = Thread(target=made.server.serve_forever)
    serving.start()
    yield made
    made.server.shutdown()
    serving.join()
    made.server.server_close()


SITES = rows(
    (
        "browser-csrf-form",
        "another site",
        "posts the form of a verdict by itself",
        "nothing is kept",
        ("localhost", FORM),
    ),
    (
        "browser-csrf-neighbour",
        "another application on the console's host",
        "posts it with the cookie, and with the right token",
        "403: it is another origin; nothing is kept",
        ("127.0.0.1", FORM),
    ),
    (
        "browser-csrf-fetch",
        "another application on the console's host",
        "posts it by a script that asks nobody before",
        "403; nothing is kept",
        ("127.0.0.1", FETCH.replace("{kind}", "application/x-www-form-urlencoded")),
    ),
    (
        "browser-csrf-text",
        "another application on the console's host",
        "posts it as plain text",
        "403; nothing is kept",
        ("127.0.0.1", FETCH.replace("{kind}", "text/plain")),
    ),
    (
        "browser-read",
        "another application on the console's host",
        "reads the page Live by a script, with the cookie",
        "the browser hands it nothing",
        ("127.0.0.1", READ),
    ),
    (
        "browser-framed",
        "another site",
        "frames the queue, to have buttons clicked that are not seen",
        "the frame stays empty",
        ("localhost", FRAME),
    ),
    (
        "browser-framed-neighbour",
        "another application on the console's host",
        "frames it where the cookie is sent",
        "the frame stays empty",
        ("127.0.0.1", FRAME),
    ),
)


@pytest.fixture
def operator(site: Site, window: Chromium) -> Chromium:
    """The operator's browser, which has got its cookies by the form, and keeps them as the console told it to."""
    site.add()
    log_in_by_hand(window)
    return window


@pytest.mark.parametrize("attack", SITES)
def test_another_site_in_the_operators_browser(attack: Attack, site: Site, operator: Chromium, evil: Evil) -> None:
    host, page = attack.payload
    site.add(WAITS)
    operator.open("/review")
    token = operator.one("form.verdicts [name=token]").get_attribute("value")
    evil.page = page.format(console=operator.base, path="/review", answer=answer_handle(WAITS), token=token)
    operator.driver.get(f"http://{host}:{evil.port}/")
    operator.until(lambda: operator.driver.title.startswith("sent"))
    assert operator.driver.title == "sent"
    if page is FRAME:
        operator.driver.switch_to.frame(0)
        assert not operator.all("#under-review, form, main")
        operator.driver.switch_to.default_content()
    assert reviews_in(site.audit) == []
    operator.open("/review")
    assert operator.all("#under-review")
    operator.stays("h")
    assert len(reviews_in(site.audit)) == 1  # what it tried is possible from here
