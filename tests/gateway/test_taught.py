"""Taught heads in a gateway: a head that comes into force applies to new requests, and headers and records say so."""

from __future__ import annotations

import asyncio
import hashlib
from functools import partial
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from aligner_proxy.gateway.process import auto_training
from aligner_proxy.gateway.process.auto_training import AutoTrainer, ServingEngine
from aligner_proxy.gateway.reload import Policies
from aligner_proxy.gateway.request_state import Arrival, RequestState
from aligner_proxy.policy.request_facts import RequestFacts
from aligner_proxy.teaching.store import WHOLE_FILE, Count, HeadStore, Version
from tests.support.teachable import TeachableEngine
from tests.teaching.examples import AGAINST, TEXT, listed, policies

HEAD = b"bytes of a head"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ALIGNER_PROXY_HOME", str(tmp_path / "home"))
    (tmp_path / "feelings.yaml").write_text(listed())
    (tmp_path / "policies.yaml").write_text(policies())
    return tmp_path / "policies.yaml"


def keep(file: Path) -> Version:
    version = Version(
        head=hashlib.sha256(HEAD).hexdigest(),
        text=TEXT,
        called="default",
        aligner="a" * 64,
        against=len(AGAINST),
        fine=1,
        digest="d",
        at=1_795_000_000.0,
        found=Count(hits=5, of=6),
        false=Count(hits=0, of=900),
        threshold=0.5,
    )
    HeadStore(file).activate(WHOLE_FILE, "no-feelings", version, HEAD)
    return version


def test_a_head_that_is_taught_applies_to_new_requests_without_a_restart(file: Path) -> None:
    watched = Policies(file)
    before = watched.current.resolver.resolve(RequestFacts("gpt"))
    assert [one.head for one in before.objectives] == ["", ""]
    version = keep(file)
    watched.check_files()
    watched.check_files()
    after = watched.current.resolver.resolve(RequestFacts("gpt"))
    assert [(one.name, one.head) for one in after.objectives] == [("harmless", ""), ("no-feelings", version.head)]
    assert watched.current.heads.store.head(version.head) == HEAD
    labels = {"scope": "-", "objective": "no-feelings", "aligner": "default"}
    assert REGISTRY.get_sample_value("aligner_taught_examples", labels) == len(AGAINST) + 1
    assert REGISTRY.get_sample_value("aligner_taught_timestamp_seconds", labels) == version.at
    HeadStore(file).forget(WHOLE_FILE, "no-feelings")
    watched.check_files()
    watched.check_files()
    assert [one.head for one in watched.current.resolver.resolve(RequestFacts("gpt")).objectives] == ["", ""]
    assert REGISTRY.get_sample_value("aligner_taught_examples", labels) == 0


def test_headers_and_records_say_what_is_taught(file: Path) -> None:
    untaught = Policies(file).current
    version = keep(file)
    active = Policies(file).current
    policy = active.resolver.resolve(RequestFacts("gpt"))
    state = RequestState("c", policy, "embedded", Arrival(heads_in_force=active.head_versions))
    assert state.headers()["x-aligner-taught"] == f"no-feelings=6@{version.day}"
    assert state.record()["taught"] == {"no-feelings": {"head": version.head[:16], "examples": 7, "at": 1_795_000_000}}
    plain = RequestState(
        "c",
        untaught.resolver.resolve(RequestFacts("gpt")),
        "embedded",
        Arrival(heads_in_force=untaught.head_versions),
    )
    assert "x-aligner-taught" not in plain.headers()
    assert "taught" not in plain.record()


def test_a_damaged_index_stops_no_gateway(file: Path) -> None:
    keep(file)
    HeadStore(file).index_path.write_text("{")
    assert [one.head for one in Policies(file).current.resolver.resolve(RequestFacts("gpt")).objectives] == ["", ""]


class _Noted(AutoTrainer):
    """A teacher that notes what it would teach."""

    async def _run_training(self, target: ServingEngine, titles: object) -> None:
        noted.append(list(titles))


noted: list[list[str]] = []


async def test_what_has_examples_and_no_head_is_taught_once(file: Path) -> None:
    noted.clear()
    served = ServingEngine("unix:/none", TeachableEngine)
    learning = _Noted(file, lambda: served, {})
    await learning.train_due(served)
    await learning.train_due(served)
    assert noted == [["no-feelings"]], "what failed is not tried again at once"
    (file.parent / "feelings.yaml").write_text(listed(AGAINST[:4]))
    await learning.train_due(served)
    assert noted == [["no-feelings"]] * 2, "but when its examples have changed"


async def test_a_head_of_another_aligner_is_taught_again_and_forgotten_ones_are_not(file: Path) -> None:
    noted.clear()
    version = keep(file)
    served = ServingEngine("unix:/none", partial(TeachableEngine, version.aligner))
    learning = _Noted(file, lambda: served, {})
    await learning.train_due(served)
    assert noted == [], "its examples have changed, which waits for the operator"
    other = ServingEngine("unix:/none", partial(TeachableEngine, "b" * 64))
    await learning.train_due(other)
    assert noted == [["no-feelings"]]
    HeadStore(file).forget(WHOLE_FILE, "no-feelings")
    await _Noted(file, lambda: served, {}).train_due(served)
    assert noted == [["no-feelings"]]


async def test_faults_are_logged_once_and_nothing_ends(
    file: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text("objectives: {a: nothing}\n")
    served = ServingEngine("unix:/none", TeachableEngine)
    learning = AutoTrainer(file, lambda: served, {}, check_every_s=0.0)
    task = asyncio.ensure_future(learning.keep_training())
    for _ in range(20):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert caplog.text.count("cannot teach objectives: policies.yaml:1: objectives.a") == 1


def test_the_log_has_names_and_figures_alone(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    auto_training._log_result(b"no json", 3)
    assert "ended with status 3" in caplog.text
    line = (
        b'{"objectives": [{"objective": "x", "aligner": "default", "taught": true, "against": 4, '
        b'"found": {"hits": 3, "of": 4}, "head": "0123456789abcdef"}, '
        b'{"objective": "y", "aligner": "default", "taught": false, "why": "no rows"}]}'
    )
    auto_training._log_result(line, 1)
    assert "taught x for aligner default from 4 examples: found 3 of 4 held-out examples, head 01234567" in caplog.text
    assert "y was not taught, so the general head judges it: no rows" in caplog.text
