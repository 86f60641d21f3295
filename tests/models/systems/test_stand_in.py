"""A stand-in for Aligner's weights: what is left of an aligner under another template."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from aligner_proxy.engine.loader import EngineSettings, open_aligner
from aligner_proxy.prompts import find_template
from models.systems.pku_aligner.stand_in import write_stand_in
from models.train.export import add_heads
from tests.models.train.test_train import aligner
from tests.support.taught import head


def test_the_same_weights_by_another_template_without_heads(tmp_path: Path) -> None:
    source = aligner(tmp_path)
    add_heads(source, [replace(head(width=128), aligner="")])
    write_stand_in(source, tmp_path / "other")
    before = open_aligner(EngineSettings(source, quantization="none"), tmp_path / "home").info
    after = open_aligner(EngineSettings(tmp_path / "other", quantization="none"), tmp_path / "home").info
    assert (before.template, before.has_head) == ("ultrafeedback", True)
    assert (after.template, after.template_hash, after.has_head) == ("aligner", find_template("aligner").hash, False)
    assert after.content_hash != before.content_hash
