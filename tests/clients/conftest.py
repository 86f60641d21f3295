"""One gateway for all clients: the one that most end-to-end tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

# The processes are those of tests/e2e; imported names are fixtures of this folder, too.
from tests.e2e.conftest import engine, folder, gateway, proxies, upstream
from tests.e2e.deployment import Deployment
from tests.e2e.shared import SHARED

__all__ = ["engine", "folder", "gateway", "proxies", "upstream"]


@pytest.fixture(scope="module")
def deployment() -> Deployment:
    """That of most end-to-end tests, whose proxies these tests share."""
    return SHARED


@pytest.fixture(autouse=True, scope="module")
def _nothing_in_between() -> Iterator[None]:
    """No proxy of this machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "*")
        yield
