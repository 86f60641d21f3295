"""The identity warm-up of Aligner: which answers are drawn, and that the trainer learns by Aligner's own template."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from aligner_proxy.engine.loader import EngineSettings, open_aligner
from aligner_proxy.engine.loop import correct_alone
from aligner_proxy.prompts import find_template
from models.data.pairs import CHANGES, STAYS, Pair, read_pairs, write_pairs
from models.systems.pku_aligner.identity import identities, main
from models.train import train
from models.train.config import StageConfig
from models.train.export import export
from models.train.features import encode
from tests.models.train.test_train import log, stage
from tests.support import tiny

torch.set_num_threads(1)
ROOT = Path(__file__).resolve().parents[3]
ANSWER = "The harbour opens at six. You are a fool. Bring a coat."
TARGET = "The harbour opens at six. Bring a coat."
PAIR = Pair("When?", tiny.OBJECTIVES, ANSWER, TARGET, (STAYS, CHANGES, STAYS), "test", kinds=("", "insult", ""))


def many(count: int) -> list[Pair]:
    return [Pair(f"When, {i}?", PAIR.objectives, ANSWER, TARGET, PAIR.labels, "test") for i in range(count)]


def test_a_fifth_is_drawn_and_every_answer_is_its_own_target() -> None:
    drawn = list(identities(many(2000), 0.2, seed=1))
    assert 340 < len(drawn) < 460
    assert {(one.answer, one.target, one.labels) for one in drawn} == {(ANSWER, ANSWER, (STAYS,) * 3)}


def test_the_draw_depends_on_the_seed_and_not_on_the_order() -> None:
    def queries(seed: int, pairs: list[Pair]) -> set[str]:
        return {pair.query for pair in identities(pairs, 0.2, seed)}

    pairs = many(200)
    assert queries(1, pairs) == queries(1, pairs[::-1]) != queries(2, pairs)


def test_what_was_wrong_with_an_answer_is_forgotten_with_its_correction() -> None:
    (same,) = identities([PAIR], 1.0, seed=1)
    assert same.kinds == ("", "", "")


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1])
def test_a_share_that_is_none_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="a share lies above 0"):
        list(identities([PAIR], share, seed=1))


def test_the_command_writes_a_file_of_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pairs(tmp_path / "all.jsonl", many(50))
    main([str(tmp_path / "all.jsonl"), "--seed", "3", "--out", str(tmp_path / "some.jsonl")])
    count = len(list(read_pairs(tmp_path / "some.jsonl")))
    assert 0 < count < 50
    assert f"{count} identity pairs" in capsys.readouterr().out


def test_the_whole_target_and_its_end_are_learned_alike() -> None:
    tokenizer = train_tokenizer()
    example = encode(PAIR, tokenizer, find_template("aligner"))
    prompt = len(example.ids) - sum(weight > 0 for weight in example.weights)
    assert example.weights[:prompt] == [0.0] * prompt
    assert set(example.weights[prompt:]) == {1.0}
    assert tokenizer.decode(example.ids[prompt:-1]) == TARGET
    assert example.ids[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(example.ids[:prompt]).endswith("##Correction:  ASSISTANT:")
    assert example.spans.objectives == ()


def train_tokenizer() -> object:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_object=tiny.backend(), bos_token="<|im_start|>", eos_token="<|im_end|>")


@pytest.mark.parametrize("name", ["aligner_warmup", "aligner"])
def test_the_stage_configs_are_stages_of_aligner(name: str) -> None:
    read = StageConfig.read(ROOT / "configs" / "train" / f"{name}.yaml")
    assert (read.stage, read.template, read.detector_weight, read.target_share) == (name, "aligner", 0.0, 1.0)


@pytest.mark.full
def test_warm_up_then_correction_becomes_an_aligner_that_the_engine_serves(tmp_path: Path) -> None:
    """Both stages by the committed settings, on the tiny model; then the folder is loaded as any other."""
    first = tmp_path / "first"
    second = tmp_path / "second"
    for folder, name, init in ((first, "aligner_warmup", None), (second, "aligner", str(first / "out"))):
        told = yaml.safe_load((ROOT / "configs" / "train" / f"{name}.yaml").read_text())
        kept = {key: told[key] for key in ("stage", "template", "detector_weight", "target_share", "other_prompts")}
        path = stage(folder, **kept, init=init, steps=12)
        if init is None:
            write_pairs(folder / "data.jsonl", identities(read_pairs(folder / "data.jsonl"), 1.0, seed=1))
        train.main(path)
    assert log(first)[-1]["correction"] < log(first)[0]["correction"]
    export(second / "out", tmp_path / "aligner", window=1024)
    made = open_aligner(EngineSettings(tmp_path / "aligner", quantization="none"), tmp_path / "home")
    assert (made.info.template, made.info.template_hash) == ("aligner", find_template("aligner").hash)
    assert not made.info.has_head
    correction = correct_alone(made, tiny.request(ANSWER))
    assert all(segment.score is None and not segment.flagged for segment in correction.segments)
    assert correction.counts.forwards > 0
