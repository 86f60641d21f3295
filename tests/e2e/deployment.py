"""LiteLLM as a test file needs it: models and routes declared piece by piece, and the proxies that run with them."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import yaml

from tests.e2e.clients import KEYS, MASTER_KEY
from tests.e2e.processes import HERE, IMPORTABLE, EngineProcess, Process, free_port
from tests.e2e.warm_litellm import COMMON
from tests.support.installed import install, install_example

LITELLM = os.environ.get("LITELLM_COMMAND") or str(Path(sys.executable).with_name("litellm"))
"""The proxy under test; `make early-warning` names another release's."""

WARM = "LITELLM_COMMAND" not in os.environ
"""Whether proxies are forked from one that has imported LiteLLM: not where it is another release's."""

# How LiteLLM reaches a model decides what it makes of the endpoint that a client speaks.
OPENAI = {"model": "openai/up", "api_base": "{upstream}/v1", "api_key": "none"}
CLAUDE = {"model": "anthropic/claude-x", "api_base": "{upstream}", "api_key": "none"}
CHAT_ONLY = {**OPENAI, "use_chat_completions_api": True}
VLLM = {**OPENAI, "model": "hosted_vllm/up"}
INSTRUCT = {**OPENAI, "model": "text-completion-openai/up"}
RESPONSES_MODELS = ("gpt", "claude", "chatonly")  # natively, by way of Messages, by way of chat
MESSAGES_MODELS = ("claude", "gpt", "vllm")  # natively, by way of Responses, by way of chat

TENANTS = [
    {"match": {"team": "acme"}, "name": "acme", "enforce": ["harmless"], "allow": ["concise"]},
    {"match": {"key": "vip"}, "name": "vip", "allow_bypass": True, "allow_preferences": True, "allow_references": True},
    {
        "match": {"team": "metered"},
        "name": "metered",
        "enforce": ["harmless"],
        "allow": ["concise"],
        "deny": ["harmless", "concise"],
        "quota": 0,
    },
    {"match": {"team": "strict"}, "name": "strict", "enforce": ["harmless"], "on_error": "block"},
]


