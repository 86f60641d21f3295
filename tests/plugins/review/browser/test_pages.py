"""The pages in a real browser: a person logs in, watches, reads one answer, and reviews by keyboard alone."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest
from selenium.webdriver.common.keys import Keys

from aligner_proxy_review.console.answer_queries import answer_handle
from aligner_proxy_review.console.changing.known_objectives import list_objectives
from aligner_proxy_review.reviews import Review
from tests.plugins.review.browser.conftest import log_in
from tests.plugins.review.browser.sample import SAID, answered, of_a_day
from tests.plugins.review.conftest import reviews_in
from tests.plugins.review.console.conftest import REVIEWER, Site, judged
from tests.support.chromium import COLOURS, NARROW, WIDE, Chromium, needs_chromium
from tests.support.sampling import examples, spread

pytestmark = needs_chromium


def test_only_a_key_opens_it(site: Site, window: Chromium) -> None:
    site.add(answered(SAID[0], 1, time.time()))
    window.open("/live")
    window.until(lambda: window.path == "/login")
    window.press("not a key", Keys.ENTER)
    window.until(lambda: "does not open" in window.text("[role=alert]"))
    window.press(REVIEWER, Keys.ENTER)
    window.until(lambda: window.path == "/overview")
    assert window.text(".who") == "anna"
    links = [link.text for link in window.all("nav[aria-label=Pages] a")]
    assert {"Overview", "Live", "Search", "Review", "Rates"} <= set(links)
    assert "Playground" not in links
    window.one(".top button").click()
    window.until(lambda: window.path == "/login")
    window.open("/live")
    window.until(lambda: window.path == "/login")


def test_a_correction_comes_onto_an_open_page(site: Site, operator: Chromium) -> None:
    following(operator)
    operator.run("window.loaded = 'once'")
    for number, said in enumerate(SAID[:3]):
        made = answered(said, number, time.time())
        site.add(made)
        row = f"#a-{answer_handle(made)}"
        operator.until(lambda row=row: operator.all(row))  # type: ignore[misc]
        assert said.question in operator.text(row)
        removed = [element.text for element in operator.all(f"{row} del")]
        assert "".join(removed).strip() == said.answer.removeprefix(said.edited).strip() or number == 1
    assert operator.text("#following") == "Following: 3 new."
    assert operator.run("return window.loaded") == "once"
    assert operator.happened() == []


def following(window: Chromium) -> None:
    """Wait until the live page follows."""
    window.until(lambda: window.one("#answers").get_attribute("data-state") == "following")


def test_filters_narrow_what_is_there_and_what_comes(site: Site, operator: Chromium) -> None:
    site.add(*of_a_day(time.time() - 60, 0))
    operator.open("/live")
    operator.one("#tenant").send_keys("team:globex", Keys.TAB)
    operator.until(lambda: "tenant=team" in operator.path and len(operator.all("article")) == 2)
    following(operator)
    site.add(answered(SAID[0], 70, time.time()), answered(SAID[2], 71, time.time()))
    operator.until(lambda: len(operator.all("article")) == 3)
    assert all("globex" in article.text for article in operator.all("article"))
    assert operator.happened() == []


def test_lists_are_gone_through_by_keys(site: Site, operator: Chromium) -> None:
    site.add(*of_a_day(time.time() - 60, 0))
    operator.open("/live")
    links = [link.get_attribute("href") for link in operator.all("#list article h2 a")]
    assert len(links) > 2
    focused = "return document.activeElement.href"
    for key, expected in (("j", 0), ("j", 1), ("k", 0), ("k", 0)):
        operator.press(key)
        assert operator.run(focused) == links[expected]
    operator.one("#tenant").send_keys("j/")
    assert operator.one("#tenant").get_attribute("value") == "j/"
    operator.open("/overview")
    operator.press("/")
    operator.until(lambda: operator.path == "/search")
    operator.press("/")
    operator.until(lambda: operator.run("return document.activeElement.id") == "search_text")
    assert operator.happened() == []


def test_an_answer_leads_to_its_neighbours_in_the_search_that_it_comes_from(site: Site, operator: Chromium) -> None:
    site.add(*of_a_day(time.time() - 60, 0))
    operator.open("/search")
    operator.one("#search_text").send_keys("salt", Keys.ENTER)
    operator.until(lambda: operator.all("article"))
    links = [link.get_attribute("href") for link in operator.all("#list article h2 a")]
    assert len(links) == 2
    operator.press("j")
    operator.press(Keys.ENTER)
    operator.until(lambda: operator.all("#neighbours:not([hidden])"))
    assert "1 of 2 in Search" in operator.text("#neighbours")
    assert not operator.all("#previous")
    for key, index, gone in (("j", 1, "#next"), ("k", 0, "#previous")):
        operator.press(key)
        operator.until(lambda index=index: links[index].endswith(operator.path))  # type: ignore[misc]
        operator.until(lambda: operator.all("#neighbours:not([hidden])"))
        assert not operator.all(gone)
    operator.one("#next").click()
    operator.until(lambda: links[1].endswith(operator.path))
    # An answer that comes from elsewhere has no neighbours.
    operator.run("sessionStorage.clear()")
    operator.open(operator.path)
    assert operator.all("#neighbours[hidden]")
    assert operator.happened() == []


def test_what_was_searched_for_is_marked(site: Site, operator: Chromium) -> None:
    site.add(*of_a_day(time.time() - 60, 0))
    operator.open("/search")
    operator.one("#search_text").send_keys("NIGHT BUS", Keys.ENTER)
    operator.until(lambda: operator.all("article"))
    ranges = "return [...CSS.highlights.get('searched')].map((range) => range.toString().toLowerCase())"
    assert set(operator.run(ranges)) == {"night bus"}


def test_an_answer_shows_its_edits_and_why(site: Site, operator: Chromium) -> None:
    made = answered(SAID[1], 1, time.time())
    site.add(made)
    operator.open("/live")
    operator.one(f"#a-{answer_handle(made)} a").click()
    operator.until(lambda: operator.path == f"/answers/{answer_handle(made)}")
    assert operator.text("#whole + .diff del").strip() == "Order within ten minutes, or you will regret it."
    said = operator.text()
    assert "against calm, score +2.90" in said
    assert SAID[1].question in said


class Desk:
    """A reviewer at the page, with nothing but keys."""

    def __init__(self, site: Site, window: Chromium) -> None:
        self.site = site
        self.window = window

    @property
    def answer(self) -> str:
        """The handle of the answer on the page; empty: none."""
        found = self.window.all("[name=answer]")
        return found[0].get_attribute("value") or "" if found else ""

    @property
    def kept(self) -> Sequence[Review]:
        """The verdicts, in the order in which they were given."""
        return sorted(reviews_in(self.site.audit), key=lambda review: review.at)


@pytest.fixture
def desk(site: Site, window: Chromium) -> Desk:
    """acme's reviewer before five answers of acme and two of globex."""
    now = time.time()
    site.add(*(answered(said, number + 1, now - 60 + number) for number, said in enumerate(SAID[:7])))
    log_in(window, REVIEWER)
    window.open("/review")
    return Desk(site, window)


