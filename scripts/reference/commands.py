"""Page of the command line: every command with its arguments and options, from click."""

from __future__ import annotations

import re
from collections.abc import Iterator

import click

from aligner_proxy.cli import all_commands, main
from scripts.reference.markdown import code, page, sentence, table, words

PROGRAM = "aligner-proxy"
AGAIN = re.compile("again|several times")
NUMBERS = {"INTEGER RANGE": "INTEGER", "FLOAT": "NUMBER", "FLOAT RANGE": "NUMBER"}
"""Plainer words for click's names of types."""
INTRODUCTION = """
Every command prints its options with `--help`. An error is one line on stderr; with `--json`, it is
also one JSON object on stdout. The exit status is 2 for wrong usage, and 1 for work that failed ([errors](errors.md)).
"""


def commands_page() -> str:
    """The whole page."""
    root = click.Context(main, info_name=PROGRAM)
    commands = {name: main.get_command(root, name) for name in all_commands()}
    rows = [(f"[`{name}`](#{PROGRAM}-{name})", sentence(all_commands()[name].about)) for name in commands]
    sections = [
        section
        for name, command in commands.items()
        if command is not None
        for section in _command(command, click.Context(command, parent=root, info_name=name))
    ]
    return page("Commands", INTRODUCTION, table(("command", "what it does"), rows), *sections)


def _command(command: click.Command, context: click.Context) -> Iterator[str]:
    """Sections for a command and its subcommands."""
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    parts = [f"## {context.command_path}", f"```text\n{usage}\n```", _prose(command.help or "")]
    options = [option for option in command.get_params(context) if isinstance(option, click.Option)]
    rows = [_option(option, context) for option in options if not option.hidden and "--help" not in option.opts]
    if rows:
        parts.append(table(("option", "default", "what it does"), rows))
    yield "\n\n".join(part for part in parts if part)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            subcommand = command.get_command(context, name)
            if subcommand is not None:
                yield from _command(subcommand, click.Context(subcommand, parent=context, info_name=name))


def _prose(text: str) -> str:
    """A docstring as paragraphs; paragraphs that click leaves unwrapped become code blocks."""
    paragraphs = []
    for paragraph in text.strip().split("\n\n"):
        code_block = paragraph.removeprefix("\b\n")
        paragraphs.append(f"```text\n{code_block}\n```" if code_block != paragraph else " ".join(paragraph.split()))
    return "\n\n".join(paragraphs)


def _option(option: click.Option, context: click.Context) -> tuple[str, str, str]:
    names = ", ".join(code(name) for name in (*option.opts, *option.secondary_opts))
    if not option.is_flag:
        names += f" {_value(option, context)}"
    help_text = option.help or ""
    notes = [sentence(help_text)]
    if option.multiple and not AGAIN.search(help_text):
        notes.append("May be given several times.")
    if option.required:
        notes.append("Required.")
    return names, _default(option, context), " ".join(note for note in notes if note)


def _value(option: click.Option, context: click.Context) -> str:
    """The values that an option takes."""
    if isinstance(option.type, click.Choice):
        return words([code(choice) for choice in option.type.choices])
    name = option.make_metavar(context)
    return code(NUMBERS.get(name, name))


def _default(option: click.Option, context: click.Context) -> str:
    value = option.get_default(context, call=False)
    if option.is_flag or not isinstance(value, str | int | float) or value == "":
        return ""
    return code(int(value) if isinstance(value, float) and value.is_integer() else value)
