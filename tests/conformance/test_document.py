"""docs/reference/conformance.md is what this run has seen. `CONFORMANCE=write` (`make conformance`) writes it anew."""

from __future__ import annotations

import os
from importlib.metadata import version

import pytest

from tests.conformance.document import PATH, Seen, cells_section, clients_section, pinned
from tests.conformance.features import CELLS
from tests.conformance.test_clients import CASES

pytestmark = pytest.mark.e2e


def test_there_are_enough_cells_and_each_has_its_own_name() -> None:
    assert len({str(cell) for cell in CELLS}) == len(CELLS) >= 40


def test_the_document_is_what_was_seen(seen: Seen) -> None:
    cells = len(seen.cells) == len(CELLS)
    clients = len(seen.clients) == len(CASES)
    if os.environ.get("CONFORMANCE") == "write":
        assert cells, "cells are missing: run all of tests/conformance"
        assert clients, "clients are missing: install the development dependencies and curl"
        assert version("litellm") == pinned(), "the table speaks of the pinned version"
        PATH.write_text(cells_section(seen) + clients_section(seen), encoding="utf-8")
    if not cells:
        pytest.skip("only some cells were tried, or some failed")
    written = PATH.read_text(encoding="utf-8")
    hint = "docs/reference/conformance.md is not what was seen: make conformance"
    assert written.startswith(cells_section(seen)), hint
    assert not clients or written.endswith(clients_section(seen)), hint