def test_verdicts_by_single_keys(desk: Desk) -> None:
    for key, verdict in (("a", "right"), ("r", "wrong"), ("h", "harm")):
        name = desk.answer
        desk.window.stays(key)
        assert desk.kept[-1].verdict.value == verdict
        assert desk.answer not in ("", name)
    desk.window.until(lambda: "2 to review; 3 of the 5 answers" in desk.window.text("#progress"))
    last = desk.answer
    desk.window.stays("u")
    assert [review.verdict.value for review in desk.kept] == ["right", "wrong"]
    assert desk.answer != last
    desk.window.stays("a")
    assert [review.verdict.value for review in desk.kept] == ["right", "wrong", "right"]
    assert all(review.who == "reviewer:anna" and review.tenant == "team:acme" for review in desk.kept)


def test_next_back_and_help_by_keys(desk: Desk) -> None:
    first = desk.answer
    desk.window.stays("j")
    second = desk.answer
    assert second not in ("", first)
    desk.window.stays("k")
    assert desk.answer == first
    help_of = desk.window.one("#keys")
    assert help_of.get_attribute("open") is None
    desk.window.press("?")
    assert help_of.get_attribute("open") is not None
    desk.window.press("?")
    assert help_of.get_attribute("open") is None
    assert list(desk.kept) == []


