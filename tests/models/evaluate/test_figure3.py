"""The layout of Figure 3: what is repaired as objectives are added."""

from __future__ import annotations

from pathlib import Path
from random import Random

from aligner_proxy.engine.api import AlignRequest
from models.data.answers import load_pool
from models.data.labels import relation
from models.data.mixture import Mixer
from models.data.pairs import CHANGES, STAYS, UNKNOWN, Pair
from models.defects import UNSEEN_KINDS, ObjectiveWording
from models.evaluate.figure3 import (
    TRAINED_THEMES,
    ObjectiveStep,
    draw_defective_pairs,
    draw_sound_pairs,
    format_tables,
    list_joining_objectives,
    measure_steps,
    plot,
    restate_pair,
)
from models.evaluate.gateway import open_caching_pipeline
from tests.support.scripted import ScriptedEngine

HARMLESS = ObjectiveWording("Harmless: no insults", "harmless")
CONCISE = ObjectiveWording("Length: be concise", "concise")
SPARE = ObjectiveWording("Spelling: correct", "")
PAIR = Pair(
    "When?",
    (SPARE.text,),
    "It opens at six. You fool! I hope this helps!",
    "It opens at six.",
    (0, 0, 0),
    "defect:x",
    kinds=("", "insult", "sign-off"),
    themes=("",),
)


def test_labels_follow_from_the_objectives_there_are_now() -> None:
    assert restate_pair(PAIR, [SPARE]).labels == (STAYS, STAYS, STAYS)
    assert restate_pair(PAIR, [HARMLESS]).labels == (STAYS, CHANGES, STAYS)
    assert restate_pair(PAIR, [HARMLESS, CONCISE]).labels == (STAYS, CHANGES, CHANGES)
    assert restate_pair(PAIR, [HARMLESS, CONCISE]).objectives == (HARMLESS.text, CONCISE.text)


def test_what_a_real_answer_holds_by_itself_is_not_held_against_an_aligner() -> None:
    clean = Pair(
        "q", ("o",), "It opens at six. I hope this helps!", "x", (0, 0), "clean:x", kinds=("", ""), themes=("",)
    )
    assert restate_pair(clean, [CONCISE]).labels == (STAYS, UNKNOWN)


def test_trained_objectives_join_before_those_that_never_were() -> None:
    objectives = list_joining_objectives(1)
    assert [objective.theme for objective in objectives] == [*TRAINED_THEMES, *(kind.name for kind in UNSEEN_KINDS)]
    assert len({objective.text for objective in objectives}) == len(objectives)
    assert objectives == list_joining_objectives(1)


def test_cases_offend_against_the_objective_they_stand_for(data_dir: Path) -> None:
    objectives = [HARMLESS, ObjectiveWording("No horoscopes", "astrology")]
    mixer = Mixer(load_pool(data_dir, "test"), Random(1), held_out=True)
    defects = draw_defective_pairs(mixer, objectives, 3)
    good = draw_sound_pairs(mixer, objectives, 3)
    assert {theme: len(pairs) for theme, pairs in defects.items()} == {"harmless": 3, "astrology": 3}
    for theme, pairs in defects.items():
        assert all(any(relation(kind, theme) == CHANGES for kind in pair.kinds) for pair in pairs)
    assert len(good) == 3
    assert {label for pair in good for label in pair.labels} == {STAYS}


async def measure_growing_policy() -> list[ObjectiveStep]:
    """An aligner that takes out insults whatever is asked, and nothing else."""

    def polite(request: AlignRequest) -> str:
        return request.answer.replace(" You fool!", "")

    good = [Pair("q", ("o",), "Bring a coat.", "Bring a coat.", (0,), "clean:x", kinds=("",), themes=("",))]
    async with open_caching_pipeline(ScriptedEngine(polite), None) as pipeline:
        return await measure_steps(pipeline, [HARMLESS, CONCISE], {"harmless": [PAIR], "concise": [PAIR]}, good)


async def test_each_step_repairs_under_all_objectives_so_far(tmp_path: Path) -> None:
    first, second = await measure_growing_policy()
    assert (first.repaired["harmless"].percent, first.identical.percent) == (100, 100)
    # Under both, the pleasantry has to go as well, and stays: nothing counts as repaired any more.
    assert {name: rate.percent for name, rate in second.repaired.items()} == {"harmless": 0, "concise": 0}
    assert (second.repaired_overall.hits, second.repaired_overall.n) == (0, 2)
    tables = format_tables([first, second])
    assert "| 2 | concise | Length: be concise | yes |" in tables
    assert PAIR.answer not in tables
    plot([first, second], tmp_path / "p.svg")
    assert "<svg" in (tmp_path / "p.svg").read_text()
