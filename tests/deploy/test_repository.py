"""What stands around the code says only what is there: workflows, issue forms, hooks and the development container."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import yaml

from aligner_proxy import __version__
from aligner_proxy.cli import main

ROOT = Path(__file__).parents[2]
GITHUB = ROOT / ".github"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
VERBS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
PINNED = re.compile(r"[\w.-]+/[\w.-]+@v\d+\.\d+\.\d+")
FOLDERS = ("aligner_proxy/", "configs/", "deploy/", "docs/", "plugins/", "requirements", "scripts/", "tests/")
"""How paths of the repository begin, as commands name them."""
INPUTS = {"checkboxes", "dropdown", "input", "markdown", "textarea"}


def read_yaml(path: Path) -> dict[str, Any]:
    """A file of GitHub's, whose key `on` YAML 1.1 reads as true."""
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content


def workflows() -> dict[str, dict[str, Any]]:
    return {path.name: read_yaml(path) for path in sorted((GITHUB / "workflows").glob("*.yml"))}


def steps() -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Each step of each workflow, with its place and job."""
    for name, workflow in workflows().items():
        for job_name, job in workflow["jobs"].items():
            for number, step in enumerate(job["steps"]):
                yield f"{name}: {job_name}, step {number}", job, step


def filled_in(command: str, job: dict[str, Any]) -> Iterator[str]:
    """A command once for each row of its job's matrix, with the row's values in it."""
    for row in job.get("strategy", {}).get("matrix", {}).get("include", [{}]):
        yield re.sub(r"\$\{\{ matrix\.(\w+) \}\}", lambda found, row=row: row[found[1]], command)


def commands() -> Iterator[tuple[str, str]]:
    """Every command that one of these files has somebody run, with its place."""
    for place, job, step in steps():
        if "run" in step:
            yield from ((place, command) for command in filled_in(step["run"], job))
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text(encoding="utf-8"))
    yield "devcontainer.json", container["postCreateCommand"]
    for repository in read_yaml(ROOT / ".pre-commit-config.yaml")["repos"]:
        yield from ((f"pre-commit: {hook['id']}", hook["entry"]) for hook in repository["hooks"])
    for path in sorted(GITHUB.rglob("*.md")):
        yield from ((path.name, command) for command in re.findall(r"`(make [^`]+)`", path.read_text(encoding="utf-8")))


def faults_of(command: str) -> Iterator[str]:
    """The verbs of make, paths and extras that a command names and the repository lacks."""
    for verb in re.findall(r"\bmake ([a-z-]+)", command):
        if verb not in VERBS:
            yield f"make {verb}"
    for word in shlex.split(command, comments=True):
        path = word.split("=", 1)[-1]
        if path.startswith(FOLDERS) and not (ROOT / path).exists():
            yield path
    for extra in re.findall(r"\.\[([\w,]+)\]", command):
        yield from (f"extra {name}" for name in extra.split(",") if name not in PROJECT["optional-dependencies"])


def test_commands_name_only_verbs_paths_and_extras_that_there_are() -> None:
    given = list(commands())
    assert len(given) > 20
    assert [(place, fault) for place, command in given for fault in faults_of(command)] == []
    wrong = "make nothing && scripts/nowhere.sh '.[absent,dev]' deploy/Containerfile"
    assert list(faults_of(wrong)) == ["make nothing", "scripts/nowhere.sh", "extra absent"]


def test_every_action_is_pinned_to_a_release() -> None:
    used = {step["uses"] for _, _, step in steps() if "uses" in step}
    assert len(used) >= 5
    assert [action for action in sorted(used) if not PINNED.fullmatch(action)] == []
    by_name: dict[str, set[str]] = {}
    for action in used:
        by_name.setdefault(action.split("@")[0], set()).add(action)
    assert [versions for versions in by_name.values() if len(versions) > 1] == []


def test_workflows_have_no_more_rights_than_they_need() -> None:
    for name, workflow in workflows().items():
        assert workflow["permissions"] == {"contents": "read"}, name
    jobs = workflows()["release.yml"]["jobs"]
    assert jobs["pypi"]["permissions"] == {"id-token": "write"}
    assert jobs["image"]["permissions"] == {"contents": "read", "packages": "write"}
    texts = [step.get("run", "") for _, _, step in steps()]
    # What a contributor writes, a branch's name for one, must not become a command.
    assert [text for text in texts if re.search(r"\$\{\{ (?!matrix\.)", text)] == []


def test_ci_tries_every_supported_python_and_release_waits_for_its_tests() -> None:
    rows = workflows()["ci.yml"]["jobs"]["test"]["strategy"]["matrix"]["include"]
    supported = {text.rpartition(" ")[2] for text in PROJECT["classifiers"] if "Python :: 3." in text}
    assert {row["python"] for row in rows if row["system"].startswith("ubuntu") and row["verb"] == "test"} == {
        version.rpartition(" :: ")[2] for version in supported
    }
    assert [row["python"] for row in rows if row["system"].startswith("macos")] == ["3.12"]
    release = workflows()["release.yml"]
    assert release[True] == {"push": {"tags": ["v*"]}}
    jobs = release["jobs"]
    assert "make test-full PYTHON=python" in [step.get("run") for step in jobs["build"]["steps"]]
    assert jobs["pypi"]["needs"] == jobs["image"]["needs"] == "build"
    assert jobs["page"]["needs"] == ["pypi", "image"]


def test_issue_forms_are_whole_and_ask_for_no_text_of_answers() -> None:
    forms = {
        path.name: read_yaml(path) for path in (GITHUB / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml"
    }
    assert set(forms) == {"bug.yml", "feature.yml", "wrong_correction.yml"}
    for name, form in forms.items():
        assert form["name"]
        assert form["description"]
        fields = form["body"]
        assert {field["type"] for field in fields} <= INPUTS, name
        ids = [field["id"] for field in fields if field["type"] != "markdown"]
        assert len(set(ids)) == len(ids) > 0, name
        assert not {"answer", "response", "prompt", "text"} & set(ids), name
        for field in fields:
            assert field["attributes"].get("value" if field["type"] == "markdown" else "label"), name
            for line in re.findall(r"`aligner-proxy ([^`]+)`", field["attributes"].get("description", "")):
                word, *options = line.split()
                command = main if word.startswith("-") else main.get_command(click.Context(main), word)
                assert command is not None, line
                there = {option for parameter in command.params for option in parameter.opts}
                assert {option for option in [word, *options] if option.startswith("-")} <= there, line
    correction = {field.get("id"): field for field in forms["wrong_correction.yml"]["body"]}
    assert "`x-aligner-*`" in correction["headers"]["attributes"]["description"]


def test_hooks_run_what_lint_runs() -> None:
    lint = re.search(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert lint
    hooks = [
        hook for repository in read_yaml(ROOT / ".pre-commit-config.yaml")["repos"] for hook in repository["hooks"]
    ]
    assert len(hooks) == 4
    for hook in hooks:
        command = hook["entry"].replace(" --force-exclude", "").replace(".venv/bin/", "$(BIN)/")
        assert command.replace(" --check", "") in lint[1].replace(" . ", " ").replace(" --check", ""), command


def test_security_names_the_version_that_gets_fixes_and_the_threats() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    minor = ".".join(__version__.split(".")[:2])
    assert f"| {minor} | yes |" in text
    assert "(THREATS.md)" in text
    assert (GITHUB / "CODEOWNERS").read_text(encoding="utf-8").splitlines()[-1].startswith("* @")


def test_dependabot_moves_actions_and_leaves_the_lock_files() -> None:
    updates = read_yaml(GITHUB / "dependabot.yml")
    assert updates["version"] == 2
    assert [update["package-ecosystem"] for update in updates["updates"]] == ["github-actions"]
