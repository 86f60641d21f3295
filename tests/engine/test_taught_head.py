"""A taught head and its bytes: one content has one form, and nothing else is taken for a head."""

from __future__ import annotations

import contextlib
import json
import struct
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aligner_proxy.engine.taught_head import (
    MAX_HEAD_BYTES,
    MAX_SHIPPED_HEAD_BYTES,
    Adjustment,
    FurtherNet,
    TaughtHead,
    count_numbers,
    pack,
    unpack,
)
from aligner_proxy.errors import MalformedHead
from tests.support.sampling import examples
from tests.support.taught import OBJECTIVE, head

FINITE = st.floats(allow_nan=False, allow_infinity=False)
LARGEST_HALF = 65504.0
# Without bounds, a number that is too large for 16 bits throws away the whole head, and most of their lists hold one.
HALF = st.floats(-LARGEST_HALF, LARGEST_HALF, width=16)


ADJUSTMENTS = st.builds(Adjustment, st.floats(min_value=0.1, max_value=1e6), FINITE, FINITE, hidden=st.integers(0, 3))
EVIDENCES = st.builds(FurtherNet, FINITE, hidden=st.integers(0, 3))
QUESTIONS = st.builds(FurtherNet, FINITE, hidden=st.integers(0, 3))


@st.composite
def _numbers(
    draw: st.DrawFn,
) -> tuple[bytes, int, Adjustment | None, FurtherNet | None, FurtherNet | None]:
    """The numbers of a head, how many hidden units it has, its adjustment, its evidence, and that of questions."""
    hidden = draw(st.integers(0, 3))
    adjustment = draw(st.none() | ADJUSTMENTS)
    evidence = draw(st.none() | EVIDENCES)
    question = draw(st.none() | QUESTIONS) if evidence else None
    width = draw(st.integers(1, 6))
    hidden_counts = (hidden, *(net.hidden for net in (adjustment, evidence, question) if net))
    count = sum(count_numbers(width, each) for each in hidden_counts)
    numbers = struct.pack(f"<{count}e", *draw(st.lists(HALF, min_size=count, max_size=count)))
    return numbers, hidden, adjustment, evidence, question


HEADS = st.builds(
    lambda objective, aligner, prior, bias, numbers, either, floor: TaughtHead(
        objective, aligner, prior, bias, numbers[0], either, numbers[1], floor, *numbers[2:]
    ),
    st.text(max_size=80),
    st.text(max_size=64),
    FINITE,
    FINITE,
    _numbers(),
    st.booleans(),
    st.none() | FINITE,
)


@given(HEADS)
def test_a_head_comes_back_from_its_bytes(taught: TaughtHead) -> None:
    again = TaughtHead.from_bytes(taught.to_bytes())
    assert again == taught
    assert again.to_bytes() == taught.to_bytes()
    assert again.content_hash == taught.content_hash


@pytest.mark.parametrize(
    "other",
    [
        {"objective": "Brevity: short"},
        {"aligner": "other"},
        {"prior": 0.5},
        {"bias": 0.25},
        {"weight": head(seed=2).weight},
        {"either": True},
        {"hidden": 3},
        {"floor": 0.0},
        {"adjustment": Adjustment(2.0, 0.5, 1.0, hidden=1)},
        {"evidence": FurtherNet(0.5, hidden=1)},
        {"evidence": FurtherNet(0.5), "question": FurtherNet(0.5, hidden=1)},
    ],
)
def test_whatever_a_head_says_is_in_its_hash(other: dict[str, object]) -> None:
    assert replace(head(seed=1), **other).content_hash != head(seed=1).content_hash  # type: ignore[arg-type]


def test_a_whole_number_is_hashed_like_the_same_number_with_a_point() -> None:
    assert replace(head(), prior=1, bias=0).content_hash == head().content_hash


def test_a_head_without_what_few_have_has_the_bytes_that_it_always_had() -> None:
    optional_names = (b"either", b"hidden", b"floor", b"adjustment", b"evidence", b"question")
    assert not [name for name in optional_names if name in head(seed=1).to_bytes()]
    assert head(seed=1).content_hash == "9e4bab7eddada81e8c1bcd1c7b99e1cddb686df90609c4bcc4471d5e09dcf71c"


