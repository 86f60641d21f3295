"""The rule of docs/reference/errors.md for every command: 2 for wrong usage, 1 for work that failed."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from aligner_proxy import extras
from aligner_proxy.audit.entry import make_entry
from aligner_proxy.audit.store import AuditStore
from aligner_proxy.cli import doctor, main
from aligner_proxy.engine.weights.store import WeightStore
from aligner_proxy.errors import WeightsError
from aligner_proxy.gateway.process import supervisor
from aligner_proxy.plugins.findings import DoctorFinding, Severity
from tests.audit.conftest import noted
from tests.cli.conftest import fill_disk
from tests.cli.test_help import COMMANDS
from tests.e2e.processes import free_port

pytestmark = [
    pytest.mark.skipif(bool(extras.list_missing(extras.ENGINE)), reason="a host without the extra says so first"),
]
NO_ENGINE = ("--engine", "http://127.0.0.1:9")
POLICIES = """\
objectives: {kind: {text: "Kindness: the response should never insult the reader", examples: kind.yaml}}
routes: [{match: {model: "*"}, objectives: [kind]}]
audit: {enabled: true, file: audit.db}
"""
WRONG_USAGE = {
    "init": ("init", "file"),
    "serve": ("serve", "--config", "nowhere.yaml"),
    "engine": ("engine", "--port", "0", "--model", "./nowhere"),
    "align": ("align", "-q", "When?", "--model", "./nowhere"),
    "decide": ("decide", "-o", "harmless", "--model", "./nowhere"),
    "teach": ("teach", "policies.yaml", "--model", "./nowhere"),
    "check": ("check", "nowhere.yaml"),
    "audit erase": ("audit", "erase", "id-0", "--policy", "nowhere.yaml"),
    "health": ("health", "--gateway", "nowhere"),
    "doctor": ("doctor", "--config", "nowhere.yaml"),
    "pull": ("pull", "./nowhere"),
    "replay": ("replay", "--policy", "policies.yaml", "--aligner", "./nowhere"),
    "review": ("review", "--policy", "policies.yaml", "--audit", "nowhere.db"),
    "export": ("export", "--policy", "policies.yaml", "--out", "nowhere/rows.jsonl"),
    "compare": ("compare", "abcd", "abce", "--policy", "nowhere.yaml"),
    "console": ("console", "--config", "nowhere.yaml"),
    "promote": ("promote", "nowhere.yaml", "--defaults", "--mode", "enforce"),
}
"""For each command a file, folder or address on its command line that there is not."""
OF_STORE = ("--policy", "policies.yaml", "--audit", "damaged.db")
FAILED_WORK = {
    "init": ("init", "new"),
    "serve": ("serve", "--config", "gateway/litellm.yaml", "--port", str(free_port())),
    "engine": ("engine", "--port", "0", "--model", "no-such/model"),
    "align": ("align", "-q", "When?", *NO_ENGINE),
    "decide": ("decide", "-o", "harmless", *NO_ENGINE),
    "teach": ("teach", "policies.yaml", *NO_ENGINE),
    "check": ("check", "unreadable.yaml"),
    "audit erase": ("audit", "erase", "id-0", *OF_STORE),
    "health": ("health", *NO_ENGINE),
    "doctor": ("doctor",),
    "pull": ("pull", "no-such/model", "--template", "ultrafeedback"),
    "replay": ("replay", *OF_STORE),
    "review": ("review", "--json", *OF_STORE),
    "export": ("export", "--out", "rows.jsonl", *OF_STORE),
    "compare": ("compare", "abcd", "abce", *OF_STORE),
}
"""For each command that can fail at its work what then fails: no engine, a full disk, a damaged store."""
CANNOT_FAIL = {"console", "promote"}
"""Commands that only refuse, or that work until they are ended."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with all files that the commands name, in which nothing works."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALIGNER_PROXY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LITELLM_MASTER_KEY", "sk-a-long-key-of-this-test-alone")
    (tmp_path / "file").mkdir()
    (tmp_path / "file" / "policies.yaml").touch()
    (tmp_path / "policies.yaml").write_text(POLICIES)
    (tmp_path / "unreadable.yaml").write_text(POLICIES.replace("kind.yaml", "nowhere.yaml"))
    (tmp_path / "kind.yaml").write_text("against: [You fool., Only a fool has to ask.]\n")
    (tmp_path / "damaged.db").write_text("no database " * 200)
    store = AuditStore(tmp_path / "audit.db")
    store.add(make_entry(noted(0, at=time.time() - 60)))
    store.close()
    assert CliRunner().invoke(main, ["init", "gateway"]).exit_code == 0
    return tmp_path


@pytest.fixture
def nothing_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2**20))
    fill_disk(monkeypatch)
    # What an engine does before it prepares weights, without the weights.
    monkeypatch.setattr(WeightStore, "find_prepared", lambda store, model, _: store.check_room(2**30))
    monkeypatch.setattr(doctor, "examine", lambda *_: [DoctorFinding("port", Severity.FAULT, "is taken")])
    monkeypatch.setattr(supervisor, "run", _fail_to_start)


async def _fail_to_start(_make: object, _pace: object, stop_serving: Callable[[], None], _memory: object) -> int:
    stop_serving()
    raise WeightsError("the engine ended with status 1 before it was ready")


def _wrong_statuses(commands: dict[str, tuple[str, ...]], status: int) -> list[str]:
    """The commands that end with another status, or with an exception, and what they printed."""
    wrong = []
    for name, arguments in commands.items():
        done = CliRunner().invoke(main, arguments, input="It is so. You fool.\n")
        if done.exit_code != status or not isinstance(done.exception, SystemExit):
            wrong.append(f"{name}: {done.exit_code} {done.output} {done.exception!r}")
    return wrong


def test_every_command_has_its_cases() -> None:
    names = {name.removeprefix("aligner-proxy ") for name in COMMANDS}
    assert (set(WRONG_USAGE), set(FAILED_WORK)) == (names, names - CANNOT_FAIL)


@pytest.mark.usefixtures("folder")
def test_wrong_usage_ends_with_2() -> None:
    assert _wrong_statuses(WRONG_USAGE, 2) == []


@pytest.mark.usefixtures("folder", "nothing_works")
def test_work_that_fails_ends_with_1() -> None:
    assert _wrong_statuses(FAILED_WORK, 1) == []
