"""Which form do weights know? The one that they were trained in, found by its loss."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.evaluate.prompt_form import FormLosses, compare_losses, main
from models.train import train
from tests.models.train.test_train import stage


@pytest.mark.some(1)
@pytest.mark.parametrize("form", ["ultrafeedback", "ultrafeedback-vicuna"])
def test_the_form_of_the_training_has_the_lower_loss(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str
) -> None:
    train.main(stage(tmp_path, lora=None, lr=6e-3, steps=12, template=form, detector_weight=0.0))
    options = ["--family", "ultrafeedback", "--pairs", str(tmp_path / "data.jsonl"), "--limit", "12"]
    main([str(tmp_path / "out"), *options, "--precision", "fp32"])
    text = capsys.readouterr().out
    assert f"aligner.template: {form}\n" in text
    assert "n = 12" in text


def test_a_difference_within_its_interval_is_none() -> None:
    assert compare_losses([1.0, 2.0], [2.0, 1.0]).choose_template("imhi") is None
    assert compare_losses([2.0, 2.1, 2.0], [1.0, 1.0, 1.1]).choose_template("imhi") == "imhi-vicuna"
    assert FormLosses(1.0, 2.0, -1.0, 0.1, 5).choose_template("imhi") == "imhi"


def test_one_pair_is_too_few(tmp_path: Path) -> None:
    (tmp_path / "none.jsonl").write_text("")
    with pytest.raises(SystemExit, match="two pairs at least are needed, found 0"):
        main(["x", "--family", "imhi", "--pairs", str(tmp_path / "none.jsonl")])
