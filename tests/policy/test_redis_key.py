"""The key of what lies in the shared Redis: what it may be, and refusals with the line."""

from __future__ import annotations

from pathlib import Path

import pytest

from aligner_proxy.errors import ConfigError
from aligner_proxy.policy import config

BLOCK = "objectives: {}\ncache:\n  ttl_s: 60\n  redis_env: ALIGNER_TEST_REDIS\n"


def test_the_key_of_what_lies_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "policies.yaml"
    path.write_text(BLOCK + "  key_env: ALIGNER_TEST_REDIS_KEY\n")
    monkeypatch.setenv("ALIGNER_TEST_REDIS_KEY", "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=")
    assert config.encryption_key(config.load(path), "cache") == b"01234567890123456789012345678901"
    monkeypatch.setenv("ALIGNER_TEST_REDIS_KEY", "short")
    with pytest.raises(
        ConfigError, match=r"^policies.yaml:5: cache.key_env: ALIGNER_TEST_REDIS_KEY must hold 32 bytes"
    ):
        config.encryption_key(config.load(path), "cache")


def test_a_key_without_redis_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "policies.yaml"
    path.write_text("cache:\n  key_env: A\n")
    with pytest.raises(ConfigError, match="key_env encrypts entries in Redis"):
        config.load(path)
