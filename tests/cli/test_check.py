"""`check`: what it prints for a request, its warnings, and its one-line refusals."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from aligner_proxy.cli import main
from aligner_proxy.config import GUARDRAIL

POLICIES = """\
defaults: {mode: off}
keys: keys.yaml
routes:
  - match: {model: "gpt-*"}
    objectives: [concise]
    caution: 1.5
  - match: {model: "claude-*"}
tenants:
  - name: acme
    match: {team: acme}
    enforce: [harmless]
    allow: [humour]
"""
DIGEST = hashlib.sha256(b"a key").hexdigest()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("ALIGNER_PROXY_KEYS", "ALIGNER_PROXY_POLICIES"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "policies.yaml").write_text(POLICIES)
    (tmp_path / "keys.yaml").write_text(f"- {{sha256: {DIGEST}, alias: ci, team: acme}}\n")
    (tmp_path / "litellm.yaml").write_text(
        "model_list:\n  - model_name: gpt-4o\n  - 7\n"
        "router_settings: {model_group_alias: {quick: gpt-4o}}\n"
        f"guardrails:\n  - litellm_params: {{guardrail: {GUARDRAIL}, mode: post_call}}\n"
    )
    return tmp_path


def _run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["check", *map(str, arguments)])


def test_json_says_every_value_and_where_it_came_from(folder: Path) -> None:
    result = _run(folder / "litellm.yaml", "--model", "gpt-4o", "--key", "ci", "-o", "humour", "--json")
    assert result.exit_code == 0
    told = json.loads(result.stdout)
    assert (told["policy"], told["tenant"]) == ("route-1+acme", "team:acme")
    assert told["settings"]["mode"] == {"value": "off", "origin": "policies.yaml:1 (defaults)"}
    assert told["settings"]["caution"] == {"value": 1.5, "origin": "policies.yaml:6 (route route-1)"}
    assert told["settings"]["sample"]["origin"] == "built-in default"
    assert [(o["name"], o["origin"]) for o in told["objectives"]] == [
        ("harmless", "policies.yaml:11 (tenant acme)"),
        ("concise", "policies.yaml:5 (route route-1)"),
        ("humour", "request"),
    ]
    assert told["warnings"] == ["policies.yaml:7: route-2 (claude-*) matches no model of the model_list"]


def test_a_key_may_be_given_by_its_hash(folder: Path) -> None:
    told = json.loads(_run(folder / "policies.yaml", "--key", DIGEST, "--json").stdout)
    assert told["tenant"] == "team:acme"


def test_tables_for_people(folder: Path) -> None:
    result = _run(folder / "policies.yaml", "--model", "gpt-4o", "--team", "acme")
    assert result.exit_code == 0
    for words in ("valid", "policies.yaml:1 (defaults)", "1. harmless", "2. concise", "later wins: built-in default <"):
        assert words in result.stdout
    assert "warning" not in result.stdout


def test_warnings(folder: Path) -> None:
    assert "no --model given" in _run(folder / "policies.yaml").stdout
    lost = _run(folder / "litellm.yaml", "--model", "mistral").stdout
    assert "the model_list has no model 'mistral'" in lost
    assert "no route matches this request" in lost
    assert "no objectives: such an answer is skipped" in lost
    assert "has no model" not in _run(folder / "litellm.yaml", "--model", "quick").stdout


@pytest.mark.parametrize(
    ("file", "arguments", "message"),
    [
        ("policies.yaml", ["-o", "fair"], "objective 'fair' is not allowed for this key; it may not add any objective"),
        ("nowhere.yaml", [], "nowhere.yaml: No such file or directory"),
        ("keys.yaml", [], "keys.yaml:1: must be a block of keys; known: aligner, cache"),
        ("bare.yaml", [], f"bare.yaml: no guardrail {GUARDRAIL} under guardrails:; register it with litellm_params:"),
    ],
)
def test_refusals_are_one_message_and_exit_2(folder: Path, file: str, arguments: list[str], message: str) -> None:
    (folder / "bare.yaml").write_text("model_list: []\n")
    result = _run(folder / file, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.output


def test_a_broken_keys_file_is_found(folder: Path) -> None:
    (folder / "keys.yaml").write_text("- {sha256: sk-secret, alias: a}\n")
    result = _run(folder / "policies.yaml")
    assert result.exit_code == 2
    assert "keys.yaml:1: sha256 must be 64 hexadecimal digits" in result.stderr
    assert "sk-secret" not in result.output


def test_square_brackets_in_names_are_not_markup(folder: Path) -> None:
    (folder / "policies.yaml").write_text(
        "routes:\n  - match: {model: '[a]x'}\n  - match: {}\n    objectives: [fair]\n"
    )
    result = _run(folder / "litellm.yaml", "--model", "gpt-4o")
    assert "route-1 ([a]x) matches no model" in result.stdout
