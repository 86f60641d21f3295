"""Policies and keys as they are in force: reload under load, refusals, what needs a restart, and the report."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from aligner_proxy.errors import ConfigError
from aligner_proxy.gateway import active_policies, reload
from aligner_proxy.gateway.reload import Policies, ReloadReport, read_reports, watched_policies, write_report
from aligner_proxy.policy import config
from aligner_proxy.policy.config import default_socket
from aligner_proxy.policy.request_facts import RequestFacts

DIGEST = hashlib.sha256(b"k1").hexdigest()
GOOD = 'objectives: {kind: "Kind: be kind"}\nroutes:\n  - match: {}\n    name: one\n    objectives: [kind]\n'
OFF = "defaults: {mode: off}\n"
"""The least that a policies file says."""


@pytest.fixture(autouse=True)
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A good policies file, and a home of this test alone."""
    monkeypatch.setenv("ALIGNER_PROXY_HOME", str(tmp_path / "home"))
    for name in ("ALIGNER_PROXY_KEYS", "ALIGNER_PROXY_POLICIES", "ALIGNER_PROXY_ENGINE"):
        monkeypatch.delenv(name, raising=False)
    made = tmp_path / "policies.yaml"
    made.write_text(GOOD)
    return made


def changed(policies: Policies, text: str, path: Path | None = None) -> None:
    """Write, and let it settle."""
    (path or policies.path).write_text(text)
    look_twice(policies)


def look_twice(policies: Policies) -> None:
    for _ in range(2):
        policies.check_files()


def name(policies: Policies) -> str:
    return policies.current.resolver.resolve(RequestFacts("gpt")).name


