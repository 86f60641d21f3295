"""Commands of `aligner-proxy` that installed plugins bring."""

from __future__ import annotations

import importlib.metadata
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

log = logging.getLogger(__name__)

GROUP = "aligner_proxy.commands"
"""Entry point group. Each entry point names a sequence of `Command`, in a module that is quick to import."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command: its name, its line in `aligner-proxy --help`, and the module whose `command` click runs.

    The module is imported when the command runs, so `--help` stays fast whatever a plugin needs.
    """

    name: str
    about: str
    module: str


def plugin_commands() -> Iterator[Command]:
    """The commands of the installed plugins, plugin by plugin in the order of their names.

    A plugin whose list cannot be imported loses its commands, and no others; the reason is logged.
    """
    for entry_point in sorted(importlib.metadata.entry_points(group=GROUP), key=lambda point: point.name):
        try:
            commands: Sequence[Command] = entry_point.load()
        except (ImportError, AttributeError) as error:
            log.warning("the commands of plugin %s cannot be used: %s", entry_point.name, type(error).__name__)
        else:
            yield from commands
