"""`python -m bench.gpu_gateway [--requests N] [--out FOLDER]`: what a correction adds, with the aligner on a GPU.

The same gateway (`serve` with the embedded aligner) runs once with the GPU and once without, on the same machine, and
gets the same questions, on the CPU fewer of them: half of the answers have a defect. A row for each device says how
long the start took, what the gateway added by status, one request at a time and sixteen at a time, and how many
answers a second came then. The last row says how many answers both devices wrote alike. FOLDER/gpu_gateway.json is
written after each device, so that one that does not end costs only its own row.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from bench.gateway import MODELS, RunningGateway, run_gateway

DEVICES = {"gpu": {}, "cpu": {"CUDA_VISIBLE_DEVICES": ""}}
"""What the environment of the gateway says, by device."""
POLICIES: dict[str, Any] = {
    "aligner": {"model": "embedded"},
    "cache": {"enabled": False},
    "defaults": {"exact_times": True},
    "routes": [{"match": {}, "objectives": ["harmless"], "deadline_s": 60}],
}
_TOGETHER = 16


@dataclass(frozen=True, slots=True)
class TimedAnswer:
    """A delivered answer, its status, and the milliseconds that the gateway says it added."""

    text: str
    status: str
    added_ms: float


def ask(client: httpx.Client, question: str) -> TimedAnswer:
    """The answer to a question; raises where the gateway does not give one."""
    body = {"model": MODELS[0], "messages": [{"role": "user", "content": question}]}
    response = client.post("/v1/chat/completions", json=body).raise_for_status()
    text = response.json()["choices"][0]["message"]["content"]
    return TimedAnswer(text, response.headers["x-aligner-status"], float(response.headers.get("x-aligner-ms", "nan")))


def summarise(answers: Sequence[TimedAnswer]) -> dict[str, Any]:
    """Number, median and 95th percentile of the added milliseconds by status."""
    by_status: dict[str, list[float]] = defaultdict(list)
    for answer in answers:
        by_status[answer.status].append(answer.added_ms)
    return {
        status: {
            "n": len(times),
            "p50_ms": round(statistics.median(times), 1),
            "p95_ms": round(sorted(times)[int(0.95 * len(times))], 1),
        }
        for status, times in sorted(by_status.items())
    }


def measure(gateway: RunningGateway, requests: int) -> tuple[dict[str, Any], list[TimedAnswer]]:
    """Ask one at a time and sixteen at a time; return figures and the answers of the former."""
    headers = {"authorization": f"Bearer {gateway.key}"}
    with httpx.Client(base_url=gateway.address, headers=headers, timeout=120, trust_env=False) as client:
        for number in range(8):
            ask(client, f"{'bad' if number % 2 else 'good'} to warm up, {number}")
        questions = [f"{'bad' if number % 2 else 'good'} number {number}" for number in range(requests)]
        alone = [ask(client, question) for question in questions]
        began = time.perf_counter()
        with ThreadPoolExecutor(_TOGETHER) as pool:
            company = list(pool.map(lambda question: ask(client, f"{question} again"), questions))
        rate = round(len(company) / (time.perf_counter() - began), 2)
    return {"alone": summarise(alone), "together": summarise(company), "together_per_s": rate}, alone


def count_alike(texts: Sequence[Sequence[str]]) -> dict[str, int]:
    """How many answers all devices wrote alike, of those that all were asked for."""
    together = list(zip(*texts, strict=False))
    return {"alike": sum(len(set(answers)) == 1 for answers in together), "n": len(together)}


def main(arguments: list[str] | None = None) -> int:
    """Measure both devices and print a line for each."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu_gateway", description=__doc__)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--cpu-requests", type=int, default=40, help="at most; a machine with a GPU waits for it")
    parser.add_argument("--devices", nargs="+", choices=list(DEVICES), default=list(DEVICES))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    requests = {"gpu": options.requests, "cpu": min(options.cpu_requests, options.requests)}
    texts: list[list[str]] = []
    rows: list[dict[str, Any]] = []
    for device in options.devices:
        row, answers = measure_device(device, requests[device])
        texts.append([answer.text for answer in answers])
        rows.append(row)
        _keep(rows, options.out)
    if len(texts) > 1:
        rows.append(count_alike(texts))
        _keep(rows, options.out)
    return 0


def measure_device(device: str, requests: int) -> tuple[dict[str, Any], list[TimedAnswer]]:
    """Run the gateway on a device; return its row, and the answers of one request at a time."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        with run_gateway(Path(folder), workers=1, policies=POLICIES, env=DEVICES[device]) as gateway:
            start_s = round(time.perf_counter() - began, 1)
            figures, answers = measure(gateway, requests)
            lines = gateway.log.read_text().splitlines()
            engine = [line for line in lines if "engine:" in line or "aligner_proxy.engine" in line]
    return {"device": device, "start_s": start_s, "engine": engine, **figures}, answers


def _keep(rows: Sequence[dict[str, Any]], folder: Path | None) -> None:
    """Print the last row, and write all of them to the folder."""
    sys.stdout.write(json.dumps(rows[-1]) + "\n")
    sys.stdout.flush()
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "gpu_gateway.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
