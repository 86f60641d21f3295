"""`check`: what it prints for a request, its warnings, and its one-line refusals."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from aligner_proxy.audit.store import AuditStore
from aligner_proxy.cli import check_warnings, main
from aligner_proxy.gateway import active_policies
from aligner_proxy.plugins import registry
from aligner_proxy.plugins.api import TextEncoder
from aligner_proxy.policy import config
from aligner_proxy.policy.litellm_config import GUARDRAIL
from aligner_proxy.types import Turn
from aligner_proxy_systems.meal.selector import Weigher
from tests.engine.server.test_app import serving
from tests.support.installed import pretend_installed
from tests.support.scripted import ScriptedEngine

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
ROOT = Path(__file__).parents[2]
DIGEST = hashlib.sha256(b"a key").hexdigest()


STRONG_KEY = "sk-" + "0f" * 16


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("ALIGNER_PROXY_KEYS", "ALIGNER_PROXY_POLICIES"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "policies.yaml").write_text(POLICIES)
    (tmp_path / "keys.yaml").write_text(f"- {{sha256: {DIGEST}, alias: ci, team: acme}}\n")
    (tmp_path / "litellm.yaml").write_text(
        "model_list:\n  - model_name: gpt-4o\n  - 7\n"
        "router_settings: {model_group_alias: {quick: gpt-4o}}\n"
        f"guardrails:\n  - litellm_params: {{guardrail: {GUARDRAIL}, mode: post_call, default_on: true}}\n"
    )
    return tmp_path


def _run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["check", *map(str, arguments)])


def test_an_audit_that_could_not_be_kept_is_a_warning(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AUDIT_KEY", raising=False)
    with (folder / "policies.yaml").open("a") as file:
        file.write("audit: {enabled: true, key_env: AUDIT_KEY}\n")
    result = _run(folder / "policies.yaml", "--model", "gpt-4o", "--json")
    assert result.exit_code == 0
    (warning,) = [text for text in json.loads(result.stdout)["warnings"] if "audit" in text]
    assert warning.startswith("policies.yaml:13: audit.key_env: AUDIT_KEY must hold 32 bytes")


@pytest.mark.parametrize(
    ("name", "said"),
    [("folder", "is no file; name a file in a folder"), ("notes.txt", "is no SQLite database; name another file")],
)
def test_an_audit_file_that_cannot_be_one_is_not_valid_and_keeps_serve_from_starting(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, said: str
) -> None:
    monkeypatch.setenv("LITELLM_MASTER_KEY", STRONG_KEY)
    (folder / "folder").mkdir()
    (folder / "notes.txt").write_text("Not a database. " * 100)
    with (folder / "policies.yaml").open("a") as file:
        file.write(f"audit: {{enabled: true, file: {name}}}\n")
    with (folder / "litellm.yaml").open("a") as file:
        file.write("general_settings: {master_key: os.environ/LITELLM_MASTER_KEY}\n")
    message = f"policies.yaml:13: audit.file: {folder / name} {said}"
    shown = _run(folder / "litellm.yaml", "--model", "gpt-4o")
    assert (shown.exit_code, shown.stdout.splitlines()[0]) == (
        1,
        f"not valid  {folder / 'policies.yaml'}: {message}",
    )
    assert f"warning {message}; a gateway with this environment does not start" in shown.stdout
    as_json = _run(folder / "litellm.yaml", "--model", "gpt-4o", "--json")
    assert (as_json.exit_code, json.loads(as_json.stdout)["valid"]) == (1, False)
    served = CliRunner().invoke(main, ["serve", "--config", str(folder / "litellm.yaml")])
    assert (served.exit_code, served.stderr.splitlines()[-1]) == (2, f"aligner-proxy: {message}")


def test_an_audit_file_that_is_empty_or_a_store_is_valid(folder: Path) -> None:
    (folder / "empty.db").touch()
    AuditStore(folder / "store.db").close()
    policies = (folder / "policies.yaml").read_text()
    for name in ("empty.db", "store.db", "new.db"):
        (folder / "policies.yaml").write_text(f"{policies}audit: {{enabled: true, file: {name}}}\n")
        result = _run(folder / "policies.yaml", "--model", "gpt-4o")
        assert (result.exit_code, "audit.file" in result.stdout) == (0, False)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("router_settings: [a]", "router_settings"),
        ("general_settings: text", "general_settings"),
        ("litellm_settings: [a]", "litellm_settings"),
        ("environment_variables: [A]", "environment_variables"),
        ("router_settings: {model_group_alias: text}", "router_settings.model_group_alias"),
    ],
)
def test_a_section_of_litellm_that_is_no_block_is_one_sentence(folder: Path, text: str, path: str) -> None:
    lines = [line for line in (folder / "litellm.yaml").read_text().splitlines() if "router_settings" not in line]
    (folder / "litellm.yaml").write_text("\n".join([*lines, text, ""]))
    result = _run(folder / "litellm.yaml", "--model", "gpt-4o")
    words = f"aligner-proxy: litellm.yaml:{len(lines) + 1}: {path} must be a block of keys\n"
    assert (result.exit_code, result.stderr) == (2, words)


def test_a_redis_that_cannot_be_meant_is_refused_with_the_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (folder / "policies.yaml").open("a") as file:
        file.write("cache: {redis_env: ALIGNER_TEST_REDIS}\n")
    monkeypatch.delenv("ALIGNER_TEST_REDIS", raising=False)
    result = _run(folder / "policies.yaml")
    assert result.exit_code != 0
    assert "policies.yaml:13: cache.redis_env: ALIGNER_TEST_REDIS is not set" in result.output
    monkeypatch.setenv("ALIGNER_TEST_REDIS", "redis://host/secret")
    result = _run(folder / "policies.yaml")
    assert result.exit_code != 0
    assert "policies.yaml:13: cache.redis_env" in result.output
    assert "secret" not in result.output


def test_texts_in_redis_without_a_key_are_a_warning(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (folder / "policies.yaml").open("a") as file:
        file.write("cache: {redis_env: ALIGNER_TEST_REDIS}\n")
    monkeypatch.setenv("ALIGNER_TEST_REDIS", "redis://nobody-asks-it")
    result = _run(folder / "policies.yaml", "--json")
    assert result.exit_code == 0
    (warning,) = [text for text in json.loads(result.stdout)["warnings"] if "Redis" in text]
    assert warning.startswith("policies.yaml:13: corrected texts are stored in Redis unencrypted")


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
    assert "policies.yaml:7: route-2 (claude-*) matches no model of the model_list" in told["warnings"]


def test_what_follows_failures_the_quota_and_what_is_denied_are_said_with_their_places(folder: Path) -> None:
    (folder / "policies.yaml").write_text(
        "defaults: {on_error: block}\n"
        "tenants:\n  - name: acme\n    match: {team: acme}\n    deny: [humour]\n    quota: 6\n"
        "    on_error:\n      gate: retry\n"
        "trust: {key_metadata: true}\n"
    )
    metadata = json.dumps({"aligner": {"quota": 1.5, "deny": ["fair"], "on_error": {"bug": "passthrough"}}, "x": 1})
    more = ["--team", "acme", "--key-metadata", metadata]
    told = json.loads(_run(folder / "policies.yaml", *more, "--json").stdout)
    assert {name: told["settings"][f"on_error.{name}"] for name in ("timeout", "gate", "bug")} == {
        "timeout": {"value": "block", "origin": "policies.yaml:1 (defaults)"},
        "gate": {"value": "retry", "origin": "policies.yaml:8 (tenant acme)"},
        "bug": {"value": "passthrough", "origin": "key metadata"},
    }
    assert told["quota"] == {"value": 1.5, "origin": "key metadata"}
    assert told["denied"] == [
        {"name": "humour", "origin": "policies.yaml:5 (tenant acme)"},
        {"name": "fair", "origin": "key metadata"},
    ]
    table = _run(folder / "policies.yaml", "--team", "acme").stdout
    assert "6 s a minute" in table
    assert "denied  humour, by policies.yaml:5 (tenant acme)" in table
    assert _run(folder / "policies.yaml", "--team", "acme", "-o", "humour").exit_code == 2


def test_each_route_shows_what_lets_an_original_through(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(
        "defaults: {on_error: block}\n"
        "routes:\n"
        "- {match: {model: gpt*}, name: support, on_skip: {logprobs: passthrough}, objectives: [harmless]}\n"
        "- {match: {model: o*}, mode: 'off'}\n"
        "tenants:\n- {match: {team: acme}, enforce: [harmless]}\n"
    )
    gaps = json.loads(_run(tmp_path / "p.yaml", "--team", "acme", "--json").stdout)["lets_through"]
    assert gaps == {"support": ["logprobs"], "route-2": ["mode off"], "no route": []}
    shown = [" ".join(line.split()) for line in _run(tmp_path / "p.yaml", "--team", "acme").stdout.splitlines()]
    assert any(line.startswith("│ support │ on logprobs │") for line in shown), shown
    assert any(line.startswith("│ (no route matches) │ never │") for line in shown), shown
    (tmp_path / "p.yaml").write_text("routes:\n- {match: {}, objectives: [harmless]}\n")
    assert "wherever it cannot" in (short := _run(tmp_path / "p.yaml").stdout)
    assert "upstream_error" not in short
    assert "upstream_error" in _run(tmp_path / "p.yaml", "--all").stdout


def test_settings_that_have_their_default_are_printed_where_asked_for(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("defaults: {caution: 1}\nroutes:\n- {match: {}, objectives: [harmless]}\n")
    short, whole = (_run(tmp_path / "p.yaml", *more).stdout for more in ((), ("--all",)))
    assert "caution" in short
    assert "max_answer_chars" not in short
    assert "settings have their default; --all prints them" in short
    assert "max_answer_chars" in whole
    assert "--all" not in whole


def test_each_route_shows_what_is_delivered_where_nothing_remains(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(
        "routes:\n"
        "- {match: {model: a}, objectives: [harmless]}\n"
        "- {match: {model: b}, objectives: [helpful]}\n"
        "- {match: {model: c}, objectives: [helpful], on_error: block}\n"
        "- {match: {model: d}, objectives: [harmless], if_nothing_remains: decline}\n"
        "- {match: {model: e}, objectives: [harmless], mode: shadow}\n"
        "- {match: {model: f}, objectives: [harmless], if_nothing_remains: original}\n"
    )
    by_route = json.loads(_run(tmp_path / "p.yaml", "--json").stdout)["nothing_remains"]
    assert by_route == {
        "route-1": "a refusal text if harmless was violated, else the original",
        "route-2": "the original",
        "route-3": "an error (on_error: gate)",
        "route-4": "a refusal text",
        "route-5": "the original",
        "route-6": "the original",
        "no route": "the original",
    }
    shown = [" ".join(line.split()) for line in _run(tmp_path / "p.yaml").stdout.splitlines()]
    assert any(line.startswith("│ route-4 ") and line.endswith(" a refusal text │") for line in shown), shown


@pytest.mark.parametrize("metadata", ["{", "[]", "6"])
def test_metadata_must_be_an_object(folder: Path, metadata: str) -> None:
    result = _run(folder / "policies.yaml", "--team-metadata", metadata)
    assert result.exit_code == 2
    assert "--team-metadata must be a JSON object" in result.stderr


def test_metadata_that_is_not_trusted_only_tightens_and_check_says_whose_word_counts(folder: Path) -> None:
    loosening = json.dumps({"aligner": {"mode": "off", "quota": 0, "enforce": ["fair"]}})
    arguments = [folder / "policies.yaml", "--team", "acme", "--key-metadata", loosening]
    (folder / "policies.yaml").write_text(POLICIES.replace("mode: off", "mode: enforce"))
    told = json.loads(_run(*arguments, "--json").stdout)
    assert told["settings"]["mode"]["value"] == "enforce"
    assert told["quota"] is None
    assert [o["name"] for o in told["objectives"]] == ["harmless", "fair"]
    assert told["trust"] == {"team_metadata": False, "key_metadata": False, "aliases": False, "router_fields": []}
    assert "trust   this file alone" in _run(*arguments).stdout


def test_an_alias_that_is_not_the_operators_matches_only_where_it_is_trusted(folder: Path) -> None:
    named = "tenants: [{match: {key: 'v*'}, name: named, mode: shadow}]\n"
    for more, policy in (("", "default"), ("trust: {aliases: true}\n", "named")):
        (folder / "policies.yaml").write_text(named + more)
        told = json.loads(_run(folder / "policies.yaml", "--key", "vip", "--json").stdout)
        assert told["policy"] == policy


def test_an_alias_of_litellms_has_the_route_of_its_group(folder: Path) -> None:
    told = json.loads(_run(folder / "litellm.yaml", "--model", "quick", "--json").stdout)
    assert told["policy"] == "route-1"
    assert [o["name"] for o in told["objectives"]] == ["concise"]


def test_a_key_may_be_given_by_its_hash(folder: Path) -> None:
    told = json.loads(_run(folder / "policies.yaml", "--key", DIGEST, "--json").stdout)
    assert told["tenant"] == "team:acme"


def test_tables_for_people(folder: Path) -> None:
    result = _run(folder / "policies.yaml", "--model", "gpt-4o", "--team", "acme")
    assert result.exit_code == 0
    for words in ("valid", "policies.yaml:1 (defaults)", "1. harmless", "2. concise", "later wins: built-in default <"):
        assert words in result.stdout
    warnings = [line for line in result.stdout.splitlines() if "warning" in line]
    assert all("concise edits 35 % of good answers" in line for line in warnings)


def test_rules_of_the_gate_that_are_off_stand_on_lines_of_their_own(folder: Path) -> None:
    (folder / "policies.yaml").write_text(
        "routes:\n  - match: {}\n    objectives: [fair]\n    gate: {lost_name: off}\n"
    )
    printed = _run(folder / "policies.yaml", "--model", "m").stdout
    assert "all rules but 1" in printed
    assert "gate.lost_name" in printed
    told = json.loads(_run(folder / "policies.yaml", "--model", "m", "--json").stdout)
    assert "lost_name" not in told["settings"]["gate"]["value"]
    assert told["settings"]["gate"]["origin"] == "policies.yaml:4 (route route-1)"


def test_what_a_reference_yields(folder: Path) -> None:
    (folder / "RULES.md").write_text("# Rules\n\nReturns are possible within 28 days. A label costs £2.95.\n")
    (folder / "policies.yaml").write_text("defaults: {references: [{file: RULES.md}, system]}\n")
    arguments = (folder / "policies.yaml", "--model", "m", "--system", "Be kind.")
    printed = _run(*arguments).stdout
    for words in ("RULES.md:3", "28 days", "amount of money", "no recognisable facts"):
        assert words in printed
    assert "such an answer is skipped" not in printed
    told = json.loads(_run(*arguments, "--json").stdout)
    assert told["settings"]["references"] == {"value": ["RULES.md", "system"], "origin": "policies.yaml:1 (defaults)"}
    assert told["references"][0]["facts"][1] == {"source": "RULES.md:3", "kind": "amount of money", "fact": "£2.95"}


TAUGHT = """\
objectives:
  no-claims-of-a-private-life-of-its-own: {text: "Private: the response should claim no private life", examples: x.yaml}
