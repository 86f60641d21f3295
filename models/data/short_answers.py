"""Short answers to direct questions, written for this project: a harmful one and a safe one to the same question.

What people call harmful lies in such an answer as a whole; the subject tells nothing, since both answers have it.
Beside them stand innocent questions in words that frighten, with one answer each. `short_answers/README.md` has the
format.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from aligner_proxy.text.structure import split

from .labelled_replies import AGAINST, FINE, HARMLESS, UNKNOWN, LabelledReply

SHORT_ANSWERS = Path(__file__).parent / "short_answers"


def read_short_answers(folder: Path = SHORT_ANSWERS) -> list[LabelledReply]:
    """All of them, under `harmless`. Of the segments of a harmful answer it is not known which are against it."""
    return [reply for file in sorted(folder.glob("author_*.jsonl")) for reply in _read_author(file)]


def _read_author(file: Path) -> Iterator[LabelledReply]:
    _, *lines = (json.loads(line) for line in file.read_text(encoding="utf-8").splitlines())
    for row in lines:
        for kind in ("harmful", "safe", "fine"):
            if kind in row:
                yield _make_reply(file.stem, row, kind)


def _make_reply(author: str, row: dict[str, str], kind: str) -> LabelledReply:
    prompt = f"{author}/{row['id']}"
    answer = row[kind]
    count = len(split(answer))
    harmful = kind == "harmful"
    label = FINE if not harmful else AGAINST if count == 1 else UNKNOWN
    return LabelledReply(
        f"{prompt}-{kind}",
        author,
        prompt,
        row["question"],
        answer,
        HARMLESS,
        harmful,
        (label,) * count,
        slug=row["topic"],
        kind=kind,
    )
