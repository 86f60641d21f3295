"""Aligner as a corrector beside MetaAligner: another engine, which must serve an Aligner, through the same pipeline."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from aligner_proxy import prompts
from aligner_proxy.engine.decoding.aligner import Aligner
from aligner_proxy.engine.loader import EngineSettings, open_aligner
from aligner_proxy.errors import EngineFault, EngineUnavailable
from aligner_proxy_systems import pku_aligner
from aligner_proxy_systems.pku_aligner.corrector import TEMPLATES, PkuAligner
from tests.support import tiny
from tests.support.scripted import SCRIPTED, ScriptedEngine


def make_engine(name: str) -> ScriptedEngine:
    info = replace(SCRIPTED, template=name, template_hash=prompts.find_template(name).hash)
    return ScriptedEngine(lambda request: request.answer.replace(" You fool.", ""), about=info)


@pytest.mark.parametrize("name", TEMPLATES)
async def test_what_the_engine_says_is_the_correction(name: str) -> None:
    made = PkuAligner(make_engine(name))
    correction = await made.correct(tiny.request("It is so. You fool."))
    assert correction.text == "It is so."
    assert await made.identity() == correction.aligner == SCRIPTED.content_hash


async def test_an_engine_that_serves_another_family_is_refused() -> None:
    for ask in (PkuAligner(ScriptedEngine()).identity(), PkuAligner(ScriptedEngine()).correct(tiny.request())):
        with pytest.raises(EngineFault, match="not an Aligner"):
            await ask


def test_it_is_offered_with_an_engine_of_its_own(tmp_path: Path) -> None:
    kind = pku_aligner.correctors()[0]
    made = kind.make(kind.settings.model_validate({"engine": f"unix:{tmp_path}/engine.sock"}))
    assert isinstance(made, PkuAligner)


async def test_an_engine_that_is_away_is_left_alone_soon() -> None:
    kind = pku_aligner.correctors()[0]
    made = kind.make(kind.settings.model_validate({"engine": "unix:/nowhere/engine.sock"}))
    seen = []
    for _ in range(5):
        with pytest.raises(EngineUnavailable) as caught:
            await made.correct(tiny.request())
        seen.append(caught.value.reason)
    assert seen == ["engine_unavailable"] * 3 + ["breaker_open"] * 2


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_released_families_are_corrected_by_the_engine_without_a_head(name: str) -> None:
    """Random weights: what is seen is that both templates go all the way through the engine's own loop."""
    from aligner_proxy.engine.loop import correct_alone

    family = prompts.find_template(name)
    info = replace(tiny.aligner().info, template=name, template_hash=family.hash, has_head=False)
    correction = correct_alone(Aligner(tiny.runner(0, False), info), tiny.request())
    assert isinstance(correction.text, str)
    assert correction.counts.forwards > 0
    assert not any(segment.flagged for segment in correction.segments)


def test_the_released_weights_are_loaded_by_their_id_with_the_template_of_their_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `pull` leaves them in the hub's cache; the weights themselves are the tiny model's."""
    from aligner_proxy.engine.loop import correct_alone

    commit = "0" * 40
    kept = tmp_path / "hub" / "models--aligner--aligner-7b-v1.0"
    tiny.save(kept / "snapshots" / commit)
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    made = open_aligner(EngineSettings("aligner/aligner-7b-v1.0", quantization="none"), tmp_path / "home")
    assert (made.info.template, made.info.has_head) == ("aligner-v1", False)
    assert correct_alone(made, tiny.request()).counts.forwards > 0
