"""Progress of a command as lines of JSON, for the console, which runs commands in processes of their own."""

from __future__ import annotations

from aligner_proxy.cli.terminal import echo_json


def progress_line(done: int, of: int) -> None:
    """Print the progress: `done` of `of` steps."""
    echo_json({"done": done, "of": of})
