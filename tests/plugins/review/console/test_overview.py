"""The overview without answers, and what judges and editors were asked; the search by id and by words."""

from __future__ import annotations

from dataclasses import replace

import httpx
import pytest

from aligner_proxy_review.console.overview import ModelUse, parse_uses
from aligner_proxy_review.console.playground import GatewayRefused
from tests.plugins.review.console.conftest import REVIEWER, Browser, Site, an_entry, with_texts

METRICS = """\
# TYPE aligner_judge_calls_total counter
aligner_judge_calls_total{model="guard",result="replied"} 9.0
aligner_judge_calls_total{model="guard",result="failed"} 1.0
# TYPE aligner_judge_tokens_total counter
aligner_judge_tokens_total{direction="read",model="guard"} 1200.0
aligner_judge_tokens_total{direction="written",model="guard"} 34.0
# TYPE aligner_judge_seconds_total counter
aligner_judge_seconds_total{model="guard"} 2.5
# TYPE aligner_editor_calls_total counter
aligner_editor_calls_total{model="strong",result="replied"} 2.0
# TYPE aligner_outcomes_total counter
aligner_outcomes_total{model="other",policy="all",reason="",status="corrected"} 5.0
"""


@pytest.fixture
def anna(site: Site) -> Browser:
    """A reviewer of acme, with a browser of her own."""
    browser = Browser(site)
    browser.log_in(REVIEWER)
    return browser


def test_uses_are_read_from_the_metrics() -> None:
    assert parse_uses(METRICS) == {
        ("judge", "guard"): ModelUse(10, 1, 1234, 2.5),
        ("editor", "strong"): ModelUse(2, 0, 0, 0.0),
    }
    assert parse_uses("") == {}
    with pytest.raises(GatewayRefused, match="unknown form"):
        parse_uses("<html>{</html>")


def test_the_operator_sees_what_helpers_cost_and_a_reviewer_does_not(
    site: Site, operator: Browser, anna: Browser
) -> None:
    site.answers = httpx.Response(200, text=METRICS)
    page = operator.get("/overview").text
    assert [request.url.path for request in site.asked] == ["/metrics"]
    assert "<td>10</td><td>1</td><td>1,234</td><td>250 ms</td>" in page
    site.answers = httpx.Response(404)
    assert "The gateway serves no metrics" in operator.get("/overview").text
    site.asked.clear()
    assert "Judges and editors" not in anna.get("/overview").text
    assert site.asked == []


def test_an_empty_store_says_what_to_do(operator: Browser, anna: Browser) -> None:
    for browser in (operator, anna):
        page = browser.get("/overview").text
        assert "No answer of this period was recorded." in page
        assert "aligner-proxy check" in page
        assert '<dl class="tiles">' not in page


def test_a_search_finds_ids_and_words_of_what_one_may_see(site: Site, operator: Browser, anna: Browser) -> None:
    made = [
        with_texts(an_entry(11, at=2000.0), "The kettle is a KETTLE of metal.", "The kettle.", question="What boils?"),
        with_texts(an_entry(12, at=2001.0, team="globex"), "Another foolish kettle."),
        replace(an_entry(13, at=2002.0), content=None, aligner_id="c" * 32),
    ]
    site.add(*made)
    expected = {
        (operator, "kettle"): 2,
        (anna, "kettle"): 1,
        (anna, "what BOILS"): 1,
        (anna, "Another"): 0,
        (anna, "c" * 32): 1,
        (anna, "c" * 31): 0,
        (operator, "call-12"): 1,
        (anna, "call-12"): 0,
        (anna, "  "): 0,
    }
    wrong = {}
    for (browser, search_text), count in expected.items():
        browser.get("/search")
        response = browser.send("/search", search_text=search_text)
        assert search_text.strip() not in str(response.url) or not search_text.strip()
        if response.text.count("<article") != count:
            wrong[search_text] = response.text.count("<article")
    assert wrong == {}
