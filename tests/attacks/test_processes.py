"""Processes that are killed, and policies files that lose what they enforced, at a real `serve` of two workers."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import yaml
from click.testing import CliRunner

from aligner_proxy.cli import main
from aligner_proxy.gateway import reload
from tests.attacks.attack import Attack, rows
from tests.e2e.clients import MASTER_KEY
from tests.e2e.conftest import folder, upstream
from tests.e2e.processes import EngineProcess, free_port, scripted_engine
from tests.e2e.scripted_engine import INSULT

__all__ = ["folder", "upstream"]
pytestmark = [
    pytest.mark.full,
    pytest.mark.e2e,
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc"),
]

KEY = "key-processes-1"
WAIT_S = 600.0
"""A start is two imports of everything, one after the other, on a machine that may have other work."""
WORKERS = 2
POLICIES = {
    "objectives": {"kind": "Kindness: the response should never insult the reader"},
    "defaults": {"deadline_s": 20},
    "routes": [{"match": {"model": "*"}, "objectives": ["kind"]}],
    "tenants": [{"match": {"team": "acme"}, "name": "acme", "enforce": ["harmless"], "on_error": "block"}],
    "cache": {"enabled": False},
    "keys": "keys.yaml",
}


@dataclass
class Served:
    """A `serve` with workers, the scripted engine of its own, and its files."""

    folder: Path
    address: str
    process: subprocess.Popen[bytes]
    engine: EngineProcess

    @property
    def log(self) -> str:
        return (self.folder / "serve.log").read_text()

    def ask(self, timeout: float = 60.0) -> httpx.Response:
        """One chat completion on a connection of its own, with the key of a tenant under block."""
        body = {"model": "gpt", "messages": [{"role": "user", "content": "rude"}]}
        headers = {"authorization": f"Bearer {KEY}"}
        url = f"{self.address}/v1/chat/completions"
        return httpx.post(url, json=body, headers=headers, timeout=timeout, trust_env=False, verify=False)

    def litellm(self) -> int:
        """Process id of LiteLLM's main process."""
        lines = [line for line in self.log.splitlines() if "litellm: started (pid " in line]
        return int(lines[-1].rpartition("pid ")[2].rstrip(")"))

    def workers(self) -> list[int]:
        """Process ids of its workers."""
        with contextlib.suppress(OSError):  # it has ended
            children = Path(f"/proc/{self.litellm()}/task/{self.litellm()}/children").read_text().split()
            return [int(pid) for pid in children if b"spawn_main" in _command(int(pid))]
        return []

    def write(self, policies: object) -> None:
        """Write the policies file."""
        text = policies if isinstance(policies, str) else yaml.safe_dump(policies)
        (self.folder / "policies.yaml").write_text(text)

    def reports(self) -> list[reload.ReloadReport]:
        """What each worker says about its policies."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("ALIGNER_PROXY_HOME", str(self.folder / "home"))
            workers = self.workers()
            return [report for report in reload.read_reports() if report.pid in workers]

    def refuses(self) -> bool:
        """Whether every worker refuses the file on disk."""
        said = [report.refused for report in self.reports()]
        return len(said) == WORKERS and None not in said

    def takes(self) -> bool:
        """Whether every worker has taken the file on disk."""
        return [report.refused for report in self.reports()] == [None] * WORKERS


def _command(pid: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def alive(pid: int) -> bool:
    """Whether a process runs."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def until(true: Callable[[], bool], served: Served) -> None:
    """Wait for something that happens in other processes."""
    end = time.monotonic() + WAIT_S
    while not true():
        assert served.process.poll() is None, served.log[-4000:]
        assert time.monotonic() < end, served.log[-4000:]
        time.sleep(0.1)


