"""`bench.gpu_gateway`: what it keeps when a device does not end, and what it compares."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench import gpu_gateway
from bench.gpu_gateway import TimedAnswer


def test_rows_are_written_after_each_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def measure_device(device: str, requests: int) -> tuple[dict[str, Any], list[TimedAnswer]]:
        if device == "cpu":
            raise RuntimeError("no time is left")
        return {"device": device, "asked": requests}, []

    monkeypatch.setattr(gpu_gateway, "measure_device", measure_device)
    with pytest.raises(RuntimeError):
        gpu_gateway.main(["--requests", "3", "--out", str(tmp_path)])
    assert json.loads((tmp_path / "gpu_gateway.json").read_text()) == [{"device": "gpu", "asked": 3}]


def test_fewer_requests_for_the_cpu_compare_those_that_both_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measure_device(device: str, requests: int) -> tuple[dict[str, Any], list[TimedAnswer]]:
        first = "same" if device == "gpu" else "other"
        texts = [first, *(str(number) for number in range(1, requests))]
        return {"device": device}, [TimedAnswer(text, "corrected", 1.0) for text in texts]

    monkeypatch.setattr(gpu_gateway, "measure_device", measure_device)
    assert gpu_gateway.main(["--requests", "5", "--cpu-requests", "3", "--out", str(tmp_path)]) == 0
    assert json.loads((tmp_path / "gpu_gateway.json").read_text())[-1] == {"alike": 2, "n": 3}


def test_the_cpu_gets_few_requests_unless_more_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[tuple[str, int]] = []

    def measure_device(device: str, requests: int) -> tuple[dict[str, Any], list[TimedAnswer]]:
        counts.append((device, requests))
        return {"device": device}, []

    monkeypatch.setattr(gpu_gateway, "measure_device", measure_device)
    for arguments in ([], ["--requests", "5"], ["--cpu-requests", "60"]):
        gpu_gateway.main(arguments)
    assert counts == [("gpu", 200), ("cpu", 40), ("gpu", 5), ("cpu", 5), ("gpu", 200), ("cpu", 60)]
