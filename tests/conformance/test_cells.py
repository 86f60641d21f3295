"""Every cell of docs/reference/conformance.md on the real proxy: corrected and nothing else touched, or untouched."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import httpx
import pytest

from tests.conformance.document import Seen
from tests.conformance.exchange import BYTES, SAME_ERROR, TEXT_ONLY, WITHOUT_THOUGHTS, ask, became, compared
from tests.conformance.features import (
    CELLS,
    CORRECTED,
    ERROR,
    NOT_JUDGED,
    PARTLY_JUDGED,
    SHADOW,
    THOUGHTS_DROPPED,
    THOUGHTS_JUDGED,
    UNCHANGED,
    Cell,
)
from tests.e2e.clients import Gateway

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

Answers = tuple[Future[httpx.Response], Future[httpx.Response]]
HERE = "tests/conformance/test_cells.py::"
WORKERS = 4

# What is told, and what the client gets. What is not named here is the reason of a skip.
EXPECTED = {
    CORRECTED: ({"corrected"}, TEXT_ONLY),
    UNCHANGED: ({"unchanged"}, BYTES),
    SHADOW: ({"shadow"}, BYTES),
    # A whole response has a header of its own for it.
    THOUGHTS_JUDGED: ({"corrected", "corrected 1/1:kind"}, TEXT_ONLY),
    THOUGHTS_DROPPED: ({"corrected"}, WITHOUT_THOUGHTS),
    NOT_JUDGED: ({"not_judged language"}, BYTES),
    PARTLY_JUDGED: ({"corrected language"}, TEXT_ONLY),
    # `pending`: a stream that fails before its first event; its headers were made before.
    ERROR: ({"skipped upstream_error", "pending", "-"}, SAME_ERROR),
}


@pytest.fixture(scope="module")
def answers(request: pytest.FixtureRequest, gateway: Gateway, plain: Gateway) -> Iterator[dict[str, Answers]]:
    """What both proxies say to every cell that was chosen to run, asked side by side."""
    chosen = [item.callspec.params["cell"] for item in request.session.items if item.nodeid.startswith(HERE)]
    with ThreadPoolExecutor(WORKERS) as pool:
        made = {str(cell): (pool.submit(ask, gateway, cell), pool.submit(_alone, plain, cell)) for cell in chosen}
        yield made
        pool.shutdown(cancel_futures=True)


def _alone(plain: Gateway, cell: Cell) -> httpx.Response:
    """What LiteLLM says by itself; asked again where it broke: it now and then walks a dict that its threads change."""
    said = ask(plain, cell)
    broke = said.status_code == httpx.codes.INTERNAL_SERVER_ERROR and cell.expect != ERROR
    return ask(plain, cell) if broke else said


@pytest.mark.covering("cell.feature.name cell.kind", "cell.endpoint cell.kind", "cell.endpoint cell.upstream")
@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_cell(answers: dict[str, Answers], seen: Seen, cell: Cell) -> None:
    ours, theirs = (answer.result() for answer in answers[str(cell)])
    told, differs = EXPECTED.get(cell.expect, ({f"skipped {cell.expect}"}, BYTES))
    status = became(ours, cell)
    how = compared(ours, theirs, cell)
    assert (status in told, how) == (True, differs), f"{status}: {how}"
    seen.cells[str(cell)] = (status, how)