class Deployment:
    """The models of a LiteLLM and the routes that they are under, in the order in which they are declared.

    Every model has the scripted upstream behind it. What no route names is under the last one, called `all`. In the
    values `{upstream}` stands for the upstream's address and `{folder}` for the folder of the test session.
    """

    def __init__(self, callbacks: tuple[str, ...] = ("prometheus",)) -> None:
        self.callbacks = list(callbacks)
        self.models: list[dict[str, Any]] = []
        self.routes: list[dict[str, Any]] = []
        self.correctors: dict[str, Any] = {}
        self.aliases: dict[str, str] = {}
        self.fallbacks: list[dict[str, list[str]]] = []
        self.cache: dict[str, Any] = {}
        self.guardrails: list[dict[str, Any]] = []
        self.pass_through: list[dict[str, Any]] = []

    def model(self, name: str, kind: dict[str, Any] = OPENAI, **params: Any) -> Self:
        """A model as LiteLLM knows it; `params` are added to those of its kind."""
        self.models.append({"model_name": name, "litellm_params": {**kind, **params}})
        return self

    def route(self, pattern: str, **settings: Any) -> Self:
        """A route for the models of this name. It has the objective `kind`, unless `settings` name others."""
        self.routes.append({"match": {"model": pattern}, "objectives": ["kind"], **settings})
        return self

    def case(self, name: str, **settings: Any) -> Self:
        """A model and a route for it alone."""
        return self.model(name).route(name, **settings)

    def alias(self, name: str, model: str) -> Self:
        """Another name of a model, in LiteLLM's router."""
        self.aliases[name] = model
        return self

    def fallback(self, model: str, *others: str) -> Self:
        """The models that answer where one fails, in LiteLLM's router."""
        self.fallbacks.append({model: list(others)})
        return self

    def corrector(self, name: str, **settings: Any) -> Self:
        """The settings of a plugin that corrects."""
        self.correctors[name] = settings
        return self

    def guardrail(self, kind: str, **params: Any) -> Self:
        """A guardrail of LiteLLM's, for every answer, listed after ours."""
        settings = {"guardrail": kind, "mode": "post_call", "default_on": True, **params}
        self.guardrails.append({"guardrail_name": kind, "litellm_params": settings})
        return self

    def passed(self, path: str, target: str, *, guarded: bool = True) -> Self:
        """A pass-through route to a path of the upstream, with our guardrail or without."""
        guardrails = {"guardrails": {"aligner": None}} if guarded else {}
        self.pass_through.append({"path": path, "target": f"{{upstream}}{target}", **guardrails})
        return self

    def joined(self, other: Deployment) -> Deployment:
        """This one's models and routes, and then those of another; a model of both is there once."""
        both = Deployment(tuple(self.callbacks))
        both.models = [*self.models, *(model for model in other.models if model not in self.models)]
        both.routes = [*self.routes, *other.routes]
        both.correctors = self.correctors | other.correctors
        both.aliases = self.aliases | other.aliases
        both.fallbacks = [*self.fallbacks, *other.fallbacks]
        both.pass_through = [*self.pass_through, *other.pass_through]
        both.guardrails = [*self.guardrails, *other.guardrails]
        return both

    def policies(self) -> dict[str, Any]:
        """The policies file."""
        return {
            "objectives": {"kind": "Kindness: the response should never insult the reader"},
            "defaults": {"deadline_s": 20},
            "routes": [*self.routes, {"match": {"model": "*"}, "name": "all", "objectives": ["kind"]}],
            "plugins": {"correctors": self.correctors},
            "tenants": TENANTS,
            **({"cache": self.cache} if self.cache else {}),
        }

    def litellm(self, guarded: bool) -> dict[str, Any]:
        """LiteLLM's own YAML, with our guardrail or without."""
        settings: dict[str, Any] = {
            "model_list": self.models if guarded else [_unguarded(model) for model in self.models],
            "general_settings": {"master_key": MASTER_KEY},
            "router_settings": {"model_group_alias": self.aliases, "fallbacks": self.fallbacks},
            "litellm_settings": {
                "num_retries": 0,
                "callbacks": self.callbacks,
                "cache": True,
                "cache_params": {"type": "local", "mode": "default_off"},
            },
        }
        if guarded:
            settings["general_settings"]["custom_auth"] = "aligner_proxy.auth.user_api_key_auth"
            params = {
                "guardrail": "aligner_proxy.guardrail.AlignerGuardrail",
                "mode": "post_call",
                "default_on": True,
                "policies": "policies.yaml",
            }
            settings["general_settings"]["pass_through_endpoints"] = self.pass_through
            settings["guardrails"] = [{"guardrail_name": "aligner", "litellm_params": params}, *self.guardrails]
        return settings


def _unguarded(model: dict[str, Any]) -> dict[str, Any]:
    params = {name: value for name, value in model["litellm_params"].items() if name != "guardrails"}
    return {**model, "litellm_params": params}


@dataclass(frozen=True)
class Proxy:
    """A LiteLLM of its own, not yet started: its process, address and log."""

    process: Process
    address: str
    log: Path

    def wait(self) -> None:
        """Until it can serve."""
        self.process.wait_for(f"{self.address}/health/readiness")


