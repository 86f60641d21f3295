from __future__ import annotations

import importlib.metadata

import click
import pytest
from click.testing import CliRunner

from aligner_proxy import cli
from aligner_proxy.cli import serve
from aligner_proxy.errors import ConfigError, MissingExtra
from aligner_proxy.plugins.commands import GROUP, Command, Companion

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
    assert cli.all_commands()["check"] == Command("check", cli._OWN_COMMANDS["check"], "aligner_proxy.cli.check")


@pytest.mark.usefixtures("greeting")
def test_a_plugin_that_cannot_be_imported_is_named(caplog: pytest.LogCaptureFixture) -> None:
    assert "greet" in cli.all_commands()
    assert "the commands of plugin broken cannot be used: ModuleNotFoundError" in caplog.text


def test_a_command_that_is_not_installed_is_named_with_its_distribution(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [])
    cli.all_commands.cache_clear()
    try:
        result = CliRunner().invoke(cli.main, ["review", "--policy", "p.yaml"])
    finally:
        cli.all_commands.cache_clear()
    needs = "review needs the plugin distribution aligner-proxy-review, which is not installed"
    assert (result.exit_code, needs in result.output) == (2, True)


def companions(*arguments: str) -> dict[str, int]:
    """The companions that `serve` would start, by these arguments."""
    taken: dict[str, int] = {}

    @click.command()
    @serve.companion_options
    def command(**options: object) -> None:
        taken.update(serve.take_companions(options))

    result = CliRunner().invoke(command, arguments, standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return taken


def test_a_companion_of_serve_has_a_flag_and_a_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "_COMPANIONS", {"wall-chart": Companion("Show it.", 4010), "console": Companion("", 1)})
    assert companions() == {}
    assert companions("--wall-chart") == {"wall-chart": 4010}
    assert companions("--wall-chart", "--wall-chart-port", "5000", "--console") == {"wall-chart": 5000, "console": 1}
    plan = serve.ServePlan(*[None] * 4, False, "127.0.0.1", 4000, 1, companions={"wall-chart": 4010})  # type: ignore[arg-type]
    command = serve.companion_command(plan, "wall-chart")
    assert command[1:4] == ["-m", "aligner_proxy", "wall-chart"]
    assert command[command.index("--port") + 1] == "4010"


def test_a_companion_that_lacks_something_says_what(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "_COMPANIONS", {})
    with pytest.raises(ConfigError, match="--console needs the plugin distribution aligner-proxy-review"):
        companions("--console")
    monkeypatch.setattr(serve, "_COMPANIONS", {"console": Companion("", 1, "fleet")})
    monkeypatch.setattr("aligner_proxy.extras.list_missing", lambda *_: ["redis"])
    with pytest.raises(MissingExtra, match="--console needs redis"):
        companions("--console")
