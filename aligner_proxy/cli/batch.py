"""Batch alignment of JSON lines: in order, four at a time, resumable; a bad row does not stop the others.

An input row is {"question", "answer", "objectives", ...}; its output row is the input row plus the result. Every input
row gives exactly one output row, so the number of output rows shows where to resume.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import BaseModel, ConfigDict, ValidationError
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from aligner_proxy.cli.terminal import Terminal
from aligner_proxy.errors import ConfigError
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.policy.objective_schema import check_objective_text
from aligner_proxy.policy.yaml_file import quote_name, suggest_name
from aligner_proxy.types import Exchange, Objective, Outcome, Policy, Turn

_IN_FLIGHT = 4
"""Rows that are aligned at a time; results are written in the order of the rows."""


class BatchRow(BaseModel):
    """Required fields of a row; other fields are copied. Without objectives, those of the command line apply."""

    model_config = ConfigDict(extra="allow", frozen=True)

    question: str
    answer: str
    objectives: tuple[str, ...] = ()


class ObjectiveNames:
    """Lookup of objectives by name, or of new ones by their whole text ("Name: description")."""

    def __init__(self, configured: Mapping[str, Objective]) -> None:
        self._configured = configured

    def resolve(self, names: Sequence[str]) -> tuple[Objective, ...]:
        """The objectives with these names or texts; raises `ConfigError` with a hint for an unknown name."""
        return tuple(self._configured.get(name) or self._new(name) for name in names)

    def _new(self, text: str) -> Objective:
        """Make an objective from its whole text; raises `ConfigError` if it is not "Name: description"."""
        if ":" not in text:
            hint = suggest_name(text, self._configured)
            raise ConfigError(f'unknown objective {quote_name(text)}; {hint}, or give a whole text "Name: description"')
        try:
            return Objective(text.partition(":")[0].strip(), check_objective_text(text))
        except ValueError as error:
            raise ConfigError(f"objective {quote_name(text)}: {error}") from None


@dataclass(frozen=True, slots=True)
class BatchJob:
    """Settings of a batch: results are appended to `output`, and the first `skip` rows are skipped."""

    policy: Policy
    objectives: ObjectiveNames
    output: Path | None = None
    skip: int = 0


async def run(job: BatchJob, pipeline: Pipeline, source: BinaryIO, sink: BinaryIO) -> None:
    """Align all rows of `source`; write results in order, as soon as they are ready, to `job.output` or `sink`."""
    done = job.skip + (_resume(job.output) if job.output else 0)
    with _make_progress() as progress, _open_output(job.output, sink) as out:
        bar = progress.add_task("aligning", total=_file_size(source), rows=0)
        waiting: deque[asyncio.Task[dict[str, Any]]] = deque()
        for number, line in enumerate(filter(bytes.strip, source)):
            progress.advance(bar, len(line))
            if number < done:
                continue
            waiting.append(asyncio.create_task(_align(job, pipeline, line, number)))
            if len(waiting) == _IN_FLIGHT:
                _write(out, await waiting.popleft())
                progress.update(bar, rows=number + 1)
        while waiting:
            _write(out, await waiting.popleft())


async def _align(job: BatchJob, pipeline: Pipeline, line: bytes, number: int) -> dict[str, Any]:
    """Align one row and return the output row; for an invalid row it contains the reason."""
    fields: dict[str, Any] = {}
    try:
        fields = _parse_object(line)
        row = BatchRow.model_validate(fields)
        objectives = job.objectives.resolve(row.objectives) if row.objectives else job.policy.objectives
    except (ValueError, ConfigError) as error:
        return fields | {"row": number + 1} | _failure_fields(f"bad row: {_error_text(error)}")
    exchange = Exchange(f"row-{number + 1}", 0, (Turn("user", row.question),), row.answer)
    return fields | result_fields(await pipeline.align(exchange, replace(job.policy, objectives=objectives)))


def result_fields(outcome: Outcome) -> dict[str, Any]:
    """The fields that a result adds to a row: the delivered text, its status and reason, and the segments."""
    return {
        "corrected": outcome.text,
        "status": outcome.status.value,
        "reason": outcome.reason,
        "segments": [
            {"text": s.text, "score": s.score, "flagged": s.flagged, "against": outcome.objective_of(s)}
            for s in outcome.segments
        ],
    }


def _failure_fields(reason: str) -> dict[str, Any]:
    return {"corrected": None, "status": "failed", "reason": reason, "segments": []}


def _parse_object(line: bytes) -> dict[str, Any]:
    row = json.loads(line)
    if not isinstance(row, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 - one kind of error for everything a row can have wrong
    return row


def _error_text(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return "not JSON" if isinstance(error, json.JSONDecodeError | UnicodeDecodeError) else str(error)


def _resume(output: Path) -> int:
    """Count the complete rows in `output`, and remove an incomplete last row from the file."""
    if not output.exists():
        return 0
    content = output.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        output.write_bytes(whole)
    return whole.count(b"\n")


def _write(out: BinaryIO, row: dict[str, Any]) -> None:
    out.write(json.dumps(row, ensure_ascii=False).encode(errors="surrogatepass") + b"\n")
    out.flush()


def _open_output(output: Path | None, sink: BinaryIO) -> AbstractContextManager[BinaryIO]:
    return output.open("ab") if output else nullcontext(sink)


def _file_size(source: BinaryIO) -> int | None:
    """Size of a regular file in bytes, for the progress bar; None if it is unknown."""
    try:
        return os.fstat(source.fileno()).st_size or None
    except OSError:
        return None


def _make_progress() -> Progress:
    rows = TextColumn("{task.fields[rows]} rows")
    return Progress(TextColumn("aligning"), BarColumn(), rows, TimeElapsedColumn(), console=Terminal(stderr=True))
