"""The page of promotion writes what the command writes, refuses what it refuses, and shows what a replay says."""

from __future__ import annotations

import logging
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from aligner_proxy.audit.entry import BESIDE_ID
from aligner_proxy.audit.store import AuditStore
from aligner_proxy.cli import main
from aligner_proxy_review.console.answer_queries import answer_handle
from aligner_proxy_review.reviews import Review, ReviewOrigin, Reviews, ReviewVerdict
from tests.plugins.review.console.conftest import MASTER, REVIEWER, Browser, Site, an_entry, with_texts
from tests.plugins.review.console.test_escaping import MARKUP, UNSEEN, is_ours
from tests.plugins.review.console.test_objectives import engine

__all__ = ["engine"]

POLICIES = """\
# Ours; the comments stay.
objectives: {kind: "Kindness: be kind"}
routes:
  - {match: {model: gpt}, name: all, objectives: [kind], mode: shadow}   # since Monday
tenants:
  - {match: {team: acme}, name: acme}
keys: keys.yaml
aligner: {adapters: {acme-2: ./a}}
"""
ENFORCE = {"where": "route/all", "mode": "enforce"}


@pytest.fixture
def files(site: Site) -> Site:
    (site.folder / "policies.yaml").write_text(POLICIES + f"audit: {{enabled: true, file: {site.audit}}}\n")
    return site


def add(site: Site, number: int, verdict: ReviewVerdict | None = None, **changes: object) -> str:
    """A corrected answer of acme, and what anna said of it; its handle."""
    at = time.time() - 100 + number
    made = with_texts(an_entry(number, at=at, aligner_id=f"{number:032x}"), f"You fool {number}.", "You friend.")
    made = replace(made, policy="all+acme", changed=True, judged=1, **changes)  # type: ignore[arg-type]
    site.add(made)
    if verdict is not None:
        store = AuditStore(site.audit)
        Reviews(store).save(
            Review(made.aligner_id, 0, verdict, "reviewer:anna", time.time(), ReviewOrigin.NEAREST), str
        )
        store.close()
    return answer_handle(made)


def digest(text: str) -> str:
    found = re.search(r'name="digest" value="([0-9a-f]{64})"', text)
    return found[1] if found else ""


def test_it_is_the_operators_alone(files: Site, browser: Browser) -> None:
    add(files, 1)
    browser.log_in(REVIEWER)
    before = (files.folder / "policies.yaml").read_text()
    for path in ("/promote", "/promote/replay", "/canary"):
        assert browser.get(path).status_code == 404
    browser.get("/live")
    for act in ("look", "replay", "write"):
        assert browser.send("/promote", act=act, **ENFORCE).status_code == 404
    assert (files.folder / "policies.yaml").read_text() == before


