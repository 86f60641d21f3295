"""The last line of `make bench` has every key, also where a part or a peer is missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aligner_proxy.errors import WeightsError
from bench import __main__ as bench
from bench import peers


def test_a_part_that_cannot_be_measured_gives_null_and_the_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(_: object) -> dict[str, object]:
        raise WeightsError("no weights here")

    monkeypatch.setattr("sys.argv", ["bench"])
    monkeypatch.setattr(bench, "PARTS", dict.fromkeys(bench.PARTS, fails))
    assert bench.main() == 1
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert all(told[key] is None for keys in bench.KEYS.values() for key in keys)
    assert told["without_memory"] == "no weights here"


def test_a_peer_that_is_not_installed_is_null_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "_PEERS", tmp_path)
    monkeypatch.setattr(peers, "_llama_is_here", lambda: False)
    missing = peers.missing()
    for name in ("llama_cpp", "vllm"):
        assert missing[f"throughput16_vs_{name}"] is None
        assert missing[f"without_{name}"]
