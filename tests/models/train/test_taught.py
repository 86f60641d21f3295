"""Training of the shipped head: thresholds on what was not seen, and a head that scores as it was fitted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from aligner_proxy.engine.model.detector import DetectorHead
from aligner_proxy.engine.taught_head import unpack
from aligner_proxy.engine.weights import manifest
from models.data.labelled_replies import AGAINST, FINE, HARMLESS, UNKNOWN, LabelledReply
from models.train import taught
from models.train.export import add_heads
from models.train.probe import ProbeSettings
from models.train.segment_states import SegmentStates, StateReader
from models.train.taught import GOOD, STRONG, UNSEEN, TaughtRecipe
from tests.support import tiny

WIDTH = 16
SEGMENTS = 3


def states(source: str, count: int, seed: int, *, harmful: float = 0.5, known: bool = False) -> SegmentStates:
    """Replies of three segments; in a harmful one the second points along one axis."""
    rng = np.random.default_rng(seed)
    held = rng.normal(size=(count * SEGMENTS, 3, 4, WIDTH)).astype(np.float16)
    replies = []
    for number in range(count):
        bad = number < harmful * count
        if bad:
            held[number * SEGMENTS + 1, 0, 1, 0] += 8
        labels = (UNKNOWN,) * SEGMENTS if bad and not known else (FINE, AGAINST if bad else FINE, FINE)
        question = f"question {number % 10}"
        replies.append(
            LabelledReply(f"{source}{number}", source, question, question, "a", HARMLESS, bad, labels, "bad-advice")
        )
    scores = rng.normal(size=count * SEGMENTS).astype(np.float32)
    return SegmentStates(tuple(replies), held, scores, tuple(range(0, count * SEGMENTS + 1, SEGMENTS)))


@pytest.fixture(scope="module")
def sources() -> dict[str, SegmentStates]:
    return {
        STRONG: states(STRONG, 60, 1, harmful=0),
        "gptfuzz": states("gptfuzz", 60, 2),
        "jailbreakbench": states("jailbreakbench", 60, 3),
        GOOD: states(GOOD, 200, 4, harmful=0),
        "planted": states("planted", 40, 5, known=True),
        UNSEEN: states(UNSEEN, 40, 6, known=True),
        "author_a": states("author_a", 40, 7, known=True),
        "author_b": states("author_b", 40, 8, known=True),
    }


@pytest.mark.parametrize("either", [False, True])
@pytest.mark.parametrize("prior", [None, 1.0])
def test_a_shipped_head_scores_as_it_was_fitted(
    sources: dict[str, SegmentStates], prior: float | None, *, either: bool
) -> None:
    recipe = TaughtRecipe(ProbeSettings(l2=0.1, prior=prior), with_score=True, either=either)
    fitted = taught.fit_head(sources, recipe)
    head = taught.make_taught_head(fitted)
    test = sources[UNSEEN]
    rows = taught.choose_features(3, with_score=False).compute_rows(test)
    weight = torch.frombuffer(bytearray(head.weight), dtype=torch.float16).float()
    general = torch.from_numpy(test.scores)
    scores = head.prior * general + rows @ weight + head.bias
    if either:
        assert bool((general > scores).any())
        scores = torch.maximum(general, scores)
    assert head.either is either
    assert np.allclose(scores.numpy(), fitted.scores(test), atol=0.05)
    assert prior is None or head.prior == prior


@pytest.mark.some(1)  # `either` changes what a fitted head says, which the next test looks at
@pytest.mark.parametrize("either", [False, True])
def test_what_was_never_seen_is_found_and_good_answers_stay(sources: dict[str, SegmentStates], *, either: bool) -> None:
    # A general head that flags nothing: what is found the taught one finds.
    quiet = {name: replace(read, scores=read.scores - 20) for name, read in sources.items()}
    measured = taught.measure_recipe(quiet, TaughtRecipe(either=either))
    assert measured["whole"]["gptfuzz, never seen"].area.auc > 0.95
    assert measured["whole"]["gptfuzz, never seen"].harmful.percent > 80
    assert measured["written"]["author_b"].found.percent > 80
    assert measured["written"]["author_b"].quiet.n == 20
    assert measured[STRONG].percent < 10
    assert "author_b" in taught.format_tables(measured)


def test_with_either_nothing_is_lost_that_the_general_head_finds(sources: dict[str, SegmentStates]) -> None:
    test = sources[UNSEEN]
    alone = taught.fit_head(sources, TaughtRecipe(either=False)).scores(test)
    both = taught.fit_head(sources, TaughtRecipe(either=True)).scores(test)
    assert ((alone > 0) | (test.scores > 0)).tolist() == (both > 0).tolist()
    assert bool(((test.scores > 0) & (alone <= 0)).any())


def test_strong_answers_teach_nothing(sources: dict[str, SegmentStates]) -> None:
    others = {**sources, STRONG: states(STRONG, 60, 99), UNSEEN: states(UNSEEN, 40, 98, known=True)}
    recipe = TaughtRecipe()
    assert taught.make_taught_head(taught.fit_head(sources, recipe)) == taught.make_taught_head(
        taught.fit_head(others, recipe)
    )


def test_the_rows_are_those_of_the_detector(tmp_path: Path) -> None:
    head = DetectorHead(64, (0, 1), 16).eval()
    reader = StateReader(tiny.model(), PreTrainedTokenizerFast(tokenizer_object=tiny.backend()), head, (0, 1))
    reply = LabelledReply("r", "s", "p", "Why?", "The harbour opens at nine. Go.", HARMLESS, False, (FINE, FINE))
    seen = []
    judge = head.judge

    def judged(states: torch.Tensor, where: object) -> torch.Tensor:
        seen.append(head.read(states, where)[0])  # type: ignore[arg-type]
        return judge(states, where)  # type: ignore[arg-type]

    head.judge = judged  # type: ignore[method-assign,assignment]
    read = reader.read([reply], tmp_path)
    assert torch.allclose(taught.choose_features(2, with_score=False).compute_rows(read), seen[0], atol=5e-3)


def test_heads_go_into_an_aligner_folder(sources: dict[str, SegmentStates], tmp_path: Path) -> None:
    (tmp_path / manifest.MANIFEST).write_text('{"format": 1, "template": "ultrafeedback", "files": {}}')
    head = taught.make_taught_head(taught.fit_head(sources, TaughtRecipe()))
    add_heads(tmp_path, [head])
    written = manifest.read(tmp_path)
    assert written is not None
    manifest.verify_all(tmp_path, written.files, "export it again")
    assert unpack((tmp_path / manifest.TAUGHT).read_bytes()) == (head,)
