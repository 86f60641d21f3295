"""Real processes over real sockets: scripted upstreams, the scripted engine, LiteLLM with the guardrail and without.

Each is started once per session, waited for, and stopped by its own process object.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import httpx
import pytest
import yaml

from tests.installed import install, install_example

HERE = Path(__file__).parent
IMPORTABLE = {"PYTHONPATH": os.pathsep.join([str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")])}
MASTER_KEY = "sk-e2e-7f3Qm2Vx9LtB4wZkR8sYpD6n"
KEYS = {"acme": "key-acme-1", "other": "key-other-1", "vip": "key-vip-1", "metered": "key-metered-1"}
START_S = 120.0
LITELLM = os.environ.get("LITELLM_COMMAND") or str(Path(sys.executable).with_name("litellm"))
"""The proxy under test; `make early-warning` names another release's."""

HASTY: dict[str, Any] = {"deadline_s": 0.5}
BLOCK: dict[str, Any] = {"on_error": "block"}
# One line of policy each, and nothing else between them (test_systems.py).
SYSTEMS: dict[str, dict[str, Any]] = {
    "metaaligner": {},
    "meal": {"objectives": {"auto": ["humour", "kind"]}},
    "metaalign": {"preferences": ["request"]},
    "aligner": {"corrector": "aligner"},
    "self-refine": {"corrector": "self_refine"},
    "best-of": {"drafts": 3},
}
POLICIES = {
    "objectives": {"kind": "Kindness: the response should never insult the reader"},
    "defaults": {"deadline_s": 20},
    "routes": [
        {"match": {"model": "off"}, "mode": "off", "objectives": ["kind"]},
        {"match": {"model": "shadowed"}, "mode": "shadow", "objectives": ["kind"]},
        {"match": {"model": "unsampled"}, "sample": 0.0, "objectives": ["kind"]},
        {"match": {"model": "bare"}},
        {"match": {"model": "hasty"}, "objectives": ["kind"], "deadline_s": 0.5},
        {"match": {"model": "strict"}, "objectives": ["kind"], "deadline_s": 0.5, "on_error": "block"},
        {"match": {"model": "patient"}, "objectives": ["kind"], "deadline_s": 60, "on_error": {"engine_down": "retry"}},
        {
            "match": {"model": "sorted"},
            "objectives": ["kind"],
            "deadline_s": 2,
            "on_error": {"gate": "block", "bug": "passthrough", "timeout": "retry"},
            "after_retry": "block",
        },
        {"match": {"model": "brief"}, "objectives": ["kind"], "max_answer_chars": 1000},
        *(
            {
                "match": {"model": f"{mode}-weighed"},
                "stream": mode,
                "objectives": {"auto": ["humour", "kind"], "keep": 1},
            }
            for mode in ("hold", "sentence", "live")
        ),
        {"match": {"model": "sentence-strict"}, "stream": "sentence", "objectives": ["kind"], **HASTY, **BLOCK},
        {"match": {"model": "sentence-hasty"}, "stream": "sentence", "objectives": ["kind"], **HASTY},
        {"match": {"model": "sentence*"}, "stream": "sentence", "objectives": ["kind"], "trail": True},
        {"match": {"model": "released*"}, "stream": "sentence", "objectives": ["kind"]},
        {"match": {"model": "live*"}, "stream": "live", "objectives": ["kind"]},
        {"match": {"model": "quick*"}, "keepalive_s": 0.2, "objectives": ["kind"]},
        {"match": {"model": "refined"}, "objectives": ["kind"], "corrector": "self_refine", "deadline_s": 3},
        {
            "match": {"model": "refined-or-nothing"},
            "objectives": ["kind"],
            "corrector": "self_refine",
            "deadline_s": 3,
            "on_error": "block",
        },
        {"match": {"model": "foreign"}, "objectives": ["kind"], "corrector": "unreliable", "deadline_s": 1},
        {"match": {"model": "calm"}, "objectives": ["kind"], "corrector": "plain_words", "plugin_rules": ["calm"]},
        {"match": {"model": "wishing"}, "objectives": ["kind"], "preferences": ["request"], "stream": "sentence"},
        *({"match": {"model": f"field-{name}"}, "objectives": ["kind"], **line} for name, line in SYSTEMS.items()),
        {"match": {"model": "*"}, "name": "all", "objectives": ["kind"]},
    ],
    "plugins": {
        "correctors": {
            "self_refine": {"model": "refiner", "rounds": 2},
            "plain_words": {"words": {"Paris": "Paris!", "lower": "sooner"}},
        }
    },
    "tenants": [
        {"match": {"team": "acme"}, "name": "acme", "enforce": ["harmless"], "allow": ["concise"]},
        {"match": {"key": "vip"}, "name": "vip", "allow_bypass": True, "allow_preferences": True},
        {
            "match": {"team": "metered"},
            "name": "metered",
            "enforce": ["harmless"],
            "allow": ["concise"],
            "deny": ["harmless", "concise"],
            "quota": 0,
        },
    ],
}
PINGED = "pinged"
SINGLE = "single.sock"
DOUBLED = "doubled"
# How LiteLLM reaches a model decides what it makes of the endpoint that a client speaks.
RESPONSES_MODELS = ("gpt", "claude", "chatonly")  # natively, by way of Messages, by way of chat
MESSAGES_MODELS = ("claude", "gpt", "vllm")  # natively, by way of Responses, by way of chat
OPENAI_MODELS = (
    *("gpt", "off", "shadowed", "unsampled", "bare", "hasty", "strict", "patient", "sorted", "brief"),
    *("refined", "refined-or-nothing", "foreign", "calm", "wishing"),
    *(PINGED, DOUBLED, "quick", "live", "sentence", "sentence-hasty", "sentence-strict"),
    *("hold-weighed", "sentence-weighed", "live-weighed"),
    *(f"field-{name}" for name in SYSTEMS),
)
STREAM_MODES = ("quick", "live", "sentence")


