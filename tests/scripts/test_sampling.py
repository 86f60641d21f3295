"""The sample that `make test` runs, and tables whose every row is asked."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.sampling import SAMPLED, examples
from tests.support.tables import for_every

pytest_plugins = ["pytester"]
CASES = """
import pytest

@pytest.mark.full
def test_left_out(): pass

@pytest.mark.some(2)
@pytest.mark.parametrize("number", range(10))
def test_some(number): pass

@pytest.mark.covering("number", "letter.real odd")
@pytest.mark.parametrize("odd", [0, 1])
@pytest.mark.parametrize("letter", [3, 4])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_covered(number, letter, odd): pass

def test_always(): pass
"""
CONFTEST = """
from tests.support.sampling import sample

def pytest_configure(config):
    for mark in ("full", "some", "covering"):
        config.addinivalue_line("markers", mark)

def pytest_collection_modifyitems(items):
    items[:] = sample(items)
"""


def test_a_sample_has_some_cases_of_each_test(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(CASES)
    result = pytester.runpytest_inprocess(
        "--collect-only", "-p", "no:xdist", "-o", "asyncio_default_fixture_loop_scope=function"
    )
    result.stdout.fnmatch_lines(["collected 24 items"])
    lines = [line.strip()[len("<Function ") : -1] for line in result.outlines if "<Function" in line]
    assert [name for name in lines if "some" in name] == ["test_some[0]", "test_some[5]"]
    assert "test_left_out" not in lines
    assert "test_always" in lines
    assert [name for name in lines if "covered" in name] == [
        "test_covered[1-3-0]",
        "test_covered[1-3-1]",
        "test_covered[1-4-0]",
        "test_covered[1-4-1]",
        "test_covered[2-3-0]",
        "test_covered[3-3-0]",
    ]


def test_the_sample_tries_a_quarter_of_the_examples_or_a_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SAMPLED, raising=False)
    assert (examples(100), examples(100, 3)) == (100, 100)
    monkeypatch.setenv(SAMPLED, "1")
    assert (examples(100), examples(100, 3)) == (25, 3)


def _assert_even(number: int) -> None:
    assert number % 2 == 0


def test_a_table_names_every_row_that_fails() -> None:
    check: Callable[[], None] = for_every((2, 3, 4, 5), str)(_assert_even)
    with pytest.raises(AssertionError, match=r"^2 of 4 rows fail\n3: .*\n5: "):
        check()
    for_every((2, 4), str)(_assert_even)()
    with pytest.raises(AssertionError, match="there is no row"):
        for_every((), str)(_assert_even)()
