"""Pictures of README.md and docs/guides/console.md, taken of a console with the sample's answers, so none is stale.

`ALIGNER_PROXY_WRITE_DOCS=1 python -m pytest tests/plugins/review/browser/test_pictures.py` takes them anew. Pixels
are not compared: fonts differ between machines. What a run without it checks is that every page still shows what its
picture is for.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from aligner_proxy_review.console.answer_queries import answer_handle
from tests.plugins.review.browser.conftest import log_in
from tests.plugins.review.browser.sample import SAID, answered, of_a_day
from tests.plugins.review.console.conftest import Site, judged
from tests.support.chromium import Chromium, needs_chromium

pytestmark = [pytest.mark.full, needs_chromium]

ROOT = Path(__file__).parents[4]
PICTURES = ROOT / "docs" / "guides" / "pictures"
WRITE = os.environ.get("ALIGNER_PROXY_WRITE_DOCS") == "1"
MAX_BYTES = 150_000
MAX_PICTURES = 7
SIZE = (1150, 680)


def live(window: Chromium) -> None:
    window.open("/live")
    assert len(window.all("article del")) >= 4


def overview(window: Chromium) -> None:
    window.open("/overview")
    assert len(window.all(".tile")) == 5


def answer(window: Chromium) -> None:
    window.open("/live")
    window.one(f"#a-{answer_handle(answered(SAID[1], 1, NOW - 4.0))} a").click()
    window.until(lambda: window.all("#whole + .diff del"))


def review(window: Chromium) -> None:
    window.open("/review")
    window.press("m")
    window.until(lambda: window.all(".mark :checked[value='0']"))


def rates(window: Chromium) -> None:
    window.open("/rates")
    assert len(window.all("rect.bar-corrected")) > 10
    assert len(window.all("tbody tr")) == 2


def playground(window: Chromium) -> None:
    window.open("/playground")
    window.one("#model").send_keys("gpt")
    window.one("#question").send_keys(SAID[1].question)
    window.one("#answer").send_keys(SAID[1].answer)
    window.one("main form button").click()
    window.until(lambda: window.all(".segment.flagged"))
    window.run("document.querySelector('#result').scrollIntoView()")


def promote(window: Chromium) -> None:
    window.open("/promote")
    window.one("#caution").send_keys("1.5")
    window.one("button[value=look]").click()
    window.until(lambda: window.all("#difference + pre ins"))


NOW = time.time()
PAGES: dict[str, Callable[[Chromium], None]] = {
    "overview": overview,
    "live": live,
    "answer": answer,
    "review": review,
    "rates": rates,
    "playground": playground,
    "promote": promote,
}


@pytest.fixture
def busy(site: Site, window: Chromium) -> Chromium:
    """The operator's browser before a console with a day of answers; the gateway would judge the second one."""
    site.add(*of_a_day(NOW))
    site.answers = of_the_gateway()
    window.size(*SIZE)
    log_in(window)
    return window


def of_the_gateway() -> httpx.Response:
    """What the gateway says of the second answer of the sample."""
    segments = [
        {"text": text, "score": score, "flagged": against is not None, "against": against and "calm"}
        for text, score, against in SAID[1].sentences
    ]
    return judged(answer=SAID[1].edited, segments=segments, ms=212.0)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_shows_what_its_picture_is_for(busy: Chromium, name: str) -> None:
    PAGES[name](busy)
    assert busy.happened() == []
    if WRITE:
        PICTURES.mkdir(exist_ok=True)
        busy.picture(PICTURES / f"{name}.png")


def test_the_documents_show_every_picture_and_no_other() -> None:
    taken = sorted(path.name for path in PICTURES.glob("*.png"))
    assert taken == sorted(f"{name}.png" for name in PAGES)
    assert len(taken) <= MAX_PICTURES
    assert all((PICTURES / name).stat().st_size < MAX_BYTES for name in taken)
    page = (ROOT / "docs" / "guides" / "console.md").read_text(encoding="utf-8")
    assert all(f"](pictures/{name})" in page for name in taken)
    assert "](docs/guides/pictures/live.png)" in (ROOT / "README.md").read_text(encoding="utf-8")