def free_port() -> int:
    """A port nobody listens on right now."""
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Process:
    """A child process, its output in a file, stopped by its own id."""

    command: list[str]
    output: Path
    env: dict[str, str] = field(default_factory=dict)
    child: subprocess.Popen[bytes] | None = None
    sink: TextIO | None = None

    def start(self) -> None:
        """Start it."""
        self.sink = self.output.open("a")
        self.child = subprocess.Popen(
            self.command, env={**os.environ, **self.env}, stdout=self.sink, stderr=self.sink, start_new_session=True
        )

    def stop(self, how: int = signal.SIGTERM) -> None:
        """Stop it and wait."""
        if self.child is None:
            return
        self.child.send_signal(how)
        try:
            self.child.wait(20)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
        assert self.sink is not None
        self.sink.close()
        self.child = None

    def wait_for(self, url: str, uds: Path | None = None, within_s: float = START_S) -> None:
        """Until `url` answers 200."""
        assert self.child is not None
        until = time.monotonic() + within_s
        transport = httpx.HTTPTransport(uds=str(uds) if uds else None)
        with httpx.Client(transport=transport, trust_env=False) as client:
            while time.monotonic() < until and self.child.poll() is None:
                time.sleep(0.1)
                if uds and not _listens(uds):
                    continue  # httpcore leaves its socket open when it cannot connect
                with contextlib.suppress(httpx.TransportError):
                    if client.get(url, timeout=5).status_code == httpx.codes.OK:
                        return
        self.stop()
        pytest.fail(f"{self.command} did not start:\n{self.output.read_text()[-4000:]}")


