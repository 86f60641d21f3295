"""The last line of `make bench` has every key, also where a part or a peer is missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import __main__ as bench
from bench import peers
from bench.concurrent import Way
from bench.registry import KEYS, Part
from tests.bench import failing


@pytest.mark.parametrize("fails", [failing.ours, failing.foreign])
def test_a_part_that_cannot_be_measured_gives_null_and_the_reason(
    fails: Part, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["bench"])
    monkeypatch.setattr(bench, "PARTS", dict.fromkeys(bench.PARTS, fails))
    assert bench.main() == 1
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert all(told[key] is None for keys in KEYS.values() for key in keys)
    assert told["without_memory"].endswith("no weights here")


def test_a_peer_that_is_not_installed_or_does_not_start_is_null_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> Way:
        raise OSError("no such library")

    monkeypatch.setattr(peers, "_PEERS", tmp_path)
    there = {"llama_cpp": (lambda: "", fails), "other": (lambda: "", lambda *_: print)}
    monkeypatch.setattr(peers, "_STARTED", {"vllm": peers._STARTED["vllm"], **there})
    with peers.run_peers("embedded") as (ways, missing):
        assert list(ways) == ["other"]
    for name, reason in (("llama_cpp", "OSError: no such library"), ("vllm", "see scripts/peers.sh")):
        assert missing[f"throughput16_vs_{name}"] is None
        assert reason in missing[f"without_{name}"]
