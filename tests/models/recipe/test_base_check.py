"""What the recipe says of a base before it trains on it, and what it derives from its shape."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from aligner_proxy.engine.loader import EngineSettings, open_aligner
from aligner_proxy.engine.loop import correct_alone
from aligner_proxy.engine.weights import sources
from models.data.pairs import Pair, write_pairs
from models.recipe.base_check import check_base, find_base
from models.recipe.command import main
from models.recipe.settings import DEFAULT, RecipeError, read_settings
from models.train import train
from models.train.config import StageConfig
from models.train.export import export
from tests.models.recipe.shapes import CONFIGS, save_base
from tests.support import tiny

SETTLE = DEFAULT.parent / "settle.yaml"


@pytest.mark.some(2)
@pytest.mark.parametrize("kind", CONFIGS)
def test_a_shape_passes_the_check_is_trained_and_loads(kind: str, tmp_path: Path) -> None:
    facts = check_base(save_base(tmp_path / "base", kind).resolve())
    assert {"q_proj", "down_proj"} <= set(facts.linears)
    assert any("own kernels" in note for note in facts.notes) == kind.startswith("gemma")
    answer = "The harbour opens at six. You are a fool."
    pair = Pair("When?", tiny.OBJECTIVES, answer, "The harbour opens at six.", (0, 1), "test")
    write_pairs(tmp_path / "pairs.jsonl", [pair] * 4)
    place = {"base": facts.folder, "data": str(tmp_path / "pairs.jsonl"), "out": str(tmp_path / "run"), "init": None}
    changes = facts.derive(StageConfig.read(SETTLE), 1) | place | {"steps": 1, "compile": False}
    train.main(SETTLE, changes)
    export(tmp_path / "run", tmp_path / "aligner", window=1024)
    opened = open_aligner(EngineSettings(tmp_path / "aligner"), tmp_path / "home")
    assert correct_alone(opened, tiny.request()).segments[0].objective == 0


def test_larger_bases_take_smaller_steps_and_a_later_first_layer(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", "llama", hidden_size=2304, num_hidden_layers=5, max_position_embeddings=512)
    stage = StageConfig.read(SETTLE)
    changes = check_base(base).derive(stage, processes=4)
    assert changes["lr"] == stage.lr / 2
    assert changes["lora"] == {"rank": 16, "alpha": 32, "first_layer": 1}
    assert changes["max_tokens"] == 512
    assert changes["accumulate"] == 4


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=384)).save_pretrained(tmp_path)
    with pytest.raises(RecipeError, match="gpt2 is no stack of decoder layers"):
        check_base(tmp_path)


def test_a_base_without_an_output_layer_is_refused(tmp_path: Path) -> None:
    base = save_base(tmp_path, "llama")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    with pytest.raises(RecipeError, match=r"lacks weights, the first lm_head.weight \(its config says .* not tied"):
        check_base(base)


def test_heads_of_an_odd_size_are_refused(tmp_path: Path) -> None:
    base = save_base(tmp_path, "llama")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"head_dim": 15}))
    with pytest.raises(RecipeError, match="RoPE requires an even rotary dimension"):
        check_base(base)


def test_a_tokenizer_without_an_end_mark_is_refused(tmp_path: Path) -> None:
    base = save_base(tmp_path, "llama")
    PreTrainedTokenizerFast(tokenizer_object=tiny.backend()).save_pretrained(base)
    with pytest.raises(RecipeError, match="no end mark"):
        check_base(base)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="holds no model that writes text"):
        check_base(tmp_path)


def test_a_hub_that_cannot_be_reached_ends_it_in_one_sentence(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise httpx.ConnectError("no route")

    monkeypatch.setattr("huggingface_hub.list_repo_files", fail)
    command = ["--base", "someone/a-base", "--data", str(data_dir), "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as end:
        main(command)
    assert str(end.value).startswith("base: the hub cannot be reached to fetch someone/a-base (ConnectError)")


def test_a_name_that_is_neither_folder_nor_hub_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no folder here, and no name on the hub"):
        find_base("nowhere", tmp_path)
    assert not sources.is_hub_id("nowhere")


def test_the_recipe_names_a_stage_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(DEFAULT.read_text().replace("head_stages: [head]", "head_stages: [hand]"))
    with pytest.raises(RecipeError, match=r"sizes\.small names stages that are not there: hand"):
        read_settings(path)