def _listens(uds: Path) -> bool:
    """Whether somebody takes connections there; the file alone is there before."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(uds)) == 0


@dataclass
class EngineProcess:
    """The scripted engine, which tests may kill and start again."""

    process: Process
    socket: Path
    log: Path

    def start(self) -> None:
        """Start and wait until it can work."""
        self.socket.unlink(missing_ok=True)
        self.process.start()
        self.process.wait_for("http://engine/ready", self.socket)

    def kill(self) -> None:
        """SIGKILL."""
        self.process.stop(signal.SIGKILL)

    @contextlib.contextmanager
    def holding(self) -> Iterator[Callable[[], None]]:
        """Questions that begin with `held` wait until what this gives is called, or until the block ends."""
        gate = self.log.with_suffix(".open")
        gate.unlink(missing_ok=True)
        try:
            yield gate.touch
        finally:
            gate.touch()

    def calls(self, event: str = "asked") -> list[dict[str, Any]]:
        """Everything that it was asked, or what of that was `cancelled`."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [call for call in map(json.loads, lines) if call["event"] == event]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where configs, logs and sockets of this session lie."""
    made = tmp_path_factory.mktemp("e2e")
    (made / "configs").mkdir()
    return made


@pytest.fixture(scope="session")
def upstream(folder: Path) -> Iterator[str]:
    """Base address of the scripted upstreams."""
    port = free_port()
    process = Process([sys.executable, "-m", "tests.e2e.upstreams", str(port)], folder / "upstream.log", IMPORTABLE)
    process.start()
    process.wait_for(f"http://127.0.0.1:{port}/seen")
    yield f"http://127.0.0.1:{port}"
    process.stop()


@pytest.fixture(scope="session")
def engine(folder: Path) -> Iterator[EngineProcess]:
    """The scripted engine on a unix socket."""
    address, log = folder / "engine.sock", folder / "engine.calls"
    command = [sys.executable, str(HERE / "scripted_engine.py"), str(address), str(log)]
    made = EngineProcess(Process(command, folder / "engine.log"), address, log)
    made.start()
    yield made
    made.process.stop()


@pytest.fixture(scope="session")
def single_purpose(folder: Path) -> Iterator[EngineProcess]:
    """A scripted engine that says that it serves an Aligner (PKU)."""
    address, log = folder / SINGLE, folder / "single.calls"
    command = [sys.executable, str(HERE / "scripted_engine.py"), str(address), str(log), "aligner"]
    made = EngineProcess(Process(command, folder / "single.log"), address, log)
    made.start()
    yield made
    made.process.stop()


@pytest.fixture(scope="session")
def proxies(folder: Path, upstream: str, engine: EngineProcess) -> Iterator[tuple[str, str]]:
    """Addresses of LiteLLM with the guardrail, and of the same LiteLLM without it. They start side by side."""
    made = [proxy(folder, upstream, engine, guarded) for guarded in (True, False)]
    with contextlib.ExitStack() as stack:
        for process, _ in made:
            stack.callback(process.stop)
            process.start()
        for process, address in made:
            process.wait_for(f"{address}/health/readiness")
        yield made[0][1], made[1][1]


@dataclass
class Streamed:
    """A stream as a client sees it."""

    status_code: int
    headers: httpx.Headers
    raw: str

    @property
    def chunks(self) -> list[dict[str, Any]]:
        """The data frames, without [DONE]."""
        lines = [line.removeprefix("data: ") for line in self.raw.splitlines() if line.startswith("data: ")]
        return [json.loads(line) for line in lines if line != "[DONE]"]

    @property
    def comments(self) -> list[str]:
        """Our SSE comments."""
        return [line for line in self.raw.splitlines() if line.startswith(": aligner")]

    def text(self, index: int = 0) -> str:
        """The text of one choice of chat and text completions."""
        choices = [choice for chunk in self.chunks for choice in chunk.get("choices", ()) if choice["index"] == index]
        return "".join(c.get("text") or c.get("delta", {}).get("content") or "" for c in choices)

    def parts(self, kind: str, place: str, delta: str) -> list[str]:
        """The texts of all parts of a typed stream, joined from their deltas."""
        found: dict[Any, list[str]] = {}
        for event in self.chunks:
            if event["type"] == kind:
                told = event["delta"] if delta == "delta" else event["delta"].get(delta)
                if told is not None:
                    found.setdefault((event[place], event.get("content_index")), []).append(told)
        return ["".join(pieces) for _, pieces in sorted(found.items())]

    def untouched(self) -> str:
        """The stream without our comment and without what LiteLLM makes up anew for each response."""
        return made_up("".join(frame for frame in self.raw.split("\n\n") if frame and not frame.startswith(": ")))


