"""Near misses: examples in frames, that is, in sentences that only mention them, and in others that mean them.

A sentence that is quoted, warned against, asked about, or written because the user wanted it has the words of a
violation but is none: 'Never write "I feel lonely" to a customer.' A head that was taught without such sentences flags
all of them. The frames are filled by rule, without a language model. Other frames mean the sentence in earnest; without
these, a head would learn that whatever is in quotation marks is allowed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from aligner_proxy.text.structure import split

_FILE = Path(__file__).with_name("frames.jsonl")
_ASSERTION = "assertion"
_ENDS = ".!?\u2026 "
"""Signs at the end of a sentence that are left out in a frame."""
_INNER_QUOTES = str.maketrans(dict.fromkeys('"\u201c\u201d\u201e\u00ab\u00bb', "'"))
"""Replaces quotation marks inside a quoted sentence by single ones, because they would end the outer ones."""


@dataclass(frozen=True, slots=True)
class Frames:
    """The frames of one language; each has one place for a sentence without its final mark."""

    mentions: tuple[str, ...] = ()
    """Frames in which the sentence is quoted, denied, asked about or asked for."""
    assertions: tuple[str, ...] = ()
    """Frames in which it is said in earnest."""


NO_FRAMES = Frames()


def frames_of(language: str) -> Frames:
    """The frames of a language; none if the package has none."""
    return _frames_by_language().get(language, NO_FRAMES)


@cache
def _frames_by_language() -> dict[str, Frames]:
    """The frames of the package by language."""
    rows = list(map(json.loads, _FILE.read_text(encoding="utf-8").splitlines()))
    return {
        language: Frames(
            tuple(row["frame"] for row in rows if row["language"] == language and row["kind"] != _ASSERTION),
            tuple(row["frame"] for row in rows if row["language"] == language and row["kind"] == _ASSERTION),
        )
        for language in dict.fromkeys(row["language"] for row in rows)
    }


def fill_frame(frame: str, sentence: str) -> str:
    """The frame with the sentence in place of its `{}`, without the sentence's final mark."""
    return frame.replace("{}", sentence.strip().rstrip(_ENDS).translate(_INNER_QUOTES))


def can_be_framed(sentence: str) -> bool:
    """Whether an example is one sentence; of several sentences, only the first and the last would touch the frame."""
    return len(split(sentence)) == 1