def answers(served: Served) -> bool:
    """Whether an answer comes, judged and without its insult."""
    try:
        got = served.ask(30)
    except httpx.TransportError:
        return False
    assert INSULT.strip() not in got.text
    return got.status_code == httpx.codes.OK and got.headers["x-aligner-status"] == "corrected"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, upstream: str) -> Iterator[Served]:
    """A `serve` that all rows of this file try to bring down."""
    folder = tmp_path_factory.mktemp("processes")
    engine = scripted_engine(folder, "engine")
    engine.start()
    port = free_port()
    model = {"model": "openai/up", "api_base": f"{upstream}/v1", "api_key": "none"}
    guardrail = {"guardrail": "aligner_proxy.guardrail.AlignerGuardrail", "mode": "post_call", "default_on": True}
    settings = {
        "model_list": [{"model_name": "gpt", "litellm_params": model}],
        "guardrails": [{"guardrail_name": "aligner", "litellm_params": guardrail}],
        "general_settings": {"master_key": MASTER_KEY, "custom_auth": "aligner_proxy.auth.user_api_key_auth"},
        "litellm_settings": {"num_retries": 0},
    }
    (folder / "litellm.yaml").write_text(yaml.safe_dump(settings))
    entry = {"sha256": hashlib.sha256(KEY.encode()).hexdigest(), "alias": "one", "team": "acme"}
    (folder / "keys.yaml").write_text(yaml.safe_dump([entry]))
    (folder / "policies.yaml").write_text(yaml.safe_dump(POLICIES))
    env = {
        **os.environ,
        "ALIGNER_PROXY_HOME": str(folder / "home"),
        "ALIGNER_PROXY_ENGINE": f"unix:{engine.socket}",
        "NO_PROXY": "*",
    }
    options = ["--config", str(folder / "litellm.yaml"), "--port", str(port), "--workers", str(WORKERS)]
    with (folder / "serve.log").open("wb") as sink:
        command = [sys.executable, "-m", "aligner_proxy", "serve", *options]
        process = subprocess.Popen(command, stdout=sink, stderr=sink, env=env)
    made = Served(folder, f"http://127.0.0.1:{port}", process, engine)
    try:
        until(lambda: answers(made), made)
        yield made
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        engine.process.stop()


def _without(*changes: tuple[str, object]) -> dict[str, object]:
    return {**POLICIES, **dict(changes)}


def _tenant(**settings: object) -> dict[str, object]:
    return _without(("tenants", [{**POLICIES["tenants"][0], **settings}]))  # type: ignore[index]


LESS = rows(
    ("policies-emptied", "a full disk, an editor", "a policies file of no bytes", "refused; what was, is enforced", ""),
    ("policies-comments", "an editor", "a policies file of comments alone", "the same", "\n# later\n"),
    ("policies-braces", "a script", "a policies file of `{}`", "the same", "{}\n"),
    (
        "policies-aligner",
        "an editor",
        "a policies file cut off behind `aligner`",
        "the same",
        "aligner: {model: embedded}\n",
    ),
    (
        "policies-half",
        "a full disk",
        "a policies file cut off before its tenants",
        "the same",
        _without(("tenants", [])),
    ),
    ("policies-no-enforce", "an editor", "`enforce` of a tenant emptied", "the same", _tenant(enforce=[])),
    (
        "policies-mode",
        "an editor",
        "the defaults of all turned `off`",
        "the same",
        _without(("defaults", {"mode": "off"})),
    ),
    ("policies-shadow", "an editor", "a tenant turned to shadow", "the same", _tenant(mode="shadow")),
    ("policies-bypass", "an editor", "a tenant's requests may bypass", "the same", _tenant(allow_bypass=True)),
    (
        "policies-before",
        "an editor",
        "an entry for everybody put before the tenant's",
        "refused: it never matches, or the tenant loses",
        _without(("tenants", [{"match": {"key": "*"}, "name": "all"}, *POLICIES["tenants"]])),  # type: ignore[misc]
    ),
)