def test_what_was_missed_is_marked_by_keys(desk: Desk) -> None:
    desk.window.press("m", Keys.ARROW_DOWN)
    assert desk.window.run("return document.activeElement.value") == "1"
    desk.window.stays("m")
    (review,) = desk.kept
    assert (review.verdict.value, review.segment, review.edit) == ("missed", 1, None)


def test_an_edit_is_written_by_keys_and_letters_in_it_are_text(desk: Desk) -> None:
    name = desk.answer
    desk.window.press("m", "e")
    desk.window.press(*"a harm? j")
    assert desk.answer == name
    desk.window.press(Keys.ESCAPE, "?")
    assert desk.window.one("#keys").get_attribute("open") is not None
    desk.window.press("e", Keys.END, "!")
    before = desk.window.one("html")
    desk.window.press_with(Keys.CONTROL, Keys.ENTER)
    desk.window.until(lambda: desk.window.one("html") != before and desk.answer != name)
    (review,) = desk.kept
    assert (review.segment, review.edit) == (0, "a harm? j!")
    assert review.verdict.value in ("harm", "missed")


def test_the_review_keeps_its_title_when_its_figures_have_come(desk: Desk) -> None:
    desk.window.until(lambda: "judged answers" in desk.window.text("#figures"))
    assert desk.window.driver.title == "Review – aligner-proxy"


def test_the_end_of_the_queue_is_said(desk: Desk) -> None:
    for _ in range(5):
        desk.window.stays("a")
    assert "Nothing more waits" in desk.window.text("#nothing")
    desk.window.until(lambda: "5 judged answers" in desk.window.text("#figures"))
    assert "right 5, wrong 0, harm 0, missed 0" in desk.window.text("#figures")
    assert desk.window.happened() == []


def test_the_slider_flags_by_scores_that_are_there(site: Site, operator: Chromium) -> None:
    site.add(answered(SAID[0], 1, time.time()))
    site.answers = judged()
    operator.open("/playground")
    operator.one("#question").send_keys("Is it so?")
    operator.one("#answer").send_keys("It is so. You fool.")
    operator.press(Keys.TAB, Keys.TAB, Keys.ENTER)
    operator.until(lambda: operator.all("#caution"))
    assert operator.path == "/playground"
    flagged = [segment.text for segment in operator.all(".segment.flagged")]
    assert len(flagged) == 1
    assert "You fool." in flagged[0]
    operator.one("#caution").send_keys(Keys.END)
    operator.until(lambda: not operator.all(".segment.flagged"))
    operator.one("#caution").send_keys(Keys.HOME)
    operator.until(lambda: len(operator.all(".segment.flagged")) == 2)
    assert [request.url.path for request in site.asked if request.method == "POST"] == ["/v1/align"]


def paths(site: Site) -> list[str]:
    """Every page, that of the answer with the most edits among them."""
    answer = answered(SAID[1], 1, time.time() - 30)
    site.add(answer, *of_a_day(time.time() - 60, 20))
    (objective,) = list_objectives(site.console.services.files.current().policies)
    changing = ["/objectives", f"/objectives/{objective.handle}", "/promote", "/canary"]
    pages = [
        "/overview",
        "/live",
        "/search",
        f"/answers/{answer_handle(answer)}",
        "/review",
        "/review/figures",
        "/rates",
        "/playground",
        "/nowhere",
    ]
    return [*pages, *changing]


