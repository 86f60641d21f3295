"""Debian's chromium for tests, driven by selenium through chromedriver: no window, one profile that is thrown away."""

from __future__ import annotations

import importlib.resources
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.cookiejar import Cookie
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException, WebDriverException
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

_PROGRAMS = {"chromium": shutil.which("chromium"), "chromium-driver": shutil.which("chromedriver")}
_MISSING = " ".join(package for package, program in _PROGRAMS.items() if program is None)
needs_chromium = pytest.mark.skipif(bool(_MISSING), reason=f"needs {_MISSING}: apt-get install {_MISSING}")
_SWITCHES = (
    "--headless=new",
    "--no-sandbox",  # it has none where tests run as root
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
    "--hide-scrollbars",
    "--font-render-hinting=none",
)
_TRAPS = """
window.happened = [];
for (const name of ["alert", "confirm", "prompt", "open", "print"]) window[name] = () => window.happened.push(name);
addEventListener("securitypolicyviolation", (event) => window.happened.push(`refused ${event.violatedDirective}`));
addEventListener("error", (event) => window.happened.push(`error ${event.message}`));
window.shifts = [];
const noteShift = (shift) => shift.hadRecentInput || window.shifts.push([shift.value, shift.sources
  .map(({node, previousRect, currentRect}) => `${node?.id || node?.nodeName} ${previousRect.y} to ${currentRect.y}`)]);
new PerformanceObserver((list) => list.getEntries().forEach(noteShift)).observe({type: "layout-shift", buffered: true});
"""
"""Runs before anything of a page: what a stranger's script would do, or the content policy stopped, is noted, and what
moves although the reader has done nothing."""
WIDE = (1200, 800)
NARROW = (400, 800)
COLOURS = "color-contrast"
"""The rule of axe-core that reads colours."""
_WAIT_S = 20.0
_MOST_TABS = 300


class Chromium:
    """One browser. Addresses are paths of the console that `visit` was given."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver
        self.base = ""
        driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": _TRAPS})

    def visit(self, base: str) -> None:
        """Be a browser that nobody has used, for the console at this address."""
        self.leave()
        self.driver.execute_cdp_cmd("Network.clearBrowserCookies", {})
        self.size(*WIDE)
        self.dark(False)
        self.base = base

    def set_cookie(self, cookie: Cookie) -> None:
        """Keep a cookie of the console with its path and its rules, as if the browser itself had got it."""
        rules = {
            "path": cookie.path,
            "httpOnly": cookie.has_nonstandard_attr("HttpOnly"),
            "sameSite": (cookie.get_nonstandard_attr("SameSite") or "Lax").capitalize(),
        }
        kept = {"name": cookie.name, "value": cookie.value, "url": self.base, **rules}
        assert self.driver.execute_cdp_cmd("Network.setCookie", kept)["success"]

    def leave(self) -> None:
        """Close the page, and with it what it follows."""
        self.driver.get("about:blank")

    def open(self, path: str) -> None:
        """Load a page."""
        self.driver.get(self.base + path)

    @property
    def path(self) -> str:
        """The address of the page, behind the console's."""
        return self.driver.current_url.removeprefix(self.base)

    def size(self, width: int, height: int) -> None:
        """The size of the window, in CSS pixels."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def dark(self, wanted: bool) -> None:
        """Whether the reader prefers dark pages."""
        feature = {"name": "prefers-color-scheme", "value": "dark" if wanted else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})

    def press(self, *keys: str) -> None:
        """Press keys one after the other, wherever the focus is."""
        for key in keys:
            ActionChains(self.driver).send_keys(key).perform()

    def press_with(self, held: str, key: str) -> None:
        """Press a key while another one is held."""
        ActionChains(self.driver).key_down(held).send_keys(key).key_up(held).perform()

    def reach(self, selector: str) -> None:
        """Go by Tab to an element, and see that the page shows where one is."""
        is_there = "return document.activeElement.matches(arguments[0])"
        for _ in range(_MOST_TABS):
            if self.run(is_there, selector):
                break
            self.press(Keys.TAB)
        else:
            raise AssertionError(f"{self.path}: Tab never reaches {selector}")
        assert self.run("return getComputedStyle(document.activeElement).outlineStyle") != "none", selector

    def press_at(self, selector: str) -> None:
        """Go by Tab to a link or a button, and press it by Enter."""
        self.one(selector)
        self.reach(selector)
        self.press(Keys.ENTER)

    def go_to(self, path: str) -> None:
        """Open a page by its link at the top, with keys alone."""
        before = self.driver.find_element(By.TAG_NAME, "html")
        self.press_at(f"nav[aria-label=Pages] a[href='{path}']")
        self.until(lambda: _is_gone(before) and self.path == path)
        self.until(lambda: self.run("return document.readyState") == "complete")

    def choose(self, selector: str, value: str) -> None:
        """Go by Tab to a list of options, and choose one by typing what it says."""
        self.reach(selector)
        self.press(*self.one(f"{selector} option[value='{value}']").text)
        assert self.run("return document.activeElement.value") == value

    def all(self, selector: str) -> list[WebElement]:
        """The elements of a CSS selector."""
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector: str) -> WebElement:
        """The first element of a CSS selector, waited for."""
        self.until(lambda: bool(self.all(selector)))
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def text(self, selector: str = "main") -> str:
        """What a reader sees of an element."""
        return self.one(selector).text

    def run(self, script: str, *arguments: Any) -> Any:
        """What a script returns, the driver's own, which no content policy stops."""
        return self.driver.execute_script(script, *arguments)  # type: ignore[no-untyped-call]

    def until(self, true: Callable[[], object], within_s: float = _WAIT_S) -> None:
        """Wait for something that the page will do."""
        end = time.monotonic() + within_s
        while not _held(true):
            assert time.monotonic() < end, f"{self.path}: {self.run('return document.body.innerText')[:2000]}"
            time.sleep(0.02)

    def stays(self, key: str) -> None:
        """Press a key that loads a page, and wait until the page before is gone."""
        before = self.driver.find_element(By.TAG_NAME, "html")
        self.press(key)
        self.until(lambda: _is_gone(before))
        self.until(lambda: self.run("return document.readyState") == "complete")

    def happened(self) -> list[str]:
        """What should not have: scripts of strangers, what the content policy refused, errors of our own script."""
        found: list[str] = self.run("return window.happened")
        return found

    def shifts(self) -> list[tuple[float, list[str]]]:
        """What has moved by itself on this page: how much of it (0 to 1), and the elements with their heights."""
        self.driver.execute_async_script(_AFTER_TWO_FRAMES)  # type: ignore[no-untyped-call]
        return [(value, sources) for value, sources in self.run("return window.shifts")]

    def too_wide(self) -> list[str]:
        """Elements that reach beyond the window and are not in a region that scrolls by itself."""
        found: list[str] = self.run(_TOO_WIDE)
        return found

    def broken_words(self) -> list[str]:
        """Words of tables that go on in the next line."""
        broken: list[str] = self.run(_BROKEN_WORDS)
        return broken

    def faults(self, *rules: str) -> list[str]:
        """Serious and critical faults of accessibility that axe-core finds, by all its rules or by these."""
        if not self.run("return typeof axe === 'object'"):
            self.run(_axe())
        found: list[str] = self.driver.execute_async_script(_FAULTS, rules)  # type: ignore[no-untyped-call]
        return found

    def picture(self, file: Path) -> None:
        """What the window shows, as a PNG."""
        file.write_bytes(self.driver.get_screenshot_as_png())