def proxy(
    deployment: Deployment, folder: Path, shared: Path, upstream: str, engine: EngineProcess, guarded: bool
) -> Proxy:
    """LiteLLM with its files in `folder`, an empty one; `shared` is the folder of the test session."""
    name = "guarded" if guarded else "plain"
    port = free_port()
    places = {"{upstream}": upstream, "{folder}": str(shared)}
    configs = folder / "configs"
    configs.mkdir(parents=True)
    _write(configs / f"{name}.yaml", deployment.litellm(guarded), places)
    _write(configs / "policies.yaml", deployment.policies(), places)
    _write(folder / "keys.yaml", [_key(alias, key) for alias, key in KEYS.items()], {})
    env = {
        **COMMON,
        "ALIGNER_PROXY_ENGINE": f"unix:{engine.socket}",
        "ALIGNER_PROXY_HOME": str(folder / "home"),
        "ALIGNER_PROXY_KEYS": str(folder / "keys.yaml"),
        "ALIGNER_PROXY_LOG": "json",
        "NO_PROXY": "*",
        "PYTHONPATH": os.pathsep.join([IMPORTABLE["PYTHONPATH"], str(_plugins(shared))]),
    }
    if not guarded:
        # LiteLLM alone never collects: what aligner_proxy/gateway/gc_workaround.py is against would end it in the
        # middle of a run.
        env["PYTHON_GC_THRESHOLD"] = "0,0,0"
    command = [LITELLM, "--config", str(configs / f"{name}.yaml"), "--host", "127.0.0.1", "--port", str(port)]
    log = folder / f"{name}.log"
    process = Process([*command, "--telemetry", "False"], log, env, warm=WARM)
    return Proxy(process, f"http://127.0.0.1:{port}", log)


def _write(file: Path, settings: Any, places: dict[str, str]) -> None:
    text = json.dumps(settings)
    for place, value in places.items():
        text = text.replace(place, value)
    file.write_text(yaml.safe_dump(json.loads(text)))


def _key(alias: str, key: str) -> dict[str, Any]:
    team = None if alias == "vip" else alias
    return {"sha256": hashlib.sha256(key.encode()).hexdigest(), "alias": alias, "team": team}


def _plugins(shared: Path) -> Path:
    """The folder with the plugins that the proxies find, made once."""
    site = shared / "site"
    if not site.exists():
        install_example(site)
        install(site, "rude_plugin", (HERE / "rude_plugin.py").read_text(), entries={"rude": "rude_plugin"})
    return site


def _identify(deployment: Deployment, guarded: bool) -> str:
    return json.dumps([guarded, deployment.litellm(guarded), deployment.policies() if guarded else None])


class ProxyPool:
    """The proxies of a test session: one for each distinct deployment, started when a test first needs it."""

    def __init__(self, folder: Path, upstream: str, engine: EngineProcess) -> None:
        self.folder = folder
        self.upstream = upstream
        self.engine = engine
        self._proxies: dict[str, Proxy] = {}
        self._numbers = itertools.count()
        self._stack = contextlib.ExitStack()

    def get(self, deployment: Deployment, guarded: bool) -> Proxy:
        """A running proxy with these models and routes."""
        key = _identify(deployment, guarded)
        if key not in self._proxies:
            folder = self.folder / f"proxy-{next(self._numbers)}"
            started = proxy(deployment, folder, self.folder, self.upstream, self.engine, guarded)
            self._stack.callback(started.process.stop)
            started.process.start()
            started.wait()
            self._proxies[key] = started
        return self._proxies[key]

    def stop(self, deployment: Deployment) -> None:
        """Stop those with these models and routes: each takes a hundredth of a core while nobody asks it."""
        for guarded in (True, False):
            if stopped := self._proxies.pop(_identify(deployment, guarded), None):
                stopped.process.stop()

    def close(self) -> None:
        """Stop all of them; who asks for one again gets a new one."""
        self._stack.close()
        self._proxies.clear()


@contextlib.contextmanager
def two_proxies(
    deployment: Deployment, folder: Path, shared: Path, upstream: str, engine: EngineProcess, env: dict[str, str]
) -> Iterator[list[Proxy]]:
    """Two guarded gateways of one engine with this in their environment: in `gateway-0` and `gateway-1`."""
    with contextlib.ExitStack() as stack:
        started: list[Proxy] = []
        for number in range(2):
            made = proxy(deployment, folder / f"gateway-{number}", shared, upstream, engine, guarded=True)
            made.process.env |= env
            stack.callback(made.process.stop)
            made.process.start()
            started.append(made)
        for made in started:
            made.wait()
        yield started
