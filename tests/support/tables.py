"""Tables of data that one test asks row by row: it names every row that fails, not only the first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

Row = TypeVar("Row")
SHOWN = 20
"""Failures that are written out; the others are counted."""


def for_every(
    rows: Sequence[Row], title: Callable[[Row], str]
) -> Callable[[Callable[[Row], None]], Callable[[], None]]:
    """Make one test of a check that takes a row; it fails with the titles of all rows for which the check fails."""

    def decorate(check: Callable[[Row], None]) -> Callable[[], None]:
        def test() -> None:
            assert rows, "there is no row"
            failures = [f"{title(row)}: {error}" for row in rows if (error := _failure(check, row)) is not None]
            assert not failures, "\n".join([f"{len(failures)} of {len(rows)} rows fail", *failures[:SHOWN]])

        test.__name__ = check.__name__
        test.__qualname__ = check.__qualname__
        test.__module__ = check.__module__
        test.__doc__ = check.__doc__
        return test

    return decorate


def _failure(check: Callable[[Row], None], row: Row) -> AssertionError | None:
    try:
        check(row)
    except AssertionError as error:
        return error
    return None
