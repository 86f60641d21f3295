"""Progress of a command as lines of JSON, for the console, which runs commands in processes of their own."""

from __future__ import annotations

import json

import click


def progress_line(done: int, of: int) -> None:
    """Tell that so much of so much is done."""
    click.echo(json.dumps({"done": done, "of": of}))
