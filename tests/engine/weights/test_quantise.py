"""Preparing weights from a GGUF file: it is parsed once, and what others use of its library is as before afterwards."""

from __future__ import annotations

from pathlib import Path

import gguf
import pytest
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from aligner_proxy.engine.weights import quantise


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
        with quantise._keep_gguf_parts():
            configs = [load_gguf_checkpoint(str(file))["config"] for _ in range(3)]
        assert [config["num_hidden_layers"] for config in configs] == [7] * 3
        assert parsed == [str(file)] * times
    assert gguf.GGUFReader is CountingReader