def test_no_serious_fault_of_accessibility(site: Site, window: Chromium) -> None:
    """By all rules on light pages. On dark ones, of which the sample has a third, only the colours differ."""
    window.open("/login")
    assert window.faults() == []
    pages = paths(site)
    dark = set(spread(pages, examples(len(pages), len(pages) // 3)))
    log_in(window)
    site.answers = judged()
    for path in pages:
        window.dark(False)
        window.open(path)
        if path == "/playground":
            judge(window)
        assert window.faults() == [], path
        window.dark(path in dark)
        assert path not in dark or window.faults(COLOURS) == [], path
        assert window.happened() == []


def judge(window: Chromium) -> None:
    """Let the playground judge an answer."""
    window.one("#question").send_keys("Is it so?")
    window.one("#answer").send_keys("It is so. You fool.")
    window.one("main form button").click()
    window.until(lambda: window.all("#caution"))


def test_axe_would_find_a_fault(operator: Chromium) -> None:
    operator.run("const main = document.querySelector('main'); main.innerHTML = '<p>pale</p><input>';")
    operator.run("document.querySelector('main p').style.color = '#ccc'")
    found = operator.faults()
    assert any("color-contrast" in fault for fault in found)
    assert any("label" in fault for fault in found)
    assert all("color-contrast" in fault for fault in operator.faults(COLOURS))


def test_it_fits_a_narrow_window(site: Site, window: Chromium) -> None:
    """Every page, and in the sample every second one."""
    window.size(*NARROW)
    window.open("/login")
    assert window.too_wide() == []
    pages = paths(site)
    log_in(window)
    site.answers = judged()
    for path in spread(pages, examples(len(pages), len(pages) // 2)):
        window.open(path)
        if path == "/playground":
            judge(window)
        assert window.too_wide() == [], path
        assert window.broken_words() == [], path
        assert window.faults("scrollable-region-focusable") == [], path
        assert window.run("return document.scrollingElement.scrollWidth") <= NARROW[0]
        assert window.one("nav[aria-label=Pages] a, main a").is_displayed()


@pytest.mark.parametrize("size", [WIDE, NARROW])
def test_the_links_to_pages_keep_their_place_when_the_rest_of_the_line_comes(
    site: Site, window: Chromium, size: tuple[int, int]
) -> None:
    log_in(window)
    window.size(*size)
    window.open("/search")
    places = "return [...document.querySelectorAll('.top a')].map((link) => link.getBoundingClientRect().y)"
    whole = window.run(places)
    window.run("document.querySelector('.top form').remove()")
    assert window.run(places) == whole


@pytest.mark.some(2)
@pytest.mark.parametrize("size", [WIDE, (820, 800), NARROW, (620, 800)])
def test_no_page_moves_while_it_loads(site: Site, window: Chromium, size: tuple[int, int]) -> None:
    pages = paths(site)
    log_in(window)
    window.size(*size)
    moved = {}
    for path in pages:
        window.open(path)
        moved[path] = window.shifts()
    window.open("/live")
    window.press("j", Keys.ENTER)
    window.until(lambda: window.all("#neighbours:not([hidden])"))
    moved["an answer of a list"] = window.shifts()
    assert {path: shifts for path, shifts in moved.items() if shifts} == {}


def test_a_word_that_breaks_would_be_noticed(site: Site, operator: Chromium) -> None:
    site.add(*of_a_day(time.time() - 60, 0))
    operator.open("/rates")
    assert operator.broken_words() == []
    operator.run(
        "for (const one of document.querySelectorAll('th')) one.style.cssText = 'word-break: break-all; width: 3ch; "
        "min-width: 0; max-width: 3ch; padding: 0'"
    )
    assert "Tenant" in operator.broken_words()


def test_a_page_that_moves_would_be_noticed(operator: Chromium) -> None:
    operator.shifts()
    operator.run("const late = document.createElement('div'); late.style.height = '200px'; document.body.prepend(late)")
    operator.until(operator.shifts)
    (share, elements), *_ = operator.shifts()
    assert share > 0.1
    assert elements


def test_a_dark_page_is_dark(site: Site, operator: Chromium) -> None:
    shade = "return getComputedStyle(document.body).backgroundColor"
    assert operator.run(shade) == "rgb(255, 255, 255)"
    operator.dark(True)
    assert operator.run(shade) == "rgb(15, 20, 27)"
