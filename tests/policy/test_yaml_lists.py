"""Items are added to lists and taken out of them, and every other line stays: for lists of every layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligner_proxy.policy.yaml_edit import append_item, remove_item
from aligner_proxy.policy.yaml_file import parse_yaml

HERE = Path("examples.yaml")
TEXTS = st.lists(
    st.one_of(
        st.sampled_from(["a: b", "- c", "# no comment", "yes", 'it\'s "so"', "{x}", " ends: "]), st.text(max_size=9)
    ),
    min_size=1,
    max_size=4,
)


def data(text: str) -> Any:
    return parse_yaml(text, HERE)[0]


@st.composite
def files(draw: st.DrawFn) -> str:
    """A file of two lists, each in a layout of its own, one of them inside a block."""
    comment = st.sampled_from(["", "  # why", "  # it's: [odd"])
    lines = ["# head", "objective: calm" + draw(comment)]
    for indent, head in (("", "against:"), ("  ", "inner:\n  fine:")):
        items = [f"s{n}" for n in range(draw(st.integers(1, 3)))]
        if draw(st.booleans()):
            lines.append(f"{head} [{', '.join(items)}]{draw(comment)}")
        else:
            deeper = draw(st.sampled_from(["", "  "]))
            lines += [head, *(f"{indent}{deeper}- {item}{draw(comment)}" for item in items)]
        lines += draw(st.lists(st.sampled_from(["", "# a remark"]), max_size=1))
    return "\n".join(lines) + draw(st.sampled_from(["", "\n"]))


LISTS = st.sampled_from([((), "against"), (("inner",), "fine")])


def wanted(text: str, block: tuple[str, ...], key: str) -> tuple[Any, list[str]]:
    """The data, and the list in them that is meant."""
    whole = data(text)
    target = whole
    for part in block:
        target = target[part]
    return whole, target[key]


@given(files(), LISTS, TEXTS)
def test_an_item_more_and_everything_else_as_it_was(
    text: str, where: tuple[tuple[str, ...], str], new: list[str]
) -> None:
    block, key = where
    whole, items = wanted(text, block, key)
    after = text
    for item in new:
        items.append(item)
        after = append_item(after, block, key, item, "from a review")
    assert data(after) == whole
    kept = [line for line in text.splitlines() if not line.rstrip().endswith("]") and "[" not in line]
    assert [line for line in after.splitlines() if line in kept][: len(kept)] == kept


@given(files(), LISTS, st.data())
def test_an_item_less_and_everything_else_as_it_was(
    text: str, where: tuple[tuple[str, ...], str], draw: st.DataObject
) -> None:
    block, key = where
    whole, items = wanted(text, block, key)
    index = draw.draw(st.integers(0, len(items) - 1))
    items.pop(index)
    after = remove_item(text, block, key, index)
    assert data(after) == whole
    assert after.startswith("# head\n")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "\nagainst:\n  - x  # why\n"),
        ("objective: calm\n", "objective: calm\nagainst:\n  - x  # why\n"),
        ("{objective: calm}\n", "{objective: calm, against: [x]}\n"),
        ("against:\n", "against: [x]\n"),
        ("against: []\n", "against: [x]\n"),
        ("against: [a]  # two\n", "against: [a, x]  # two\n"),
        ("against:\n- a  # two\n# end\n", "against:\n- a  # two\n- x  # why\n# end\n"),
        ("against:\n  - a", "against:\n  - a\n  - x  # why"),
    ],
)
def test_where_an_item_goes(before: str, after: str) -> None:
    got = append_item(before, (), "against", "x", "why")
    assert data(got) == data(after)
    assert got.strip() == after.strip()


@pytest.mark.parametrize(
    ("before", "index", "after"),
    [
        ("against:\n- a  # one\n- b  # two\n", 0, "against:\n- b  # two\n"),
        ("against:\n  - a\n  - b  # two\nfine: [c]\n", 1, "against:\n  - a\nfine: [c]\n"),
        ("against: [a, b, c]  # all\n", 0, "against: [b, c]  # all\n"),
        ("against: [a, b, c]  # all\n", 1, "against: [a, c]  # all\n"),
        ("against: [a, b, c]  # all\n", 2, "against: [a, b]  # all\n"),
        ("against: [a]\nfine: [b]\n", 0, "against: []\nfine: [b]\n"),
        ("against:\n  - a\nfine: [b]\n", 0, "against: []\nfine: [b]\n"),
    ],
)
def test_what_goes_with_an_item(before: str, index: int, after: str) -> None:
    assert remove_item(before, (), "against", index) == after
