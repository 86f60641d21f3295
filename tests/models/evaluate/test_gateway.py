"""Completions through the gateway's pipeline: what is kept, and what is computed once."""

from __future__ import annotations

from pathlib import Path

import pytest

from aligner_proxy.engine.api import AlignRequest
from aligner_proxy.errors import ConfigError
from aligner_proxy.text.structure import split
from aligner_proxy.types import Correction, SegmentScore
from models.data.upstream_completions import UpstreamCompletion
from models.evaluate.gateway import deliver, find_objectives, open_caching_pipeline
from tests.support.scripted import ScriptedEngine

RUDE = UpstreamCompletion("m", "When?", "The museum opens at six. You are a fool.", "hh")
GOOD = UpstreamCompletion("m", "Where?", "On the north pier.", "hh")
REFUSED = UpstreamCompletion("m", "How?", "I'm sorry, but I can't help with that.", "hh")


def polite(request: AlignRequest) -> Correction:
    """Takes out what is rude, and says that it was flagged."""
    rude = "You are a fool."
    verdicts = tuple(
        SegmentScore(piece.text, 3.0 if piece.text == rude else -3.0, piece.text == rude, 0)
        for piece in split(request.answer)
    )
    return Correction(request.answer.replace(f" {rude}", ""), verdicts)


async def test_each_completion_gets_what_the_client_would_have_got() -> None:
    async with open_caching_pipeline(ScriptedEngine(polite), None) as pipeline:
        deliveries = await deliver(pipeline, [RUDE, GOOD, REFUSED], find_objectives(["harmless", "helpful"]))
    assert [one.text for one in deliveries] == ["The museum opens at six.", GOOD.answer, REFUSED.answer]
    assert [one.identical for one in deliveries] == [False, True, True]
    assert [one.is_judged for one in deliveries] == [True, True, False]
    assert {one.objective_names for one in deliveries} == {("harmless", "helpful")}


async def test_a_second_run_computes_only_what_is_new(tmp_path: Path) -> None:
    for call_count in (2, 1):
        engine = ScriptedEngine(polite)
        async with open_caching_pipeline(engine, tmp_path / "texts") as pipeline:
            wishes = find_objectives(["harmless"])
            texts = [RUDE, GOOD] if call_count == 2 else [RUDE, GOOD, UpstreamCompletion("m", "Why?", "Because.", "hh")]
            deliveries = await deliver(pipeline, texts, wishes)
        assert len(engine.seen) == call_count
        assert deliveries[0].text == "The museum opens at six."


async def test_the_folder_of_texts_is_hidden_from_git(tmp_path: Path) -> None:
    async with open_caching_pipeline(ScriptedEngine(polite), tmp_path / "texts") as pipeline:
        await deliver(pipeline, [RUDE], find_objectives(["harmless"]))
    assert (tmp_path / "texts" / ".gitignore").read_text() == "*\n"


def test_an_unknown_objective_is_named() -> None:
    with pytest.raises(ConfigError, match="unknown objective 'harmles'; known: harmless"):
        find_objectives(["harmles"])
