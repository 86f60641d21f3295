"""Correction of a file of JSON lines: in order, four at a time, resumable; a bad line does not stop the others.

Every line that is not empty gives exactly one output line, so the number of output lines shows where to resume.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from aligner_proxy.cli.terminal import Terminal

_MAX_RUNNING = 4
"""Lines that are corrected at a time; results are written in the order of the lines."""


@dataclass(frozen=True, slots=True)
class SourceLine:
    """A line that is not empty."""

    content: bytes
    row: int
    """Its number among those that are not empty, from 1."""
    number: int
    """Its number in the file, from 1."""


@dataclass(frozen=True, slots=True)
class OutputLine:
    """The result of one line."""

    content: bytes
    """The line to write, without its line end."""
    has_failed: bool = False
    """Whether its answer could not be corrected; the line then says why."""


CorrectLine = Callable[[SourceLine], Awaitable[OutputLine]]
"""Makes the output line; raises nothing."""
MakeObject = Callable[[list[tuple[str, Any]]], dict[str, Any]]
"""Makes a JSON object of its (name, value) pairs."""


async def run(correct_line: CorrectLine, source: BinaryIO, sink: BinaryIO, path: Path | None, skip_count: int) -> int:
    """Correct the lines of `source` after the first `skip_count`; returns how many failed.

    Results are written in order, as soon as they are ready: to `sink`, or to the end of the file `path`, whose lines
    are results of an earlier run that need not be computed again.
    """
    if path:
        skip_count += _keep_complete_rows(path)
    failed_count = 0
    with _make_progress() as progress, _open_output(path, sink) as output:
        bar = progress.add_task("aligning", total=_file_size(source), rows=0)
        tasks: deque[asyncio.Task[OutputLine]] = deque()
        row = 0  # counts only lines with content; `number` counts all lines of the file
        for number, content in enumerate(source, 1):
            progress.advance(bar, len(content))
            if not content.strip():
                continue
            row += 1
            if row <= skip_count:
                continue
            tasks.append(asyncio.ensure_future(correct_line(SourceLine(content, row, number))))
            # The oldest task is awaited first, so results keep the order of the lines.
            if len(tasks) == _MAX_RUNNING:
                failed_count += _write(output, await tasks.popleft())
                progress.update(bar, rows=row)
        while tasks:
            failed_count += _write(output, await tasks.popleft())
        progress.update(bar, rows=row)
    return failed_count


def parse_object(content: bytes, make_object: MakeObject = dict) -> dict[str, Any]:
    """Return the JSON object on a line; raises `ValueError`, which says what is wrong.

    `make_object` is called with the (name, value) pairs of each object on the line, and returns the object.
    """
    try:
        fields = json.loads(content, object_pairs_hook=make_object)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
        raise ValueError("not JSON") from None
    if not isinstance(fields, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 - one kind of error for everything a line can have wrong
    return fields


def encode_line(fields: dict[str, Any]) -> bytes:
    """Encode a JSON object as a line, without a line end."""
    try:
        return json.dumps(fields, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # a text has half of a surrogate pair, which only an escape can express
        return json.dumps(fields).encode()


def _keep_complete_rows(output: Path) -> int:
    """Remove the last line if an earlier run left it incomplete; returns how many complete lines the file has."""
    if not output.exists():
        return 0
    content = output.read_bytes()
    complete_lines = content[: content.rfind(b"\n") + 1]
    if len(complete_lines) < len(content):
        output.write_bytes(complete_lines)
    return complete_lines.count(b"\n")


def _write(output: BinaryIO, line: OutputLine) -> bool:
    """Write a line at once, so that an interrupted run can be resumed after it; returns whether the line failed."""
    output.write(line.content + b"\n")
    output.flush()
    return line.has_failed


def _open_output(output: Path | None, sink: BinaryIO) -> AbstractContextManager[BinaryIO]:
    """Open the output file for appending; if there is none, return `sink`, which stays open."""
    return output.open("ab") if output else nullcontext(sink)


def _file_size(source: BinaryIO) -> int | None:
    """Size of a regular file in bytes, for the progress bar; None if it is unknown."""
    try:
        return os.fstat(source.fileno()).st_size or None
    except OSError:
        return None


def _make_progress() -> Progress:
    """A progress bar on stderr, with the number of finished rows and the time."""
    rows = TextColumn("{task.fields[rows]} rows")
    return Progress(TextColumn("aligning"), BarColumn(), rows, TimeElapsedColumn(), console=Terminal(stderr=True))
