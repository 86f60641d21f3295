"""What the probe adds on a GPU: the engine's own kernels, and one aligner; the GPU is pretended."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, LlamaConfig

from aligner_proxy.engine.model import acceleration, probe
from aligner_proxy.engine.weights import sources
from tests.support import tiny

CARD = {"device": "cuda", "name": "NVIDIA H200", "memory_gb": 139.8}


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU on which everything works."""
    monkeypatch.setattr(probe, "describe_device", lambda: CARD)
    monkeypatch.setattr(probe, "measure_nf4_error", lambda device: 0.09)
    monkeypatch.setattr(acceleration, "find_missing_part", lambda: None)
    monkeypatch.setattr(acceleration, "try_kernel", lambda: None)


def test_without_a_gpu_nothing_is_said_about_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    report = probe.probe(str(tiny.save(tmp_path)))
    assert report["device"] == "cpu"
    assert not {"missing", "aligner"} & set(report)


def test_a_gpu_is_reported_with_its_kernels_and_the_aligner(tmp_path: Path, gpu: None) -> None:
    report = json.loads(json.dumps(probe.probe(str(tiny.save(tmp_path)))))
    assert (report["missing"], report["nf4_works"]) == (None, True)
    assert report["aligner"]["obstacle"] is None
    assert report["aligner"]["sizes"]["hidden"] == 64
    assert probe.probe()["aligner"] is None


def test_the_embedded_aligner_is_read_from_its_gguf_file() -> None:
    base, has_head = sources.find_config("embedded")
    about = probe.examine_aligner(str(base.folder), base.gguf)
    assert has_head
    assert about["obstacle"] is None
    assert about["sizes"]["layers"] == 30


def test_an_architecture_for_the_library_is_named(tmp_path: Path) -> None:
    LlamaConfig(hidden_act="gelu", hidden_size=64, num_attention_heads=2).save_pretrained(tmp_path)
    about = probe.examine_aligner(str(tmp_path))
    assert (about["obstacle"], about["sizes"]["hidden"]) == ("the activation gelu", 64)
    GPT2Config().save_pretrained(tmp_path)
    other = probe.examine_aligner(str(tmp_path))
    assert (other["obstacle"], other["sizes"]) == ("the activation None", None)


@pytest.mark.parametrize("text", [None, "{", '{"model_type": "nobody_knows"}'])
def test_a_config_that_cannot_be_read_is_an_error(tmp_path: Path, text: str | None) -> None:
    if text:
        (tmp_path / "config.json").write_text(text)
    about = probe.examine_aligner(str(tmp_path))
    assert set(about) == {"error"}
    assert "\n" not in about["error"]


@pytest.mark.parametrize("error", [RuntimeError("Failed to find C compiler."), subprocess.CalledProcessError(1, "gcc")])
def test_kernels_that_cannot_be_compiled_are_told_with_the_cause(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(torch, "ones", fail)
    missing = acceleration.try_kernel()
    assert missing is not None
    assert missing.startswith("kernels that cannot be compiled (")
    assert str(error)[:20] in missing
