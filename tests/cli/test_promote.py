"""`promote`: what it writes, what it leaves, what it refuses."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from aligner_proxy.cli import main
from aligner_proxy.errors import ConfigError
from aligner_proxy.policy.config import load
from aligner_proxy.policy.litellm_config import GUARDRAIL
from aligner_proxy.policy.yaml_file import rewrite

POLICIES = """\
# Ours.
routes:
  - name: support          # the team next door
    match: {model: "gpt-*", tag: support}
    objectives: [harmless]
    mode: shadow           # since Monday
    sample: 0.1

  # everything else
  - match: {model: "*"}
    objectives: [harmless]
tenants:
  - match: {team: acme}
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("ALIGNER_PROXY_KEYS", "ALIGNER_PROXY_POLICIES"):
        monkeypatch.delenv(name, raising=False)
    made = tmp_path / "policies.yaml"
    made.write_text(POLICIES)
    made.chmod(0o640)
    return made


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["promote", *map(str, arguments)])


def backups(file: Path) -> list[Path]:
    return sorted(file.parent.glob("policies.yaml.*"))


def test_a_route_goes_from_shadow_to_enforce(file: Path) -> None:
    result = run(file, "--route", "support", "--mode", "enforce", "--sample", "1")
    assert result.exit_code == 0, result.output
    assert "-    mode: shadow           # since Monday" in result.output
    assert "+    mode: enforce           # since Monday" in result.output
    assert file.read_text() == POLICIES.replace("mode: shadow", "mode: enforce").replace("sample: 0.1", "sample: 1.0")
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    (backup,) = backups(file)
    assert backup.read_text() == POLICIES
    assert backup.name in result.output
    assert sorted(os.listdir(file.parent)) == sorted([file.name, backup.name])


def test_a_dry_run_writes_nothing(file: Path) -> None:
    result = run(file, "--tenant", "tenant-1", "--mode", "off", "--dry-run")
    assert (result.exit_code, '+    mode: "off"' in result.output) == (0, True)
    assert file.read_text() == POLICIES
    assert not backups(file)


def test_through_the_litellm_file_and_for_programs(file: Path) -> None:
    litellm = file.with_name("litellm.yaml")
    litellm.write_text(f"guardrails:\n  - litellm_params: {{guardrail: {GUARDRAIL}, mode: post_call}}\n")
    result = run(litellm, "--defaults", "--mode", "shadow", "--json")
    told = json.loads(result.stdout)
    assert Path(told["file"]) == file.resolve()
    assert "+defaults: {mode: shadow}" in told["diff"]
    assert Path(told["backup"]).read_text() == POLICIES
    assert load(file).defaults.mode == "shadow"


def test_what_is_so_already_is_not_written_again(file: Path) -> None:
    result = run(file, "--route", "support", "--mode", "shadow")
    assert (result.exit_code, result.output) == (0, "nothing to change: the file has these settings already\n")
    assert not backups(file)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--route", "suport", "--mode", "enforce"], "no route 'suport' in this file; did you mean 'support'?"),
        (["--tenant", "acme", "--mode", "enforce"], "no tenant 'acme' in this file; known: tenant-1"),
        (["--route", "support"], "say where"),
        (["--mode", "enforce"], "say where"),
        (["--route", "support", "--defaults", "--mode", "enforce"], "say where"),
        (["--route", "support", "--caution", "99"], "caution"),
    ],
)
def test_what_is_refused_changes_nothing(file: Path, arguments: list[str], said: str) -> None:
    result = run(file, *arguments)
    assert (result.exit_code, said in result.output) == (2, True), result.output
    assert file.read_text() == POLICIES
    assert not backups(file)


@pytest.mark.parametrize("damage", ["rutes: []\n", "trust: {everybody: true}\n"])
def test_what_check_refuses_is_refused(file: Path, damage: str) -> None:
    file.write_text(POLICIES + damage)
    assert run(file, "--route", "support", "--mode", "enforce").exit_code == 2
    assert file.read_text() == POLICIES + damage


def test_an_alias_is_not_changed_behind_the_operators_back(file: Path) -> None:
    text = "defaults: {mode: &how shadow}\nroutes:\n  - {match: {}, mode: *how}\n"
    file.write_text(text)
    result = run(file, "--route", "route-1", "--mode", "enforce")
    assert (result.exit_code, "edit it by hand" in result.output) == (2, True)
    assert file.read_text() == text


def test_a_file_that_changed_meanwhile_is_left_alone(file: Path) -> None:
    with pytest.raises(ConfigError, match="changed by somebody else"):
        rewrite(file, "what it was when it was read", "new", backup=True)
    assert file.read_text() == POLICIES
    assert os.listdir(file.parent) == [file.name]


def test_a_link_stays_a_link(file: Path) -> None:
    link = file.with_name("linked.yaml")
    link.symlink_to(file)
    assert run(link, "--route", "support", "--sample", "0.5").exit_code == 0
    assert link.is_symlink()
    assert load(file).routes[0].sample == 0.5
