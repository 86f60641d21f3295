"""One pair of proxies for all cells and clients, and the rows that they leave behind."""

from __future__ import annotations

import pytest

from tests.conformance.document import Seen

# The processes are those of tests/e2e; imported names are fixtures of this folder, too.
from tests.e2e.conftest import engine, folder, gateway, plain, proxies, upstream
from tests.e2e.deployment import Deployment
from tests.e2e.shared import SHARED

__all__ = ["engine", "folder", "gateway", "plain", "proxies", "upstream"]


@pytest.fixture(scope="module")
def deployment() -> Deployment:
    """That of most end-to-end tests, whose proxies these tests share."""
    return SHARED


@pytest.fixture(scope="session")
def seen() -> Seen:
    """What this run has seen so far."""
    return Seen()
