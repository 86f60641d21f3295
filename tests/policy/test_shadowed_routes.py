"""A route that can never match is found, and a glob is never wrongly said to hide another."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligner_proxy.errors import ConfigError
from aligner_proxy.policy.config import load
from aligner_proxy.policy.reachability import covers

GLOBS = st.text("ab*?", max_size=6)


@pytest.mark.parametrize(
    ("wide", "narrow", "expected"),
    [
        ("*", "gpt-*", True),
        ("gpt-*", "gpt-4*", True),
        ("gpt-?", "gpt-4", True),
        ("gpt-?", "gpt-*", False),
        ("*mini", "gpt-*-mini", True),
        ("gpt-4*", "gpt-*", False),
        ("gpt-[34]", "gpt-[34]", True),
        ("gpt-[34]", "gpt-3", False),
        ("**", "x[y]", True),
        ("", "", True),
        ("", "a", False),
    ],
)
def test_covers(wide: str, narrow: str, expected: bool) -> None:
    assert covers(wide, narrow) is expected


@given(GLOBS, GLOBS, st.text("ab", max_size=6))
def test_what_the_narrow_accepts_the_wide_accepts(wide: str, narrow: str, text: str) -> None:
    if covers(wide, narrow) and fnmatchcase(text, narrow):
        assert fnmatchcase(text, wide)


def test_covers_is_quick_on_hostile_patterns() -> None:
    assert not covers("*a" * 90 + "b", "a*" * 100)


@pytest.mark.parametrize(
    ("key", "first", "second"),
    [
        ("routes", "{}", "{model: a, tag: b}"),
        ("routes", "{model: '*'}", "{tag: b}"),
        ("routes", "{tag: 's*'}", "{model: a, tag: support}"),
        ("tenants", "{team: acme}", "{team: acme, key: k}"),
        ("tenants", "{}", "{team: acme}"),
    ],
)
def test_hidden_entries_are_refused(tmp_path: Path, key: str, first: str, second: str) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(f"{key}:\n  - match: {first}\n  - match: {second}\n")
    with pytest.raises(ConfigError, match=rf"p\.yaml:3: {key}\[1\] can never match: {key}\[0\] \(p\.yaml:2\)"):
        load(path)


@pytest.mark.parametrize(
    ("key", "first", "second"),
    [
        ("routes", "{model: a, tag: b}", "{}"),
        ("routes", "{tag: '*'}", "{model: a}"),
        ("routes", "{model: a, tag: b}", "{model: a, tag: c}"),
        ("tenants", "{team: '*'}", "{}"),
        ("tenants", "{key: k}", "{team: acme}"),
    ],
)
def test_entries_that_can_match_are_accepted(tmp_path: Path, key: str, first: str, second: str) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(f"{key}:\n  - match: {first}\n  - match: {second}\n")
    assert len(getattr(load(path), key)) == 2
