"""What holds for the tests of what hosts share."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _rest_watchers() -> None:
    """Policies files are watched as in a gateway: no test here installs plugins."""