def metric(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_a_good_change_counts_and_a_bad_one_does_not(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    policies = Policies(path)
    changed(policies, GOOD.replace("name: one", "name: two"))
    assert name(policies) == "two"
    refused = metric("aligner_policy_changes_total", result="refused")
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            changed(policies, GOOD.replace("objectives: [kind]", "objectvies: [kind]"))
    assert name(policies) == "two"
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == [
        "policies.yaml: the change is invalid, the previous version stays active: "
        "policies.yaml:5: unknown key 'objectvies' in routes[0]; did you mean 'objectives'?"
    ]
    assert metric("aligner_policy_changes_total", result="refused") == refused + 1
    assert metric("aligner_policy_refused") == 1
    changed(policies, GOOD)
    assert (name(policies), metric("aligner_policy_refused")) == ("one", 0)


EMPTIED = ["", "\n# later\n", "{}\n", "aligner: {model: embedded}\n", "routes: []\n"]


@pytest.mark.parametrize("text", EMPTIED)
def test_a_file_that_became_empty_is_refused(path: Path, text: str, caplog: pytest.LogCaptureFixture) -> None:
    """A writer empties a file before it writes, and may be held up in between."""
    policies = Policies(path)
    with caplog.at_level(logging.ERROR):
        changed(policies, text)
    assert name(policies) == "one"
    assert "policies.yaml: " in caplog.text
    changed(policies, GOOD.replace("name: one", "name: two"))
    assert name(policies) == "two"
    changed(policies, OFF + "allow_less: ['*']\n")
    assert name(policies) == "default"


@pytest.mark.parametrize("text", EMPTIED)
def test_an_empty_file_is_refused_at_the_start_with_the_fix(path: Path, text: str) -> None:
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"policies\.yaml: .*; restore it, or write defaults: \{mode: off\}"):
        Policies(path)
    path.write_text(OFF)
    assert name(Policies(path)) == "default"


def test_a_file_that_is_bad_from_the_start_is_an_error(path: Path) -> None:
    path.write_text("rotues: []\n")
    with pytest.raises(ConfigError, match=r"policies\.yaml:1: unknown key 'rotues'"):
        Policies(path)


def entries(alias: str) -> str:
    """A keys file with one key."""
    return f"- {{sha256: {DIGEST}, alias: {alias}}}\n"


def test_keys_follow_the_policies_that_name_them(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    keys = path.with_name("keys.yaml")
    policies = Policies(path)
    changed(policies, GOOD.replace("one", "two") + "keys: keys.yaml\n")
    look_twice(policies)
    assert (name(policies), policies.keys) == ("two", {})
    assert "keys.yaml does not exist, so none of its keys is accepted" in caplog.text
    changed(policies, entries("first"), keys)
    assert policies.keys[DIGEST].alias == "first"
    changed(policies, entries("elsewhere"), path.with_name("other.yaml"))
    changed(policies, GOOD + "keys: other.yaml\n")
    look_twice(policies)
    assert policies.keys[DIGEST].alias == "elsewhere"
    changed(policies, GOOD)
    look_twice(policies)
    assert policies.keys == {}


def test_a_key_is_revoked_while_the_policies_are_refused(path: Path) -> None:
    keys = path.with_name("keys.yaml")
    keys.write_text(entries("first"))
    path.write_text(OFF + "keys: keys.yaml\n")
    policies = Policies(path)
    changed(policies, OFF + "keys: keys.yaml\nrotues: []\n")
    assert metric("aligner_policy_refused") == 1
    changed(policies, "[]\n", keys)
    assert policies.keys == {}
    assert metric("aligner_policy_refused") == 1
    (told,) = read_reports()
    assert (told.refused is not None, told.keys) == (True, None)


def test_a_keys_file_that_is_gone_has_no_keys(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    keys = path.with_name("keys.yaml")
    keys.write_text(entries("first"))
    path.write_text(OFF + "keys: keys.yaml\n")
    policies = Policies(path)
    keys.unlink()
    with caplog.at_level(logging.ERROR):
        look_twice(policies)
        look_twice(policies)
    assert policies.keys == {}
    assert [record.getMessage() for record in caplog.records] == [
        "keys.yaml does not exist, so none of its keys is accepted",
    ]
    (told,) = read_reports()
    assert told.keys == "keys.yaml does not exist, so none of its keys is accepted"
    changed(policies, entries("second"), keys)
    assert policies.keys[DIGEST].alias == "second"
    (told,) = read_reports()
    assert told.keys is None


def test_a_gateway_starts_without_its_keys_file_and_not_with_a_broken_one(path: Path) -> None:
    path.write_text(OFF + "keys: keys.yaml\n")
    assert Policies(path).keys == {}
    path.with_name("keys.yaml").write_text("- 1\n")
    with pytest.raises(ConfigError, match=r"keys\.yaml:1: invalid keys file"):
        Policies(path)


@pytest.mark.parametrize("text", ["- sk-secret: 1\n", "- {sha256: sk-secret, alias: a}\n", "sk-secret: [\n", "- 1\n"])
def test_a_refused_keys_file_keeps_the_keys_and_quotes_none(
    path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    keys = path.with_name("keys.yaml")
    keys.write_text(entries("first"))
    path.write_text(OFF + "keys: keys.yaml\n")
    policies = Policies(path)
    with caplog.at_level(logging.DEBUG):
        changed(policies, text, keys)
    assert policies.keys[DIGEST].alias == "first"
    assert metric("aligner_policy_refused") == 1
    (told,) = read_reports()
    assert "keys.yaml" in str(told.keys)
    assert "run `aligner-proxy check` to see why" in caplog.text
    assert "secret" not in caplog.text + str(told)
    changed(policies, GOOD + "keys: keys.yaml\n")
    assert metric("aligner_policy_refused") == 1
    changed(policies, entries("second"), keys)
    assert (policies.keys[DIGEST].alias, metric("aligner_policy_refused")) == ("second", 0)


def test_what_needs_a_restart_is_said_when_it_changes(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    policies = Policies(path)
    text = GOOD + "aligner:\n  model: ./mine\n  engine: http://127.0.0.1:9\ncache: {dir: elsewhere}\n"
    with caplog.at_level(logging.WARNING):
        changed(policies, text)
    said = (
        "policies.yaml:7: aligner.model changed on disk; restart the gateway to apply it",
        "policies.yaml:8: aligner.engine changed on disk; restart the gateway to apply it",
        "policies.yaml:9: cache.dir changed on disk; restart the gateway to apply it",
    )
    assert tuple(record.getMessage() for record in caplog.records) == said
    (told,) = read_reports()
    assert told.restart == said
    changed(policies, GOOD)
    (told,) = read_reports()
    assert told.restart == ()


def versions(count: int) -> list[str]:
    """Policies in which name, deadline, caution and objectives all say which version they belong to."""
    return [
        f"defaults: {{deadline_s: {i + 1}}}\n"
        f'objectives: {{o{i}: "O: version {i}"}}\n'
        f"routes:\n  - match: {{}}\n    name: v{i}\n    caution: {i}\n    objectives: [o{i}]\n"
        f"tenants:\n  - match: {{}}\n    name: t{i}\n    enforce: [harmless]\n    quota: {i}\n"
        for i in range(count)
    ]


def test_no_request_sees_half_a_policy(path: Path) -> None:
    """Reloads in a tight loop, resolved by several threads at once: every policy is of one version, whole."""
    texts = versions(7)
    path.write_text(texts[0])
    policies, done = Policies(path), threading.Event()
    mixed: list[str] = []
    seen: set[str] = set()

    def resolve() -> None:
        while not done.is_set():
            policy = policies.current.resolver.resolve(RequestFacts("gpt"))
            i = int(policy.deadline_s) - 1
            assert policy.quota is not None
            whole = (policy.name, policy.caution, policy.quota.seconds, [o.name for o in policy.objectives])
            if whole != (f"v{i}+t{i}", i, i, ["harmless", f"o{i}"]):
                mixed.append(str(whole))
            seen.add(policy.name)

    threads = [threading.Thread(target=resolve) for _ in range(3)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for turn in range(60):
            text = texts[turn % len(texts)] if turn % 5 else "routes: [\n"
            new = path.with_name("new")
            new.write_text(text)
            new.replace(path)
            policies.check_files()
            policies.check_files()
    finally:
        sys.setswitchinterval(before)
        done.set()
        for thread in threads:
            thread.join()
    assert mixed == []
    assert len(seen) > 1


def test_one_watch_for_everybody_in_this_process(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    assert (
        watched_policies(path)
        is watched_policies(Path("policies.yaml"))
        is watched_policies(path.parent / "." / "policies.yaml")
    )


# what a change may take

ENFORCED = """objectives: {kind: "Kind: be kind"}
routes:
  - match: {}
    objectives: [kind]
tenants:
  - {match: {team: acme}, name: acme, enforce: [harmless], on_error: block}
"""


def enforced(policies: Policies) -> list[str]:
    """What is in force for a team."""
    policy = policies.current.resolver.resolve(RequestFacts("gpt", team_id="acme"))
    return [objective.name for objective in policy.objectives] if policy.mode == "enforce" else []


@pytest.fixture
def kept(path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where `serve` keeps what is in force: at first a file that enforces something."""
    path.write_text(ENFORCED)
    kept = path.with_name("in-force.json")
    monkeypatch.setenv("ALIGNER_PROXY_IN_FORCE", str(kept))
    active_policies.process_policies(path).save(config.load(path))
    return kept


LESS = ENFORCED[: ENFORCED.index("tenants:")]


def test_a_change_that_takes_what_is_enforced_needs_the_word(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.write_text(ENFORCED)
    policies = Policies(path)
    with caplog.at_level(logging.ERROR):
        changed(policies, LESS)
    assert enforced(policies) == ["harmless", "kind"]
    assert "tenant acme would lose harmless (no entry enforces it)" in caplog.text
    assert "add allow_less: [acme] to the file" in caplog.text
    (told,) = read_reports()
    assert "tenant acme would lose harmless" in str(told.refused)
    changed(policies, LESS + "allow_less: [acme]\n")
    assert enforced(policies) == ["kind"]


@pytest.mark.parametrize("text", [LESS, "", "rotues: []\n"], ids=["less", "empty", "invalid"])
def test_a_process_that_starts_again_has_what_is_in_force(kept: Path, path: Path, text: str) -> None:
    path.write_text(text)
    policies = Policies(path)
    assert enforced(policies) == ["harmless", "kind"]
    look_twice(policies)
    (told,) = read_reports()
    assert told.refused is not None
    changed(policies, LESS + "allow_less: [acme]\n")
    assert enforced(policies) == ["kind"]
    path.write_text(LESS)  # the word is gone, and nothing is lost by that
    assert enforced(Policies(path)) == ["kind"]


def test_all_processes_decide_alike_and_have_the_same(kept: Path, path: Path) -> None:
    first, second = Policies(path), Policies(path)
    more = ENFORCED.replace("[harmless]", "[honest]") + "allow_less: [acme]\n"
    changed(first, more)
    changed(second, ENFORCED)  # it has not seen what the first one has taken, and would lose nothing by itself
    look_twice(first)
    assert enforced(first) == enforced(second) == ["honest", "kind"]
    assert kept.stat().st_mode & 0o777 == 0o600


def test_a_disk_that_takes_nothing_keeps_no_change_back(
    kept: Path, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    policies = Policies(path)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    changed(policies, ENFORCED.replace("name: acme", "name: first"))
    assert "cannot be stored for new processes" in caplog.text
    assert policies.current.file.tenants[0].name == "first"
    changed(policies, LESS)
    assert enforced(policies) == ["harmless", "kind"], "a process compares with its own then"


# the report


def test_the_report_follows_what_happens(path: Path) -> None:
    policies = Policies(path)
    (first,) = read_reports()
    assert (first.pid, first.path, first.refused) == (os.getpid(), str(path), None)
    changed(policies, "routes: 1\n")
    (second,) = read_reports()
    assert (second.refused, second.since) == (
        "policies.yaml:1: routes: must be a list of blocks, such as [{match: ...}]",
        first.since,
    )
    assert second.refused_at is not None
    changed(policies, GOOD)
    (third,) = read_reports()
    assert third.refused is None


@pytest.fixture
def gone() -> int:
    """The id of a process that has ended."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def test_reports_of_processes_that_are_gone_do_not_count(path: Path, gone: int) -> None:
    write_report(ReloadReport(os.getpid(), "mine", 1.0))
    folder = default_socket().parent
    stale = folder / f"policies-{gone}.json"
    stale.write_text(json.dumps({"pid": gone, "path": "theirs", "since": 1.0}))
    (folder / "policies-nonsense.json").write_text("{")
    assert [report.path for report in read_reports()] == ["mine"]
    write_report(ReloadReport(os.getpid(), "mine still", 1.0))
    assert not stale.exists()
    assert [report.path for report in read_reports()] == ["mine still"]


def test_a_report_that_cannot_be_left_stops_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(_: ReloadReport) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(reload, "write_report", full)
    with caplog.at_level(logging.WARNING):
        assert name(Policies(path)) == "one"
    assert "doctor` cannot be written" in caplog.text


def test_correctors_that_come_later_are_named_with_what_they_wait_for(path: Path) -> None:
    path.write_text(GOOD + "plugins: {correctors: {self_refine: {model: m}}}\n")
    policies = Policies(path)
    changed(policies, GOOD + "    corrector: second\nplugins:\n  correctors: {second: {kind: self_refine, model: m}}\n")
    (told,) = read_reports()
    assert told.restart == (
        "policies.yaml:8: plugins.correctors changed on disk; restart the gateway to apply it",
        "policies.yaml:8: 'second' is new; restart the gateway to load it, until then requests for it fail",
    )


def test_a_change_that_names_a_corrector_that_nobody_offers_is_refused(path: Path) -> None:
    policies = Policies(path)
    changed(policies, GOOD + "    corrector: nobodys\n")
    (told,) = read_reports()
    assert "no plugin offers 'nobodys'" in str(told.refused)
    assert policies.current.file.routes[0].corrector is None
