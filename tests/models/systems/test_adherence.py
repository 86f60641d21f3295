"""Adherence before and after, on texts of our own; the real answers stand behind the research marker."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from aligner_proxy.engine.api import AlignRequest
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.plugins.extensions import Extensions
from aligner_proxy_systems.metaalign.extension import Preferences
from aligner_proxy_systems.metaalign.types import PreferenceKind
from models.data.upstream_completions import UpstreamCompletion
from models.systems.metaalign import adherence
from models.systems.metaalign.adherence import (
    AdherenceCase,
    draw_rates,
    has_damage,
    make_row,
    make_rows,
    mcnemar,
    measure,
    measure_reading,
    state_preference,
    try_contradictions,
    write_report,
)
from models.systems.metaalign.wordings import DEV, TEST, TRAIN, WORDED
from tests.support.scripted import ScriptedEngine

TEXT = "Don't panic! \U0001f600 You need:\n\n- flour\n- 3 eggs\n\n**Mix** it. Isn't that nice?"


def test_the_exact_p() -> None:
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(8, 0) == pytest.approx(2 / 256)
    assert mcnemar(5, 5) == 1.0
    assert mcnemar(1, 9) == mcnemar(9, 1) == pytest.approx(2 * 11 / 1024)


def test_what_counts_as_damage() -> None:
    assert not has_damage("See Ann for 3 eggs.", "SEE ANN FOR 3 EGGS.")
    assert has_damage("It costs 3 euros.", "It costs euros.")
    assert has_damage("It costs euros.", "It costs 3 euros.")
    assert has_damage("Ask our Ann.", "Ask us.")


async def test_before_and_after(tmp_path: Path) -> None:
    answers = [UpstreamCompletion("m", "q", TEXT)] * 60

    def cut(request: AlignRequest) -> str:
        return request.answer

    pipeline = Pipeline(ScriptedEngine(cut), extensions=Extensions([Preferences()]))
    cases = await measure(pipeline, answers, (), "train", 1)
    assert len(cases) == 60
    found = {r.name: r for r in make_rows(cases)}
    assert found["met by rules"].after.hits == 30  # in "Isn't that" the words would have to change places
    assert found["no-contractions"].after.hits == found["met by rules"].before.hits == 0
    assert found["left to the aligner"].after == found["left to the aligner"].before
    assert found["all"].damaged.hits == 0
    assert found["all"].p < 0.01
    told = write_report(cases, tmp_path, "train", 1)
    assert "system over user" in told
    assert (tmp_path / "adherence.svg").read_bytes().startswith(b"<?xml")
    assert TEXT[:12] not in (tmp_path / "adherence.json").read_text()


def test_a_row_counts_what_changed() -> None:
    kind = PreferenceKind.NO_EMOJI
    cases = [AdherenceCase(kind, True, b, a, b != a, False, False) for b, a in ((0, 1), (0, 1), (1, 0), (1, 1))]  # type: ignore[arg-type]
    one = make_row("x", cases)
    assert (one.gained, one.lost, one.needless.hits, one.needless.n) == (2, 1, 1, 2)


def test_a_wording_is_filled_in() -> None:
    said = state_preference("test", Random(1), PreferenceKind.BANNED_WORDS, 'No "{word}".', "Harbours are quiet.")
    assert said.wish.words[0] in ("harbours", "quiet")
    bound = state_preference("test", Random(1), PreferenceKind.MAX_WORDS, "{n} words max.", "x").wish.number
    assert bound in adherence.BOUNDS[PreferenceKind.MAX_WORDS]


def test_the_higher_word_holds() -> None:
    found = list(try_contradictions("train", 1))
    assert len(found) > 60
    assert all(held for _, held in found)


def test_the_sides_share_no_wording() -> None:
    sides = [{one for every in side.values() for one in every} for side in (TRAIN, DEV, TEST)]
    worded = [set(side) for side in WORDED.values()]
    for group in (sides, worded):
        assert sum(map(len, group)) == len(set().union(*group))
    assert set(TRAIN) == set(DEV) == set(TEST)
    assert measure_reading("train")[0].percent == 100


def test_the_plot_is_the_same_for_the_same_figures(tmp_path: Path) -> None:
    found = [make_row("a", [AdherenceCase(PreferenceKind.NO_EMOJI, True, False, True, True, False, False)])]
    for name in ("a.svg", "b.svg"):
        draw_rates(tmp_path / name, found)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
