"""Preparing weights from a GGUF file: it is parsed once, the disk is looked at first, its library stays as it was."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import gguf
import numpy as np
import pytest
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from aligner_proxy.engine.weights import quantise, sources
from aligner_proxy.engine.weights.store import WeightStore
from aligner_proxy.errors import WeightsError


def test_a_gguf_file_is_parsed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[str] = []

    class CountingReader(gguf.GGUFReader):
        def __init__(self, path: str) -> None:
            parsed.append(path)
            super().__init__(path)

    monkeypatch.setattr(gguf, "GGUFReader", CountingReader)
    file = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_block_count(7)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    for times in (1, 2):  # what one preparation has parsed is not kept for the next one, which may find another file
        with quantise._parse_gguf_once():
            configs = [load_gguf_checkpoint(str(file))["config"] for _ in range(3)]
        assert [config["num_hidden_layers"] for config in configs] == [7] * 3
        assert parsed == [str(file)] * times
    assert gguf.GGUFReader is CountingReader


def test_the_disk_is_looked_at_before_a_gguf_file_is_merged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = np.zeros((30, 1000), np.float32)
    file = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_tensor("token_embd.weight", numbers)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=120_000))
    source = SimpleNamespace(base=sources.Weights(tmp_path, file.name, {}), adapter=None)
    with pytest.raises(WeightsError, match="is too small: preparing the weights"):
        quantise.fill(source, "nf4", tmp_path / "prepared", WeightStore(tmp_path).check_room)  # type: ignore[arg-type]
    assert not (tmp_path / "prepared").exists()
