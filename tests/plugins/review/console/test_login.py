"""Who gets in, for how long, and what a form or a cookie is worth that is not theirs."""

from __future__ import annotations

import logging
import re

import pytest
import yaml

from aligner_proxy_review.console import sessions
from aligner_proxy_review.console.application import COOKIE
from tests.plugins.review.console.conftest import CLIENT, EXPIRED, KEYS, MASTER, OF_BOTH, REVIEWER, Browser, Site

PAGES = ("/overview", "/search", "/live", "/rates", "/playground", "/answers/x", "/live/events")


@pytest.mark.parametrize("key", [MASTER, REVIEWER, OF_BOTH, f"  {MASTER}\n"])
def test_operator_and_reviewers_get_in(browser: Browser, key: str) -> None:
    got = browser.log_in(key)
    assert (got.status_code, got.headers["location"]) == (303, "/overview")
    cookie = next(text for text in got.headers.get_list("set-cookie") if text.startswith(f"{COOKIE}="))
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert key.strip() not in cookie


@pytest.mark.parametrize("key", ["", "sk-wrong", CLIENT, EXPIRED, MASTER[:-1], "\ud800", "☃" * 1000])
def test_nobody_else_does(browser: Browser, key: str, caplog: pytest.LogCaptureFixture) -> None:
    browser.get("/login")
    got = browser.send("/login", key=key.encode("utf-8", "replace").decode())
    assert got.status_code == 403
    assert COOKIE not in browser.http.cookies
    assert not key or key not in caplog.text + got.text


@pytest.mark.parametrize("path", PAGES)
def test_without_a_session_there_is_no_page(browser: Browser, path: str) -> None:
    got = browser.get(path)
    if path == "/live/events":
        assert got.status_code == 401
    else:
        assert (got.status_code, got.headers["location"]) == (303, "/login")


def test_guessing_is_slowed(browser: Browser) -> None:
    codes = [browser.log_in(f"guess-{n}").status_code for n in range(12)]
    assert codes == [403] * 10 + [429] * 2
    assert browser.log_in(MASTER).status_code == 429


def test_a_copied_cookie_ends_with_its_session(site: Site, operator: Browser) -> None:
    stolen = operator.http.cookies[COOKIE]
    operator.get("/live")
    assert operator.send("/logout").headers["location"] == "/login"
    thief = Browser(site)
    thief.http.cookies[COOKIE] = stolen
    assert thief.get("/live").status_code == 303


def test_a_session_ends_by_itself(browser: Browser, site: Site) -> None:
    now = 1000.0
    site.console.sessions._clock = lambda: now
    browser.log_in(MASTER)
    site.add()
    stolen = browser.http.cookies[COOKIE]
    now += sessions.LIFETIME_S + 1
    browser.http.cookies[COOKIE] = stolen
    assert browser.get("/live").headers["location"] == "/login"


def test_a_forged_cookie_opens_nothing(site: Site, operator: Browser) -> None:
    value, _, mac = operator.http.cookies[COOKIE].rpartition(".")
    for forged in (
        f"{value}x.{mac}",
        f"{value}.{mac[:-1]}0" if mac[-1] != "0" else f"{value}.{mac[:-1]}1",
        value,
        ".",
        mac,
        "ü",
    ):
        other = Browser(site)
        assert other.http.get("/live", headers={"cookie": f"{COOKIE}={forged}".encode()}).status_code == 303


def test_a_withdrawn_key_ends_its_sessions(site: Site, anna: Browser) -> None:
    assert anna.get("/live").status_code == 200
    site.keys.write_text(yaml.safe_dump(KEYS[1:]))
    assert anna.get("/live").headers["location"] == "/login"


def test_a_broken_keys_file_leaves_the_one_before(site: Site, anna: Browser, caplog: pytest.LogCaptureFixture) -> None:
    site.keys.write_text("- {sha256: secret-key-in-the-wrong-place, alias: x}")
    with caplog.at_level(logging.ERROR):
        assert anna.get("/live").status_code == 200
    assert "aligner-proxy check" in caplog.text
    assert "secret-key" not in caplog.text


@pytest.mark.parametrize("path", ["/logout", "/playground", "/policy"])
@pytest.mark.parametrize("token", ["", "0" * 64, "ü"])
def test_a_form_without_its_token_does_nothing(site: Site, operator: Browser, path: str, token: str) -> None:
    got = operator.http.post(path, data={"token": token, "answer": "x", "question": "y"})
    assert got.status_code == 403
    assert not site.asked
    assert operator.get("/live").status_code == 200


def test_a_token_is_of_one_session(site: Site, operator: Browser) -> None:
    other = Browser(site)
    other.log_in(MASTER)
    other.get("/rates")
    operator.token = other.token
    assert operator.send("/logout").status_code == 403


@pytest.mark.parametrize(
    "header", [{"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}, {"origin": "null"}]
)
def test_a_form_of_another_site_is_refused(operator: Browser, header: dict[str, str]) -> None:
    operator.get("/live")
    got = operator.http.post("/logout", data={"token": operator.token}, headers=header)
    assert got.status_code == 403


def test_nobody_is_sent_anywhere_else(browser: Browser) -> None:
    for query in ("next=https://evil.example", "next=//evil.example", "url=javascript:alert(1)"):
        browser.get(f"/login?{query}")
        got = browser.http.post(f"/login?{query}", data={"token": browser.token, "key": MASTER})
        assert got.headers["location"] == "/overview"
        assert browser.http.get(f"//evil.example/?{query}").status_code in (303, 404)


def test_every_response_has_the_policy_of_its_content(operator: Browser) -> None:
    for path in ("/login", "/live", "/rates", "/playground", "/nowhere", "/static/console.js", "/static/nothing"):
        got = operator.http.get(path)
        csp = got.headers["content-security-policy"]
        assert "default-src 'none'" in csp
        assert "frame-ancestors 'none'" in csp
        assert "unsafe" not in csp
        assert got.headers["x-content-type-options"] == "nosniff"
        assert got.headers["referrer-policy"] == "same-origin"
        assert got.headers["cache-control"] == "no-store"
        assert not re.search(r"<[^>]+\s(style|on\w+)=|<style|<script(?! src=\"/static/)", got.text) or path.endswith(
            ".js"
        )
        assert "://" not in re.sub(r"http://www\.w3\.org/\S+", "", got.text) or path.endswith(".js")


def test_a_form_that_is_too_long_or_no_form_is_refused(operator: Browser) -> None:
    operator.get("/live")
    long = {"token": operator.token, "answer": "x" * (1 << 20)}
    assert operator.http.post("/playground", data=long).status_code == 413
    assert operator.http.post("/playground", json={"token": operator.token}).status_code == 415
    many = "&".join(f"a{n}=1" for n in range(100))
    kind = {"content-type": "application/x-www-form-urlencoded"}
    assert operator.http.post("/playground", content=many, headers=kind).status_code == 400


def test_cookies_are_for_https_where_browsers_come_by_it(site: Site) -> None:
    site.console._secure = True
    browser = Browser(site)
    got = browser.http.get("/login")
    assert "Secure" in got.headers["set-cookie"]
