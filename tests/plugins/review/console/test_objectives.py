"""The pages of objectives: who sees and changes which, what is written, and teaching that takes effect when told to."""

from __future__ import annotations

import asyncio
import logging
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import uvicorn
import yaml

from aligner_proxy.audit.store import AuditStore
from aligner_proxy.engine import sockets
from aligner_proxy.engine.server.app import create_app
from aligner_proxy.plugins import registry
from aligner_proxy.teaching.store import HeadStore
from aligner_proxy_review.console.changing.known_objectives import list_objectives
from aligner_proxy_review.reviews import Review, ReviewOrigin, Reviews, ReviewVerdict
from tests.plugins.review.console.conftest import MASTER, OF_BOTH, REVIEWER, Browser, Site, an_entry, with_texts
from tests.plugins.review.console.test_escaping import TEXTS, is_ours
from tests.support.teachable import TeachableEngine
from tests.teaching.examples import AGAINST, FINE, TEXT, listed

POLICIES = f"""\
# Ours; the comments stay.
objectives:
  kind: "Kindness: be kind"       # everybody's
  no-feelings: {{text: "{TEXT}", examples: feelings.yaml}}
routes:
  - {{match: {{model: gpt}}, name: all, objectives: [kind]}}
tenants:
  - match: {{team: acme}}
    name: acme
    objectives:
      ours: {{text: "Ours: say nothing of rivals", examples: ours.yaml}}
  - match: {{team: globex}}
    name: globex
    objectives:
      theirs: {{text: "Theirs: say nothing of prices", examples: theirs.yaml}}
keys: keys.yaml
"""
EXAMPLES = """\
# What we have.
against:
  - "Our rivals are cheaper."   # from support
  - Buy at the shop next door.
"""


@pytest.fixture
def files(site: Site) -> Site:
    (site.folder / "policies.yaml").write_text(POLICIES + f"audit: {{enabled: true, file: {site.audit}}}\n")
    (site.folder / "feelings.yaml").write_text(listed())
    (site.folder / "ours.yaml").write_text(EXAMPLES)
    (site.folder / "theirs.yaml").write_text(EXAMPLES)
    return site


def path(site: Site, title: str) -> str:
    known = list_objectives(registry.load_policies(site.folder / "policies.yaml"))
    return f"/objectives/{next(one.handle for one in known if one.title == title)}"


