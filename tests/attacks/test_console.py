"""Somebody wants into the console, or to reach out of it: by cookies, forms, answers, names and addresses."""

from __future__ import annotations

from typing import Any

import pytest

from aligner_proxy.console.application import COOKIE
from aligner_proxy.console.reading import handle
from tests.attacks.attack import Attack, rows
from tests.console.conftest import CLIENT, MASTER, REVIEWER, Browser, Site, an_entry, with_texts
from tests.console.conftest import browser as browser
from tests.console.conftest import operator as operator
from tests.console.conftest import site as site
from tests.console.test_hostile import is_ours

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


COOKIES = rows(
    ("console-replayed", "thief of a cookie", "uses it after its owner logged out", "it opens nothing", "replayed"),
    ("console-forged", "anyone", "makes a cookie without the key for signatures", "it opens nothing", "forged"),
    ("console-fixed", "anyone", "plants a cookie of a log-in form as a session", "it opens nothing", "fixed"),
)


@pytest.mark.parametrize("attack", COOKIES)
def test_a_cookie_that_is_not_theirs(attack: Attack, site: Site, operator: Browser) -> None:
    real = operator.http.cookies[COOKIE]
    thief = Browser(site)
    made = {
        "replayed": real,
        "forged": real.partition(".")[0] + "." + "0" * 64,
        "fixed": thief.http.get("/login").headers["set-cookie"].partition("=")[2].partition(";")[0],
    }[attack.payload]
    assert thief.http.get("/live", headers={"cookie": f"{COOKIE}={real}"}).status_code == 200
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
)


@pytest.mark.parametrize("attack", SCOPES)
def test_a_reviewer_of_one_tenant(attack: Attack, site: Site, browser: Browser) -> None:
    site.add(an_entry(1), THEIRS)
    browser.log_in(REVIEWER)
    browser.get("/live")
    if attack.payload == "id":
        assert browser.get(f"/answers/{handle(an_entry(1))}").status_code == 200
        assert browser.get(f"/answers/{handle(THEIRS)}").status_code == 404
    elif attack.payload == "list":
        assert "<article" not in browser.get("/live?tenant=team:globex").text
    elif attack.payload == "rates":
        assert "globex" not in browser.get("/rates?period=7d").text
    else:
        assert browser.send("/playground", question="q", answer="a").status_code == 404
        assert site.asked == []


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
    for path in ("/live", f"/answers/{handle(made)}"):
        got = operator.get(path)
        assert is_ours(got.text)
        assert len(got.text) < 200_000
        assert "script-src 'self';" in got.headers["content-security-policy"]


FRAMES = rows(
    ("console-framed", "another site", "shows the console in a frame", "no page may be framed", "frame"),
    ("console-redirect", "another site", "lets the log-in lead elsewhere", "it leads to the console alone", "redirect"),
)


@pytest.mark.parametrize("attack", FRAMES)
def test_another_site_around_it(attack: Attack, browser: Browser) -> None:
    got = browser.get("/login?next=//evil.example/&return_to=https://evil.example")
    if attack.payload == "frame":
        assert "frame-ancestors 'none'" in got.headers["content-security-policy"]
        assert got.headers["x-frame-options"] == "DENY"
    else:
        fields = {"token": browser.token, "key": MASTER, "next": "//evil.example"}
        assert browser.http.post("/login?next=//evil.example/", data=fields).headers["location"] == "/live"
