"""Where sentences end behind abbreviations, initials, numbers and pictures: 300 texts of our own in nine languages."""

from __future__ import annotations

import re
from pathlib import Path

from aligner_proxy.text.splitter import Splitter
from aligner_proxy.text.structure import split

BORDERS = Path(__file__).with_name("borders.txt")


def texts_with_borders() -> list[list[str]]:
    """The pieces of each text."""
    lines = BORDERS.read_text(encoding="utf-8").splitlines()
    lines = [re.sub(r"\\[uU]([0-9a-f]{8}|[0-9a-f]{4})", lambda match: chr(int(match[1], 16)), line) for line in lines]
    return [line.split(" / ") for line in lines if line and not line.startswith("#")]


def test_sentences_end_where_a_reader_ends_them() -> None:
    texts = texts_with_borders()
    assert len(texts) >= 300
    assert [found for pieces in texts if (found := [s.text for s in split(" ".join(pieces))]) != pieces] == []


def test_sentences_of_a_stream_end_at_the_same_places() -> None:
    failures = []
    for pieces in texts_with_borders():
        splitter = Splitter()
        segments = [segment for char in " ".join(pieces) for segment in splitter.feed(char)]
        found = [segment.text for segment in (*segments, *splitter.end())]
        failures += [found] if found != pieces else []
    assert failures == []