def test_a_head_of_the_embedded_aligner_takes_a_few_kilobytes() -> None:
    assert len(head(width=4 * 576).to_bytes()) < 5_000


def test_a_head_of_the_embedded_aligner_may_have_thirty_two_hidden_units() -> None:
    deep = head(width=4 * 576, hidden=32)
    assert deep.width == 4 * 576
    assert TaughtHead.from_bytes(deep.to_bytes()) == deep


@given(HEADS)
def test_a_head_without_its_adjustment_is_the_head_that_it_was(taught: TaughtHead) -> None:
    plain = taught.without_adjustment()
    assert plain.adjustment is None
    assert plain.width == taught.width
    assert plain.evidence == taught.evidence
    own_bytes = 2 * count_numbers(taught.width, taught.hidden)
    telling_nets = [net for net in (taught.evidence, taught.question) if net]
    telling_bytes = 2 * sum(count_numbers(taught.width, net.hidden) for net in telling_nets)
    assert plain.weight == taught.weight[:own_bytes] + taught.weight[len(taught.weight) - telling_bytes :]
    assert TaughtHead.from_bytes(plain.to_bytes()) == plain
    assert (plain == taught) is (taught.adjustment is None)


@given(HEADS)
def test_a_head_without_what_tells_of_questions_is_the_head_that_it_was(taught: TaughtHead) -> None:
    plain = taught.without_question()
    assert replace(plain, question=taught.question, weight=taught.weight) == taught
    question_bytes = 2 * count_numbers(taught.width, taught.question.hidden) if taught.question else 0
    assert plain.weight == taught.weight[: len(taught.weight) - question_bytes]
    assert TaughtHead.from_bytes(plain.to_bytes()) == plain
    assert taught.without_evidence() == plain.without_evidence()


ADJUSTMENT = {"bound": 2.0, "bias": 0.0, "threshold": 0.5, "hidden": 0}
EVIDENCE = {"bias": 0.0, "hidden": 0}


def _with(**fields: object) -> bytes:
    line, _, weight = head(seed=1).to_bytes().partition(b"\n")
    return json.dumps(json.loads(line) | fields, sort_keys=True).encode() + b"\n" + weight


