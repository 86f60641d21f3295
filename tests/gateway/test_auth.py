"""Keys from a file of hashes: who gets in, as whom, and where."""

from __future__ import annotations

import hashlib
import logging
import types
from pathlib import Path
from typing import Any

import pytest
import yaml
from litellm.proxy import _types
from starlette.requests import Request

from aligner_proxy.gateway import auth, reload

MASTER = "sk-master-very-long-and-random"


def request(path: str = "/v1/chat/completions") -> Request:
    return Request({"type": "http", "method": "POST", "path": path, "headers": [], "query_string": b""})


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


@pytest.fixture(autouse=True)
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "keys.yaml"
    path.write_text(yaml.safe_dump([{"sha256": digest("k1"), "alias": "one", "team": "acme"}]))
    monkeypatch.setenv("ALIGNER_PROXY_KEYS", str(path))
    monkeypatch.setenv("ALIGNER_PROXY_HOME", str(tmp_path / "home"))
    auth._policies.cache_clear()
    # The real module takes seconds to import; two of its globals are all that is asked of it.
    server = types.SimpleNamespace(master_key=MASTER, user_config_file_path=None)
    monkeypatch.setattr(auth, "_server", lambda: server)
    return path


async def test_a_key_of_the_file() -> None:
    user = await auth.user_api_key_auth(request(), "k1")
    assert (user.key_alias, user.team_id, user.team_alias) == ("one", "acme", "acme")
    assert user.user_role is _types.LitellmUserRoles.INTERNAL_USER
    assert "k1" not in user.model_dump_json().split('"')


async def test_the_master_key() -> None:
    user = await auth.user_api_key_auth(request("/model/info"), MASTER)
    assert user.user_role is _types.LitellmUserRoles.PROXY_ADMIN


@pytest.mark.parametrize("key", ["", None, "k2", "K1", digest("k1")])
async def test_everybody_else_is_refused(key: Any) -> None:
    with pytest.raises(_types.ProxyException) as caught:
        await auth.user_api_key_auth(request(), key)
    assert (caught.value.code, caught.value.type) == ("401", "auth_error")


async def test_a_key_of_the_file_may_call_models_only() -> None:
    with pytest.raises(_types.ProxyException) as caught:
        await auth.user_api_key_auth(request("/key/generate"), "k1")
    assert caught.value.code == "403"


def changed(keys: Path, text: str) -> None:
    """Write the keys file, and let the change settle."""
    keys.write_text(text)
    for _ in range(2):
        auth._watched(keys).look()


async def test_a_changed_file_counts_without_a_restart(keys: Path) -> None:
    await auth.user_api_key_auth(request(), "k1")
    changed(keys, yaml.safe_dump([{"sha256": digest("k2"), "alias": "two"}]))
    assert (await auth.user_api_key_auth(request(), "k2")).key_alias == "two"
    with pytest.raises(_types.ProxyException):
        await auth.user_api_key_auth(request(), "k1")


async def test_a_file_that_breaks_later_leaves_the_old_keys_in_force(
    keys: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await auth.user_api_key_auth(request(), "k1")
    with caplog.at_level(logging.DEBUG):
        changed(keys, "- {sha256: sk-secret, alias: x}\n")
    assert (await auth.user_api_key_auth(request(), "k1")).key_alias == "one"
    assert "keys.yaml:1: invalid keys file" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize("content", ["- sha256: k1\n  alias: x\n", None])
async def test_a_file_that_is_broken_from_the_start_lets_nobody_in_and_quotes_nothing(
    keys: Path, content: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    if content is None:
        keys.unlink()
    else:
        keys.write_text(content)
    with pytest.raises(_types.ProxyException) as caught:
        await auth.user_api_key_auth(request(), "k1")
    assert caught.value.code == "503"
    assert str(keys) not in caplog.text


async def test_without_any_file_there_is_only_the_master_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ALIGNER_PROXY_KEYS")
    with pytest.raises(_types.ProxyException):
        await auth.user_api_key_auth(request(), "k1")
    assert await auth.user_api_key_auth(request(), MASTER)


async def test_the_keys_file_that_the_registered_policies_name(
    tmp_path: Path, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ALIGNER_PROXY_KEYS")
    params = {"guardrail": "aligner_proxy.guardrail.AlignerGuardrail", "mode": "post_call", "policies": "p.yaml"}
    litellm_file = tmp_path / "litellm.yaml"
    litellm_file.write_text(yaml.safe_dump({"guardrails": [{"guardrail_name": "a", "litellm_params": params}]}))
    (tmp_path / "p.yaml").write_text("keys: keys.yaml\n")
    auth._policies.cache_clear()
    server = types.SimpleNamespace(master_key=MASTER, user_config_file_path=str(litellm_file))
    monkeypatch.setattr(auth, "_server", lambda: server)
    assert (await auth.user_api_key_auth(request(), "k1")).key_alias == "one"
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump([{"sha256": digest("k3"), "alias": "three"}]))
    (tmp_path / "p.yaml").write_text("keys: other.yaml\n")
    for _ in range(2):
        reload.at(tmp_path / "p.yaml").look()
    assert (await auth.user_api_key_auth(request(), "k3")).key_alias == "three"


async def test_a_litellm_file_without_our_guardrail_needs_the_keys_in_the_environment(
    tmp_path: Path, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "litellm.yaml").write_text("model_list: []\n")
    server = types.SimpleNamespace(master_key=MASTER, user_config_file_path=str(tmp_path / "litellm.yaml"))
    monkeypatch.setattr(auth, "_server", lambda: server)
    assert (await auth.user_api_key_auth(request(), "k1")).key_alias == "one"
    auth._policies.cache_clear()
    monkeypatch.delenv("ALIGNER_PROXY_KEYS")
    with pytest.raises(_types.ProxyException) as caught:
        await auth.user_api_key_auth(request(), "k1")
    assert caught.value.code == "503"
