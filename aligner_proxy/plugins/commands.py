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
class Companion:
    """A process that `serve` keeps beside the gateway where it is told to: the command whose companion this is.

    It is started with `--config` (the LiteLLM YAML), `--port`, `--gateway` (the gateway's address) and, where `serve`
    starts the engine, `--engine` (`unix:PATH`). It is started again when it ends, and replaced with the engine.
    """

    about: str
    """The help of the flag `--NAME` of `serve`; `--NAME-port` says its port."""
    port: int
    """Its port, unless `--NAME-port` says another."""
    extra: str | None = None
    """The extra of aligner-proxy that it needs."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command: its name, its line in `aligner-proxy --help`, and the module whose `command` click runs.

    The module is imported when the command runs, so `--help` stays fast whatever a plugin needs.
    """

    name: str
    about: str
    module: str
    companion: Companion | None = None
    """Where `serve` can keep this command running beside the gateway."""


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
