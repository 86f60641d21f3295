"""Mistakes that are made most often: each ends with the message and the status of docs/reference/errors.md."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import socket
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import click
import huggingface_hub
import pytest
from click.testing import CliRunner

from aligner_proxy import extras
from aligner_proxy.cli import main
from aligner_proxy.engine.weights.store import WeightStore
from aligner_proxy.plugins import registry
from tests.cli.conftest import fill_disk
from tests.support.error_page import read_errors
from tests.support.installed import pretend_installed

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(bool(extras.list_missing(extras.ENGINE)), reason="a host without the extra says so first"),
]
ROOT = Path(__file__).parents[2]
PLAIN_LITELLM = "model_list: []\ngeneral_settings: {master_key: sk-a-long-key-of-this-test-alone}\n"
SERVE = ("serve", "--config", "gateway/litellm.yaml")
ENGINE = ("engine", "--port", "0")


class Mistakes:
    """One method a mistake: it brings it about and returns the command that then fails."""

    def __init__(self, folder: Path, taken_port: int, patch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.taken_port = taken_port
        self.patch = patch

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def change(self, name: str, old: str, new: str) -> None:
        text = (self.folder / name).read_text()
        assert old in text
        self.write(name, text.replace(old, new, 1))

    def gateway_port(self) -> tuple[str, ...]:
        return *SERVE, "--port", str(self.taken_port)

    def engine_port(self) -> tuple[str, ...]:
        return "engine", "--port", str(self.taken_port)

    def absent_model(self) -> tuple[str, ...]:
        return *ENGINE, "--model", "no-such/model"

    def absent_folder(self) -> tuple[str, ...]:
        return *ENGINE, "--model", "./nowhere"

    def no_guardrail(self) -> tuple[str, ...]:
        self.write("litellm.yaml", PLAIN_LITELLM)
        return "check", "litellm.yaml"

    def no_guardrail_served(self) -> tuple[str, ...]:
        return "serve", "--config", self.no_guardrail()[1]

    def unreadable_setting(self) -> tuple[str, ...]:
        self.change("gateway/litellm.yaml", "mode: post_call", "mode: post_cal")
        return "check", "gateway/litellm.yaml"

    def mistyped_key(self) -> tuple[str, ...]:
        return self.write_policies("routes:\n  - {match: {model: gpt}, objectivs: [harmless]}\n")

    def write_policies(self, text: str) -> tuple[str, ...]:
        self.write("policies.yaml", text)
        return "check", "policies.yaml"

    def unknown_value(self) -> tuple[str, ...]:
        return self.write_policies("defaults: {mode: enforced}\n")

    def unknown_objective(self) -> tuple[str, ...]:
        return self.write_policies("routes:\n  - {match: {model: gpt}, objectives: [harmles]}\n")

    def hidden_route(self) -> tuple[str, ...]:
        return self.write_policies(
            "routes:\n  - {match: {model: '*'}, objectives: [harmless]}\n  - {match: {model: gpt}, mode: off}\n"
        )

    def no_yaml(self) -> tuple[str, ...]:
        return self.write_policies("routes: [\n")

    def no_page(self) -> tuple[str, ...]:
        return self.write_policies("defaults: {references: [{file: nowhere.md}]}\n")

    def key_without_hash(self) -> tuple[str, ...]:
        self.write("keys.yaml", "- {alias: x}\n")
        return self.write_policies("keys: keys.yaml\ndefaults: {mode: off}\n")

    def no_address(self) -> tuple[str, ...]:
        return self.write_policies("cache: {redis_env: SOME_REDIS}\ndefaults: {mode: off}\n")

    def no_examples(self) -> tuple[str, ...]:
        return "teach", self.write_policies("defaults: {mode: off}\n")[1]

    def guessable_master_key(self) -> tuple[str, ...]:
        self.patch.setenv("LITELLM_MASTER_KEY", "1234")
        return SERVE

    def mistyped_option(self) -> tuple[str, ...]:
        return *SERVE, "--prot", "4000"

    def chat_model(self) -> tuple[str, ...]:
        (self.folder / "model").mkdir()
        self.write("model/config.json", "{}")
        return *ENGINE, "--model", "./model"

    def second_init(self) -> tuple[str, ...]:
        return "init", "gateway"

    def mistyped_command(self) -> tuple[str, ...]:
        return ("chek",)

    def no_file(self) -> tuple[str, ...]:
        return "check", "nowhere.yaml"

    def no_master_key(self) -> tuple[str, ...]:
        self.patch.delenv("LITELLM_MASTER_KEY")
        return SERVE

    def home_in_a_file(self) -> tuple[str, ...]:
        self.write("file", "")
        self.patch.setenv("ALIGNER_PROXY_HOME", str(self.folder / "file" / "home"))
        return SERVE

    def read_only_root(self) -> tuple[str, ...]:
        # The kernel answers so about every folder of such a root.
        self.patch.setattr(os, "access", lambda _path, mode: mode != os.W_OK)
        return SERVE

    def audit_in_a_file(self) -> tuple[str, ...]:
        self.write("gateway/file", "")
        with (self.folder / "gateway/policies.yaml").open("a") as policies:
            policies.write("audit: {enabled: true, file: file/audit.db}\n")
        return SERVE

    def full_disk(self) -> tuple[str, ...]:
        self.patch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2**20))
        # What an engine does before it prepares weights, without the weights.
        self.patch.setattr(WeightStore, "find_prepared", lambda store, *_: store.check_room(2**30))
        return *ENGINE, "--model", "no-such/model"

    def no_home(self) -> tuple[str, ...]:
        def unknown(_: int) -> NoReturn:
            raise KeyError

        self.patch.delenv("ALIGNER_PROXY_HOME")
        self.patch.delenv("HOME")
        self.patch.setattr(pwd, "getpwuid", unknown)
        return SERVE

    def init_in_a_file(self) -> tuple[str, ...]:
        self.write("file", "")
        return "init", "file/gateway"

    def init_without_room(self) -> tuple[str, ...]:
        fill_disk(self.patch)
        return "init", "new"

    def no_torch(self) -> tuple[str, ...]:
        find_spec = importlib.util.find_spec
        self.patch.setattr(
            importlib.util,
            "find_spec",
            lambda name, *more: None if name in ("torch", "peft") else find_spec(name, *more),
        )
        return ENGINE

    def no_plugin(self) -> tuple[str, ...]:
        pretend_installed(self.patch, [plugin for plugin in registry.installed_plugins() if plugin.name != "fleet"])
        return self.no_address()

    def no_network(self) -> tuple[str, ...]:
        nowhere = huggingface_hub.HfApi("http://127.0.0.1:9")
        self.patch.setattr(huggingface_hub, "list_repo_files", nowhere.list_repo_files)
        return "pull", "no-such/model", "--template", "ultrafeedback"


MADE: dict[str, Callable[[Mistakes], tuple[str, ...]]] = {
    "the gateway's port is taken": Mistakes.gateway_port,
    "the engine's port is taken": Mistakes.engine_port,
    "a model that is not on this machine": Mistakes.absent_model,
    "a folder of a model that there is not": Mistakes.absent_folder,
    "no guardrail in LiteLLM's file": Mistakes.no_guardrail,
    "the same, at `serve`": Mistakes.no_guardrail_served,
    "a setting that LiteLLM cannot read": Mistakes.unreadable_setting,
    "a typing mistake in a policy key": Mistakes.mistyped_key,
    "a value that a setting does not have": Mistakes.unknown_value,
    "an objective that is not defined": Mistakes.unknown_objective,
    "a route behind one that matches everything": Mistakes.hidden_route,
    "a file that is no YAML": Mistakes.no_yaml,
    "a page of `references` that there is not": Mistakes.no_page,
    "a key in the keys file without its hash": Mistakes.key_without_hash,
    "a variable with an address that is not set": Mistakes.no_address,
    "`teach` without examples": Mistakes.no_examples,
    "a typing mistake in an option": Mistakes.mistyped_option,
    "a master key that is easy to guess": Mistakes.guessable_master_key,
    "a plain chat model as aligner": Mistakes.chat_model,
    "a second `init` in one folder": Mistakes.second_init,
    "a typing mistake in a command": Mistakes.mistyped_command,
    "no such file": Mistakes.no_file,
    "no master key": Mistakes.no_master_key,
    "a folder of ours that cannot be written": Mistakes.home_in_a_file,
    "a read-only root": Mistakes.read_only_root,
    "an audit file that cannot be written": Mistakes.audit_in_a_file,
    "a full disk": Mistakes.full_disk,
    "a user without HOME and without an entry in passwd": Mistakes.no_home,
    "a folder for `init` that cannot be written": Mistakes.init_in_a_file,
    "a full disk at `init`": Mistakes.init_without_room,
    "no torch": Mistakes.no_torch,
    "a plugin that is not installed": Mistakes.no_plugin,
    "no network": Mistakes.no_network,
}


def test_each_mistake_ends_with_the_message_and_status_of_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = read_errors("Commands")
    assert set(page) == set(MADE)
    wrong = []
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for number, (mistake, make) in enumerate(MADE.items()):
            folder = tmp_path / str(number)
            folder.mkdir()
            with monkeypatch.context() as patch:
                patch.chdir(folder)
                patch.setenv("ALIGNER_PROXY_HOME", str(folder / "home"))
                patch.setenv("LITELLM_MASTER_KEY", "sk-a-long-key-of-this-test-alone")
                assert CliRunner().invoke(main, ["init", "gateway"]).exit_code == 0
                done = CliRunner().invoke(main, make(Mistakes(folder, taken.getsockname()[1], patch)))
            unexpected = not isinstance(done.exception, SystemExit | click.ClickException)
            if unexpected or done.exit_code != page[mistake].status or not page[mistake].fits(done.stderr):
                wrong.append(f"{mistake}: {done.exit_code} {done.stderr} {done.exception!r}")
    assert wrong == [], "\n".join(wrong)


def test_no_distribution_can_be_installed_under_another_python() -> None:
    projects = [ROOT / "pyproject.toml", *(ROOT / "plugins").rglob("pyproject.toml")]
    assert len(projects) > 6
    for path in projects:
        assert tomllib.loads(path.read_text(encoding="utf-8"))["project"]["requires-python"].startswith(">=3.11"), path
