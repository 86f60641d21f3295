"""Progress of a command as lines of JSON, for the console, which runs commands as subprocesses."""

from __future__ import annotations

from aligner_proxy.cli.terminal import echo_json


def print_progress(done: int, of: int) -> None:
    """Print the number of finished steps, and `of` how many, as one line of JSON."""
    echo_json({"done": done, "of": of})
