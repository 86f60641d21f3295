"""Texts and names of strangers in a real browser: none runs, none breaks a page, none sends anybody anywhere."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
import yaml
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from aligner_proxy.plugins.api import Entry
from aligner_proxy_review.console.answer_queries import answer_handle
from tests.plugins.review.browser.sample import SAID, answered
from tests.plugins.review.browser.test_pages import following
from tests.plugins.review.console.conftest import Site, judged, with_texts
from tests.plugins.review.console.test_escaping import ELEMENTS, HUGE, MARKUP, TEXTS, UNSEEN
from tests.support.chromium import NARROW, Chromium, needs_chromium
from tests.support.sampling import examples, spread

pytestmark = needs_chromium

CHECKED = f"""
const ours = new Set("{ELEMENTS} noscript".split(" "));
const strange = [...document.querySelectorAll("*")].filter((one) => !ours.has(one.localName)
  || [...one.attributes].some((given) => given.name.startsWith("on") || given.name === "srcdoc"));
const main = document.querySelectorAll("html > body > main#main");
const button = document.querySelector("html > body > header.top > form button").getBoundingClientRect();
return {{
  happened: window.happened,
  foreign: strange.map((one) => one.outerHTML.slice(0, 200)),
  elsewhere: performance.getEntriesByType("resource").map((one) => one.name).filter((name) => !name.startsWith(origin)),
  main: main.length,
  who: document.querySelector("html > body > header .who").textContent,
  button: button.width > 40 && button.height > 20,
  seen: getComputedStyle(main[0]).visibility,
  read: main[0].innerText,
}};
"""
"""The page as the browser has built it: elements and attributes that are not ours, and whether ours are all there."""
SHORT = (*MARKUP, *UNSEEN)
SOME = tuple(spread(TEXTS, examples(len(TEXTS), 8)))
"""For pages of their own, of which each takes half a second."""


def hostile_entry(number: int, text: str, at: float, *, named: bool = True) -> Entry:
    """An answer with this text wherever somebody else may write one."""
    made = with_texts(answered(SAID[0], number, at), f"before {text}", f"after {text}", question=text)
    if not named:
        return made
    name = text[:2000].replace("\x00", "")
    made = replace(made, call_id=f"{name}{number}", model=name, endpoint=name, policy=name, reason=name, aligner=name)
    assert made.content is not None
    segments = tuple(replace(segment, objective=name) for segment in made.content.segments)
    content = replace(made.content, segments=segments, reports={name: {"x": [name]}})
    return replace(made, tenant=f"team:{name}", objectives=(name,), content=content)


def is_whole(window: Chromium, where: str) -> None:
    """The page is ours from end to end, nothing of a stranger's has happened, and nothing unseen is left in it."""
    found = window.run(CHECKED)
    read = found.pop("read")
    expected = {"happened": [], "foreign": [], "elsewhere": [], "main": 1, "who": "operator", "button": True}
    assert found == expected | {"seen": "visible"}, where
    assert not set(read) & HIDDEN, where


HIDDEN = {char for text in UNSEEN for char in text if not char.isprintable() and char != "\n"}


def test_there_are_enough() -> None:
    assert len(set(TEXTS)) >= 60


def test_they_come_onto_an_open_page(site: Site, operator: Chromium) -> None:
    """What comes as an event is put into the page by our own script."""
    operator.size(*NARROW)
    following(operator)
    for first in range(0, len(TEXTS), 25):
        made = [hostile_entry(first + n, text, time.time()) for n, text in enumerate(TEXTS[first : first + 25])]
        site.add(*made)
        last = [f"a-{answer_handle(one)}" for one in made]
        operator.until(
            lambda last=last: all(operator.run("return arguments[0].map((id) => !!document.getElementById(id))", last))  # type: ignore[misc]
        )
        is_whole(operator, f"live from {first}")
        assert operator.too_wide() == []
    assert operator.path == "/live"


def test_an_answer_and_its_names(site: Site, operator: Chromium) -> None:
    operator.size(*NARROW)
    now = time.time() - 1000
    for number, text in enumerate(SOME):
        made = hostile_entry(number, text, now + number)
        site.add(made)
        path = f"/answers/{answer_handle(made)}"
        operator.open(path)
        assert operator.path == path
        is_whole(operator, f"{number}: {text[:60]!r}")
        assert operator.too_wide() == [], path


def test_lists_and_rates(site: Site, operator: Chromium) -> None:
    now = time.time() - 1000
    site.add(*(hostile_entry(number, text, now + number) for number, text in enumerate(TEXTS)))
    for path in ("/live", "/overview?period=1h", "/rates?period=1h", "/review/figures"):
        operator.open(path)
        is_whole(operator, path)


def test_the_queue(site: Site, operator: Chromium) -> None:
    now = time.time() - 1000
    texts = [text for text in SOME if text in SHORT]
    site.add(*(hostile_entry(number, text, now + number) for number, text in enumerate(texts)))
    operator.open("/review")
    for _ in texts:
        is_whole(operator, "review")
        operator.stays("r")
    assert operator.all("#nothing")


@pytest.mark.some(3)
@pytest.mark.parametrize("text", [SHORT[2], SHORT[3], SHORT[30], SHORT[35], SHORT[37], HUGE[0][:20_000]])
def test_what_the_gateway_says_and_what_is_typed(site: Site, operator: Chromium, text: str) -> None:
    segments = [{"text": text, "score": 1.0, "flagged": True, "against": text}]
    site.answers = judged(answer=text, reason=text[:500], status=text[:500], segments=segments)
    operator.open("/playground")
    operator.run(
        "for (const one of ['question', 'answer', 'model']) document.getElementById(one).value = arguments[0]", text
    )
    operator.one("main form button").click()
    operator.until(lambda: operator.all("#result .segment"))
    is_whole(operator, "playground")
    operator.open("/live")
    operator.run("document.getElementById('tenant').value = arguments[0]", text[:1000])
    operator.one("#tenant").send_keys(Keys.ENTER)
    operator.until(lambda: "tenant=" in operator.path)
    following(operator)
    is_whole(operator, "filters")


def test_objectives_and_their_examples(site: Site, operator: Chromium) -> None:
    """Texts of objectives and examples, with a review's name behind one; as lists, as a form, and as a difference."""
    texts = [text[:300].replace("\x00", "") for text in SHORT if text.strip()]
    objectives = {
        f"o{n}": {"text": f"Odd {n}: {text}"[:200], "examples": "odd.yaml"} for n, text in enumerate(texts[:1])
    }
    (site.folder / "odd.yaml").write_text(
        yaml.safe_dump({"against": list(dict.fromkeys(texts)), "fine": ["It is so."]})
    )
    site.write_policies(objectives={"kind": "Kindness: be kind", **objectives})
    operator.size(*NARROW)
    operator.open("/objectives")
    is_whole(operator, "objectives")
    operator.driver.find_element(By.LINK_TEXT, "o0").click()
    operator.until(lambda: operator.path.startswith("/objectives/"))
    is_whole(operator, "objective")
    assert operator.too_wide() == []
    operator.open("/promote")
    is_whole(operator, "promote")


def test_a_script_that_did_run_would_be_noticed(operator: Chromium) -> None:
    operator.run(
        "const one = document.createElement('img'); one.setAttribute('onerror', 'alert(1)'); one.src = '/x';"
        "document.body.append(one)"
    )
    operator.until(operator.happened)
    assert operator.run(CHECKED)["foreign"]
