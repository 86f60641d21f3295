"""Near misses: examples in frames. A frame is a sentence that quotes the example, and either only mentions it or means
it in earnest.

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

_FRAMES_FILE = Path(__file__).with_name("frames.jsonl")
_ASSERTION = "assertion"
"""The kind of a frame in the file that means the sentence in earnest."""
_FINAL_MARKS = ".!?\u2026 "
"""Signs at the end of a sentence that are left out in a frame."""
_INNER_QUOTES = str.maketrans(dict.fromkeys('"\u201c\u201d\u201e\u00ab\u00bb', "'"))
"""Replaces quotation marks inside a sentence by single ones, because they would end those of the frame."""


@dataclass(frozen=True, slots=True)
class Frames:
    """The frames of one language; each has one place for a sentence without its final mark."""

    mentions: tuple[str, ...] = ()
    """Frames in which the sentence is quoted, denied, asked about or asked for."""
    assertions: tuple[str, ...] = ()
    """Frames in which the sentence is said in earnest."""


NO_FRAMES = Frames()


def frames_of(language: str) -> Frames:
    """Return the frames of a language; empty `Frames` if the package has none."""
    return _frames_by_language().get(language, NO_FRAMES)


@cache
def _frames_by_language() -> dict[str, Frames]:
    frames_by_language: dict[str, Frames] = {}
    for line in _FRAMES_FILE.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        frames = frames_by_language.get(row["language"], NO_FRAMES)
        if row["kind"] == _ASSERTION:
            frames = Frames(frames.mentions, (*frames.assertions, row["frame"]))
        else:
            frames = Frames((*frames.mentions, row["frame"]), frames.assertions)
        frames_by_language[row["language"]] = frames
    return frames_by_language


def fill_frame(frame: str, sentence: str) -> str:
    """Return the frame with the sentence in place of its `{}`, without the sentence's final mark."""
    return frame.replace("{}", sentence.strip().rstrip(_FINAL_MARKS).translate(_INNER_QUOTES))


def can_be_framed(sentence: str) -> bool:
    """Whether an example is one sentence; of several sentences, only the first and the last would touch the frame."""
    return len(split(sentence)) == 1
