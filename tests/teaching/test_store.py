"""The store of heads: versions, taking back, forgetting, scopes that never mix, damage."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import pytest

from aligner_proxy.errors import ConfigError
from aligner_proxy.policy import config
from aligner_proxy.teaching.active_heads import ActiveHeads
from aligner_proxy.teaching.store import WHOLE_FILE, Count, HeadStore, Version, scope_of
from aligner_proxy.types import Objective
from tests.teaching.examples import TEXT

TENANTS = """
tenants:
  - match: {team: acme}
    objectives: {quiet: "Quiet: no shouting"}
  - match: {team: zeta}
    objectives: {quiet: "Quiet: no shouting"}
"""


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALIGNER_PROXY_HOME", str(tmp_path / "home"))


@pytest.fixture
def store(tmp_path: Path) -> HeadStore:
    return HeadStore(tmp_path / "policies.yaml")


def head(n: int) -> bytes:
    return b"head %d" % n


def version(n: int, text: str = TEXT, called: str = "default") -> Version:
    return Version(
        head=hashlib.sha256(head(n)).hexdigest(),
        text=text,
        called=called,
        aligner="a" * 64,
        against=n,
        fine=0,
        digest="d",
        at=1_790_000_000.0 + n,
        found=Count(hits=1, of=2),
        false=Count(hits=0, of=100),
        threshold=0.0,
    )


def in_force(store: HeadStore, scope: str = WHOLE_FILE, name: str = "x") -> int | None:
    found = store.index().objective(scope, name).active_version("default")
    return found.against if found else None


def test_the_last_one_kept_is_in_force_and_can_be_taken_back(store: HeadStore) -> None:
    assert in_force(store) is None
    for n in (1, 2, 3):
        store.activate(WHOLE_FILE, "x", version(n), head(n))
    assert in_force(store) == 3
    assert store.head(version(3).head) == head(3)
    assert [one.against for one in store.rollback(WHOLE_FILE, "x", TEXT)] == [2]
    assert in_force(store) == 2
    store.rollback(WHOLE_FILE, "x", TEXT)
    assert in_force(store) == 1
    assert store.rollback(WHOLE_FILE, "x", TEXT) == []
    assert in_force(store) == 1
    assert [one.against for one in store.index().objective(WHOLE_FILE, "x").versions] == [1, 2, 3]


def test_a_head_of_another_text_is_not_gone_back_to(store: HeadStore) -> None:
    store.activate(WHOLE_FILE, "x", version(1, "Other: text"), head(1))
    store.activate(WHOLE_FILE, "x", version(2), head(2))
    assert store.rollback(WHOLE_FILE, "x", TEXT) == []
    assert in_force(store) == 2


def test_forgotten_heads_are_deleted_and_stay_forgotten_until_taught_again(store: HeadStore) -> None:
    store.activate(WHOLE_FILE, "x", version(1), head(1))
    store.activate(WHOLE_FILE, "y", version(2), head(2))
    assert store.forget(WHOLE_FILE, "x") == 1
    assert in_force(store) is None
    assert store.index().objective(WHOLE_FILE, "x").is_forgotten("default")
    assert store.head(version(1).head) is None
    assert store.head(version(2).head) == head(2)
    store.activate(WHOLE_FILE, "x", version(3), head(3))
    assert not store.index().objective(WHOLE_FILE, "x").is_forgotten("default")


def test_the_oldest_versions_go_first_and_their_heads_with_them(store: HeadStore) -> None:
    for n in range(12):
        store.activate(WHOLE_FILE, "x", version(n), head(n))
    kept = [one.against for one in store.index().objective(WHOLE_FILE, "x").versions]
    assert kept == list(range(4, 12))
    assert len(list((store.folder / "heads").iterdir())) == 8


def test_each_aligner_has_its_own_head(store: HeadStore) -> None:
    store.activate(WHOLE_FILE, "x", version(1), head(1))
    store.activate(WHOLE_FILE, "x", version(2, called="legal"), head(2))
    objective = store.index().objective(WHOLE_FILE, "x")
    assert [objective.active_version(name).against for name in ("default", "legal")] == [1, 2]


def test_scopes_and_policies_files_never_mix(tmp_path: Path) -> None:
    path = tmp_path / "policies.yaml"
    path.write_text(TENANTS)
    file = config.load(path)
    acme, zeta = file.tenants
    assert scope_of(acme) != scope_of(zeta)
    store = HeadStore.for_file(file)
    store.activate(scope_of(acme), "quiet", version(1, "Quiet: no shouting"), head(1))
    heads = ActiveHeads.read(file)
    quiet = Objective("quiet", "Quiet: no shouting")
    assert heads.head_of(acme, quiet, "default") == version(1).head
    assert heads.head_of(zeta, quiet, "default") == ""
    assert heads.head_of(None, quiet, "default") == ""
    assert heads.head_of(acme, Objective("quiet", "Quiet: not so loud"), "default") == ""
    assert heads.head_of(acme, quiet, "legal") == ""
    assert HeadStore(tmp_path / "other.yaml").index().scopes == {}


def test_a_head_that_is_not_whole_is_none(store: HeadStore) -> None:
    store.activate(WHOLE_FILE, "x", version(1), head(1))
    (store.folder / "heads" / f"{version(1).head}.head").write_bytes(b"something else")
    assert store.head(version(1).head) is None
    assert store.head("../../index.json") is None


def test_a_damaged_index_is_an_error_for_people_and_costs_a_gateway_only_the_heads(
    store: HeadStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store.activate(WHOLE_FILE, "x", version(1), head(1))
    store.index_path.write_text('{"version": 1, "scopes": 3}')
    with pytest.raises(ConfigError, match=r"index\.json: the index of taught heads is damaged; remove it"):
        store.index()
    (tmp_path / "policies.yaml").write_text("{}")
    assert ActiveHeads.read_or_empty(config.load(tmp_path / "policies.yaml")).versions() == {}
    assert "damaged" in caplog.text


def test_processes_that_change_it_at_once_lose_nothing(store: HeadStore) -> None:
    def keep(n: int) -> None:
        HeadStore(store.policies).activate(WHOLE_FILE, f"x{n}", version(n), head(n))

    threads = [threading.Thread(target=keep, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(store.index().scopes[WHOLE_FILE]) == [f"x{n}" for n in range(8)]