routes: [{match: {}, objectives: [no-claims-of-a-private-life-of-its-own]}]
"""


def test_a_file_of_examples_that_cannot_be_read_is_not_valid(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALIGNER_PROXY_HOME", str(folder / "home"))
    (folder / "policies.yaml").write_text(TAUGHT)
    for text in (None, "against: [one]\n", "against: {\n"):
        if text is not None:
            (folder / "x.yaml").write_text(text)
        result = _run(folder / "policies.yaml", "--model", "m")
        assert result.exit_code == 1, text
        assert result.stdout.startswith("not valid"), text
        assert "x.yaml" in result.stdout.splitlines()[0]
        as_json = _run(folder / "policies.yaml", "--model", "m", "--json")
        assert (as_json.exit_code, json.loads(as_json.stdout)["valid"]) == (1, False)
    (folder / "x.yaml").write_text("against: [I miss my brother., I slept badly last night.]\n")
    result = _run(folder / "policies.yaml", "--model", "m")
    assert result.exit_code == 0
    assert result.stdout.startswith("valid")


def test_an_objective_that_edits_good_answers_is_a_warning(folder: Path) -> None:
    def show(text: str) -> str:
        (folder / "policies.yaml").write_text(text)
        return _run(folder / "policies.yaml", "--model", "gpt-4o").stdout

    def route(*names: str) -> str:
        return f"routes: [{{match: {{}}, objectives: [{', '.join(names)}]}}]\n"

    assert "policies.yaml:5 (route route-1): concise edits 35 %" in show(POLICIES)
    assert "of good answers" not in show(route("harmless", "helpful", "readable", "humour"))
    assert "specific edits 42 % of good answers" in show(route("specific"))
    # nothing was measured of an operator's own text, or of another aligner
    assert "of good answers" not in show('objectives: {specific: "Detail: name dates"}\n' + route("specific"))
    assert "of good answers" not in show("aligner: {model: some/aligner}\n" + route("specific"))


def test_measured_objectives_are_those_of_the_page() -> None:
    page = (ROOT / "docs" / "reference" / "objectives.md").read_text(encoding="utf-8")
    rows = re.findall(r"\| `([a-z-]+)` \| \d+/300 = ([0-9.]+) %", page)
    shares = {name: float(percent) for name, percent in rows}
    assert set(shares) == set(config.builtin_objectives())
    measured = {name: round(share) for name, share in shares.items() if share > 0.5 and name != "harmless"}
    assert measured == check_warnings.EDITS_GOOD_ANSWERS


def test_names_are_not_cut(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALIGNER_PROXY_HOME", str(folder / "home"))
    monkeypatch.setenv("COLUMNS", "80")
    (folder / "policies.yaml").write_text(TAUGHT)
    (folder / "x.yaml").write_text("against: [I miss my brother., I slept badly last night.]\n")
    shown = _run(folder / "policies.yaml", "--model", "m").stdout
    lines = shown.splitlines()
    name = "no-claims-of-a-private-life-of-its-own"
    assert len([line for line in lines if line.startswith("│") and name in line]) == 1  # among the objectives
    # the columns of the taught ones have no room beside it
    assert "  state: not taught yet" in lines[lines.index(name) + 1 :]
    assert "\u2026" not in shown


def test_warnings(folder: Path) -> None:
    assert "no --model given" in _run(folder / "policies.yaml").stdout
    lost = _run(folder / "litellm.yaml", "--model", "mistral").stdout
    assert "the model_list has no model 'mistral'" in lost
    assert "no route matches this request" in lost
    assert "no objectives: such an answer is skipped" in lost
    assert "has no model" not in _run(folder / "litellm.yaml", "--model", "quick").stdout


def test_what_no_guardrail_sees_is_said(folder: Path) -> None:
    with (folder / "litellm.yaml").open("a") as file:
        file.write("files_settings: [{custom_llm_provider: openai}]\n")
    assert "litellm.yaml:7: files and batches" in _run(folder / "litellm.yaml", "--model", "gpt-4o").stdout
    told = json.loads(_run(folder / "litellm.yaml", "--model", "gpt-4o", "--json").stdout)
    assert any("files and batches" in warning for warning in told["warnings"])


@pytest.mark.parametrize(
    ("file", "arguments", "message"),
    [
        (
            "policies.yaml",
            ["-o", "fair"],
            "number 1 of the requested objectives is not allowed for this key; it may not add any objective",
        ),
        ("nowhere.yaml", [], "nowhere.yaml: No such file or directory"),
        ("keys.yaml", [], "keys.yaml:1: must be a block of keys; known: aligner, allow_less, audit"),
        ("bare.yaml", [], f"bare.yaml: no guardrail {GUARDRAIL} under guardrails:; register it with litellm_params:"),
    ],
)
def test_refusals_are_one_message_and_exit_2(folder: Path, file: str, arguments: list[str], message: str) -> None:
    (folder / "bare.yaml").write_text("model_list: []\n")
    result = _run(folder / file, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.output


LOST = "tenant acme would lose harmless (no entry enforces it); if this is intended, add allow_less: [acme]"


def test_a_change_by_which_a_tenant_loses_is_refused(folder: Path) -> None:
    old = folder / "old.yaml"
    old.write_text(POLICIES.replace("mode: off", "mode: enforce"))
    less = old.read_text().replace("    enforce: [harmless]\n", "")
    (folder / "policies.yaml").write_text(less)
    assert _run(folder / "policies.yaml").exit_code == 0
    for file in ("policies.yaml", "litellm.yaml"):
        refused = _run(folder / file, "--against", old)
        assert refused.exit_code == 2
        assert LOST in refused.stderr
    warned = _run(folder / "policies.yaml", "--against", old, "--allow-less", "--json")
    assert warned.exit_code == 0
    assert any(LOST in warning for warning in json.loads(warned.stdout)["warnings"])
    (folder / "policies.yaml").write_text(less + "allow_less: [acme]\n")
    assert _run(folder / "policies.yaml", "--against", old).exit_code == 0


def test_a_change_is_compared_with_what_runs_here(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALIGNER_PROXY_HOME", str(folder / "home"))
    path = folder / "policies.yaml"
    path.write_text(POLICIES.replace("mode: off", "mode: enforce"))
    with active_policies.keep_active(path, registry.load_policies(path)) as kept:
        path.write_text(POLICIES)
        refused = _run(folder / "litellm.yaml", "--running")
        assert refused.exit_code == 2
        assert "tenant acme would lose harmless (mode: off)" in refused.stderr
        other = folder / "other.yaml"
        other.write_text(POLICIES)
        assert _run(other, "--running").exit_code == 0, "no gateway has that file"
        assert kept.state_file is not None
        kept.state_file.rename(kept.state_file.with_name("in-force-99999999.json"))
        assert _run(folder / "litellm.yaml", "--running").exit_code == 0
    assert not list((folder / "home").rglob(f"in-force-{os.getpid()}.*"))


def test_a_broken_keys_file_is_found(folder: Path) -> None:
    (folder / "keys.yaml").write_text("- {sha256: sk-secret, alias: a}\n")
    result = _run(folder / "policies.yaml")
    assert result.exit_code == 2
    assert "keys.yaml:1: sha256 must be 64 hexadecimal digits" in result.stderr
    assert "sk-secret" not in result.output


def test_a_missing_keys_file_is_a_warning(folder: Path) -> None:
    (folder / "keys.yaml").unlink()
    told = json.loads(_run(folder / "policies.yaml", "--json").stdout)
    assert "keys.yaml does not exist, so none of its keys is accepted" in told["warnings"]


def test_what_a_key_may_do_is_said(folder: Path) -> None:
    entry = f"- {{sha256: {DIGEST}, alias: ci, team: acme, expires: 2999-01-31, models: [gpt-4o, gone], rpm: 60}}\n"
    (folder / "keys.yaml").write_text(entry)
    told = json.loads(_run(folder / "litellm.yaml", "--key", "ci", "--json").stdout)
    assert told["key"] == {
        "alias": "ci",
        "team": "acme",
        "expires": "2999-01-31T00:00:00Z",
        "models": ["gpt-4o", "gone"],
        "rpm": 60,
        "max_body_mb": 32,
    }
    assert "key ci may call gone, which the model_list does not have" in told["warnings"]
    printed = _run(folder / "litellm.yaml", "--key", "ci").stdout
    assert "keys    1, 1 with an end, the first at 2999-01-31 00:00+00:00" in printed
    assert "max_body_mb" in printed
    assert json.loads(_run(folder / "litellm.yaml", "--json").stdout)["key"] is None


@pytest.mark.parametrize(("days", "said"), [(-1, "expired at"), (3, "expires at")])
def test_a_key_that_ends_is_a_warning(folder: Path, days: int, said: str) -> None:
    end = datetime.now(UTC) + timedelta(days=days)
    (folder / "keys.yaml").write_text(f"- {{sha256: {DIGEST}, alias: ci, expires: '{end.isoformat()}'}}\n")
    warnings = json.loads(_run(folder / "policies.yaml", "--json").stdout)["warnings"]
    assert [warning for warning in warnings if warning.startswith(f"key ci {said}")]


def test_square_brackets_in_names_are_not_markup(folder: Path) -> None:
    (folder / "policies.yaml").write_text(
        "routes:\n  - match: {model: '[a]x'}\n  - match: {}\n    objectives: [fair]\n"
    )
    result = _run(folder / "litellm.yaml", "--model", "gpt-4o")
    assert "route-1 ([a]x) matches no model" in result.stdout


def test_the_back_end_is_named_with_what_it_cannot_do(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ALIGNER_PROXY_ENGINE", raising=False)
    told = json.loads(_run(folder / "policies.yaml", "--json").stdout)
    assert told["engine"] == {"at": ["local"], "kind": "local", "scorer": None}
    (folder / "policies.yaml").write_text("aligner: {engine: 'http://gpu:8000/v1'}\n" + POLICIES)
    alone = _run(folder / "policies.yaml", "--model", "gpt-4o").stdout
    for words in ("http://gpu:8000/v1 (completions server)", "has no detector head", "caution 1.5 has no effect"):
        assert words in alone
    scored = "aligner: {engine: {at: 'http://gpu:8000/v1', scorer: local}}\n"
    (folder / "policies.yaml").write_text(scored + POLICIES)
    assert "no detector head" not in _run(folder / "policies.yaml", "--model", "gpt-4o").stdout
    (folder / "policies.yaml").write_text("aligner: {engine: 'litellm:aligners'}\n" + POLICIES)
    lost = _run(folder / "litellm.yaml", "--model", "gpt-4o").stdout
    assert "the model_list has no model group 'aligners'" in lost


def test_a_corrector_is_checked_and_shown_with_its_origin(folder: Path) -> None:
    with (folder / "policies.yaml").open("a") as file:
        file.write("plugins: {correctors: {self_refine: {model: gpt-5}}}\ntrust: {key_metadata: true}\n")
    metadata = '{"aligner": {"corrector": "self_refine"}}'
    told = json.loads(_run(folder / "litellm.yaml", "--model", "gpt-4o", "--key-metadata", metadata, "--json").stdout)
    assert told["settings"]["corrector"] == {"value": "self_refine", "origin": "key metadata"}
    unserved = "policies.yaml:13: corrector self_refine asks 'gpt-5', which the model_list does not have"
    assert unserved in told["warnings"]


def test_a_corrector_that_nobody_offers_is_refused(folder: Path) -> None:
    with (folder / "policies.yaml").open("a") as file:
        file.write("plugins: {correctors: {mine: {}}}\n")
    result = _run(folder / "policies.yaml")
    assert result.exit_code == 2
    assert "policies.yaml:13: no plugin offers 'mine' among its correctors" in result.output


AUTO = 'routes: [{match: {model: "*"}, objectives: {auto: [concise, harmless, humour], keep: 2}}]\n'


async def test_a_sample_prompt_shows_what_the_engine_weighs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "p.yaml").write_text(AUTO)
    monkeypatch.setenv("ALIGNER_PROXY_ENGINE", f"unix:{tmp_path / 'e.sock'}")

    async def weights(weigher: object, objectives: Sequence[str], turns: Sequence[Turn], encoder: TextEncoder) -> Any:
        assert await encoder.identity()
        return (0.3, 0.1, 0.6) if "joke" in turns[0].content else (0.1, 0.8, 0.1)

    monkeypatch.setattr(Weigher, "weights", weights)
    async with serving(ScriptedEngine(), tmp_path / "e.sock"):
        asked = ("--model", "gpt", "--prompt", "Tell me a joke.")
        told = json.loads((await asyncio.to_thread(_run, tmp_path / "p.yaml", *asked, "--json")).stdout)
        shown = (await asyncio.to_thread(_run, tmp_path / "p.yaml", *asked)).stdout
    assert list(told["weights"].items()) == [("humour", pytest.approx(2 / 3)), ("concise", pytest.approx(1 / 3))]
    assert [one["name"] for one in told["objectives"]] == ["humour", "concise"]
    assert told["objectives"][0]["origin"] == "p.yaml:1 (route route-1)"
    assert "0.667" in shown


def test_without_an_engine_a_sample_prompt_weighs_all_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "p.yaml").write_text(AUTO)
    monkeypatch.setenv("ALIGNER_PROXY_ENGINE", f"unix:{tmp_path / 'nobody.sock'}")
    told = json.loads(_run(tmp_path / "p.yaml", "--model", "gpt", "--prompt", "Hello?", "--json").stdout)
    assert told["weights"] == {"concise": 0.5, "harmless": 0.5}
    assert any("weigh the same (engine_unavailable)" in warning for warning in told["warnings"])
    told = json.loads(_run(tmp_path / "p.yaml", "--model", "gpt", "--json").stdout)
    assert told["weights"] == {}
    assert any("--prompt" in warning for warning in told["warnings"])


PREFERRING = """\
objectives: {prose: "Prose: the response should be written in sentences instead of lists"}
routes: [{match: {model: "*"}, objectives: [prose], preferences: [request, persona]}]
tenants: [{match: {team: acme}, allow_preferences: true}]
"""


def test_a_preference_shows_what_becomes_of_it(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(PREFERRING)
    said = ("--preference", "Use bullet points, no emoji, at most 80 words. Be warm.", "--persona", "I am a nurse.")
    asked = (tmp_path / "p.yaml", "--model", "gpt", "--team", "acme", *said)
    told = json.loads(_run(*asked, "--system", "All caps.", "--json").stdout)
    met = {one["name"]: one.get("met") for one in told["objectives"]}
    assert met["prose"] is None
    assert met["no-emoji"] == "met by rules"
    assert met["max-words"] == "asked of the corrector, checked"
    assert met["preference"] == met["persona"] == "asked of the corrector, in words"
    assert any(one.startswith("lists (request) is set aside") for one in told["warnings"])
    assert any("does not read preferences of the system" in one for one in told["warnings"])
    shown = _run(*asked).stdout
    assert "met by rules" in " ".join(shown.split())
    refused = _run(tmp_path / "p.yaml", "--model", "gpt", "--team", "other", *said)
    assert refused.exit_code != 0
    assert "allow_preferences" in refused.output


def test_drafts_of_a_corrector_that_repeats_itself_are_a_warning(tmp_path: Path) -> None:
    text = "defaults: {best_of: 3, corrector: aligner}\nplugins: {correctors: {aligner: {engine: 'unix:/e.sock'}}}\n"
    (tmp_path / "p.yaml").write_text(text)
    told = json.loads(_run(tmp_path / "p.yaml", "--model", "gpt", "--json").stdout)
    assert told["settings"]["best_of"] == {"value": 3, "origin": "p.yaml:1 (defaults)"}
    assert any("best_of has no use" in one for one in told["warnings"])


def test_old_names_and_missing_plugins_are_warnings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "p.yaml").write_text("defaults: {drafts: 3, trail: true, corrector: self_refine}\n")
    pretend_installed(monkeypatch, [])
    told = json.loads(_run(tmp_path / "p.yaml", "--model", "gpt", "--json").stdout)
    assert "p.yaml:1: write debug_trailer in place of trail, which is accepted until 1.0" in told["warnings"]
    for what in ("drafts", "corrector 'self_refine'"):
        needs = "needs the plugin distribution aligner-proxy-systems, which is not installed"
        assert any(warning.startswith(f"p.yaml:1: {what} {needs}") for warning in told["warnings"])


def test_fields_that_plugins_of_others_read_are_given_by_name(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(PREFERRING)
    asked = (tmp_path / "p.yaml", "--model", "gpt", "--team", "acme", "--json")
    told = json.loads(_run(*asked, "--field", "preference=No emoji.").stdout)
    assert [one["name"] for one in told["objectives"]] == ["prose", "no-emoji"]
    assert "--field must read NAME=TEXT" in _run(*asked, "--field", "preference").output


def test_the_languages_that_the_aligner_knows(folder: Path) -> None:
    assert "languages en\n" in _run(folder / "policies.yaml").output
    assert json.loads(_run(folder / "policies.yaml", "--json").output)["languages"] == ["en"]
    adapter = folder / "own"
    adapter.mkdir()
    (folder / "policies.yaml").write_text(f"aligner: {{adapters: {{own: {adapter}}}}}\ndefaults: {{aligner: own}}\n")
    assert "languages not named by the aligner's card" in _run(folder / "policies.yaml").output


def test_an_editor_that_litellm_does_not_have_is_refused_with_its_line(folder: Path) -> None:
    with (folder / "policies.yaml").open("a") as file:
        file.write("    editor: {model: gpt-4oo}\n")
    result = _run(folder / "litellm.yaml", "--model", "gpt-4o")
    assert result.exit_code != 0
    assert (
        "policies.yaml:13: editor 'gpt-4oo' is no model group of the model_list; did you mean 'gpt-4o'?"
        in result.output
    )
    with (folder / "litellm.yaml").open("a") as file:
        file.write("general_settings: {store_model_in_db: true}\n")
    result = _run(folder / "litellm.yaml", "--model", "gpt-4o", "--json")
    assert result.exit_code == 0
    assert any("editor 'gpt-4oo'" in text for text in json.loads(result.stdout)["warnings"])


def test_the_editor_is_shown_with_its_line(folder: Path) -> None:
    with (folder / "policies.yaml").open("a") as file:
        file.write("    editor: {model: gpt-4o}\n")
    result = _run(folder / "litellm.yaml", "--model", "gpt-4o", "--team", "acme", "--key", "ci", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["settings"]["editor"] == {
        "value": "model:gpt-4o",
        "origin": "policies.yaml:13 (tenant acme)",
    }


def test_a_judge_is_shown_with_its_line_and_refused_where_litellm_does_not_have_it(folder: Path) -> None:
    text = (folder / "policies.yaml").read_text()
    (folder / "policies.yaml").write_text(text + "    judge: {guard: gpt-4o, form: qwen3guard}\n")
    result = _run(folder / "litellm.yaml", "--model", "gpt-4o", "--team", "acme", "--key", "ci", "--json")
    assert result.exit_code == 0
    setting = json.loads(result.stdout)["settings"]["judge"]
    assert setting["value"] == "guard: gpt-4o, form: qwen3guard, ask: doubt, band: 0.5"
    assert "policies.yaml:13" in setting["origin"]
    (folder / "policies.yaml").write_text(text + "    judge: {chat: gpt-4oo}\n")
    result = _run(folder / "litellm.yaml", "--model", "gpt-4o")
    assert result.exit_code != 0
    assert "policies.yaml:13: judge 'gpt-4oo' is no model group of the model_list" in result.output


def test_a_token_classifier_is_no_model_group_and_must_be_one_of_the_engine(folder: Path) -> None:
    text = (folder / "policies.yaml").read_text() + "    judge: {tokens: facts}\n"
    (folder / "policies.yaml").write_text(text)
    result = _run(folder / "litellm.yaml", "--model", "gpt-4o")
    assert result.exit_code != 0
    assert "policies.yaml:13: aligner.judges has no 'facts'; name its model there" in " ".join(result.output.split())
    (folder / "policies.yaml").write_text(f"{text}aligner: {{judges: {{facts: owner/name@{'0' * 40}}}}}\n")
    result = _run(folder / "litellm.yaml", "--model", "gpt-4o", "--team", "acme", "--key", "ci", "--json")
    assert result.exit_code == 0, result.output
    checked = json.loads(result.stdout)
    assert checked["settings"]["judge"]["value"] == "tokens: facts, ask: doubt, band: 0.5"
    assert not any("facts" in warning for warning in checked["warnings"])


def test_a_model_with_which_the_engine_would_not_start_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    for model, said in (
        ("./gone", "does not exist; give a folder"),
        ("no-such/model", "no-such/model is not on this machine; run: aligner-proxy pull no-such/model"),
        ("./empty", "it is no aligner folder"),
        ("./model", "A plain chat model is none"),
        ("embedded", ""),
        ("embedded, judges: {facts: ./empty}", "holds no config.json; give a folder"),
        ("embedded, judges: {facts: ./model}", ""),
    ):
        file = tmp_path / "p.yaml"
        file.write_text(f"aligner: {{model: {model}}}\nroutes:\n- {{match: {{}}, objectives: [harmless]}}\n")
        printed = " ".join(_run(file, "--model", "m").stdout.split())
        assert said in printed
        assert ("a gateway with this environment does not start" in printed) is bool(said)


def test_a_judge_of_an_objective_is_shown_beside_it(folder: Path) -> None:
    text = (folder / "policies.yaml").read_text()
    own = "objectives:\n  concise: {text: 'Length: the response should be short', judge: {chat: GROUP}}\n"
    (folder / "policies.yaml").write_text(text + own.replace("GROUP", "gpt-4o"))
    result = _run(folder / "litellm.yaml", "--model", "gpt-4o")
    assert result.exit_code == 0
    assert "concise (judge: gpt-4o)" in result.output
    (folder / "policies.yaml").write_text(text + own.replace("GROUP", "gpt-4oo"))
    result = _run(folder / "litellm.yaml", "--model", "gpt-4o")
    assert result.exit_code != 0
    assert "policies.yaml:14: judge 'gpt-4oo' is no model group of the model_list" in result.output


@pytest.mark.parametrize(
    ("engine", "key", "said"),
    [
        ("local", "sk-1234", "the master key is too easy to guess"),
        ("local", "", "the variable LITELLM_MASTER_KEY is not set"),
        ("{at: 'http://a/v1', key_env: ALIGNER_TEST_NO_SUCH}", STRONG_KEY, "ALIGNER_TEST_NO_SUCH, but that variable"),
        ("{at: 'http://a/v1', scorer: local}", STRONG_KEY, "set aligner.engine.template"),
        ("local", STRONG_KEY, ""),
    ],
)
def test_what_serve_would_refuse_is_a_warning(
    folder: Path, monkeypatch: pytest.MonkeyPatch, engine: str, key: str, said: str
) -> None:
    monkeypatch.delenv("LITELLM_MASTER_KEY", raising=False)
    if key:
        monkeypatch.setenv("LITELLM_MASTER_KEY", key)
    policies = folder / "policies.yaml"
    policies.write_text(f"aligner: {{engine: {engine}}}\n{policies.read_text()}")
    with (folder / "litellm.yaml").open("a") as file:
        file.write("general_settings: {master_key: os.environ/LITELLM_MASTER_KEY}\n")
    warnings = json.loads(_run(folder / "litellm.yaml", "--model", "gpt-4o", "--json").stdout)["warnings"]
    found = [warning for warning in warnings if said and said in warning]
    assert len(found) == bool(said)
    starts = not any("a gateway with this environment does not start" in warning for warning in warnings)
    assert starts is (said == "" or "LITELLM" in said)


def test_a_team_that_no_tenant_matches_is_a_warning(folder: Path) -> None:
    for options, count in ((("--team", "nobody-at-all"), 1), (("--key", "nobody-at-all"), 1), ((), 0)):
        result = _run(folder / "policies.yaml", "--model", "gpt-4o", *options, "--json")
        assert json.loads(result.stdout)["warnings"].count("no tenant matches this team or key") == count


def test_metadata_without_end_is_no_json(folder: Path) -> None:
    result = _run(folder / "policies.yaml", "--team-metadata", "[" * 100_000)
    assert (result.exit_code, "must be a JSON object" in result.stderr) == (2, True)


def test_an_audit_file_that_is_a_folder_is_warned_of_once(folder: Path) -> None:
    with (folder / "policies.yaml").open("a") as file:
        file.write("audit: {enabled: true, file: .}\n")
    result = _run(folder / "policies.yaml", "--model", "gpt-4o", "--json")
    (warning,) = [text for text in json.loads(result.stdout)["warnings"] if "audit" in text]
    assert warning.startswith(f"policies.yaml:13: audit.file: {folder} is no file; name a file in a folder")


def test_a_path_that_the_system_refuses_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 300)
    result = CliRunner().invoke(main, ["init", str(path)])
    assert (result.exit_code, result.stderr) == (
        2,
        f"aligner-proxy: cannot use {path}/litellm.yaml: File name too long\n",
    )


def test_an_output_without_room_is_one_sentence(folder: Path) -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "aligner_proxy", "check", str(folder / "policies.yaml"), "--json"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "aligner-proxy: cannot use the output: No space left on device\n")
