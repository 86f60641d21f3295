"""The URL of the shared Redis: what it may be, and refusals with the line, the fix, and not a word of the URL."""

from __future__ import annotations

from pathlib import Path

import pytest

from aligner_proxy.errors import ConfigError
from aligner_proxy.gateway.shared_server import open_shared_server
from aligner_proxy.plugins.registry import load_policies
from aligner_proxy_fleet.shared_redis import SharedRedis, redis_fault

BLOCK = "objectives: {}\ncache:\n  ttl_s: 60\n  redis_env: ALIGNER_TEST_REDIS\n"


@pytest.mark.parametrize(
    "url",
    [
        "redis://cache",
        "redis://cache:6380/",
        "redis://user:p%40ss@cache:6379/3",
        "rediss://:secret@[::1]:6379/0?ssl_ca_certs=/etc/ca.pem",
        "unix:///run/redis.sock?db=2",
    ],
)
def test_these_are_urls(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert redis_fault(url) is None
    monkeypatch.setenv("ALIGNER_TEST_REDIS", url)
    path = tmp_path / "policies.yaml"
    path.write_text(BLOCK)
    assert isinstance(open_shared_server(load_policies(path)), SharedRedis)


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("http://secret", "its scheme is none of"),
        ("secret:6379", "its scheme is none of"),
        ("redis://", "it names no host"),
        ("redis://:secret@:6379", "it names no host"),
        ("redis://secret:0", "it names no host, or no port"),
        ("redis://secret:notaport", "it cannot be taken apart"),
        ("redis://[secret", "it cannot be taken apart"),
        ("redis://host/secret", "the database behind the host is no number"),
        ("redis://host?socket_timeout=600", "the options it may have are: none"),
        ("rediss://host?ssl_cert_reqs=none", "the options it may have are: ssl_ca_certs"),
        ("unix://secret/redis.sock", "it names no absolute path"),
    ],
)
def test_others_are_refused_with_the_line(
    url: str, fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALIGNER_TEST_REDIS", url)
    path = tmp_path / "policies.yaml"
    path.write_text(BLOCK)
    with pytest.raises(ConfigError) as caught:
        open_shared_server(load_policies(path))
    message = str(caught.value)
    assert message.startswith("policies.yaml:4: cache.redis_env: ALIGNER_TEST_REDIS holds no URL of a Redis (")
    assert fault in message
    assert "secret" not in message


def test_a_missing_variable_is_refused_with_the_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ALIGNER_TEST_REDIS", raising=False)
    path = tmp_path / "policies.yaml"
    path.write_text(BLOCK)
    with pytest.raises(
        ConfigError, match=r"^policies.yaml:4: cache.redis_env: ALIGNER_TEST_REDIS is not set; set it to"
    ):
        open_shared_server(load_policies(path))
