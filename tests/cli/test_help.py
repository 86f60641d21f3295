"""`--help` of every command: in one style, with an example that the command itself understands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import click
import pytest

from aligner_proxy import cli


def _commands(group: click.Group, name: str = "aligner-proxy") -> Iterator[tuple[str, click.Command]]:
    """All commands below a group, by their names on the command line."""
    context = click.Context(group)
    for part in group.list_commands(context):
        command = group.get_command(context, part)
        assert command is not None
        if isinstance(command, click.Group):
            yield from _commands(command, f"{name} {part}")
        else:
            yield f"{name} {part}", command


COMMANDS = dict(_commands(cli.main))


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_has_an_example_that_it_understands(name: str) -> None:
    command = COMMANDS[name]
    text, _, example = (command.help or "").partition("For example: ")
    assert text.partition("\n\n")[0].rstrip().endswith(".")
    assert re.search(rf"(?:^|\| ){name}\b", example), f"no example: {example!r}"
    arguments = shlex.split(example[example.index(name) + len(name) :])
    # A parser knows all options and which arguments are required; it opens no file.
    options, rest, _ = command.make_parser(click.Context(command)).parse_args(arguments)
    assert rest == []
    required = {parameter.name for parameter in command.params if parameter.required}
    assert required <= options.keys()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_says_what_it_does(name: str) -> None:
    options = [parameter for parameter in COMMANDS[name].params if isinstance(parameter, click.Option)]
    silent = [option.opts[-1] for option in options if not option.hidden and not (option.help or "").endswith(".")]
    assert silent == []