def made_up(raw: str) -> str:
    """Without the times and ids that LiteLLM stamps on what it translates."""
    raw = re.sub(r'"(created|created_at)":\s?\d+', r'"\1":0', raw)
    return re.sub(r'"(resp|msg|rs|chatcmpl|cmpl)[-_][^"]{30,}"', r'"\1"', raw)


class Gateway:
    """A proxy as its clients use it, with one key."""

    def __init__(self, address: str, key: str = MASTER_KEY) -> None:
        self.address = address
        headers = {"authorization": f"Bearer {key}"}
        self.http = httpx.Client(base_url=address, headers=headers, timeout=60, trust_env=False)

    def chat(
        self, script: str, model: str = "gpt", headers: dict[str, str] | None = None, **body: Any
    ) -> httpx.Response:
        """A whole chat completion."""
        messages = [{"role": "user", "content": script}]
        body = {"model": model, "messages": messages, **body}
        return self.http.post("/v1/chat/completions", json=body, headers=headers)

    def chat_stream(self, script: str, **more: Any) -> Streamed:
        """A streamed chat completion."""
        got = self.chat(script, stream=True, **more)
        return Streamed(got.status_code, got.headers, got.text)

    def respond(
        self, script: Any, model: str = "gpt", headers: dict[str, str] | None = None, **body: Any
    ) -> httpx.Response:
        """A whole answer of the Responses API."""
        return self.http.post("/v1/responses", json={"model": model, "input": script, **body}, headers=headers)

    def respond_stream(self, script: Any, **more: Any) -> Streamed:
        """A streamed answer of the Responses API."""
        got = self.respond(script, stream=True, **more)
        return Streamed(got.status_code, got.headers, got.text)

    def message(
        self, script: str, model: str = "claude", headers: dict[str, str] | None = None, **body: Any
    ) -> httpx.Response:
        """A whole answer of the Messages API."""
        said = [{"role": "user", "content": script}]
        body = {"model": model, "max_tokens": 99, "messages": said, **body}
        return self.http.post("/v1/messages", json=body, headers=headers)

    def message_stream(self, script: str, **more: Any) -> Streamed:
        """A streamed answer of the Messages API."""
        got = self.message(script, stream=True, **more)
        return Streamed(got.status_code, got.headers, got.text)

    def complete(self, prompt: Any, **body: Any) -> httpx.Response:
        """A whole text completion."""
        return self.http.post("/v1/completions", json={"model": "instruct", "prompt": prompt, **body})

    def complete_stream(self, prompt: Any, **body: Any) -> Streamed:
        """A streamed text completion."""
        got = self.complete(prompt, stream=True, **body)
        return Streamed(got.status_code, got.headers, got.text)


@pytest.fixture(scope="session")
def gateway(proxies: tuple[str, str]) -> Iterator[Gateway]:
    """The guarded proxy, with the master key."""
    made = Gateway(proxies[0])
    yield made
    made.http.close()


@pytest.fixture(scope="session")
def plain(proxies: tuple[str, str]) -> Iterator[Gateway]:
    """LiteLLM alone."""
    made = Gateway(proxies[1])
    yield made
    made.http.close()


@pytest.fixture(scope="session")
def tenants(proxies: tuple[str, str]) -> Iterator[dict[str, Gateway]]:
    """The guarded proxy with the keys of the keys file, by alias."""
    made = {alias: Gateway(proxies[0], key) for alias, key in KEYS.items()}
    yield made
    for one in made.values():
        one.http.close()


