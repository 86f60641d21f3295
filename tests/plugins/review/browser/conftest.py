"""A console on a real socket, and Debian's chromium, started once for all tests of a process."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
import uvicorn
from selenium.webdriver.common.keys import Keys

from tests.plugins.review.console.conftest import MASTER, TOKEN, Site
from tests.plugins.review.console.conftest import site as site
from tests.support.chromium import Chromium, chromium_process


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """The browser of a process."""
    with chromium_process(tmp_path_factory.mktemp("chromium")) as made:
        yield made


@contextmanager
def served(site: Site) -> Iterator[str]:
    """The address of a site's console, in a thread of its own."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        settings = uvicorn.Config(site.application, log_config=None, timeout_graceful_shutdown=1)
        server = uvicorn.Server(settings)
        running = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        running.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            running.join()


@pytest.fixture
def window(site: Site, chromium: Chromium) -> Iterator[Chromium]:
    """A browser in front of the log-in of a console."""
    with served(site) as address:
        chromium.visit(address)
        yield chromium
        # Before the server ends: it would wait for what an open page follows.
        chromium.leave()


def log_in(window: Chromium, key: str = MASTER) -> None:
    """Have the cookies that the form sets, without the page loads that a log-in by hand takes."""
    with httpx.Client(base_url=window.base, headers={"origin": window.base}, trust_env=False, verify=False) as http:
        token = TOKEN.search(http.get("/login").text)
        assert token is not None
        entered = http.post("/login", data={"token": token[1], "key": key})
        assert entered.headers["location"] == "/overview"
        for cookie in http.cookies.jar:
            window.set_cookie(cookie)


def log_in_by_hand(window: Chromium, key: str = MASTER) -> None:
    """Log in by keyboard, and open the page Live."""
    window.open("/login")
    window.until(lambda: window.run("return document.activeElement.matches('[autofocus]')"))
    window.press(key, Keys.ENTER)
    window.until(lambda: window.path == "/overview")
    window.open("/live")


@pytest.fixture
def operator(site: Site, window: Chromium) -> Chromium:
    """The operator's browser on the page Live, over an empty store."""
    site.add()
    log_in(window)
    window.open("/live")
    return window
