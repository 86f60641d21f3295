"""One value changes and no other byte: for files of every layout that people write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligner_proxy.policy.yaml_edit import put_value
from aligner_proxy.policy.yaml_file import parse_yaml

HERE = Path("policies.yaml")


COMMENT = st.sampled_from(["", " # why", "   # it's: {odd}"])
BETWEEN = st.lists(st.sampled_from(["", "# a remark", "  # indented: remark"]), max_size=2)
OTHERS = st.lists(
    st.sampled_from(
        [("name", "a-b"), ("caution", "1.5"), ("objectives", "[x, y]  "), ("mode", "enforce"), ("sample", "0.5")]
    ),
    unique_by=lambda pair: pair[0],
    max_size=4,
)


@st.composite
def routes(draw: st.DrawFn) -> str:
    """A list of blocks, each in a layout of its own."""
    indent = draw(st.sampled_from(["", "  "]))
    lines = ["# head", "routes:" + draw(COMMENT)]
    for n in range(draw(st.integers(1, 3))):
        pairs = [("match", f"{{model: m{n}}}"), *draw(OTHERS)]
        if draw(st.booleans()):
            lines.append(f"{indent}- {{{', '.join(f'{k}: {v.strip()}' for k, v in pairs)}}}{draw(COMMENT)}")
        else:
            for i, (key, value) in enumerate(pairs):
                lines.append(f"{indent}{'- ' if i == 0 else '  '}{key}: {value}{draw(COMMENT)}")
        lines += draw(BETWEEN)
    newline = draw(st.sampled_from(["\n", "\r\n"]))
    return newline.join(lines) + draw(st.sampled_from(["", newline]))


@given(routes(), st.sampled_from([("mode", "shadow"), ("mode", "off"), ("sample", 0.25), ("caution", -2.0)]), st.data())
def test_only_what_was_meant_changes(text: str, change: tuple[str, Any], data: st.DataObject) -> None:
    wanted: Any = parse_yaml(text, HERE)[0]
    which = data.draw(st.integers(0, len(wanted["routes"]) - 1))
    wanted["routes"][which][change[0]] = change[1]
    after = put_value(text, ("routes", which), *change)
    assert parse_yaml(after, HERE)[0] == wanted
    old = text.splitlines()
    new = after.splitlines()
    same_start = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
    same_end = next((i for i, (a, b) in enumerate(zip(old[::-1], new[::-1], strict=False)) if a != b), len(old))
    assert len(old) - same_start - same_end <= 1, "at most one line is another"
    assert after.count("\r\n") in (0, after.count("\n"))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "defaults:\n  mode: shadow\n"),
        ("# only a remark\n", "# only a remark\ndefaults:\n  mode: shadow\n"),
        ("defaults:\n", "defaults: {mode: shadow}\n"),
        ("defaults: # none yet\nroutes: []\n", "defaults: {mode: shadow} # none yet\nroutes: []\n"),
        ("defaults: {}\n", "defaults: {mode: shadow}\n"),
        ("defaults: {mode: enforce,}\n", "defaults: {mode: shadow,}\n"),
        ("defaults: {caution: 1.0,}\n", "defaults: {caution: 1.0, mode: shadow,}\n"),
        ("routes: []\n", "routes: []\ndefaults: {mode: shadow}\n"),
        ("{routes: []}\n", "{routes: [], defaults: {mode: shadow}}\n"),
        ("defaults:\n  mode:\n", "defaults:\n  mode: shadow\n"),
        ("defaults: {mode: 'off'}\n", "defaults: {mode: shadow}\n"),
        ("defaults:\n    caution: 1.0\n\n# next\n", "defaults:\n    caution: 1.0\n    mode: shadow\n\n# next\n"),
        ("defaults:\n  caution: 1.0", "defaults:\n  caution: 1.0\n  mode: shadow\n"),
    ],
)
def test_odd_layouts(before: str, after: str) -> None:
    assert put_value(before, ("defaults",), "mode", "shadow") == after


def test_a_remark_behind_a_flow_mapping_stays() -> None:
    """The case in which a round-trip writer loses it."""
    text = "routes:\n- match: {model: a}\n\n# second\n- match: {model: b}\n"
    assert put_value(text, ("routes", 0), "mode", "shadow") == text.replace("a}\n", "a}\n  mode: shadow\n")


def test_a_number_is_written_as_yaml_reads_numbers() -> None:
    """`1e-05` would be read as a text."""
    assert parse_yaml(put_value("", ("defaults",), "sample", 1e-5), HERE)[0] == {"defaults": {"sample": 1e-5}}
