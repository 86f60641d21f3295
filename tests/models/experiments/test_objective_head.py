"""A head learnt from nothing tells what it was taught, and ships as what it is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from aligner_proxy.engine.model.detector import DetectorHead
from aligner_proxy.engine.model.taught import LoadedHead, TaughtColumns
from models.data.labelled_replies import AGAINST, FINE, HARMLESS, UNKNOWN
from models.experiments.objective_head import ObjectiveHead, ObjectiveHeadRecipe, learn_head
from models.train.head_rows import HeadRows
from models.train.labelled_cases import LabelledCase

LAYERS = (0, 1)
HIDDEN = 8
WIDTH = HIDDEN * (len(LAYERS) + 1)
RECIPE = ObjectiveHeadRecipe(weights={"taught": 1.0}, hidden=8, parts=WIDTH, epochs=60, batch=32, lr=1e-2)


def rows(count: int, seed: int, *, whole: bool = False) -> HeadRows:
    """Cases of two segments; in every second one both point the same way along two axes, which no line tells apart."""
    segments = torch.randn(2 * count, WIDTH, generator=torch.Generator().manual_seed(seed)) / 2
    signs = torch.randint(2, (count,), generator=torch.Generator().manual_seed(seed)) * 2 - 1
    cases = []
    for number, sign in enumerate(signs.tolist()):
        bad = number % 2 == 0
        segments[2 * number : 2 * number + 2, 0] += 3 * sign
        segments[2 * number : 2 * number + 2, 1] += 3 * sign * (1 if bad else -1)
        label = (UNKNOWN if whole else AGAINST) if bad else FINE
        name = f"case{number}"
        cases.append(LabelledCase(name, "taught", "q", "a", (HARMLESS,), ((label,), (label,)), (whole and bad,)))
    objective = torch.randn(HIDDEN * len(LAYERS), generator=torch.Generator().manual_seed(7))
    firsts = tuple(range(0, 2 * count + 1, 2))
    questions = torch.zeros(count, WIDTH).half()
    objectives = objective.repeat(count, 1).half()
    return HeadRows(tuple(cases), segments.half(), objectives, questions, firsts, tuple(range(count + 1)))


@pytest.fixture
def general() -> DetectorHead:
    torch.manual_seed(3)
    return DetectorHead(HIDDEN, LAYERS, 16).eval()


@pytest.mark.some(1)
@pytest.mark.parametrize("whole", [False, True])
def test_hidden_units_learn_what_is_labelled_by_segment_or_as_a_whole(general: DetectorHead, *, whole: bool) -> None:
    head = learn_head({"taught": rows(200, 1, whole=whole), "unnamed": rows(9, 3)}, general, RECIPE)
    scores = torch.stack([each.mean() for each in rows(100, 2).scores(head)])
    assert float((scores[::2] > 0).float().mean()) > 0.9
    assert float((scores[1::2] < 0).float().mean()) > 0.9


def test_what_is_shipped_scores_as_what_was_learnt(general: DetectorHead, tmp_path: Path) -> None:
    recipe = RECIPE.model_copy(update={"prior": 0.25, "floor": 0.0})
    head = learn_head({"taught": rows(100, 1)}, general, recipe)
    head.save(tmp_path / "head.safetensors")
    again = ObjectiveHead.load(tmp_path / "head.safetensors", general, recipe)
    test = rows(20, 2)
    expected = torch.cat(test.scores(head)) - 0.5
    assert torch.equal(torch.cat(test.scores(again)) - 0.5, expected)
    shipped = head.pack_head(HARMLESS, 0.5)
    assert (shipped.objective, shipped.hidden, shipped.width, shipped.either) == (HARMLESS, 8, WIDTH, False)
    scores = general(test.segments.float(), test.objectives[:1].float()).detach()
    TaughtColumns({0: LoadedHead.from_head(shipped, torch.device("cpu"))}).judge(test.segments.float(), scores)
    torch.testing.assert_close(scores, expected, atol=0.02, rtol=0.01)
