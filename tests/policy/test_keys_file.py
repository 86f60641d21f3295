"""The keys file: what an entry may say, what is refused, and in which words."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from aligner_proxy.errors import ConfigError
from aligner_proxy.policy.keys_file import KeyEntry, Role, load_keys

DIGEST = "a" * 64


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.yaml"


def loaded(path: Path, rest: str) -> KeyEntry:
    """The only entry of a file."""
    path.write_text(f"- {{sha256: {DIGEST}, alias: x, {rest}}}\n")
    return load_keys(path)[DIGEST]


def test_keys_are_read_by_hash(path: Path) -> None:
    one = _digest("first")
    two = _digest("second")
    path.write_text(f"- {{sha256: {one.upper()}, alias: a, team: t}}\n- {{sha256: '{two}', alias: b}}\n")
    keys = load_keys(path)
    assert (keys[one].alias, keys[one].team, keys[two].team) == ("a", "t", None)


def test_keys_may_be_json(path: Path) -> None:
    path.write_text(json.dumps([{"sha256": _digest("x"), "alias": "x"}]))
    assert list(load_keys(path)) == [_digest("x")]


def test_an_entry_of_an_older_file_has_no_limits_but_a_bounded_body(path: Path) -> None:
    entry = loaded(path, "team: t")
    assert (entry.expires, entry.models, entry.routes, entry.rpm, entry.max_parallel) == (None, None, (), None, None)
    assert entry.max_body_mb == 32
    assert not entry.has_limits


def test_an_entry_with_everything(path: Path) -> None:
    entry = loaded(path, "models: [gpt], routes: [/v1/audio/*, '*'], rpm: 60, max_parallel: 4, max_body_mb: 8")
    assert (entry.models, entry.routes) == (("gpt",), ("/v1/audio/*", "*"))
    assert (entry.rpm, entry.max_parallel, entry.max_body_mb, entry.has_limits) == (60, 4, 8, True)


@pytest.mark.parametrize(
    ("written", "moment"),
    [
        ("2027-01-31", datetime(2027, 1, 31, tzinfo=UTC)),
        ("'2027-01-31'", datetime(2027, 1, 31, tzinfo=UTC)),
        ("2027-01-31 18:00:00", datetime(2027, 1, 31, 18, tzinfo=UTC)),
        ("2027-01-31T18:00:00Z", datetime(2027, 1, 31, 18, tzinfo=UTC)),
        ("'2027-01-31T18:00:00+02:00'", datetime(2027, 1, 31, 16, tzinfo=UTC)),
    ],
)
def test_a_key_ends_at_a_moment(path: Path, written: str, moment: datetime) -> None:
    entry = loaded(path, f"expires: {written}")
    assert entry.expires == moment
    assert not entry.is_expired(moment - timedelta(seconds=1))
    assert entry.is_expired(moment)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "- {sha256: sk-my-secret-key, alias: a}\n",
            "keys.yaml:1: sha256 must be 64 hexadecimal digits: the hash of the key, not the key",
        ),
        (f"- {{sha256: {DIGEST}}}\n", "keys.yaml:1: [0].alias: is missing"),
        (
            f"- {{sha256: {DIGEST}, alias: x, taem: t}}\n",
            "keys.yaml:1: unknown key 'taem' in [0]; did you mean 'team'?",
        ),
        (
            f"- {{sha256: {DIGEST}, alias: x}}\n- {{sha256: {DIGEST.upper()}, alias: y}}\n",
            "keys.yaml:2: the same key is listed twice in this file; keep one entry",
        ),
        ("a: b\n", "keys.yaml:1: must be a list of {sha256: ..., alias: ..., team: ...}"),
        (
            f"- sha256: {DIGEST}\n  alias: x\n  expires: soon\n",
            "keys.yaml:3: [0].expires: must be a date or a time, for example 2027-01-31 or 2027-01-31T18:00:00Z",
        ),
        (
            f"- sha256: {DIGEST}\n  alias: x\n  expires: 20270131\n",
            "keys.yaml:3: [0].expires: must be a date or a time, for example 2027-01-31 or 2027-01-31T18:00:00Z",
        ),
        (
            f"- sha256: {DIGEST}\n  alias: x\n  routes: [realtime]\n",
            "keys.yaml:3: [0].routes[0]: must be a path of LiteLLM as a glob, for example /v1/audio/*; "
            "or * for every model endpoint",
        ),
        (
            f"- {{sha256: {DIGEST}, alias: x, rpm: 0}}\n",
            "keys.yaml:1: [0].rpm: Input should be greater than or equal to 1",
        ),
        (
            f"- {{sha256: {DIGEST}, alias: x, max_parallel: yes}}\n",
            "keys.yaml:1: [0].max_parallel: must be a whole number, without quotes or unit (and 1000, not 1e3)",
        ),
        (
            f"- {{sha256: {DIGEST}, alias: x, models: []}}\n",
            "keys.yaml:1: [0].models: Tuple should have at least 1 item after validation, not 0",
        ),
    ],
)
def test_bad_keys_files_are_refused_without_quoting_a_key(path: Path, text: str, message: str) -> None:
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_keys(path)
    assert str(caught.value) == message


def test_a_reviewer_sees_its_team_or_those_that_it_reviews(path: Path) -> None:
    assert loaded(path, "role: reviewer, team: acme").reviewed_teams == ("acme",)
    assert loaded(path, "role: reviewer, team: acme, reviews: [a, b]").reviewed_teams == ("a", "b")
    client = loaded(path, "team: acme")
    assert (client.role, client.reviewed_teams) == (Role.CLIENT, ())


@pytest.mark.parametrize(
    ("rest", "said"),
    [
        ("role: reviewer", "a reviewer needs a team"),
        ("team: acme, reviews: [acme]", "is for keys with role: reviewer"),
        ("role: admin", "keys.yaml:1"),
        ("role: reviewer, reviews: []", "reviews"),
    ],
)
def test_a_reviewer_of_nothing_is_refused(path: Path, rest: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        loaded(path, rest)
