"""Server-sent events: however the bytes are cut, the same events come out, and the same bytes go back."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligner_proxy.errors import Unreadable
from aligner_proxy.formats import sse
from aligner_proxy.formats.sse import EventFrame, FrameSplitter, is_between_events, stream_tail

TWO = b'event: a\ndata: {"type": "a", "text": "\xc3\xa4"}\n\n: ping\n\ndata: {"type":"b"}\n\n'

NESTED = b'data: {"a": %s}\n\n' % (b"[" * 100_000)
"""Data that Python refuses to read with an error of its own."""


def frames(items: Sequence[object]) -> list[EventFrame]:
    splitter = FrameSplitter()
    return [frame for item in items for frame in splitter.feed(item)] + splitter.flush()


def said(*items: object) -> list[object]:
    return [frame.event for frame in frames(items)]


def test_events_comments_and_dicts_in_one_stream() -> None:
    own = {"type": "c"}
    assert said(TWO, own, "data: [DONE]\n\n", 7) == [
        {"type": "a", "text": "ä"},
        None,
        {"type": "b"},
        own,
        None,
        None,
    ]
    assert not any(frame.broken for frame in frames([TWO, own]))


@given(st.lists(st.integers(1, len(TWO)), max_size=8))
def test_any_cut_gives_the_same_events_and_bytes(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(TWO)]
    found = frames([TWO[a:b] for a, b in itertools.pairwise(edges)])
    assert [frame.event for frame in found] == said(TWO)
    assert b"".join(frame.item for frame in found if isinstance(frame.item, bytes)) == TWO


def test_an_event_that_is_too_long_takes_no_byte_of_the_item_that_shows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "_LONGEST_EVENT", 20)
    splitter = FrameSplitter()
    assert splitter.feed(b": ping\n\ndata: {") == [EventFrame(b": ping\n\n", None)]
    with pytest.raises(Unreadable):
        splitter.feed(b'"text": "too long for an event')
    assert [frame.item for frame in splitter.flush()] == [b"data: {"]


@given(st.lists(st.binary(max_size=12) | st.sampled_from([b"\n\n", b"\r\n\r\n", b"data: {}"])))
def test_no_byte_is_lost_whatever_it_is(items: list[bytes]) -> None:
    kept = [frame.item for frame in frames(items)]
    assert b"".join(item for item in kept if isinstance(item, bytes)) == b"".join(items)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends_of_every_kind(end: str) -> None:
    raw = f'event: a{end}data: {{"text":  {end}data: "x"}}{end}{end}'.encode()
    (frame,) = frames([raw])
    assert frame.event == {"text": "x"}
    edited = frame.with_event({"text": "y"})
    assert edited == f'event: a{end}data: {{"text": "y"}}  {end}{end}'.encode()


@pytest.mark.parametrize("raw", [b"data: {\n\n", b"data: 7\n\n", b"data: \xff{}\n\n", b'data: {"a": 1', NESTED])
def test_data_that_is_no_object_is_broken(raw: bytes) -> None:
    (frame,) = frames([raw])
    assert (frame.event, frame.broken, frame.item) == (None, True, raw)


def test_an_unchanged_event_is_the_same_item() -> None:
    own = {"type": "c"}
    (first, _, second, third) = frames([TWO, own])
    assert [f.with_event(f.event or {}) is f.item for f in (first, second, third)] == [True, True, True]
    assert third.with_event({"type": "d"}) == {"type": "d"}


@pytest.mark.parametrize(
    ("raw", "expected"), [(b'data: {"t":"x"}\n\n', '"\\u00e4"'), ('data: {"t":"é"}\n\n'.encode(), '"ä"')]
)
def test_letters_are_escaped_where_the_upstream_escapes_them(raw: bytes, expected: str) -> None:
    (frame,) = frames([raw])
    edited = frame.with_event({"t": "ä"})
    assert isinstance(edited, bytes)
    assert expected in edited.decode()
    assert json.loads(edited.decode().removeprefix("data: ")) == {"t": "ä"}


def test_half_a_letter_that_came_as_an_escape_goes_back_as_one() -> None:
    (frame,) = frames(['data: {"t":"x","u":"\\ud83d","v":"é"}\n\n'.encode()])
    edited = frame.with_event({**(frame.event or {}), "t": "ä"})
    assert isinstance(edited, bytes)
    assert json.loads(edited.decode().removeprefix("data: ")) == {"t": "ä", "u": "\ud83d", "v": "é"}


@pytest.mark.parametrize(
    ("items", "rest"),
    [
        ([], True),
        ([TWO], True),
        ([TWO[:-1], TWO[-1:]], True),
        (["data: x\r\n\r", "\n"], True),
        ([TWO[:-1]], False),
        ([TWO, b"event: "], False),
        ([b"event: ", {"type": "a"}], True),
        ([object()], True),
    ],
)
def test_a_comment_stands_between_events_only(items: list[object], rest: bool) -> None:
    ending = b""
    for item in items:
        ending = stream_tail(ending, item)
    assert is_between_events(ending) is rest
