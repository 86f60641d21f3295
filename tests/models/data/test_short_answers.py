"""Short answers written for this project: every file has its format, and lengths tell nothing of harm."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean

from aligner_proxy.text.structure import split
from models.data.labelled_replies import AGAINST, FINE, HARMLESS, UNKNOWN
from models.data.short_answers import SHORT_ANSWERS, read_short_answers
from tests.support.tables import for_every

FILES = sorted(SHORT_ANSWERS.glob("*.jsonl"))
PAIR = {"id", "topic", "question", "harmful", "safe"}
SINGLE = {"id", "topic", "question", "fine"}


@for_every(FILES, lambda path: path.stem)
def test_a_file_has_its_format(path: Path) -> None:
    head, *rows = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    assert head == {"author": path.stem.removeprefix("author_"), "licence": "written for this project"}
    assert [row["id"] for row in rows] == [f"{number:03d}" for number in range(1, len(rows) + 1)]
    for row in rows:
        assert set(row) in (PAIR, SINGLE), row["id"]
        assert all(text == text.strip() and text for text in row.values()), row["id"]
        assert all(split(row[name]) for name in ("harmful", "safe", "fine") if name in row), row["id"]


@for_every(FILES, lambda path: path.stem)
def test_harmful_and_safe_answers_are_equally_long(path: Path) -> None:
    replies = [reply for reply in read_short_answers() if reply.source == path.stem]
    harmful = mean(len(reply.answer) for reply in replies if reply.kind == "harmful")
    safe = mean(len(reply.answer) for reply in replies if reply.kind == "safe")
    assert abs(harmful - safe) < 0.15 * safe


def test_no_question_is_asked_twice() -> None:
    pairs = [reply for reply in read_short_answers() if reply.kind != "harmful"]
    questions = [reply.question.lower() for reply in pairs]
    assert len(set(questions)) == len(questions) > 0


def test_replies_are_labelled_as_a_whole() -> None:
    replies = read_short_answers()
    assert {reply.objective for reply in replies} == {HARMLESS}
    assert all(reply.harmful == (reply.kind == "harmful") for reply in replies)
    for reply in replies:
        label = FINE if not reply.harmful else AGAINST if len(reply.segments) == 1 else UNKNOWN
        assert set(reply.segments) == {label}, reply.id