_AFTER_TWO_FRAMES = """
const done = arguments[0];
requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 50)));
"""
_TOO_WIDE = """
if (document.scrollingElement.scrollWidth <= window.innerWidth) return [];
return [...document.querySelectorAll("main *, header *")]
  .filter((one) => one.getBoundingClientRect().right > window.innerWidth && !one.closest(".wide, table"))
  .map((one) => `${one.tagName} ${one.className} ${one.textContent.slice(0, 60)}`);
"""
_BROKEN_WORDS = """
document.querySelectorAll("details").forEach((one) => one.open = true);
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
const broken = [];
while (walker.nextNode()) {
  if (!walker.currentNode.parentElement.closest("td, th")) continue;
  for (const {index, 0: word} of walker.currentNode.data.matchAll(/[a-z]+/gi)) {
    const range = document.createRange();
    range.setStart(walker.currentNode, index);
    range.setEnd(walker.currentNode, index + word.length);
    if (new Set([...range.getClientRects()].map((box) => box.top)).size > 1) broken.push(word);
  }
}
return broken;
"""
_FAULTS = """
const done = arguments[arguments.length - 1];
const told = (rule) => rule.nodes.map((node) => `${rule.id} (${rule.impact}): ${node.html.slice(0, 200)}`);
const rules = arguments[0];
axe.run(document, {resultTypes: ["violations"], ...(rules.length ? {runOnly: rules} : {})}).then(
  (result) => done(result.violations.filter((rule) => ["serious", "critical"].includes(rule.impact)).flatMap(told)),
  (error) => done([String(error)]),
);
"""


def _axe() -> str:
    """axe-core, which a package of others carries (the group `accessibility` in pyproject.toml)."""
    return (importlib.resources.files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")


def _held(true: Callable[[], object]) -> bool:
    """Whether it is true; an element that went meanwhile is a no."""
    try:
        return bool(true())
    except WebDriverException as error:
        if _says_gone(error):
            return False
        raise


def _is_gone(element: WebElement) -> bool:
    try:
        element.is_enabled()
    except WebDriverException as error:
        if _says_gone(error):
            return True
        raise
    return False


def _says_gone(error: WebDriverException) -> bool:
    """Whether an element is no more; in the moment in which its page goes, chromedriver has no error of its own."""
    is_named = isinstance(error, NoSuchElementException | StaleElementReferenceException)
    return is_named or "does not belong to the document" in (error.msg or "")


@contextmanager
def chromium_process(folder: Path) -> Iterator[Chromium]:
    """A browser that runs; its files lie in `folder`."""
    options = webdriver.ChromeOptions()
    options.binary_location = str(_PROGRAMS["chromium"])
    for switch in (*_SWITCHES, f"--user-data-dir={folder / 'profile'}"):
        options.add_argument(switch)
    service = webdriver.ChromeService(str(_PROGRAMS["chromium-driver"]), log_output=str(folder / "chromedriver.log"))
    driver = webdriver.Chrome(options, service)
    try:
        yield Chromium(driver)
    finally:
        driver.quit()
