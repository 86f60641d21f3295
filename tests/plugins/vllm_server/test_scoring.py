"""Requests to the scoring server, planned and answered without vLLM: a transformers model stands where vLLM's would."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path

import numpy as np
import pytest
import torch

from aligner_proxy.engine.api import AlignRequest
from aligner_proxy.engine.loader import EngineSettings, open_aligner
from aligner_proxy.engine.local import LocalEngine
from aligner_proxy.engine.model.detector import DetectorHead
from aligner_proxy.engine.scheduling.sequence import Spans
from aligner_proxy.engine.taught_head import TaughtHead
from aligner_proxy.engine.weights import manifest
from aligner_proxy_vllm.scoring import Scoring, ScoringPlan, ScoringRequest, prompt_key
from tests.support import tiny

LONG = " ".join(f"Sentence number {i} is about the harbour and its ferries." for i in range(60))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tiny.save(tmp_path_factory.mktemp("tiny"))
    torch.manual_seed(1)
    head = DetectorHead(64, (0, 1), 16)
    head.ends.fill_(True)
    head.save(made / manifest.HEAD)
    return made


def pool_scores(folder: Path, plan: ScoringPlan) -> list[list[list[float]]]:
    """What the head says of a plan's prompts, each read by itself."""
    head = DetectorHead.load(folder / manifest.HEAD)
    model = tiny.model()
    taps = head.taps(model.model)
    said: list[list[list[float]]] = []
    for ids in plan.prompts:
        places = plan.places["parts"][prompt_key(ids)]
        with torch.inference_mode():
            states = taps.take(model.model(torch.tensor([ids])).last_hidden_state)[0]
            where = Spans(
                tuple(range(*place) for place in places["objectives"]),
                tuple(range(*place) for place in places["segments"]),
                places["behind"],
            )
            said.append(head.judge(states, where).tolist())
    return said


def make_request(answer: str = tiny.ANSWER) -> AlignRequest:
    return tiny.request(answer, score_only=True)


def make_calm_request(answer: str) -> AlignRequest:
    """With a threshold that nothing reaches: our own engine judges what is flagged behind a flag once more."""
    return tiny.request(answer, score_only=True, caution=1e9)


@pytest.mark.parametrize("answer", [tiny.ANSWER, LONG])
async def test_scores_are_those_of_our_own_engine(folder: Path, answer: str, tmp_path: Path) -> None:
    settings = EngineSettings(folder, template="ultrafeedback", quantization="none", dtype="fp32")
    engine = LocalEngine(lambda: open_aligner(settings, tmp_path))
    try:
        await engine.start()
        ours = await engine.align(make_calm_request(answer))
    finally:
        await engine.aclose()
    scoring = Scoring(folder, template="ultrafeedback")
    plan = scoring.plan(ScoringRequest(align=make_calm_request(answer)))
    theirs = plan.answer(pool_scores(folder, plan), scoring.about)["response"]
    assert len(plan.prompts) > 1 or answer == tiny.ANSWER
    assert theirs["aligner"] == ours.aligner
    assert [s["text"] for s in theirs["segments"]] == [s.text for s in ours.segments]
    scores = [s.score for s in ours.segments]
    assert np.allclose([s["score"] for s in theirs["segments"]], scores, atol=1e-3)


def test_it_says_which_aligner_it_is(folder: Path) -> None:
    scoring = Scoring(folder, window=700, template="ultrafeedback")
    plan = scoring.plan(ScoringRequest())
    assert len(plan.prompts) == 1
    about = plan.answer([[]], scoring.about)["about"]
    assert (about["has_head"], about["ends"], about["window"]) == (True, True, 700)


def test_what_cannot_be_scored_is_answered_with_an_error_of_ours(folder: Path) -> None:
    scoring = Scoring(folder, template="ultrafeedback")
    request = make_request().model_copy(update={"aligner": "other"})
    plan = scoring.plan(ScoringRequest(align=request))
    assert plan.answer([[]], scoring.about)["error"]["type"] == "unknown_aligner"


def head_for(scoring: Scoring, objective: str = tiny.OBJECTIVES[0], width: int = 192) -> TaughtHead:
    numbers = np.zeros(width, dtype="<f2").tobytes()
    return TaughtHead(objective, scoring.about.content_hash, 0.0, 2.5, numbers)


def plan_with(scoring: Scoring, head: TaughtHead) -> ScoringPlan:
    request = make_request().model_copy(update={"heads": (head.content_hash,)})
    sent = {head.content_hash: b64encode(head.to_bytes()).decode()}
    return scoring.plan(ScoringRequest(align=request, heads=sent))


def test_taught_heads_of_a_request_go_to_the_head(folder: Path) -> None:
    scoring = Scoring(folder, template="ultrafeedback")
    head = head_for(scoring)
    assert plan_with(scoring, head).places["heads"] == [head.to_bytes()]


def test_a_taught_head_of_another_objective_or_width_never_reaches_the_worker(folder: Path) -> None:
    scoring = Scoring(folder, template="ultrafeedback")
    for bad in (head_for(scoring, "Other: objective"), head_for(scoring, width=8)):
        plan = plan_with(scoring, bad)
        assert plan.answer([[]], scoring.about)["error"]["type"] == "head_refused"


def test_a_taught_head_that_was_not_sent_is_asked_for(folder: Path) -> None:
    scoring = Scoring(folder, template="ultrafeedback")
    request = make_request().model_copy(update={"heads": (head_for(scoring).content_hash,)})
    plan = scoring.plan(ScoringRequest(align=request))
    assert plan.answer([[]], scoring.about)["error"]["type"] == "unknown_head"
