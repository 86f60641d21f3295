"""Other engines with the same aligner: started, sent sixteen requests at once, and stopped again.

llama.cpp comes with the development packages. vLLM needs its own environment, which `scripts/peers.sh` makes. A peer
that is not installed is reported as missing.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import shutil
import statistics
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

from aligner_proxy.engine.loader import EngineSettings, prepare
from aligner_proxy.engine.weights import quantise, sources
from aligner_proxy.policy import config
from bench import batched, concurrent
from bench.concurrent import CLIENTS, ClientJob, Way
from bench.isolation import start_worker, wrap_in_thread
from demo.processes import free_port, run_process, wait_for
from models.train.export_gguf import export

_PEERS = Path(os.environ.get("PEERS", ".peers"))
_DRAFTS = {"method": "ngram", "num_speculative_tokens": 8, "prompt_lookup_min": 2, "prompt_lookup_max": 5}
_WINDOW = 1024


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Compare our engine with the installed peers, sixteen clients at once; raises `WeightsError`."""
    with run_peers(options.model) as (ways, missing):
        return concurrent.run(options.model, options.rounds, ways) | missing


@contextlib.contextmanager
def run_peers(model: str) -> Iterator[tuple[dict[str, Way], dict[str, Any]]]:
    """Start the installed peers; yield those that work by name, and the reasons why others are missing."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ways: dict[str, Way] = {}
        missing: dict[str, Any] = {}
        for name, (absent, start) in _STARTED.items():
            reason = absent()
            try:
                ways |= {} if reason else {name: start(stack, folder, model)}
            except Exception as error:  # noqa: BLE001 - one that does not start must not cost the others' figures
                reason = f"{type(error).__name__}: {error}"
            if reason:
                missing |= {f"throughput16_vs_{name}": None, f"without_{name}": reason}
        yield ways, missing


def _start_batched(stack: contextlib.ExitStack, _folder: Path, model: str) -> Way:
    """transformers' continuous batching; every request gets the answers' average number of tokens."""
    peer = stack.enter_context(start_worker())
    peer.submit(batched.load, prepare(EngineSettings(model=model), config.home_folder())[1]).result()

    def work(jobs: list[ClientJob]) -> None:
        tokens = round(statistics.mean(job.tokens for job in jobs))
        counts = peer.submit(batched.write, [job.prompt for job in jobs], tokens).result()
        if len(counts) != len(jobs) or min(counts) < tokens:
            raise RuntimeError(f"continuous batching wrote {sum(counts)} tokens for {len(jobs)} answers")

    return work


def _no_llama() -> str:
    return "" if importlib.util.find_spec("xllamacpp") else "xllamacpp is not installed; see make setup"


def _no_vllm() -> str:
    return "" if vllm_python().exists() else f"{vllm_python()} is not there; see scripts/peers.sh"


def vllm_python() -> Path:
    return _PEERS / "vllm" / "bin" / "python"


def _start_llama(stack: contextlib.ExitStack, folder: Path, model: str) -> Way:
    """llama.cpp's server on four-bit weights, with one slot per client and its n-gram drafts."""
    wrap_in_thread(export)(model, folder / "aligner.gguf", "q4_1")
    port = free_port()
    log = folder / "llama.log"
    arguments = ["bench.llama_server", str(folder / "aligner.gguf"), str(port), str(CLIENTS), str(_WINDOW)]
    child = stack.enter_context(run_process(arguments, log, os.environ))
    wait_for(f"http://127.0.0.1:{port}/health", child, log, lambda _: None)

    def body(job: ClientJob) -> dict[str, Any]:
        return {"prompt": job.prompt, "n_predict": job.tokens, "ignore_eos": True, "temperature": 0}

    return _make_way(f"http://127.0.0.1:{port}/completion", body, lambda got: got["tokens_predicted"])


def _start_vllm(stack: contextlib.ExitStack, folder: Path, model: str) -> Way:
    """vLLM on bf16 weights, with its n-gram drafts."""
    merged = wrap_in_thread(quantise.merge)(sources.resolve(model, None), folder / "merged")
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copy(prepare(EngineSettings(model=model), config.home_folder())[1] / name, merged)
    port = free_port()
    log = folder / "vllm.log"
    options = {"model": merged, "port": port, "host": "127.0.0.1", "dtype": "bfloat16", "max-model-len": _WINDOW}
    arguments = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    arguments += ["--enforce-eager", "--speculative-config", json.dumps(_DRAFTS)]
    env = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1"}
    command = ["vllm.entrypoints.openai.api_server", *arguments]
    child = stack.enter_context(run_process(command, log, env, python=vllm_python()))
    wait_for(f"http://127.0.0.1:{port}/health", child, log, lambda _: None)

    def body(job: ClientJob) -> dict[str, Any]:
        return {
            "model": str(merged),
            "prompt": job.prompt,
            "max_tokens": job.tokens,
            "ignore_eos": True,
            "temperature": 0,
        }

    return _make_way(f"http://127.0.0.1:{port}/v1/completions", body, lambda got: got["usage"]["completion_tokens"])


def _make_way(url: str, body: Any, count_tokens: Any) -> Way:
    """Post all jobs at once; raises RuntimeError if a reply has fewer tokens than its job asked for."""
    http = httpx.Client(trust_env=False, timeout=900, limits=httpx.Limits(max_connections=CLIENTS))

    def ask(job: ClientJob) -> int:
        return int(count_tokens(http.post(url, json=body(job)).raise_for_status().json()))

    def work(jobs: list[ClientJob]) -> None:
        with ThreadPoolExecutor(CLIENTS) as pool:
            tokens = list(pool.map(ask, jobs))
        if any(got < job.tokens for got, job in zip(tokens, jobs, strict=True)):
            raise RuntimeError(f"{url} wrote {sum(tokens)} tokens, too few")

    return work


_STARTED: dict[str, tuple[Callable[[], str], Callable[[contextlib.ExitStack, Path, str], Way]]] = {
    "transformers_cb": (str, _start_batched),
    "llama_cpp": (_no_llama, _start_llama),
    "vllm": (_no_vllm, _start_vllm),
}
"""By name: a function that returns why the peer is missing ("" if it is not), and one that starts it."""
