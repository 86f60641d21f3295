"""Near misses: an example in a frame in which the answer only mentions it, and in one in which it says it all the same.

A sentence that is quoted, warned against, asked about, or written because the user wanted it has the words of a
violation and is none. A head that saw nothing near its examples flags all of these. The frames are filled by rule, so
that no language model is needed. Beside them stand frames in which the speaker means the sentence, or a head would
learn that whatever is in quotation marks is allowed.
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
_INNER_QUOTES = str.maketrans(dict.fromkeys('"\u201c\u201d\u201e\u00ab\u00bb', "'"))
"""Quotation marks inside a quoted sentence, which would end the outer ones."""


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
    rows = list(map(json.loads, _FILE.read_text(encoding="utf-8").splitlines()))
    return {
        language: Frames(
            tuple(row["frame"] for row in rows if row["language"] == language and row["kind"] != _ASSERTION),
            tuple(row["frame"] for row in rows if row["language"] == language and row["kind"] == _ASSERTION),
        )
        for language in dict.fromkeys(row["language"] for row in rows)
    }


def fill_frame(frame: str, sentence: str) -> str:
    """The sentence in a frame, as one sentence."""
    return frame.replace("{}", sentence.strip().rstrip(_ENDS).translate(_INNER_QUOTES))


def can_be_framed(sentence: str) -> bool:
    """Whether an example is one sentence; of several sentences, only the first and the last would touch the frame."""
    return len(split(sentence)) == 1
