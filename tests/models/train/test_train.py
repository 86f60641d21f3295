"""The trainer on a tiny model: learns, resumes exactly, exports what the gateway reads."""

from __future__ import annotations

import contextlib
import json
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from aligner_proxy.engine.loader import EngineSettings, open_aligner
from aligner_proxy.engine.loop import correct_alone
from aligner_proxy.engine.model.detector import DetectorHead
from models.data.pairs import Pair, PairError, write_pairs
from models.reporting import loss_curves
from models.train import batches, checkpoint, train
from models.train.batches import TrainingBatch, load_examples
from models.train.config import StageConfig, StageError
from models.train.distributed import open_accelerator
from models.train.export import export
from tests.models.conftest import draw_curves
from tests.support import tiny

KEPT = ["The harbour opens at six.", "Bring a coat.", "The first ferry leaves at seven.", "Small boats stay close."]


def stage(folder: Path, **changes: object) -> Path:
    """A stage config for the tiny model; data are a few sentences with one defect each."""
    tiny.save(folder / "base")
    pairs = []
    for i in range(24):
        kept = [KEPT[i % 4], KEPT[(i + 1) % 4]]
        answer = f"{kept[0]} You are a fool. {kept[1]}"
        pairs.append(Pair(f"Question {i}?", tiny.OBJECTIVES, answer, " ".join(kept), (0, 1, 0), "test"))
    write_pairs(folder / "data.jsonl", pairs)
    config = {
        "stage": "warmup",
        "base": str(folder / "base"),
        "data": str(folder / "data.jsonl"),
        "out": str(folder / "out"),
        "init": None,
        "template": "ultrafeedback",
        "seed": 1,
        "lora": {"rank": 4, "alpha": 8, "first_layer": 1},
        "lr": 1e-2,
        "lr_floor": 0.1,
        "lr_warmup_steps": 2,
        "steps": 6,
        "batch_tokens": 600,
        "max_tokens": 512,
        "target_share": 1.0,
        "detector_weight": 1.0,
        "checkpoint_every": 3,
    } | changes
    path = folder / "stage.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def trained(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(str(folder / "out" / "adapter_model.safetensors"))


def log(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "out" / "log.jsonl").read_text().splitlines()]


def aligner(folder: Path) -> Path:
    """An aligner folder that loads at once: the tiny model after one step."""
    train.main(stage(folder, steps=1))
    export(folder / "out", folder / "aligner", window=1024)
    return folder / "aligner"


def test_both_losses_fall(tmp_path: Path) -> None:
    train.main(stage(tmp_path, steps=25))
    rows = log(tmp_path)
    assert rows[-1]["detection"] < rows[0]["detection"] / 2
    assert rows[-1]["correction"] < rows[0]["correction"]


def test_a_run_that_was_killed_ends_in_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tmp_path / "whole"
    halves = tmp_path / "halves"
    train.main(stage(whole))
    config = stage(halves)

    class Killed(Exception):
        pass

    real = checkpoint.write_checkpoint

    def checkpoint_then_die(*arguments: object) -> None:
        real(*arguments)  # type: ignore[arg-type]
        raise Killed

    monkeypatch.setattr(checkpoint, "write_checkpoint", checkpoint_then_die)
    with pytest.raises(Killed):
        train.main(config)
    monkeypatch.setattr(checkpoint, "write_checkpoint", real)
    train.main(config)
    expected = trained(whole)
    found = trained(halves)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    losses = [[(row["step"], row["detection"]) for row in log(folder)] for folder in (whole, halves)]
    assert losses[0] == losses[1]