GOOD = head(seed=1).to_bytes()


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (b"", "first line"),
        (b"noise", "first line"),
        (b"{}\n", "first line"),
        (b"[" * 100_000 + b"\n", "first line"),
        (b"\xff\xfe\n" + bytes(8), "first line"),
        (GOOD[:-1], "another width"),
        (GOOD + b"\0\0", "another width"),
        (GOOD[: GOOD.index(b"\n") + 1], "another width"),
        (_with(width=0)[: _with(width=0).index(b"\n") + 1], "another width"),
        (_with(taught_head=2), "format"),
        (_with(more=1), "first line"),
        (_with(objective=3), "first line"),
        (_with(prior="1"), "first line"),
        (_with(prior=1), "first line"),
        (_with(width=True), "first line"),
        (_with(either=False), "first line"),
        (_with(either=1), "first line"),
        (_with(either="true"), "first line"),
        (_with(floor=1), "first line"),
        (_with(floor=None), "first line"),
        (_with(floor=float("inf")), "not finite"),
        (_with(hidden=0), "first line"),
        (_with(hidden=True), "first line"),
        (_with(hidden=-1), "first line"),
        (_with(hidden=1), "another width"),
        (_with(hidden=1, width=-1), "another width"),
        (_with(hidden=10**9), "another width"),
        (_with(adjustment=ADJUSTMENT), "another width"),
        (_with(adjustment=None), "first line"),
        (_with(adjustment={}), "first line"),
        (_with(adjustment=ADJUSTMENT | {"more": 1}), "first line"),
        (_with(adjustment=ADJUSTMENT | {"bound": 2}), "first line"),
        (_with(adjustment=ADJUSTMENT | {"bound": 0.0}), "first line"),
        (_with(adjustment=ADJUSTMENT | {"bound": float("nan")}), "first line"),
        (_with(adjustment=ADJUSTMENT | {"hidden": -1}), "first line"),
        (_with(adjustment=ADJUSTMENT | {"hidden": True}), "first line"),
        (head(adjustment=Adjustment(2.0, float("inf"), 0.0)).to_bytes(), "not finite"),
        (head(adjustment=Adjustment(2.0, 0.0, float("nan"))).to_bytes(), "not finite"),
        (_with(evidence=EVIDENCE), "another width"),
        (_with(evidence=None), "first line"),
        (_with(evidence={}), "first line"),
        (_with(evidence=EVIDENCE | {"more": 1}), "first line"),
        (_with(evidence=EVIDENCE | {"bias": 0}), "first line"),
        (_with(evidence=EVIDENCE | {"hidden": -1}), "first line"),
        (_with(evidence=EVIDENCE | {"hidden": True}), "first line"),
        (head(evidence=FurtherNet(float("inf"))).to_bytes(), "not finite"),
        (_with(question=EVIDENCE), "first line"),
        (_with(evidence=EVIDENCE, question=EVIDENCE), "another width"),
        (_with(evidence=EVIDENCE, question={}), "first line"),
        (
            head(evidence=FurtherNet(0.0), question=FurtherNet(float("nan"))).to_bytes(),
            "not finite",
        ),
        (_with(bias=float("nan")), "not finite"),
        (_with(prior=float("inf")), "not finite"),
        (head(seed=1).to_bytes()[:-2] + struct.pack("<e", float("inf")), "not finite"),
        (head(seed=1).to_bytes()[:-2] + struct.pack("<e", float("nan")), "not finite"),
        (GOOD.replace(b'"bias": 0.0', b'"bias":  0.0'), "another form"),
        (GOOD + bytes(MAX_HEAD_BYTES), "at most"),
    ],
)
def test_what_is_no_head_is_refused_with_what_is_wrong(data: bytes, named: str) -> None:
    with pytest.raises(MalformedHead, match=named):
        TaughtHead.from_bytes(data)


@given(st.binary(max_size=400))
def test_any_bytes_are_a_head_or_refused(data: bytes) -> None:
    for each in (data, GOOD[: len(data)] + data):
        with contextlib.suppress(MalformedHead):
            assert TaughtHead.from_bytes(each).to_bytes() == each


@settings(max_examples=examples(100, 8))
@given(st.lists(HEADS, max_size=4, unique_by=lambda taught: taught.objective))
def test_several_heads_come_back_from_one_file(heads: list[TaughtHead]) -> None:
    assert unpack(pack(heads)) == tuple(heads)


def test_only_a_head_in_an_aligners_folder_may_be_large() -> None:
    large = head(width=4 * 576, hidden=64)
    too_large = head(width=4 * 576, hidden=480)
    assert MAX_HEAD_BYTES < len(large.to_bytes()) < MAX_SHIPPED_HEAD_BYTES < len(too_large.to_bytes())
    assert unpack(pack([large])) == (large,)
    with pytest.raises(MalformedHead, match="at most"):
        TaughtHead.from_bytes(large.to_bytes())
    with pytest.raises(MalformedHead, match="at most"):
        unpack(pack([too_large]))


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (pack([head(), head("Brevity: short")])[:-1], "cut off after 1"),
        (pack([head()]) + b"\0\0", "cut off after 1"),
        (pack([head(), head(bias=1.0)]), "two of one objective"),
        (b"\x05\0\0\0noise", "first line"),
    ],
)
def test_a_damaged_file_of_heads_is_refused(data: bytes, named: str) -> None:
    with pytest.raises(MalformedHead, match=named):
        unpack(data)


def test_no_message_quotes_the_objective() -> None:
    several = pack([head(), head(bias=1.0)])
    for read, data in ((TaughtHead.from_bytes, GOOD[:-1]), (unpack, several), (unpack, several[:-1])):
        with pytest.raises(MalformedHead) as caught:
            read(data)
        assert OBJECTIVE not in str(caught.value)


def test_reading_a_head_needs_no_torch() -> None:
    code = "import sys, aligner_proxy.engine.taught_head; print(any(m in sys.modules for m in ('torch', 'numpy')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
