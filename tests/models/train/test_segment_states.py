"""States of segments are those of the prompt alone, whatever it is read with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from aligner_proxy.engine.model.detector import DetectorHead
from models.data.labelled_replies import FINE, HARMLESS, LabelledReply
from models.train.segment_states import OWN, SegmentStates, StateReader, join_states
from tests.support import tiny

ANSWERS = ("The harbour opens at nine.", "You are wrong. Go away, and do not come back.", "Yes.")
LAYERS = (0, 1)


def reply(number: int) -> LabelledReply:
    answer = ANSWERS[number]
    return LabelledReply(f"r{number}", "s", "p", f"Question {number}?", answer, HARMLESS, False, (FINE,) * 4)


@pytest.fixture
def reader() -> StateReader:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tiny.backend())
    head = DetectorHead(64, LAYERS, 16).eval()
    return StateReader(tiny.model(), tokenizer, head, LAYERS)


def test_states_do_not_depend_on_what_they_were_read_with(reader: StateReader, tmp_path: Path) -> None:
    replies = [reply(number) for number in range(3)]
    together = reader.read(replies, tmp_path / "together")
    alone = join_states([reader.read([one], tmp_path / "alone") for one in replies])
    assert together.segment_starts == alone.segment_starts
    assert np.allclose(together.states, alone.states, atol=2e-3)
    assert np.allclose(together.scores, alone.scores, atol=2e-3)


def test_states_are_read_once(reader: StateReader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replies = [reply(number) for number in range(3)]
    first = reader.read(replies, tmp_path)
    monkeypatch.setattr(StateReader, "_compute_states", None)
    again: SegmentStates = reader.read(replies, tmp_path)
    assert np.array_equal(first.states, again.states)


def test_the_company_of_an_objective_is_in_the_prompt(reader: StateReader, tmp_path: Path) -> None:
    alone = reader.read([reply(0)], tmp_path)
    behind = reader.read([reply(0)], tmp_path, ("Brevity: the response should be short.", OWN))
    assert not np.allclose(alone.states, behind.states, atol=1e-3)
