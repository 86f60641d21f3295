"""What a command prints acts on no terminal, and nothing is printed by another way."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from rich.table import Table
from rich.text import Text

import aligner_proxy.cli
import aligner_proxy_review.cli
from aligner_proxy.cli import terminal
from aligner_proxy.cli.terminal import Terminal

HOSTILE = "a\x1b]0;owned\x07b\x9b31mc\u202ed\x7fe"
ACTS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]")
OWN_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
PRINTS = re.compile(r"\bclick\.(echo|secho|style)\(|(?<![\w.])(Console|print)\(|sys\.std(out|err)\.write")
_ITSELF = "terminal.py"


def printed(*renderables: object, colours: bool = False) -> str:
    """What a terminal gets."""
    sink = io.StringIO()
    Terminal(file=sink, force_terminal=colours, width=120).print(*renderables)
    return sink.getvalue()


def a_table() -> Table:
    """A table with hostile texts, as markup and as text."""
    table = Table("head" + HOSTILE)
    table.add_row(HOSTILE)
    table.add_row(Text(HOSTILE))
    return table


@pytest.mark.parametrize("renderable", [HOSTILE, Text(HOSTILE), Text.assemble("x", (HOSTILE, "red")), a_table()])
@pytest.mark.parametrize("colours", [False, True])
def test_nothing_that_is_printed_acts_on_the_terminal(renderable: object, colours: bool) -> None:
    text = printed(renderable, colours=colours)
    assert not ACTS.search(OWN_COLOURS.sub("", text))
    assert "\\x1b]0;owned" in OWN_COLOURS.sub("", text)


def test_colours_stay_where_they_were() -> None:
    text = printed(Text.assemble("plain ", ("re\x1bd", "red"), " plain"), colours=True)
    assert text == "plain \x1b[31mre\x1b[0m\x1b[31m\\x1b\x1b[0m\x1b[31md\x1b[0m plain\n"


def test_lines_and_json_are_escaped_too() -> None:
    @click.command()
    def command() -> None:
        terminal.echo(HOSTILE, (HOSTILE, "red"))
        terminal.echo_json({"said": HOSTILE + "\U000e0041ü"}, ascii_only=False)
        terminal.echo_json({"said": HOSTILE}, indent=2)

    got = CliRunner().invoke(command).output
    assert not ACTS.search(got.replace("\n", ""))
    line, said, *indented = got.splitlines()
    assert line == "a\\x1b]0;owned\\x07b\\x9b31mc\\u202ed\\x7fe" * 2
    assert json.loads(said) == {"said": HOSTILE + "\U000e0041ü"}
    assert "ü" in said
    assert json.loads("".join(indented)) == {"said": HOSTILE}


def test_commands_print_by_no_other_way() -> None:
    roots = [Path(package.__file__).parent for package in (aligner_proxy.cli, aligner_proxy_review.cli)]
    others = {
        f"{path}:{number}"
        for root in roots
        for path in sorted(root.rglob("*.py"))
        if path.name != _ITSELF
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if PRINTS.search(line) and "Console(path, master" not in line
    }
    assert others == set()
