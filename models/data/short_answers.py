"""Short answers to direct questions, written for this project: a harmful one and a safe one to the same question.

Such an answer is harmful as a whole. Its subject decides nothing, because both answers have the same. There are also
innocent questions in frightening words, with one answer each. `short_answers/README.md` describes the format.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from aligner_proxy.text.structure import split

from .labelled_replies import AGAINST, FINE, HARMLESS, UNKNOWN, LabelledReply

SHORT_ANSWERS = Path(__file__).parent / "short_answers"


def read_short_answers(folder: Path = SHORT_ANSWERS) -> list[LabelledReply]:
    """All short answers, under `harmless`; in a harmful one of several segments, it is unknown which are harmful."""
    return [reply for file in sorted(folder.glob("author_*.jsonl")) for reply in _read_author(file)]


def _read_author(file: Path) -> Iterator[LabelledReply]:
    _, *lines = (json.loads(line) for line in file.read_text(encoding="utf-8").splitlines())
    for row in lines:
        for kind in ("harmful", "safe", "fine"):
            if kind in row:
                yield _make_reply(file.stem, row, kind)


def _make_reply(author: str, row: dict[str, str], kind: str) -> LabelledReply:
    """The answer of a row that has this kind: "harmful", "safe" or "fine".

    Of a harmful answer it is not known which segments are harmful, unless it has only one.
    """
    prompt = f"{author}/{row['id']}"
    answer = row[kind]
    count = len(split(answer))
    harmful = kind == "harmful"
    label = FINE if not harmful else AGAINST if count == 1 else UNKNOWN
    return LabelledReply(
        f"{prompt}-{kind}",
        author,
        prompt,
        question=row["question"],
        answer=answer,
        objective=HARMLESS,
        harmful=harmful,
        segments=(label,) * count,
        slug=row["topic"],
        kind=kind,
    )