def proxy(folder: Path, upstream: str, engine: EngineProcess, guarded: bool) -> tuple[Process, str]:
    port, name = free_port(), "guarded" if guarded else "plain"
    path = folder / "configs" / f"{name}.yaml"
    path.write_text(yaml.safe_dump(_litellm(upstream, guarded)))
    plugins = POLICIES["plugins"]["correctors"] | {"aligner": {"engine": f"unix:{folder / SINGLE}"}}  # type: ignore[call-overload,index]
    told = POLICIES | {"plugins": {"correctors": plugins}}
    (folder / "configs" / "policies.yaml").write_text(yaml.safe_dump(told))
    keys = [
        {"sha256": hashlib.sha256(key.encode()).hexdigest(), "alias": alias, "team": None if alias == "vip" else alias}
        for alias, key in KEYS.items()
    ]
    (folder / "keys.yaml").write_text(yaml.safe_dump(keys))
    env = {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_LOCAL_BLOG_POSTS": "True",
        "LITELLM_LOCAL_POLICY_TEMPLATES": "true",
        "ALIGNER_PROXY_ENGINE": f"unix:{engine.socket}",
        "ALIGNER_PROXY_HOME": str(folder / "home"),
        "ALIGNER_PROXY_KEYS": str(folder / "keys.yaml"),
        "ALIGNER_PROXY_LOG": "json",
        "NO_PROXY": "*",
        **IMPORTABLE,
    }
    if not guarded:
        # LiteLLM alone never collects: what aligner_proxy/collecting.py is against would end it in the middle of a run.
        env["PYTHON_GC_THRESHOLD"] = "0,0,0"
    if not (folder / "site").exists():
        install_example(folder / "site")
        install(folder / "site", "rude_plugin", (HERE / "rude_plugin.py").read_text(), entries={"rude": "rude_plugin"})
    env["PYTHONPATH"] = os.pathsep.join([IMPORTABLE["PYTHONPATH"], str(folder / "site")])
    command = [LITELLM, "--config", str(path), "--host", "127.0.0.1", "--port", str(port), "--telemetry", "False"]
    return Process(command, folder / f"{name}.log", env), f"http://127.0.0.1:{port}"


def _litellm(upstream: str, guarded: bool) -> dict[str, Any]:
    openai = {"api_base": f"{upstream}/v1", "api_key": "none"}
    models: list[tuple[str, dict[str, Any]]] = [(name, {"model": "openai/up", **openai}) for name in OPENAI_MODELS]
    for name, params in models:
        if name == PINGED:
            params["keepalive_seconds"] = 1
        if name == DOUBLED and guarded:
            params["guardrails"] = ["aligner"]
    # A model with our guardrail on itself, which must make no difference to whoever refines by it.
    models.append(
        ("refiner", {"model": "openai/refiner", **openai, **({"guardrails": ["aligner"]} if guarded else {})})
    )
    models.append(("claude", {"model": "anthropic/claude-x", "api_base": upstream, "api_key": "none"}))
    models.append(("chatonly", {"model": "openai/up", "use_chat_completions_api": True, **openai}))
    models.append(("vllm", {"model": "hosted_vllm/up", **openai}))
    models.append(("instruct", {"model": "text-completion-openai/up", **openai}))
    for mode in STREAM_MODES:
        models.append((f"{mode}-claude", {"model": "anthropic/claude-x", "api_base": upstream, "api_key": "none"}))
        models.append((f"{mode}-instruct", {"model": "text-completion-openai/up", **openai}))
    known = dict(models)
    models += [(f"released-{name}", known[name]) for name in ("gpt", "claude", "instruct")]
    settings: dict[str, Any] = {
        "model_list": [{"model_name": name, "litellm_params": params} for name, params in models],
        "general_settings": {"master_key": MASTER_KEY},
        "litellm_settings": {
            "num_retries": 0,
            "callbacks": ["prometheus"],
            "cache": True,
            "cache_params": {"type": "local", "mode": "default_off"},
        },
    }
    if guarded:
        settings["general_settings"]["custom_auth"] = "aligner_proxy.auth.user_api_key_auth"
        settings["guardrails"] = [
            {
                "guardrail_name": "aligner",
                "litellm_params": {
                    "guardrail": "aligner_proxy.guardrail.AlignerGuardrail",
                    "mode": "post_call",
                    "default_on": True,
                    "policies": "policies.yaml",
                },
            }
        ]
    return settings
