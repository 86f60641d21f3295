"""Command line: one module per command, imported only when that command runs.

This keeps `--help` fast, because it imports neither torch nor LiteLLM. Every `AlignerProxyError` is printed as one line
on stderr, and with `--json` also as one JSON object on stdout. The exit status is 2 for wrong usage: options,
arguments, and what is named on the command line but is not there, or is wrong. It is 1 for work that failed.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
from functools import cache
from pathlib import Path
from typing import Any, cast

import click

from aligner_proxy import __version__
from aligner_proxy.errors import AlignerProxyError, ConfigError
from aligner_proxy.plugins.commands import Command, plugin_commands

_OWN_COMMANDS = {
    "init": "Write the configuration of a new gateway into a folder.",
    "serve": "Start the aligner engine and the LiteLLM proxy with the guardrail.",
    "engine": "Serve only the aligner, so that several gateway workers can share one model.",
    "align": "Correct one answer from stdin, many with --jsonl, or the output file of a batch.",
    "decide": "Say how probable it is that a text from stdin goes against objectives.",
    "teach": "Teach objectives from the example files that a policies file names.",
    "check": "Validate a config and print the policy that a request would get, and why.",
    "audit": "Erase the records of one answer from the audit store.",
    "health": "Show whether gateway and engine are alive, ready or degraded.",
    "doctor": "Check what this machine can run, and print what to fix.",
    "pull": "Download, quantise and store the weights of an aligner.",
}
"""The package's own commands, in the order of their use."""


@cache
def all_commands() -> dict[str, Command]:
    """Every command by its name: our own, then those of installed plugins, which cannot replace ours."""
    own_commands = (Command(name, about, f"aligner_proxy.cli.{name}") for name, about in _OWN_COMMANDS.items())
    commands = {command.name: command for command in own_commands}
    for command in plugin_commands():
        commands.setdefault(command.name, command)
    return commands


DISK_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Errors of a write for which there is no room."""


class LazyGroup(click.Group):
    """Command group that imports a command only when it runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands, in the order in which help shows them."""
        return list(all_commands())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command with this name and return it; None if there is none."""
        # Otherwise, LiteLLM would ask the internet for prices when it is imported, and wait for seconds if offline.
        os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
        command = all_commands().get(cmd_name)
        return None if command is None else cast(click.Command, importlib.import_module(command.module).command)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing the commands."""
        with formatter.section("Commands"):
            formatter.write_dl([(command.name, command.about) for command in all_commands().values()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; for an unknown name, fail with the plugin to install or with the list of commands."""
        if args and not args[0].startswith("-") and args[0] not in all_commands():
            from aligner_proxy.policy.plugin_keys import COMMANDS_OF_PLUGINS, missing_plugin_text  # imports pydantic

            distribution = COMMANDS_OF_PLUGINS.get(args[0])
            if distribution is not None:
                ctx.fail(missing_plugin_text(args[0], distribution))
            ctx.fail(f"no command {args[0]!r}; there are: {', '.join(all_commands())}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; if it raises an `AlignerProxyError` or a file's error, print it and exit with a status."""
        as_json = bool({"--json", "--json-lines"} & set(sys.argv))
        fault: AlignerProxyError
        try:
            return super().invoke(ctx)
        except AlignerProxyError as error:
            fault = error
            status = error.exit_status
        except OSError as error:
            # Click itself handles a closed pipe; other errors that name no file are bugs.
            if error.filename is None and error.errno not in DISK_FULL_ERRNOS:
                raise
            fault = ConfigError(f"cannot use {error.filename or 'the output'}: {error.strerror}")
            # 2 if the user named a file that cannot be used
            status = 1 if error.errno in DISK_FULL_ERRNOS else 2
            if error.filename is None:  # stdout has no room, so the error is only printed on stderr
                as_json = False
                # At the end of the process, Python would try to write the rest again and fail.
                with Path(os.devnull).open("wb") as nowhere:
                    os.dup2(nowhere.fileno(), 1)
        print_error(fault, as_json=as_json)
        ctx.exit(status)


def print_error(error: AlignerProxyError, as_json: bool) -> None:
    """Print an error as one line on stderr and, with `as_json`, also as one JSON object on stdout."""
    from aligner_proxy.cli import terminal  # imports rich, which `--help` does not need

    if as_json:
        terminal.echo_json({"error": {"type": type(error).__name__, "message": str(error)}})
    terminal.echo((f"aligner-proxy: {error}", "red"), err=True)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="aligner-proxy")
def main() -> None:
    """A correcting LLM gateway: a small local model checks each answer against your objectives and edits violations.

    Prices of models are those that LiteLLM brings; LITELLM_LOCAL_MODEL_COST_MAP=False gets today's from the internet.
    """
