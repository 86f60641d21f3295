"""Progress of a command as lines of JSON, for the console, which runs commands as subprocesses."""

from __future__ import annotations

from aligner_proxy.cli.terminal import echo_json


def progress_line(done: int, of: int) -> None:
    """Print a line of JSON: `done` of `of` steps are finished."""
    echo_json({"done": done, "of": of})
