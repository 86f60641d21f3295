"""How many random cases? A share of them in the ordinary run, all of them with LONG=1 (`make test-long`)."""

from __future__ import annotations

import os

FULL = os.environ.get("LONG") == "1"


def cases(full: int, ordinary: int) -> range:
    """Seeds of the cases to run now."""
    return range(full if FULL else ordinary)
