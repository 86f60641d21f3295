from __future__ import annotations

import importlib.metadata

import pytest
from click.testing import CliRunner

from aligner_proxy import cli
from aligner_proxy.plugins.commands import GROUP, Command

MODULE = """
import click
from aligner_proxy.plugins.commands import Command
COMMANDS = (
    Command("greet", "Say good morning.", "greeting"),
    Command("check", "Not the gateway's own.", "greeting"),
)
@click.command()
def command():
    click.echo("good morning")
"""


@pytest.fixture
def greeting(tmp_path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "greeting.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    points = [
        importlib.metadata.EntryPoint("broken", "no_such_module:COMMANDS", GROUP),
        importlib.metadata.EntryPoint("greeting", "greeting:COMMANDS", GROUP),
    ]
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: points if group == GROUP else [])
    cli.all_commands.cache_clear()
    yield
    cli.all_commands.cache_clear()


@pytest.mark.usefixtures("greeting")
def test_a_plugin_brings_a_command_and_replaces_none() -> None:
    shown = CliRunner().invoke(cli.main, ["--help"])
    assert "Say good morning." in shown.output
    assert "Not the gateway's own." not in shown.output
    assert CliRunner().invoke(cli.main, ["greet"]).output == "good morning\n"
    assert cli.all_commands()["check"] == Command("check", cli._OWN["check"], "aligner_proxy.cli.check")


@pytest.mark.usefixtures("greeting")
def test_a_plugin_that_cannot_be_imported_is_named(caplog: pytest.LogCaptureFixture) -> None:
    assert "greet" in cli.all_commands()
    assert "the commands of plugin broken cannot be used: ModuleNotFoundError" in caplog.text