def test_a_change_is_shown_and_then_written_as_the_command_writes_it(
    files: Site, browser: Browser, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    add(files, 1, ReviewVerdict.RIGHT)
    browser.log_in(MASTER)
    policies = files.folder / "policies.yaml"
    before = policies.read_text()
    browser.get("/promote")
    page = browser.send("/promote", act="look", sample="0.5", **ENFORCE).text
    assert is_ours(page)
    assert "mode: enforce, sample: 0.5}   # since Monday" in page
    assert "0 of 1 reviewed edits" in page
    assert "380 more reviews with the verdict right" in page
    assert policies.read_text() == before

    twin = tmp_path / "twin" / "policies.yaml"
    twin.parent.mkdir()
    twin.write_text(before)
    (twin.parent / "keys.yaml").write_text(files.keys.read_text())
    command = ["promote", str(twin), "--route", "all", "--mode", "enforce", "--sample", "0.5"]
    assert CliRunner().invoke(main, command).exit_code == 0
    with caplog.at_level(logging.INFO):
        got = browser.send("/promote", act="write", sample="0.5", digest=digest(page), **ENFORCE)
    assert "Written" in got.text
    assert policies.read_text() == twin.read_text() != before
    (backup,) = files.folder.glob("policies.yaml.*.bak")
    assert backup.read_text() == before
    assert backup.name in got.text
    assert "operator changed policies.yaml: route/all" in caplog.text


def test_what_was_not_shown_is_not_written(files: Site, browser: Browser) -> None:
    add(files, 1)
    browser.log_in(MASTER)
    policies = files.folder / "policies.yaml"
    browser.get("/promote")
    shown = digest(browser.send("/promote", act="look", **ENFORCE).text)
    for other in ({**ENFORCE, "caution": "-3"}, {"where": "route/all", "mode": "off"}):
        assert browser.send("/promote", act="write", digest=shown, **other).status_code == 409
    policies.write_text(policies.read_text() + "# somebody else\n")
    assert browser.send("/promote", act="write", digest=shown, **ENFORCE).status_code == 409
    assert "mode: shadow" in policies.read_text()


def test_what_reviews_are_against_has_no_button_and_is_refused(files: Site, browser: Browser) -> None:
    for number in range(1, 6):
        add(files, number, ReviewVerdict.HARM)
    browser.log_in(MASTER)
    before = (files.folder / "policies.yaml").read_text()
    browser.get("/promote")
    page = browser.send("/promote", act="look", **ENFORCE).text
    assert "Refused: 5 of 5" in re.sub(r"<[^>]+>", "", page)
    assert 'value="write"' not in page
    forged = "0" * 64
    assert browser.send("/promote", act="write", digest=forged, **ENFORCE).status_code == 409
    # With the right digest, too: the button is not what keeps it out.
    from aligner_proxy_review.console.changing.promotion_page import _ShownChange
    from aligner_proxy_review.promotion import SettingChanges, Target, make_proposal

    change = make_proposal(files.folder / "policies.yaml", Target("all"), SettingChanges({"mode": "enforce"}))
    assert browser.send("/promote", act="write", digest=_ShownChange(change, None).digest, **ENFORCE).status_code == 409
    assert (files.folder / "policies.yaml").read_text() == before
    # A step back needs nobody's word.
    back = {"where": "route/all", "mode": "off"}
    page = browser.send("/promote", act="look", **back).text
    assert "needs no evidence" in page
    assert "Written" in browser.send("/promote", act="write", digest=digest(page), **back).text


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"where": "route/nowhere", "mode": "off"}, "no route"),
        ({"where": "route/all"}, "say where and what"),
        ({"mode": "off"}, "say where and what"),
        ({"where": "defaults/", "objective": "kind"}, "say which"),
        ({"where": "route/all", "sample": "many"}, "must be a number"),
        ({"where": "route/all", "sample": "7"}, "sample"),
        ({"where": "route/all", "caution": "nan"}, "caution"),
        ({"where": "route/all", "mode": "loud"}, "mode"),
        ({"where": "route/all", "objective": "nonsense"}, "nonsense"),
        ({"where": "route/all", "aligner": "default=1"}, "aligner"),
        ({"where": "route/all", "shadow_aligner": "x: {y"}, ""),
    ],
)
def test_what_check_refuses_is_said(files: Site, browser: Browser, given: dict[str, str], said: str) -> None:
    browser.log_in(MASTER)
    before = (files.folder / "policies.yaml").read_text()
    browser.get("/promote")
    for act in ("look", "replay", "write"):
        got = browser.send("/promote", act=act, **given)
        assert 'role="alert"' in got.text
        assert said in got.text
    assert (files.folder / "policies.yaml").read_text() == before


@pytest.mark.some(6)
@pytest.mark.parametrize("number", range(0, len(MARKUP + UNSEEN), 4))
def test_hostile_settings_stay_texts(files: Site, browser: Browser, number: int) -> None:
    text = (*MARKUP, *UNSEEN)[number]
    browser.log_in(MASTER)
    browser.get("/promote")
    names = ("where", "mode", "sample", "caution", "objective", "aligner", "shadow_aligner")
    for name in names:
        assert is_ours(browser.send("/promote", act="look", **{**ENFORCE, name: text}).text)
    assert is_ours(browser.get("/canary", params={"a": text, "b": text}).text)


