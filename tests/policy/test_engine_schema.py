"""`aligner.engine`: the short forms, the block, and what is refused, by the line that the operator wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

from aligner_proxy.errors import ConfigError
from aligner_proxy.policy import config
from aligner_proxy.policy.engine_schema import Backend, ServerKind


def backend(tmp_path: Path, engine: str) -> Backend:
    """The engine of a policies file."""
    path = tmp_path / "policies.yaml"
    path.write_text(f"aligner:\n  engine: {engine}\n")
    return config.load(path).aligner.engine


@pytest.mark.parametrize(
    ("written", "kind", "at"),
    [
        ("local", ServerKind.LOCAL, ("local",)),
        ("unix:/run/engine.sock", ServerKind.ENGINE, ("unix:/run/engine.sock",)),
        ("http://engine:9000/", ServerKind.ENGINE, ("http://engine:9000",)),
        ("https://gpu:8000/v1/", ServerKind.COMPLETIONS, ("https://gpu:8000/v1",)),
        ("http://gpu/vllm/v1", ServerKind.COMPLETIONS, ("http://gpu/vllm/v1",)),
        ("litellm:aligners", ServerKind.GROUP, ("litellm:aligners",)),
        ("[http://a:1, http://b:1]", ServerKind.ENGINE, ("http://a:1", "http://b:1")),
        ("{at: http://gpu:8000/v1, scorer: local}", ServerKind.COMPLETIONS, ("http://gpu:8000/v1",)),
        (
            "{at: [http://a/v1, http://b/v1], model: big, window: 8192}",
            ServerKind.COMPLETIONS,
            ("http://a/v1", "http://b/v1"),
        ),
    ],
)
def test_forms(tmp_path: Path, written: str, kind: ServerKind, at: tuple[str, ...]) -> None:
    found = backend(tmp_path, written)
    assert (found.kind, found.at) == (kind, at)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("here", "not an engine address; use local"),
        ("7", "must be a block"),
        ("[]", "a list of engines holds addresses"),
        ("[3]", "a list of engines holds addresses"),
        ("[http://a:1, here]", "not an engine address"),
        ("'http://[::1'", "not an engine address"),
        ("http://a:99999", "not an engine address"),
        ("[local, http://a:1]", "replicas must be of one kind"),
        ("[http://a:1, http://b:1/v1]", "replicas must be of one kind"),
        ("['litellm:a', 'litellm:b']", "cannot be in one"),
        ("[http://a:1, http://a:1]", "listed twice"),
        ("http://user:secret@gpu/v1", "must not hold a password"),
        ("{at: local, model: m}", "model: only for a completions server"),
        ("{at: http://a:1, scorer: local}", "scorer: only for a completions server"),
        ("{at: 'litellm:a', key_env: KEY}", "in the LiteLLM file"),
        ("{at: http://a/v1, scorer: http://b/v1}", "scorer: must be an aligner-proxy engine"),
        ("{at: http://a/v1, scorer: nowhere}", "not an engine address"),
        ("{at: http://a/v1, key_env: sk-secret}", "key_env"),
        ("{at: http://a/v1, windwo: 3}", "did you mean 'window'"),
        ("{at: http://a/v1, window: 10}", "greater than or equal to 256"),
        ("{model: m}", "at: is missing"),
    ],
)
def test_what_is_refused(tmp_path: Path, written: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        backend(tmp_path, written)
    assert str(caught.value).startswith("policies.yaml:2: aligner.engine") or "in aligner.engine" in str(caught.value)
    assert said in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_key_comes_from_the_variable_that_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = backend(tmp_path, "{at: http://a/v1, key_env: ALIGNER_TEST_KEY}")
    monkeypatch.delenv("ALIGNER_TEST_KEY", raising=False)
    with pytest.raises(ConfigError, match="ALIGNER_TEST_KEY, but that variable is not set"):
        config.engine_key(found)
    monkeypatch.setenv("ALIGNER_TEST_KEY", "k")
    assert config.engine_key(found) == "k"


def test_who_is_to_be_started(tmp_path: Path) -> None:
    assert backend(tmp_path, "local").needs_local
    scored = backend(tmp_path, "{at: http://a/v1, scorer: local}")
    assert scored.needs_local
    assert str(scored) == "http://a/v1, where local flags something"
    assert not backend(tmp_path, "http://a/v1").needs_local