def loaded(site: Site, name: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = yaml.safe_load((site.folder / name).read_text())
    return found


def test_the_operator_sees_every_objective_and_a_reviewer_the_own_ones(files: Site, browser: Browser) -> None:
    browser.log_in(MASTER)
    text = browser.get("/objectives").text
    for title in ("kind", "no-feelings", "acme/ours", "globex/theirs", "Kindness: be kind", "not taught yet"):
        assert title in text, title
    browser.log_in(REVIEWER)
    text = browser.get("/objectives").text
    assert "acme/ours" in text
    assert "globex" not in text
    assert is_ours(text)


def test_another_tenants_objective_is_not_there(files: Site, browser: Browser) -> None:
    browser.log_in(REVIEWER)
    theirs = path(files, "globex/theirs")
    nowhere = browser.get("/objectives/" + "0" * 16)
    for address in (theirs, f"{theirs}/lesson"):
        refused = browser.get(address)
        assert refused.status_code == 404
    assert refused.text == nowhere.text
    browser.get("/objectives")
    for act in ("add", "begin", "teach", "keep", "forget", "rollback", "take", "remove", "discard"):
        assert browser.send(theirs, act=act, against="x y").status_code == 404
    assert (files.folder / "theirs.yaml").read_text() == EXAMPLES


def test_everybodys_objective_is_for_the_operator_to_change(files: Site, browser: Browser) -> None:
    browser.log_in(REVIEWER)
    everybodys = path(files, "no-feelings")
    text = browser.get(everybodys).text
    assert TEXT in text
    assert AGAINST[0] not in text
    assert "<textarea" not in text
    assert browser.send(everybodys, act="add", against="x y").status_code == 404
    assert browser.get(f"{everybodys}/lesson").status_code == 404


@pytest.mark.parametrize("match", [{"team": "ac*"}, {"team": "acme", "key": "app"}, {"key": "app"}, {}])
def test_an_entry_that_is_for_others_too_is_not_the_reviewers(
    files: Site, browser: Browser, match: dict[str, str]
) -> None:
    text = (files.folder / "policies.yaml").read_text().replace("match: {team: acme}", f"match: {match}", 1)
    (files.folder / "policies.yaml").write_text(text.replace("  - match: {team: globex}", "  - match: {team: globex}"))
    browser.log_in(REVIEWER)
    assert "acme/ours" not in browser.get("/objectives").text


def test_an_example_is_added_and_the_file_keeps_its_comments(
    files: Site, browser: Browser, caplog: pytest.LogCaptureFixture
) -> None:
    browser.log_in(REVIEWER)
    ours = path(files, "acme/ours")
    browser.get(ours)
    with caplog.at_level(logging.INFO):
        got = browser.send(ours, act="add", against='They: "sell" #1, \u2028cheap\r\n\r\n  ', fine="Ours is blue.\n")
    assert (got.status_code, got.headers["location"]) == (303, ours)
    text = (files.folder / "ours.yaml").read_text()
    assert text.startswith(EXAMPLES)
    assert loaded(files, "ours.yaml")["against"][2] == 'They: "sell" #1, \u2028cheap'
    assert loaded(files, "ours.yaml")["fine"] == ["Ours is blue."]
    assert "# console, anna" in text
    assert "anna changed objective acme/ours: 2 examples added" in caplog.text
    assert "blue" not in caplog.text
    page = browser.get(ours).text
    assert is_ours(page)
    assert "Ours is blue." in page


def test_an_example_is_taken_back_by_what_it_says(files: Site, browser: Browser) -> None:
    browser.log_in(MASTER)
    ours = path(files, "acme/ours")
    (files.folder / "ours.yaml").write_text(EXAMPLES + "  - Their goods are better.\nfine: [Ours is blue.]\n")
    marks = re.findall(r'name="example" value="([0-9a-f]{16})"', browser.get(ours).text)
    assert len(marks) == 4
    assert browser.send(ours, act="remove", list="against", example=marks[0]).status_code == 303
    assert browser.send(ours, act="remove", list="fine", example=marks[3]).status_code == 303
    left = loaded(files, "ours.yaml")
    assert left == {"against": ["Buy at the shop next door.", "Their goods are better."], "fine": []}
    assert browser.send(ours, act="remove", list="against", example=marks[0]).status_code == 409
    # Too few to teach from: nothing is changed.
    assert browser.send(ours, act="remove", list="against", example=marks[1]).status_code == 400
    assert loaded(files, "ours.yaml") == left


@pytest.mark.parametrize("sentence", ["Our rivals are cheaper.", "our rivals ARE cheaper"])
def test_a_sentence_that_is_there_is_not_written_twice(files: Site, browser: Browser, sentence: str) -> None:
    browser.log_in(MASTER)
    ours = path(files, "acme/ours")
    browser.get(ours)
    browser.send(ours, act="add", against=sentence)
    assert (files.folder / "ours.yaml").read_text() == EXAMPLES


@pytest.mark.parametrize("text", TEXTS[::5])
def test_hostile_examples_stay_texts(files: Site, browser: Browser, text: str) -> None:
    browser.log_in(MASTER)
    ours = path(files, "acme/ours")
    browser.get(ours)
    sentence = f"Word {text}"[:3000].replace("\n", " ").replace("\r", " ")
    assert browser.send(ours, act="add", against=sentence).status_code == 303
    assert loaded(files, "ours.yaml")["against"][-1] == sentence.strip()
    page = browser.get(ours).text
    assert is_ours(page)


def test_an_objective_without_examples_gets_a_file(files: Site, browser: Browser) -> None:
    browser.log_in(MASTER)
    kind = path(files, "kind")
    before = (files.folder / "policies.yaml").read_text()
    browser.get(kind)
    assert browser.send(kind, act="begin", against="You fool.").status_code == 400
    assert (files.folder / "policies.yaml").read_text() == before
    assert browser.send(kind, act="begin", against="You fool.\nGo away, you idiot.").status_code == 303
    after = (files.folder / "policies.yaml").read_text()
    added = 'kind: {text: "Kindness: be kind", examples: kind.examples.yaml}       # everybody\'s'
    assert after == before.replace('kind: "Kindness: be kind"       # everybody\'s', added)
    assert loaded(files, "kind.examples.yaml")["against"] == ["You fool.", "Go away, you idiot."]
    # `serve` teaches what has examples and no head: not what was begun here, before its report was looked at.
    assert "forgotten" in browser.get(kind).text


def reviewed(
    site: Site, number: int, answer: str, verdict: ReviewVerdict, *, team: str = "acme", **more: object
) -> None:
    """An answer of which the first segment was flagged for `ours`, and what anna said of it."""
    made = with_texts(an_entry(number, at=time.time(), team=team, aligner_id=f"{number:032x}"), answer, "Nothing.")
    assert made.content is not None
    facts = replace(made.content.facts, team_id=team, team_settings=None)
    flagged = replace(made.content.segments[0], text=answer, objective="ours", number=0)
    content = replace(made.content, facts=facts, segments=(flagged,), scores=(3.0,), threshold=0.0)
    site.add(replace(made, content=content, objectives=("ours",), judged=1, changed=True))
    store = AuditStore(site.audit)
    who = str(more.get("who", "reviewer:anna"))
    chosen = ReviewOrigin(str(more.get("chosen", "nearest")))
    segment = 0 if verdict is ReviewVerdict.MISSED else None
    Reviews(store).save(Review(f"{number:032x}", 0, verdict, who, time.time(), chosen, segment), str)
    store.close()


def test_reviews_become_examples_by_one_button(files: Site, browser: Browser, caplog: pytest.LogCaptureFixture) -> None:
    reviewed(files, 1, "The rival sells it for less.", ReviewVerdict.RIGHT)
    reviewed(files, 2, "We rival nobody in speed.", ReviewVerdict.WRONG)
    reviewed(files, 3, "That shop has the better one.", ReviewVerdict.MISSED)
    reviewed(files, 4, "An edit that did harm.", ReviewVerdict.HARM)
    reviewed(files, 5, "What a user said.", ReviewVerdict.RIGHT, who="key:1", chosen="feedback")
    reviewed(files, 6, "Of another tenant.", ReviewVerdict.RIGHT, team="globex")
    browser.log_in(REVIEWER)
    ours = path(files, "acme/ours")
    page = browser.get(ours).text
    assert is_ours(page)
    shown = re.search(r'name="shown" value="([0-9a-f]{32})"', page)
    assert shown
    assert "Use all 3 as examples" in page
    for kept_out in ("did harm", "a user said", "another tenant"):
        assert kept_out not in page
    assert browser.send(ours, act="take", shown="0" * 32).status_code == 409
    with caplog.at_level(logging.INFO):
        assert browser.send(ours, act="take", shown=shown[1]).status_code == 303
    examples = loaded(files, "ours.yaml")
    assert set(examples["against"][2:]) == {"The rival sells it for less.", "That shop has the better one."}
    assert examples["fine"] == ["We rival nobody in speed."]
    text = (files.folder / "ours.yaml").read_text()
    assert re.search(rf'"The rival sells it for less."  # review {1:032x}/0 segment 0, reviewer:anna right \d+-', text)
    assert f"{1:032x}/0#0" in caplog.text
    assert "rival" not in caplog.text
    assert "as examples<" not in browser.get(ours).text


def test_nothing_comes_of_answers_on_which_people_disagree(files: Site, browser: Browser) -> None:
    reviewed(files, 1, "The rival sells it for less.", ReviewVerdict.RIGHT)
    store = AuditStore(files.audit)
    Reviews(store).save(
        Review(f"{1:032x}", 0, ReviewVerdict.WRONG, "reviewer:bert", time.time(), ReviewOrigin.NEAREST), str
    )
    store.close()
    browser.log_in(OF_BOTH)
    assert "sells it" not in browser.get(path(files, "acme/ours")).text


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[str]:
    place = tmp_path / "e.sock"
    with sockets.listen_on_unix_socket(place) as listener:
        server = uvicorn.Server(uvicorn.Config(create_app(TeachableEngine()), log_config=None, lifespan="off"))
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
        thread.start()
        yield f"unix:{place}"
        server.should_exit = True
        thread.join()


def teaching_page(browser: Browser, address: str) -> httpx.Response:
    """The page of teaching, once that has ended."""
    until = time.monotonic() + 100
    while (got := browser.get(f"{address}/lesson")).text.count("hx-trigger") and time.monotonic() < until:
        time.sleep(1)  # the command takes several seconds
    return got


def test_what_was_never_taught_has_no_head_to_restore_or_forget(files: Site, browser: Browser) -> None:
    browser.log_in(MASTER)
    page = browser.get(path(files, "no-feelings")).text
    assert 'value="teach"' in page
    assert 'value="rollback"' not in page
    assert 'value="forget"' not in page


@pytest.mark.slow
def test_teaching_takes_effect_when_it_is_told_to(files: Site, browser: Browser, engine: str) -> None:
    files.use_engine(engine)
    browser.log_in(MASTER)
    feelings = path(files, "no-feelings")
    browser.get(feelings)
    assert browser.send(feelings, act="teach").status_code == 303
    assert browser.send(feelings, act="teach").status_code == 409
    text = teaching_page(browser, feelings).text
    assert is_ours(text)
    assert "Nothing of this is in force yet" in text
    for shown in (f"{len(AGAINST)} against, 0 fine", "neutral segments", "nats", "Put it in force"):
        assert shown in text, shown
    file = registry.load_policies(files.folder / "policies.yaml")
    assert HeadStore.for_file(file).index().heads() == {}
    heads = re.search(r'name="heads" value="([0-9a-f]{64})"', text)
    assert heads
    assert browser.send(feelings, act="keep", heads="0" * 64).status_code == 409

    # What was reported is not what would be in force: the examples have changed.
    (files.folder / "feelings.yaml").write_text(listed(AGAINST, FINE))
    assert browser.send(feelings, act="keep", heads=heads[1]).status_code == 409
    (files.folder / "feelings.yaml").write_text(listed())
    assert browser.send(feelings, act="keep", heads=heads[1]).status_code == 303
    store = HeadStore.for_file(file)
    assert list(store.index().heads()) == [heads[1]]
    assert store.head(heads[1]) is not None
    page = browser.get(feelings).text
    assert "in force: taught" in page
    assert 'value="forget"' in page
    assert 'value="rollback"' not in page
    assert heads[1][:8] in page
    assert "95 %" in browser.get("/objectives").text
    assert browser.send(feelings, act="rollback").status_code == 409
    assert browser.send(feelings, act="forget").status_code == 303
    assert store.index().heads() == {}


@pytest.mark.slow
def test_teaching_that_fails_says_why(files: Site, browser: Browser) -> None:
    files.use_engine("unix:/nowhere/engine.sock")
    browser.log_in(MASTER)
    feelings = path(files, "no-feelings")
    browser.get(feelings)
    browser.send(feelings, act="teach")
    text = teaching_page(browser, feelings).text
    assert 'role="alert"' in text
    assert "Put it in force" not in text


def test_without_an_engine_nothing_is_loaded(files: Site, browser: Browser) -> None:
    browser.log_in(MASTER)
    feelings = path(files, "no-feelings")
    browser.get(feelings)
    got = browser.send(feelings, act="teach")
    assert got.status_code == 409
    assert "aligner-proxy serve" in got.text


def test_a_review_shows_what_the_objectives_say(files: Site, browser: Browser) -> None:
    """Examples only of those that this reviewer may change."""
    names = ("no-feelings", "ours", "theirs")
    for number in (1, 2):  # one of them is reserved for the reviewer
        entry = an_entry(number, at=time.time() - 50, aligner_id=f"{number:032x}", margin=1.0)
        files.add(replace(entry, objectives=names))
    browser.log_in(REVIEWER)
    page = browser.get("/review").text
    guidelines = page[page.index('id="guidelines"') : page.index("</details>", page.index('id="guidelines"'))]
    assert "acme/ours" in guidelines
    assert "say nothing of rivals" in guidelines
    assert TEXT in guidelines
    assert AGAINST[0] not in guidelines
    assert "theirs" not in guidelines
    browser.log_in(MASTER)
    assert AGAINST[0] in browser.get("/review").text
