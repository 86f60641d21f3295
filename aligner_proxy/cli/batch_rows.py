"""Rows of `align --jsonl`: {"question", "answer", "objectives", ...} becomes the same row plus the result."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from aligner_proxy.cli.batch import OutputLine, SourceLine, encode_line, parse_object
from aligner_proxy.errors import ConfigError
from aligner_proxy.policy.objective_schema import check_objective_text
from aligner_proxy.policy.yaml_file import quote_name, suggest_name
from aligner_proxy.types import Exchange, Objective, Outcome, Status, Turn

CorrectExchange = Callable[[Exchange, tuple[Objective, ...]], Awaitable[Outcome]]
"""A function that corrects an answer; the objectives, if there are any, replace the default ones."""


class BatchRow(BaseModel):
    """Required fields of a row; other fields are copied. Without objectives, those of the command line apply."""

    model_config = ConfigDict(extra="allow", frozen=True)

    question: str
    answer: str
    objectives: tuple[str, ...] = ()


def find_objective(name: str, configured: Mapping[str, Objective]) -> Objective:
    """The configured objective of this name, or a new one from "Name: description"; raises `ConfigError`."""
    if name in configured:
        return configured[name]
    if ":" not in name:
        hint = suggest_name(name, configured)
        raise ConfigError(f'unknown objective {quote_name(name)}; {hint}, or give a whole text "Name: description"')
    try:
        return Objective(name.partition(":")[0].strip(), check_objective_text(name))
    except ValueError as error:
        raise ConfigError(f"objective {quote_name(name)}: {error}") from None


@dataclass(frozen=True, slots=True)
class RowPolicy:
    """The objectives of all rows, and those that a row may name instead."""

    default_objectives: tuple[Objective, ...]
    """Objectives of a row that names none; empty: those of the policy."""
    configured: Mapping[str, Objective]
    """Built-in objectives, or those of a policies file, by name."""

    async def correct_row(self, correct_exchange: CorrectExchange, line: SourceLine) -> OutputLine:
        """Correct one row by `correct_exchange`, and return the output row; that of an invalid row says why."""
        fields: dict[str, Any] = {}
        try:
            fields = parse_object(line.content)
            row = BatchRow.model_validate(fields)
            objectives = tuple(find_objective(name, self.configured) for name in row.objectives)
        except (ValueError, ConfigError) as error:
            reason = f"bad row: {_error_text(error)}"
            fields |= {"row": line.row, "corrected": None, "status": "failed", "reason": reason, "segments": []}
            return OutputLine(encode_line(fields), has_failed=True)
        exchange = Exchange(f"row-{line.row}", 0, (Turn("user", row.question),), row.answer)
        outcome = await correct_exchange(exchange, objectives or self.default_objectives)
        has_failed = outcome.status is Status.FAILED
        return OutputLine(encode_line(fields | result_fields(outcome)), has_failed=has_failed)


def result_fields(outcome: Outcome) -> dict[str, Any]:
    """The fields that a result adds to a row: the delivered text, its status and reason, and the segments."""
    segments = [
        {"text": score.text, "score": score.score, "flagged": score.flagged, "against": outcome.objective_of(score)}
        for score in outcome.segments
    ]
    return {"corrected": outcome.text, "status": outcome.status.value, "reason": outcome.reason, "segments": segments}


def _error_text(error: Exception) -> str:
    """What is wrong with a row; of a validation error only the field and the reason, without the row's text."""
    if isinstance(error, ValidationError):
        first_error = error.errors(include_url=False, include_input=False)[0]
        field_path = ".".join(map(str, first_error["loc"]))
        return f"{field_path}: {first_error['msg']}"
    return str(error)
