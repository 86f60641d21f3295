"""Progress of a command as lines of JSON, for the console, which runs commands in processes of their own."""

from __future__ import annotations

from aligner_proxy.cli.terminal import echo_json


def progress_line(done: int, of: int) -> None:
    """Tell that so much of so much is done."""
    echo_json({"done": done, "of": of})
