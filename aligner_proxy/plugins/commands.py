"""Commands that installed plugins add to `aligner-proxy`."""

from __future__ import annotations

import importlib.metadata
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

log = logging.getLogger(__name__)

GROUP = "aligner_proxy.commands"
"""Entry point group. Each entry point names a sequence of `Command`, in a module that imports quickly."""


@dataclass(frozen=True, slots=True)
class Companion:
    """A command that `serve` can run as a process next to the gateway, if the operator passes its flag.

    It gets `--config` (the LiteLLM YAML), `--port` and `--gateway` (the gateway's address). If `serve` starts the
    engine, it also gets `--engine` (`unix:PATH`). It is restarted when it ends, and replaced together with the engine.
    """

    about: str
    """Help text of the `serve` flag `--NAME`; `--NAME-port` sets its port."""
    port: int
    """Default port, if `--NAME-port` is not given."""
    extra: str | None = None
    """The extra of aligner-proxy that it needs, if any."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command: its name, its line in `aligner-proxy --help`, and the module whose `command` click runs.

    The module is imported only when the command runs, so `--help` stays fast even if a plugin needs slow imports.
    """

    name: str
    about: str
    module: str
    companion: Companion | None = None
    """Set if `serve` can run this command next to the gateway."""


def plugin_commands() -> Iterator[Command]:
    """Yield the commands of the installed plugins, in the order of the plugins' names.

    If a plugin's list cannot be imported, only its own commands are missing; the reason is logged.
    """
    for entry_point in sorted(importlib.metadata.entry_points(group=GROUP), key=lambda point: point.name):
        try:
            commands: Sequence[Command] = entry_point.load()
        except (ImportError, AttributeError) as error:
            log.warning("the commands of plugin %s cannot be used: %s", entry_point.name, type(error).__name__)
        else:
            yield from commands