@pytest.mark.slow
def test_a_replay_says_what_becomes_of_the_last_answers(files: Site, browser: Browser, engine: str) -> None:
    files.use_engine(engine)
    names = [add(files, n, verdict) for n, verdict in enumerate((ReviewVerdict.RIGHT, ReviewVerdict.WRONG, None), 1)]
    other = an_entry(9, at=time.time(), aligner_id="9" * 32, changed=True, judged=1)
    files.add(replace(other, policy="another"))
    browser.log_in(MASTER)
    browser.get("/promote")
    assert is_ours(browser.send("/promote", act="replay", limit="100", **ENFORCE).text)
    until = time.monotonic() + 100
    while "hx-trigger" in (text := browser.get("/promote/replay").text) and time.monotonic() < until:
        time.sleep(1)  # the command takes several seconds
    page = browser.send("/promote", act="look", **ENFORCE).text
    for shown in (text, page):
        assert is_ours(shown)
        # This engine has no heads, so it corrects nothing, before the change as after it; what was recorded was another
        # engine's. The answer under another route is not asked for.
        assert "<p>3 answers. Under the current file 3 of them differ from the record" in shown
        rows = re.findall(r'<th scope="row">(.*?)</th><td>(\d+)</td>', re.sub(r"</?bdi[^>]*>", "", shown))
        told = dict(rows)
        assert (told["no longer changed"], told["the same"], told["newly changed"]) == ("0", "3", "0")
        assert told["right edits that are not made any more"] == "0"
        assert told["wrong edits that are not made any more"] == "0"
        assert not [name for name in names if f"/answers/{name}" in shown]
    # It says nothing of another change.
    assert "no longer changed" not in browser.send("/promote", act="look", where="route/all", caution="3").text
    other_session = Browser(files)
    other_session.log_in(MASTER)
    assert "no longer changed" not in other_session.get("/promote/replay").text


def test_a_canary_is_compared_as_the_command_does(files: Site, browser: Browser) -> None:
    text = (files.folder / "policies.yaml").read_text()
    shares = "aligner: {default: 95, acme-2: 5}, shadow_aligner: acme-2"
    (files.folder / "policies.yaml").write_text(text.replace("name: acme}", f"name: acme, {shares}}}"))
    first = "a" * 64
    second = "b" * 64
    for number in range(1, 5):
        verdict = ReviewVerdict.RIGHT if number > 1 else ReviewVerdict.WRONG
        add(files, number, verdict, aligner=first)
        made = with_texts(an_entry(number, at=time.time() - 50), f"You fool {number}.", "You friend.")
        beside = {"aligner_id": f"{number:032x}{BESIDE_ID}", "policy": "all+acme/beside", "aligner": second}
        files.add(replace(made, changed=number > 2, judged=1, **beside))
    browser.log_in(MASTER)
    page = browser.get("/promote").text
    assert "default 95 %, acme-2 5 %" in page
    assert "judges beside" in page
    page = browser.get("/canary", params={"a": first, "b": second[:8]}).text
    assert is_ours(page)
    command = ["compare", first, second[:8], "--policy", str(files.folder / "policies.yaml"), "--json"]
    told = yaml.safe_load(CliRunner().invoke(main, command).stdout)
    assert told["same_answers"]["first_alone"] == 2
    assert "4 answers that both judged" in page
    plain = re.sub(r"<[^>]+>", " ", page)
    assert re.search(r"by A alone\s+2 of 4: 50\.0 % \(15\.0 to 85\.0\)", plain)
    assert re.search(r"edits that are right\s+3 of 4", plain)
    assert told["sides"][first]["right"] | {} == {**told["sides"][first]["right"], "count": 3, "of": 4}
    assert re.search(r"bbbbbbbbbbbb\s+4\s+4", plain)
    assert "no hash begins" in browser.get("/canary", params={"a": "cccc", "b": second}).text