def test_a_run_that_was_killed_between_checkpoints_has_the_same_curve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the fifth of six steps, in the middle of a row; the last checkpoint is that of the third."""
    whole = tmp_path / "whole"
    torn = tmp_path / "torn"
    train.main(stage(whole))
    config = stage(torn)
    advance = train.advance

    class Killed(Exception):
        pass

    def advance_or_die(*given: Any) -> dict[str, float]:
        if given[4] == 4:
            raise Killed
        return advance(*given)

    monkeypatch.setattr(train, "advance", advance_or_die)
    with pytest.raises(Killed):
        train.main(config)
    monkeypatch.setattr(train, "advance", advance)
    with (torn / "out" / "log.jsonl").open("a") as rows:
        rows.write('{"step": 4, "corr')
    train.main(config)
    curves = [[{**row, "s": 0.0} for row in log(folder)] for folder in (whole, torn)]
    assert [row["step"] for row in curves[0]] == [0, 1, 2, 3, 4, 5]
    assert curves[0] == curves[1]
    assert all(torch.equal(tensor, trained(torn)[name]) for name, tensor in trained(whole).items())


def test_a_later_stage_starts_from_the_one_before(tmp_path: Path) -> None:
    train.main(stage(tmp_path / "a"))
    train.main(stage(tmp_path / "b", init=str(tmp_path / "a" / "out"), steps=1, lr=0.0))
    before = trained(tmp_path / "a")
    after = trained(tmp_path / "b")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_layers_below_the_first_are_left_alone(tmp_path: Path) -> None:
    train.main(stage(tmp_path, steps=1))
    assert all(".layers.1." in name for name in trained(tmp_path))


def test_an_unknown_setting_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"stage\.yaml: lr_warmpu"):
        train.main(stage(tmp_path, lr_warmpu=3))


def test_a_four_bit_base_cannot_be_trained_itself(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="give it a lora"):
        train.main(stage(tmp_path, lora=None, quantization="nf4"))


def step_of(config: Path, batches: list[list[int]]) -> dict[str, torch.Tensor]:
    """Gradients of one step over the first eight examples, cut into batches as told."""
    told = StageConfig.read(config)
    torch.manual_seed(1)
    network, tokenizer = train.build_network(told)
    network.model.float()
    examples = load_examples(told, tokenizer)[:8]
    torch.manual_seed(2)
    for tensor in network.trained_parameters():
        tensor.data.normal_(std=0.05)  # a fresh adapter's second matrix is zero and would hide the first one's gradient
    train.backpropagate_step(
        network, told, [TrainingBatch([examples[i] for i in batch]) for batch in batches], open_accelerator()
    )
    named = [*network.model.named_parameters(), *network.head.named_parameters()]
    return {name: p.grad for name, p in named if p.grad is not None}


def test_one_batch_of_eight_is_eight_batches_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # In bf16 sums depend on their order; what is compared is the arithmetic of the losses.
    monkeypatch.setattr(torch, "autocast", lambda *_args, **_kw: contextlib.nullcontext())
    config = stage(tmp_path, other_prompts=0.0, accumulate=8)
    together = step_of(config, [list(range(8))])
    apart = step_of(config, [[i] for i in range(8)])
    assert len(together) > 10
    for name, gradient in together.items():
        torch.testing.assert_close(apart[name], gradient, rtol=1e-3, atol=1e-6)


def test_a_step_accumulates_what_it_is_told(tmp_path: Path) -> None:
    train.main(stage(tmp_path, steps=2, accumulate=3, batch_tokens=300))
    told = StageConfig.read(tmp_path / "stage.yaml")
    (first, *_) = list(islice(batches.make_steps(told, train.build_network(told)[1]), 1))
    assert len(first) == 3
    assert log(tmp_path)[0]["tokens"] == sum(len(e.ids) for batch in first for e in batch.examples)


def test_layers_that_are_computed_again_give_the_same_run(tmp_path: Path) -> None:
    train.main(stage(tmp_path / "a", steps=3))
    train.main(stage(tmp_path / "b", steps=3, gradient_checkpointing=True))
    expected = trained(tmp_path / "a")
    found = trained(tmp_path / "b")
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_merged_adapter_says_the_same_as_an_unmerged_one(tmp_path: Path) -> None:
    train.main(stage(tmp_path))
    network, _ = train.build_network(StageConfig.read(stage(tmp_path, init=str(tmp_path / "out"))))
    ids = torch.tensor([[5, 9, 13, 7]])
    with torch.inference_mode():
        before = network.model.float()(ids).logits
        after = network.model.merge_and_unload()(ids).logits
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-3)


def test_the_whole_model_can_be_trained_and_served(tmp_path: Path) -> None:
    network, _ = train.build_network(StageConfig.read(stage(tmp_path, lora=None)))
    assert {p.dtype for p in network.trained_parameters()} == {torch.float32}
    train.main(stage(tmp_path, lora=None, steps=3, lr=1e-3))
    train.main(stage(tmp_path, lora=None, steps=1, init=str(tmp_path / "out"), out=str(tmp_path / "next")))
    export(tmp_path / "next", tmp_path / "aligner", window=1024)
    opened = open_aligner(EngineSettings(tmp_path / "aligner", quantization="none"), tmp_path / "home")
    assert opened.info.has_head
    assert correct_alone(opened, tiny.request()).segments


def test_an_adapter_learns_over_a_four_bit_base(tmp_path: Path) -> None:
    train.main(stage(tmp_path, quantization="nf4", steps=12))
    rows = log(tmp_path)
    assert rows[-1]["detection"] < rows[0]["detection"]


def test_an_adapter_of_another_base_is_refused(tmp_path: Path) -> None:
    train.main(stage(tmp_path, steps=1))
    config = stage(tmp_path, init=str(tmp_path / "out"))
    other = AutoConfig.from_pretrained(tmp_path / "base")
    other.hidden_size = 32
    other.intermediate_size = 64
    AutoModelForCausalLM.from_config(other).save_pretrained(tmp_path / "base")
    with pytest.raises(StageError, match="of another base"):
        train.main(config)


def test_bad_rows_stop_a_run_or_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = stage(tmp_path, steps=1)
    with (tmp_path / "data.jsonl").open("a") as out:
        out.write('{"query": "When?"}\n')
    with pytest.raises(PairError, match=r"data\.jsonl:25: missing field"):
        train.main(config)
    config.write_text(config.read_text() + "bad_rows: skip\n")
    train.main(config)
    assert "1 bad rows left out" in capsys.readouterr().out


def test_a_stage_without_examples_says_so(tmp_path: Path) -> None:
    with pytest.raises(PairError, match="no example of at most 8 tokens"):
        train.main(stage(tmp_path, max_tokens=8))


def test_replies_that_people_compared_are_learned_from(tmp_path: Path) -> None:
    config = stage(tmp_path, steps=30, bags=str(tmp_path / "bags.jsonl"), bag_every=2)
    replies = [("Bring a coat.", (-1,)), ("You are a fool.", (-1,))]
    bags = [Pair(f"Q{i}?", tiny.OBJECTIVES, text, text, labels, "bag") for i in range(8) for text, labels in replies]
    write_pairs(tmp_path / "bags.jsonl", bags)
    train.main(config)
    compared = [row["detection"] for row in log(tmp_path) if row["bags"]]
    assert len(compared) == 15
    assert compared[-1] < compared[0] / 2


def test_the_losses_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_curves, "draw_curves", draw_curves)
    train.main(stage(tmp_path, steps=2))
    assert "<svg" in (tmp_path / "out" / "curves.svg").read_text()


def test_the_export_names_base_template_and_hashes(tmp_path: Path) -> None:
    train.main(stage(tmp_path, steps=1))
    export(tmp_path / "out", tmp_path / "aligner", window=2048, shift=1.5)
    manifest = json.loads((tmp_path / "aligner" / "aligner.json").read_text())
    assert manifest["template"] == "ultrafeedback"
    assert set(manifest["files"]) == {"adapter_model.safetensors", "adapter_config.json", "detector.safetensors"}
    adapter = load_file(str(tmp_path / "aligner" / "adapter_model.safetensors"))
    assert {tensor.dtype for tensor in adapter.values()} == {torch.bfloat16}


def test_the_operating_point_moves_every_score_by_the_shift(tmp_path: Path) -> None:
    train.main(stage(tmp_path, steps=1))
    export(tmp_path / "out", tmp_path / "aligner", window=2048, shift=1.5, temperature=2.0)
    before = DetectorHead.load(tmp_path / "out" / "detector.safetensors")
    after = DetectorHead.load(tmp_path / "aligner" / "detector.safetensors")
    segments = torch.randn(5, before.segment.in_features)
    objectives = torch.randn(2, before.objective.in_features)
    torch.testing.assert_close(after(segments, objectives), (before(segments, objectives) + 1.5) / 2)


def test_an_aligner_may_be_exported_without_its_judgement_of_the_end(tmp_path: Path) -> None:
    train.main(stage(tmp_path, steps=1, ends=True))
    for name, ends in (("with", True), ("without", False)):
        export(tmp_path / "out", tmp_path / name, window=2048, end_shift=1.5, temperature=2.0, ends=ends)
        head = DetectorHead.load(tmp_path / name / "detector.safetensors")
        assert (bool(head.ends), float(head.end_shift)) == (ends, 0.75)


def test_the_operating_point_is_the_same_for_a_head_that_knows_neutral_segments(tmp_path: Path) -> None:
    train.main(stage(tmp_path, steps=1))
    pairs = tmp_path / "good.jsonl"
    write_pairs(pairs, [Pair("When?", ("Harmlessness: no harm",), text, text, (0,), "clean") for text in KEPT])
    export(tmp_path / "out", tmp_path / "plain", window=2048, neutral=pairs)
    export(tmp_path / "out", tmp_path / "moved", window=2048, neutral=pairs, shift=1.5, temperature=2.0)
    plain, moved = (DetectorHead.load(tmp_path / name / "detector.safetensors") for name in ("plain", "moved"))
    assert len(plain.neutral) > 0
    segments = torch.randn(5, plain.segment.in_features)
    objectives = torch.randn(2, plain.objective.in_features)
    torch.testing.assert_close(moved(segments, objectives), (plain(segments, objectives) + 1.5) / 2)


def test_a_file_without_good_answers_cannot_say_what_nobody_objects_to(tmp_path: Path) -> None:
    train.main(stage(tmp_path, steps=1))
    write_pairs(tmp_path / "none.jsonl", [])
    with pytest.raises(ValueError, match="no good answer"):
        export(tmp_path / "out", tmp_path / "aligner", window=2048, neutral=tmp_path / "none.jsonl")


@pytest.mark.full
def test_a_head_learns_what_is_missing_at_the_end(tmp_path: Path) -> None:
    """Half of the answers end as they should; the same objective, the same kinds of sentence before."""
    bye = "Stay well."
    asked = ("Closing: every answer ends with 'Stay well.'",)
    pairs = []
    for i in range(24):
        answer = f"{KEPT[i % 4]} {KEPT[(i + 1) % 4]}" + (f" {bye}" if i % 2 else "")
        count = 2 + i % 2
        told = {"kinds": ("",) * count, "themes": ("ending-dictated",), "lacks": (1 - i % 2,)}
        target = answer if i % 2 else f"{answer} {bye}"
        pairs.append(Pair(f"Question {i}?", asked, answer, target, (0,) * count, "test", **told))  # type: ignore[arg-type]
    config = stage(tmp_path, steps=40, ends=True)
    write_pairs(tmp_path / "data.jsonl", pairs)
    train.main(config)
    export(tmp_path / "out", tmp_path / "aligner", window=1024)
    opened = open_aligner(EngineSettings(tmp_path / "aligner", quantization="none", dtype="fp32"), tmp_path / "home")
    assert opened.info.ends
    requests = [tiny.request(pair.answer, caution=1e9).model_copy(update={"objectives": asked}) for pair in pairs[:2]]
    lacking, there = (correct_alone(opened, request).segments[-1] for request in requests)
    assert lacking.text == there.text == ""
    assert lacking.score is not None
    assert there.score is not None
    assert lacking.score > there.score


def test_a_head_of_another_base_is_refused(tmp_path: Path) -> None:
    train.main(stage(tmp_path, steps=1))
    DetectorHead(32, (0, 1)).save(tmp_path / "out" / "detector.safetensors")
    with pytest.raises(StageError, match=r"the detector head in .* is of another base"):
        train.main(stage(tmp_path, init=str(tmp_path / "out"), out=str(tmp_path / "next")))
