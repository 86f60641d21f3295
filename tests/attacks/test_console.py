"""Somebody wants into the console, or to reach out of it: by cookies, forms, answers, names and addresses."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
from click.testing import CliRunner

from aligner_proxy.audit.store import AuditStore
from aligner_proxy.cli import main
from aligner_proxy_review.console.answer_queries import answer_handle
from aligner_proxy_review.console.application import COOKIE
from aligner_proxy_review.console.sessions import LIFETIME_S
from aligner_proxy_review.reviews import Review, ReviewOrigin, Reviews, ReviewVerdict
from tests.attacks.attack import Attack, rows
from tests.plugins.review.conftest import reviews_in
from tests.plugins.review.console.conftest import CLIENT, MASTER, REVIEWER, Browser, Site, an_entry, with_texts
from tests.plugins.review.console.conftest import browser as browser
from tests.plugins.review.console.conftest import operator as operator
from tests.plugins.review.console.conftest import site as site
from tests.plugins.review.console.test_escaping import is_ours
from tests.plugins.review.console.test_live import Stream

THEIRS = an_entry(2, at=1001.0, team="globex")

FORMS = rows(
    ("console-csrf", "another site", "posts a form with the operator's cookie", "403, nothing is asked", {}),
    (
        "console-csrf-token",
        "another site",
        "posts it with the token of a session of its own",
        "403, nothing is asked",
        {"token": "another"},
    ),
    (
        "console-csrf-origin",
        "another site",
        "posts it with the right token, as a page that leaked it would",
        "403: the browser names the origin",
        {"token": "own", "headers": {"origin": "http://evil.example"}},
    ),
    (
        "console-csrf-site",
        "another site",
        "posts it with the right token from a page without an origin",
        "403: the browser says that it is from another site",
        {"token": "own", "headers": {"sec-fetch-site": "cross-site"}},
    ),
)


@pytest.mark.parametrize("attack", FORMS)
def test_a_form_from_elsewhere(attack: Attack, site: Site, operator: Browser) -> None:
    operator.get("/live")
    other = Browser(site)
    other.log_in(MASTER)
    other.get("/live")
    tokens = {"own": operator.token, "another": other.token}
    payload: dict[str, Any] = attack.payload
    sent = {"token": tokens.get(payload.get("token", ""), ""), "question": "q", "answer": "a"}
    got = operator.http.post("/playground", data=sent, headers=payload.get("headers", {}))
    assert got.status_code == 403
    assert site.asked == []


LINKS = rows(
    ("console-csrf-link", "another site", "links to an address that would log the operator out", "405", "/logout"),
    (
        "console-csrf-verdict",
        "another site",
        "links to an address that would give a verdict",
        "an address changes nothing",
        "/review?act=right&answer={answer}",
    ),
)


@pytest.mark.parametrize("attack", LINKS)
def test_a_link_that_would_act(attack: Attack, site: Site, operator: Browser) -> None:
    waits = replace(an_entry(3, at=time.time() - 9), aligner_id="3" * 32)
    site.add(waits)
    got = operator.get(attack.payload.format(answer=answer_handle(waits)))
    assert got.status_code == (405 if attack.id == "console-csrf-link" else 200)
    assert reviews_in(site.audit) == []
    assert operator.get("/live").status_code == 200


COOKIES = rows(
    ("console-replayed", "thief of a cookie", "uses it after its owner logged out", "it opens nothing", "replayed"),
    ("console-forged", "anyone", "makes a cookie without the key for signatures", "it opens nothing", "forged"),
    ("console-fixed", "anyone", "plants a cookie of a log-in form as a session", "it opens nothing", "fixed"),
    (
        "console-old-cookie",
        "thief of a cookie",
        "uses it when its eight hours are over, or after a restart",
        "it opens nothing",
        "old",
    ),
)


@pytest.mark.parametrize("attack", COOKIES)
def test_a_cookie_that_is_not_theirs(attack: Attack, site: Site, operator: Browser) -> None:
    real = operator.http.cookies[COOKIE]
    thief = Browser(site)
    made = {
        "replayed": real,
        "forged": real.partition(".")[0] + "." + "0" * 64,
        "old": real,
        "fixed": thief.http.get("/login").headers["set-cookie"].partition("=")[2].partition(";")[0],
    }[attack.payload]
    assert thief.http.get("/live", headers={"cookie": f"{COOKIE}={real}"}).status_code == 200
    if attack.payload == "old":
        restarted = Browser(Site(site.folder))
        assert restarted.http.get("/live", headers={"cookie": f"{COOKIE}={real}"}).headers["location"] == "/login"
        site.console.sessions._clock = lambda: time.time() + LIFETIME_S
    else:
        operator.get("/live")
        operator.send("/logout")
    assert thief.http.get("/live", headers={"cookie": f"{COOKIE}={made}"}).headers["location"] == "/login"


KEYS = rows(
    ("console-client-key", "owner of a client's key", "logs in with it", "403", CLIENT),
    ("console-guess", "anyone", "tries keys", "429 after ten attempts a minute", None),
)


@pytest.mark.parametrize("attack", KEYS)
def test_a_key_that_opens_nothing(attack: Attack, browser: Browser) -> None:
    if attack.payload:
        assert browser.log_in(attack.payload).status_code == 403
        assert COOKIE not in browser.http.cookies
        return
    assert [browser.log_in(f"sk-{n}").status_code for n in range(11)] == [403] * 10 + [429]


SCOPES = rows(
    ("console-other-answer", "reviewer", "opens an answer of another tenant by its address", "404, as for none", "id"),
    ("console-other-list", "reviewer", "filters the list by another tenant", "an empty list", "list"),
    ("console-other-rates", "reviewer", "reads the rates of another tenant", "they are of its own alone", "rates"),
    ("console-other-model", "reviewer", "lets the gateway judge with the master key", "404, nothing is asked", "play"),
    (
        "console-other-verdict",
        "reviewer",
        "sends a verdict on another tenant's answer, by its address",
        "409, as for every answer that is not on the own desk; nothing is kept",
        "verdict",
    ),
    ("console-other-figures", "reviewer", "reads the figures of all reviews", "of its own tenants alone", "figures"),
)


@pytest.mark.parametrize("attack", SCOPES)
def test_a_reviewer_of_one_tenant(attack: Attack, site: Site, browser: Browser) -> None:
    site.add(an_entry(1), THEIRS)
    browser.log_in(REVIEWER)
    browser.get("/live")
    if attack.payload == "id":
        assert browser.get(f"/answers/{answer_handle(an_entry(1))}").status_code == 200
        assert browser.get(f"/answers/{answer_handle(THEIRS)}").status_code == 404
    elif attack.payload == "list":
        assert "<article" not in browser.get("/live?tenant=team:globex").text
    elif attack.payload == "rates":
        assert "globex" not in browser.get("/rates?period=7d").text
    elif attack.payload == "verdict":
        assert browser.send("/review", act="harm", answer=answer_handle(THEIRS)).status_code == 409
        assert reviews_in(site.audit) == []
    elif attack.payload == "figures":
        site.add(*(replace(an_entry(n, at=time.time(), team="globex"), aligner_id=f"{n:032x}") for n in range(4, 9)))
        assert "0 judged answers" in browser.get("/review/figures").text
    else:
        assert browser.send("/playground", question="q", answer="a").status_code == 404
        assert site.asked == []


STREAMS = rows(
    (
        "console-other-events",
        "reviewer",
        "follows the events of another tenant, by a filter or by none",
        "they are of its own alone",
        ("", "tenant=team:globex"),
    ),
)


@pytest.mark.parametrize("attack", STREAMS)
async def test_events_of_another_tenant(attack: Attack, site: Site) -> None:
    site.add(an_entry(0, at=1.0))
    site.console.services.feed._clock = lambda: 1000.0
    for query in attack.payload:
        stream = Stream(site, REVIEWER, query)
        assert await anext(stream.events) == "retry: 2000\n: following\n\n"
        site.add(THEIRS)
        await anext(stream.events)  # what was there before it followed
        site.add(an_entry(1, at=1001.0))
        await site.console.services.feed.poll()
        (queue,) = site.console.services.feed._page_queues
        told = "".join([await anext(stream.events) for _ in range(queue.qsize())])
        assert answer_handle(THEIRS) not in told
        assert "globex" not in told
        assert (answer_handle(an_entry(1, at=1001.0)) in told) == (query == "")
        await stream.events.aclose()  # type: ignore[attr-defined]


EXPORTS = rows(
    (
        "export-other-tenant",
        "reviewer",
        "is handed the training rows of its tenant, among which are those of others",
        "`export --tenant` writes no row, id or word of another tenant",
        "acme",
    ),
)


@pytest.mark.parametrize("attack", EXPORTS)
def test_rows_of_another_tenant(attack: Attack, site: Site) -> None:
    store = AuditStore(site.audit)
    for number, team in enumerate(("acme", "globex")):
        made = with_texts(an_entry(number, at=time.time(), team=team), f"Of {team}.", "It is.", f"About {team}?")
        store.add(replace(made, aligner_id=f"{number:032x}"))
        said = Review(f"{number:032x}", 0, ReviewVerdict.RIGHT, "reviewer:anna", time.time(), ReviewOrigin.NEAREST)
        Reviews(store).save(said, str)
    store.close()
    out = site.folder / "rows.jsonl"
    given = ["export", "--policy", str(site.folder / "policies.yaml"), "--tenant", attack.payload, "--out", str(out)]
    told = CliRunner().invoke(main, given)
    assert told.output == f"1 rows in {out}\n"
    assert "acme" in out.read_text()
    assert "globex" not in out.read_text()
    assert f"{1:032x}" not in out.read_text()


HOSTILE = rows(
    (
        "console-script",
        "upstream",
        "answers with a script",
        "it is text on every page; the content policy lets no inline script run",
        "<script>fetch('/logout', {method: 'POST'})</script><img src=x onerror=alert(1)>",
    ),
    (
        "console-htmx",
        "upstream",
        "answers with htmx attributes, which our own script would obey",
        "they are text",
        '<div hx-post="/logout" hx-trigger="load">',
    ),
    (
        "console-bidi",
        "upstream",
        "turns the direction of the line, so that a reviewer reads something else",
        "the mark is shown as its number, the text isolated",
        "pay \u202e00001\u202c euros",
    ),
    ("console-flood", "upstream", "answers with one line without an end", "it is cut, and said to be", "x" * 400_000),
)


@pytest.mark.parametrize("attack", HOSTILE)
def test_an_answer_that_attacks_its_reader(attack: Attack, site: Site, operator: Browser) -> None:
    made = with_texts(an_entry(3, at=2000.0), attack.payload, "It is.", question=attack.payload)
    site.add(made)
    for path in ("/live", f"/answers/{answer_handle(made)}"):
        got = operator.get(path)
        assert is_ours(got.text)
        assert len(got.text) < 200_000
        assert "script-src 'self';" in got.headers["content-security-policy"]


FRAMES = rows(
    ("console-framed", "another site", "shows the console in a frame", "no page may be framed", "frame"),
    ("console-redirect", "another site", "lets the log-in lead elsewhere", "it leads to the console alone", "redirect"),
    (
        "console-redirect-path",
        "another site",
        "links to a path that a redirect would take for another host",
        "404 or the log-in, never another host",
        ("//evil.example", "//evil.example/live", "/%2f%2fevil.example", "/live//evil.example", "/\\evil.example"),
    ),
)


@pytest.mark.parametrize("attack", FRAMES)
def test_another_site_around_it(attack: Attack, browser: Browser) -> None:
    if isinstance(attack.payload, tuple):
        for path in attack.payload:
            led = browser.http.get(f"http://console{path}")
            assert led.status_code == 404 or led.headers["location"] == "/login", path
            assert "evil" not in led.headers.get("location", "")
        return
    got = browser.get("/login?next=//evil.example/&return_to=https://evil.example")
    if attack.payload == "frame":
        assert "frame-ancestors 'none'" in got.headers["content-security-policy"]
        assert got.headers["x-frame-options"] == "DENY"
    else:
        fields = {"token": browser.token, "key": MASTER, "next": "//evil.example"}
        assert browser.http.post("/login?next=//evil.example/", data=fields).headers["location"] == "/overview"
