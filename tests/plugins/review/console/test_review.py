"""The review page: one answer at a time, verdicts as the command `review` keeps them, each reviewer's teams alone."""

from __future__ import annotations

import re
import time

import pytest

from aligner_proxy.plugins.api import Entry
from aligner_proxy_review.console.answer import list_opinions
from aligner_proxy_review.console.answer_queries import answer_handle
from aligner_proxy_review.reviews import Review, ReviewOrigin, ReviewVerdict
from tests.plugins.review.conftest import reviews_in
from tests.plugins.review.console.conftest import MASTER, OF_BOTH, REVIEWER, Browser, Site, an_entry
from tests.plugins.review.console.test_escaping import is_ours

_ON_DESK = re.compile(r'name="answer" value="([^"]+)"')


def waiting(number: int, *, team: str = "acme", margin: float = 1.0) -> Entry:
    """An answer that waits for a review."""
    at = time.time() - 100 + number
    return an_entry(number, at=at, team=team, aligner_id=f"{number:032x}", margin=margin)


def on_desk(browser: Browser) -> str:
    """The handle of the answer that the page shows; empty: none."""
    found = _ON_DESK.search(browser.get("/review").text)
    return found[1] if found else ""


@pytest.mark.parametrize("act", ["right", "wrong", "harm"])
def test_a_verdict_is_kept_as_the_command_keeps_it(site: Site, browser: Browser, act: str) -> None:
    site.add(waiting(1))
    browser.log_in(REVIEWER)
    name = on_desk(browser)
    assert name == handle_of(site)
    assert browser.send("/review", act=act, answer=name).headers["location"] == "/review"
    (review,) = reviews_in(site.audit)
    assert (review.verdict, review.who, review.segment) == (ReviewVerdict(act), "reviewer:anna", None)
    assert (review.tenant, review.chosen) == ("team:acme", ReviewOrigin.NEAREST)
    assert on_desk(browser) == ""
    assert act in browser.get(f"/answers/{name}").text


def handle_of(site: Site) -> str:
    """The handle of the only answer in the store."""
    (entry,) = site.console.services.answers.entries_since(0.0, 2)
    return answer_handle(entry)


def test_what_was_missed_names_its_segment_and_an_edit_its_text(site: Site, browser: Browser) -> None:
    site.add(waiting(1), waiting(2, margin=2.0))
    browser.log_in(REVIEWER)
    browser.send("/review", act="missed", answer=on_desk(browser), segment="0", objective="kind")
    browser.send("/review", act="edit", answer=on_desk(browser), segment="1", edit="You friend.")
    missed, edited = reviews_in(site.audit)
    assert (missed.verdict, missed.segment, missed.objective) == (ReviewVerdict.MISSED, 0, "kind")
    assert (edited.verdict, edited.segment, edited.edit) == (ReviewVerdict.HARM, 1, "You friend.")


def test_what_a_reviewer_writes_is_redacted(site: Site, browser: Browser) -> None:
    audit = {"enabled": True, "file": str(site.audit), "redact": "tests.audit.test_factory.hide"}
    site.write_policies(audit=audit)
    site.add(waiting(1))
    browser.log_in(REVIEWER)
    browser.send("/review", act="edit", answer=on_desk(browser), edit="No fool.", objective="Own: no fool")
    (review,) = reviews_in(site.audit)
    assert (review.edit, review.objective) == ("No ****.", "Own: no ****")


@pytest.mark.parametrize("segment", ["2", "-1", "x", "9" * 5000])
def test_a_segment_that_is_not_there_is_refused(site: Site, browser: Browser, segment: str) -> None:
    site.add(waiting(1))
    browser.log_in(REVIEWER)
    got = browser.send("/review", act="missed", answer=on_desk(browser), segment=segment)
    assert got.status_code == 400
    assert reviews_in(site.audit) == []


