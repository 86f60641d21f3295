"""From the policies file to the engine that it means."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from aligner_proxy.engine.admission import AdmittedEngine
from aligner_proxy.engine.api import Engine
from aligner_proxy.engine.client.circuit_breaker import Breaker
from aligner_proxy.engine.client.completions_aligner import CompletionsAligner
from aligner_proxy.engine.client.edited_engine import EditedEngine
from aligner_proxy.engine.client.http import HttpEngine
from aligner_proxy.engine.client.replicas import Replicas
from aligner_proxy.errors import ConfigError
from aligner_proxy.gateway import build
from aligner_proxy.gateway.build import completions_template, open_engine
from aligner_proxy.gateway.shared_server import SharedServer, open_shared_server
from aligner_proxy.pipeline.cache import CorrectionCache
from aligner_proxy.plugins import registry
from aligner_proxy.policy import config
from aligner_proxy.policy.schema import PolicyFile
from aligner_proxy_fleet.shared_cache import SharedCache
from tests.support.scripted import ScriptedEngine


@pytest.fixture(autouse=True)
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """None of the user's settings."""
    monkeypatch.setenv("ALIGNER_PROXY_HOME", str(tmp_path / "home"))
    for name in ("ALIGNER_PROXY_ENGINE", "ALIGNER_PROXY_SOCKET"):
        monkeypatch.delenv(name, raising=False)


def policies(tmp_path: Path, aligner: str) -> PolicyFile:
    """A file with this aligner block."""
    path = tmp_path / "policies.yaml"
    path.write_text(f"aligner: {aligner}\n")
    return config.load(path)


@pytest.mark.parametrize(
    ("engine", "kind"),
    [
        ("local", HttpEngine),
        ("'http://a:1'", HttpEngine),
        ("['http://a:1', 'http://b:1']", Replicas),
        ("'http://a/v1'", CompletionsAligner),
        ("['http://a/v1', 'http://b/v1']", Replicas),
        ("{at: 'http://a/v1', scorer: 'http://b:1', template: imhi}", EditedEngine),
        ("{at: 'http://a/v1', scorer: 'vllm://b:1', template: imhi}", EditedEngine),
        ("{at: ['http://a/v1', 'http://c/v1'], scorer: local, template: imhi}", Replicas),
    ],
)
async def test_what_is_opened(tmp_path: Path, engine: str, kind: type[Engine]) -> None:
    made = open_engine(policies(tmp_path, f"{{engine: {engine}}}"))
    assert type(made) is kind
    await made.aclose()


async def test_where_local_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = policies(tmp_path, "{engine: local}")
    mine = ScriptedEngine()
    assert open_engine(file, local=mine) is mine
    monkeypatch.setenv("ALIGNER_PROXY_SOCKET", "/run/mine.sock")
    made = open_engine(file)
    assert isinstance(made, HttpEngine)
    assert made.address == "unix:/run/mine.sock"
    monkeypatch.setenv("ALIGNER_PROXY_ENGINE", "http://a/v1")
    assert isinstance(open_engine(file), CompletionsAligner)


@pytest.mark.parametrize(
    ("aligner", "template"),
    [
        ("{engine: 'http://a/v1'}", "ultrafeedback"),  # as the embedded aligner's manifest says
        ("{engine: 'http://a/v1', template: imhi}", "imhi"),
        ("{engine: 'http://a/v1', model: MetaAligner/MetaAligner-HH-RLHF-7B}", "hh-rlhf"),
        ("{engine: {at: 'http://a/v1', model: MetaAligner/MetaAligner-IMHI-7B}}", "imhi"),
        ("{engine: {at: 'http://a/v1', model: MetaAligner/MetaAligner-IMHI-7B, scorer: local}}", "imhi"),
        ("{engine: {at: 'http://a/v1', template: aligner, scorer: local}, template: imhi}", "aligner"),
    ],
)
def test_the_prompt_form_is_that_of_who_is_asked(tmp_path: Path, aligner: str, template: str) -> None:
    file = policies(tmp_path, aligner)
    assert completions_template(file, config.engine_backend(file)) == template


@pytest.mark.parametrize(
    ("aligner", "said"),
    [
        ("{engine: 'http://a/v1', model: me/mine}", "set template to one of"),
        ("{engine: {at: 'http://a/v1', scorer: local}, template: imhi}", "set aligner.engine.template"),
        ("{engine: {at: 'http://a/v1', template: poem}}", "unknown template 'poem'"),
    ],
)
def test_a_prompt_form_that_nobody_knows_is_asked_for(tmp_path: Path, aligner: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        open_engine(policies(tmp_path, aligner))


async def test_with_redis_corrections_and_quotas_are_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALIGNER_TEST_REDIS", "redis://nobody-asks-it")
    monkeypatch.setenv("ALIGNER_PROXY_HOME", str(tmp_path))
    path = tmp_path / "policies.yaml"
    path.write_text("cache: {redis_env: ALIGNER_TEST_REDIS}\n")
    file = registry.load_policies(path)
    made = build.build_pipeline(file, server=open_shared_server(file))
    assert isinstance(made.cache, SharedCache)
    assert isinstance(made.engine, AdmittedEngine)
    await made.cache.aclose()


async def test_without_redis_nothing_of_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALIGNER_PROXY_HOME", str(tmp_path))
    path = tmp_path / "policies.yaml"
    path.write_text("cache: {ttl_s: 60}\n")
    made = build.build_pipeline(registry.load_policies(path))
    assert type(made.cache) is CorrectionCache
    assert isinstance(made.engine, Breaker)
    await made.cache.aclose()


def test_redis_beside_a_store_of_a_plugin_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "policies.yaml"
    path.write_text("cache:\n  redis_env: ALIGNER_TEST_REDIS\n")
    entry = type("Entry", (), {"offer": None})()
    monkeypatch.setattr(registry, "configure_plugins", lambda _file: {"caches": (entry,)})
    with pytest.raises(ConfigError, match=r"^policies.yaml:2: cache.redis_env: .*remove one of them"):
        build.correction_cache(registry.load_policies(path), cast(SharedServer, object()))
