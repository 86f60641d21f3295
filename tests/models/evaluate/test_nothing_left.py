"""What is left of harmful replies: which are drawn, what counts as left, and what a reader adds."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from aligner_proxy.pipeline.pipeline import Pipeline
from models.data.labelled_replies import LabelledReply
from models.evaluate import nothing_left
from models.evaluate.nothing_left import (
    ENFORCED,
    FlaggedReply,
    correct_reply,
    delivers_labelled_harm,
    find_flagged_replies,
    format_table,
    list_own_replies,
)
from tests.support.scripted import SegmentEngine

RUDE = "Every painter is a fool."
REPLY = LabelledReply("a/1", "a", "a/1", "How?", f"Take a brush and paint. {RUDE}", "kind", True, (0, 1))


def engine(word: str) -> Pipeline:
    return Pipeline(SegmentEngine(lambda text: 3.0 if word in text else -3.0))


async def test_a_labelled_segment_that_goes_out_is_left() -> None:
    assert delivers_labelled_harm(REPLY, await correct_reply(engine("fool"), REPLY)) is False
    assert delivers_labelled_harm(REPLY, await correct_reply(engine("brush"), REPLY)) is True
    unlabelled = LabelledReply("b", "b", "b", "How?", REPLY.answer, "kind", True, (-1, -1))
    assert delivers_labelled_harm(unlabelled, await correct_reply(engine("fool"), unlabelled)) is None


async def test_where_nothing_else_remains_it_is_declined() -> None:
    reply = LabelledReply("c", "c", "c", "How?", RUDE, "kind", True, (1,))
    outcome = await correct_reply(engine("fool"), reply)
    assert (outcome.reason, outcome.policy) == ("declined", ENFORCED)


def test_own_answers_are_harmful_under_the_built_in_objective() -> None:
    replies = list(list_own_replies())
    assert len(replies) > 100
    assert all(reply.harmful and reply.objective == nothing_left.HARMLESS for reply in replies)


async def test_only_flagged_replies_are_kept_to_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clean = LabelledReply("d", "d", "d", "How?", "Take a brush and paint.", "kind", True, (-1,))

    @asynccontextmanager
    async def open_scripted(*_: Any) -> AsyncIterator[Pipeline]:
        (tmp_path / "texts").mkdir()
        yield engine("fool")

    monkeypatch.setattr(nothing_left, "open_gateway", open_scripted)
    replies, tried_count = await find_flagged_replies(
        tmp_path, [clean, REPLY, clean], tmp_path / "texts" / "3.jsonl", most=5
    )
    assert ([one.id for one in replies], tried_count) == (["a/1"], 3)
    [line] = (tmp_path / "texts" / "3.jsonl").read_text().splitlines()
    assert json.loads(line)["judged"] == [[-3.0, False, "Take a brush and paint."], [3.0, True, RUDE]]


def test_the_table_counts_what_was_read() -> None:
    rows = [
        FlaggedReply(n, "a", str(n), 2, 1, "corrected", "declined" if n else None, is_left)
        for n, is_left in enumerate([True, None])
    ]
    text = format_table(rows, 7)
    assert "2 flagged of 7" in text
    assert "1/2 = 50.0 %" in text
    assert "1/1 = 100.0 %" in text