@pytest.mark.parametrize("attack", LESS)
def test_a_file_that_enforces_less_is_refused(attack: Attack, served: Served) -> None:
    """By every worker that runs, by SIGHUP, and by what systemd asks before it reloads."""
    restarts = served.log.count("restart: refused, the running processes stay: policies.yaml")
    try:
        served.write(attack.payload)
        served.process.send_signal(signal.SIGHUP)
        until(served.refuses, served)
        until(
            lambda: served.log.count("restart: refused, the running processes stay: policies.yaml") > restarts, served
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("ALIGNER_PROXY_HOME", str(served.folder / "home"))
            shown = CliRunner().invoke(main, ["check", "--running", str(served.folder / "litellm.yaml")])
        assert shown.exit_code == 2, shown.output
        assert answers(served)
    finally:
        served.write(POLICIES)
        until(served.takes, served)


KILLED = rows(
    (
        "kill-worker",
        "out of memory, an operator",
        "one worker of two killed, while the file on disk enforces nothing",
        "the other goes on; the one in its place enforces what is in force",
        ["worker"],
    ),
    (
        "kill-litellm",
        "out of memory, an operator",
        "LiteLLM's main process killed with two workers",
        "its workers end with it; it is started again, on the same port; nobody gets an original meanwhile",
        ["litellm"],
    ),
    (
        "kill-both",
        "out of memory, an operator",
        "the engine and LiteLLM's main process killed at once",
        "nothing is delivered until the engine judges again",
        ["engine", "litellm"],
    ),
)


@pytest.mark.parametrize("attack", KILLED)
def test_a_killed_process_is_replaced_and_delivers_nothing(attack: Attack, served: Served) -> None:
    main_process = served.litellm()
    workers = served.workers()
    assert len(workers) == WORKERS
    try:
        served.write("")
        if "engine" in attack.payload:
            served.engine.kill()
        os.kill(workers[0] if "worker" in attack.payload else main_process, signal.SIGKILL)
        ended = workers[:1] if "worker" in attack.payload else workers
        until(lambda: not any(map(alive, ended)), served)
        if "engine" in attack.payload:
            until(lambda: served.litellm() != main_process and len(served.workers()) == WORKERS, served)
            got = served.ask(120)
            assert got.status_code >= 500
            assert INSULT.strip() not in got.text
            served.engine.start()
        until(lambda: len(served.reports()) == WORKERS, served)
        until(lambda: answers(served), served)
        for _ in range(4 * WORKERS):  # each on a connection of its own, so that all workers answer
            assert answers(served)
        assert (served.litellm() == main_process) is ("worker" in attack.payload)
        assert served.process.poll() is None
    finally:
        served.write(POLICIES)


GONE = rows(
    (
        "engine-gone",
        "out of memory, an operator",
        "the engine gone for good while workers live",
        "under block nothing is delivered",
        None,
    ),
)


@pytest.mark.parametrize("attack", GONE)
def test_nothing_is_delivered_without_an_engine(attack: Attack, served: Served) -> None:
    until(lambda: answers(served), served)
    served.engine.kill()
    try:
        for _ in range(4 * WORKERS):
            got = served.ask()
            assert got.status_code >= 500
            assert INSULT.strip() not in got.text
    finally:
        served.engine.start()
    until(lambda: answers(served), served)


WORD = rows(
    (
        "policies-word",
        "operator",
        "a tenant's entry taken out, with the word `allow_less`",
        "counts in every worker, and is no way to lose another's",
        {**_without(("tenants", [])), "allow_less": ["acme"]},
    ),
    ("serve-killed", "out of memory", "`serve` itself killed", "no process of it is left", None),
)


@pytest.mark.parametrize("attack", WORD)
def test_what_is_meant_counts_and_nothing_is_left_behind(attack: Attack, served: Served) -> None:
    """The last of this file: it changes what is in force, and ends it."""
    if attack.payload is not None:
        since = time.time()
        served.write(attack.payload)
        until(lambda: served.takes() and all(report.since > since for report in served.reports()), served)
        return
    left = [served.litellm(), *served.workers()]
    served.process.kill()
    served.process.wait()
    end = time.monotonic() + WAIT_S
    while any(map(alive, left)):
        assert time.monotonic() < end, served.log[-4000:]
        time.sleep(0.1)
