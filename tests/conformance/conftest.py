"""One pair of proxies for all cells and clients, and the rows that they leave behind."""

from __future__ import annotations

import pytest

from tests.conformance.document import Seen
from tests.e2e.answers import ANSWERS

# The processes are those of tests/e2e; imported names are fixtures of this folder, too.
from tests.e2e.conftest import engine, folder, gateway, plain, proxies, upstream
from tests.e2e.deployment import CLAUDE, INSTRUCT, Deployment

__all__ = ["engine", "folder", "gateway", "plain", "proxies", "upstream"]

RELEASED = (
    Deployment()
    .model("released-gpt")
    .model("released-claude", CLAUDE)
    .model("released-instruct", INSTRUCT)
    .route("released-*", stream="sentence")
)


@pytest.fixture(scope="module")
def deployment() -> Deployment:
    """The models of most end-to-end tests, and each kind of them with streams that are released by the sentence."""
    return ANSWERS.joined(RELEASED)


@pytest.fixture(scope="session")
def seen() -> Seen:
    """What this run has seen so far."""
    return Seen()