def test_next_back_and_undo(site: Site, browser: Browser) -> None:
    site.add(waiting(1, margin=1.0), waiting(2, margin=2.0))
    browser.log_in(REVIEWER)
    first = on_desk(browser)
    browser.send("/review", act="next", answer=first)
    second = on_desk(browser)
    assert second not in ("", first)
    browser.send("/review", act="back")
    assert on_desk(browser) == first
    browser.send("/review", act="right", answer=first)
    browser.send("/review", act="undo")
    assert (on_desk(browser), reviews_in(site.audit)) == (first, [])
    assert browser.send("/review", act="undo").headers["location"] == "/review?undone=0"


def test_a_form_for_another_answer_keeps_nothing(site: Site, browser: Browser) -> None:
    site.add(waiting(1), waiting(2, margin=2.0))
    browser.log_in(REVIEWER)
    first = on_desk(browser)
    browser.send("/review", act="next", answer=first)
    assert browser.send("/review", act="harm", answer=first).status_code == 409
    assert reviews_in(site.audit) == []


def test_a_reviewer_gets_the_own_teams_alone(site: Site, browser: Browser) -> None:
    theirs = waiting(1, team="globex")
    site.add(theirs)
    browser.log_in(REVIEWER)
    assert on_desk(browser) == ""
    assert browser.send("/review", act="harm", answer=answer_handle(theirs)).status_code == 409
    assert "0 judged answers" in browser.get("/review/figures").text
    assert reviews_in(site.audit) == []


def test_an_answer_is_with_one_reviewer_at_a_time_and_disagreement_shows(site: Site, browser: Browser) -> None:
    site.add(waiting(1))
    browser.log_in(REVIEWER)
    name = on_desk(browser)
    bert = Browser(site)
    bert.log_in(OF_BOTH)
    assert on_desk(bert) == ""
    browser.send("/review", act="right", answer=name)
    bert.send("/review", act="second")
    assert on_desk(bert) == name
    bert.send("/review", act="harm", answer=name)
    shown = bert.get(f"/answers/{name}").text
    assert "They disagree" in shown
    rows = re.findall(r"<tr><th scope=.row.>.*?</tr>", shown.partition('id="said"')[2].partition("</table>")[0])
    marks = [[mark in row for mark in ("others say otherwise", "against the aligner")] for row in rows]
    assert marks == [[True, False], [True, True]]
    assert f"/answers/{name}" in bert.get("/review/figures").text


def test_whom_a_verdict_contradicts_is_marked() -> None:
    def said(verdict: str, who: str, segment: int | None = None) -> Review:
        return Review("id", 0, ReviewVerdict(verdict), who, 1.0, ReviewOrigin.NEAREST, segment)

    found = list_opinions(
        [said("right", "anna"), said("right", "bert"), said("missed", "bert", 1), said("wrong", "anna", 2)]
    )
    assert [one.is_contradicted for one in found] == [False] * 4, "of the same place all say the same"
    assert [one.is_against_aligner for one in found] == [False, False, True, True]
    found = list_opinions([said("harm", "anna", 1), said("right", "bert", 1), said("right", "carl", 2)])
    assert [one.is_contradicted for one in found] == [True, True, False]


def test_an_aligner_beside_that_decided_otherwise_is_marked(site: Site, operator: Browser) -> None:
    one = an_entry(1, aligner_id="a" * 32, changed=True)
    for number, changed in ((2, False), (3, True)):
        site.audit.unlink()
        site.add(one, an_entry(number, aligner_id="a" * 32 + "-beside", changed=changed))
        shown = operator.get(f"/answers/{answer_handle(one)}").text
        assert "What the comparison aligner said" in shown
        assert ("The two aligners disagree" in shown) == (not changed)


def test_figures_are_the_stores(site: Site, browser: Browser) -> None:
    site.add(*(waiting(number, margin=float(number)) for number in range(1, 5)))
    browser.log_in(MASTER)
    for act in ("right", "right", "wrong"):
        browser.send("/review", act=act, answer=on_desk(browser))
    text = browser.get("/review/figures").text
    assert "4 judged answers" in text
    assert "of which 1 wait" in text
    assert "<td>2 of 3</td>" in text
    assert "right 2, wrong 1, harm 0, missed 0" in text
    assert is_ours(text)
    assert is_ours(browser.get("/review").text)
