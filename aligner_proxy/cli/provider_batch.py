"""`align --batch`: corrects each answer in its place in the output file of a provider's batch.

A line of OpenAI's output file has its body in `response`, and a line of Anthropic's has its message in `result`. A body
goes through the gateway's hook for whole responses. The line of an answer that the policy withholds becomes an error in
the provider's form.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aligner_proxy.cli.batch import OutputLine, SourceLine, encode_line, parse_object
from aligner_proxy.cli.policy_guardrail import RequestOptions, open_guardrail
from aligner_proxy.engine.api import Engine
from aligner_proxy.errors import ConfigError, ForbiddenError
from aligner_proxy.formats import json_body
from aligner_proxy.gateway.batch_guardrail import BatchGuardrail, FixedPolicies
from aligner_proxy.gateway.choice_corrector import Blocked
from aligner_proxy.gateway.reload import ActiveConfig
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.policy.schema import PolicyFile
from aligner_proxy.types import Policy, Status

_IDS = ("id", "custom_id")
"""Fields that stay in a line whose answer is withheld."""
_CODE = "aligner_error"
"""Error code of such a line in OpenAI's form."""
_FAILED_TYPES = ("errored", "canceled", "expired")
"""Types of Anthropic's results without a message."""
_FIX = "give the file as the provider sent it"
_NOT_A_REQUEST = "no request of a batch: it needs custom_id, and body (OpenAI) or params (Anthropic)"
_NO_REQUEST = "no request with its custom_id; give --requests the input file of the same batch"


class BatchRequests:
    """The input file of a batch; only the positions of its requests are kept in memory."""

    def __init__(self, path: Path) -> None:
        """Read the file once; raises `ConfigError`."""
        self._path = path
        self._line_starts: dict[str, int] = {}
        """custom_id of a request -> the offset of its line in the file, in bytes."""
        line_start = 0
        with path.open("rb") as lines:
            for number, content in enumerate(lines, 1):
                if content.strip():
                    self._add(number, content, line_start)
                line_start += len(content)

    def _add(self, number: int, content: bytes, line_start: int) -> None:
        """Remember where the request of line `number` begins; raises `ConfigError` for a wrong or second one."""
        try:
            custom_id, _ = _parse_request(content)
        except ValueError as error:
            raise ConfigError(f"{self._path}:{number}: {error}; give --requests the input file of a batch") from None
        if custom_id in self._line_starts:
            raise ConfigError(f"{self._path}:{number}: a second request with its custom_id; give each one of its own")
        self._line_starts[custom_id] = line_start

    def find(self, custom_id: object) -> dict[str, Any]:
        """Return the body of a request; raises `ValueError` if the file has no request with this id."""
        if not isinstance(custom_id, str) or custom_id not in self._line_starts:
            raise ValueError(_NO_REQUEST)
        with self._path.open("rb") as lines:
            lines.seek(self._line_starts[custom_id])
            _, body = _parse_request(lines.readline())
        return body


def _parse_request(content: bytes) -> tuple[str, dict[str, Any]]:
    """Return the custom_id and the body of a request; raises `ValueError` for a line that is no request."""
    fields = parse_object(content)
    custom_id = fields.get("custom_id")
    body = fields.get("body", fields.get("params"))
    if not isinstance(custom_id, str) or not isinstance(body, dict):
        raise ValueError(_NOT_A_REQUEST)  # noqa: TRY004 - one kind of error for everything a line can have wrong
    return custom_id, body


def open_batch_guardrail(
    options: RequestOptions, engine: Engine, file: PolicyFile | None, policy: Policy
) -> BatchGuardrail:
    """Return a guardrail with the policies of `file` or, without it, with `policy`, whose deadline always counts."""
    if file is None:
        policies = FixedPolicies(ActiveConfig.from_file(PolicyFile()))
        return BatchGuardrail(policies, Pipeline(engine), policy.deadline_s, policy)
    return open_guardrail(options, engine, file, policy.deadline_s)


@dataclass(frozen=True, slots=True)
class BatchCorrector:
    """Corrects the lines of one output file, as the options of `align --batch` say."""

    path: Path
    """The output file to correct."""
    requests: BatchRequests | None
    """The input file, for the conversations; None if it was not given."""
    bare: bool
    """Whether output lines have no `aligner` object."""
    model: str | None
    """The model in place of that of each request."""
    guard: BatchGuardrail

    async def correct(self, line: SourceLine) -> OutputLine:
        """Return the line with its answers corrected, or with an error if an answer may not be delivered."""
        fields: dict[str, Any] = {}
        try:
            fields = _parse_line(line.content)
            return await self._correct_fields(line, fields)
        except Blocked as error:
            return self._withhold(fields, error.message, error.reason)
        except (ValueError, ForbiddenError, RecursionError) as error:
            return self._withhold(fields, f"{self.path.name}:{line.number}: {error}", f"bad line: {error}")

    async def _correct_fields(self, line: SourceLine, fields: dict[str, Any]) -> OutputLine:
        """Return the corrected line; an answer that stays unchanged may return the same bytes.

        Raises `Blocked` if the policy withholds the answer, and `ValueError` if the line is not a batch's output.
        """
        body_path = _find_body(fields)
        if body_path is None:
            # What the provider says in place of an answer is read as a text beside an answer.
            body = fields
        else:
            outer, inner = body_path
            body = fields[outer][inner]
        corrected = await self.guard.correct_body(body, self._find_request(fields), f"line-{line.number}")
        is_reported = json_body.holds_answers(body) and not self.bare
        state = corrected.state
        has_failed = state.status is Status.FAILED
        if corrected.body is body and not is_reported:
            return OutputLine(line.content.rstrip(b"\n"), has_failed=has_failed)
        new_fields = corrected.body
        if body_path is not None:
            new_fields = fields | {outer: fields[outer] | {inner: corrected.body}}
        if is_reported:
            new_fields = new_fields | _report_fields(
                state.status, state.reason, policy=state.policy.name, edits=corrected.edits
            )
        return OutputLine(encode_line(new_fields), has_failed=has_failed)

    def _find_request(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """The request of a line, with the model of --for-model if given; without --requests it has no conversation."""
        request = {} if self.requests is None else self.requests.find(fields.get("custom_id"))
        return request if self.model is None else request | {"model": self.model}

    def _withhold(self, fields: Mapping[str, Any], message: str, reason: str | None) -> OutputLine:
        """Return the line of an answer that may not be delivered: only its ids, and the error.

        `fields` are those of the original line; `reason` is for the report.
        """
        error_fields = {name: fields.get(name) for name in _IDS if name in (*fields, "custom_id")}
        # A line that has the form of neither provider becomes an error in both forms.
        if "response" in fields or "result" not in fields:
            error_fields |= {"response": None, "error": {"code": _CODE, "message": message}}
        if "result" in fields or "response" not in fields:
            error = {"type": "error", "error": {"type": "api_error", "message": message}}
            error_fields |= {"result": {"type": "errored", "error": error}}
        if not self.bare:
            error_fields |= _report_fields(Status.FAILED, reason)
        return OutputLine(encode_line(error_fields), has_failed=True)


def _parse_line(content: bytes) -> dict[str, Any]:
    """Return the fields of an output line; raises `ValueError`."""
    try:
        return parse_object(content, _make_object)
    except ValueError as error:
        raise ValueError(f"{error}; {_FIX}") from None


def _make_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a JSON object; raises `ValueError` for a field that occurs twice, which readers would read differently."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("an object has the same field twice")
    return fields


def _find_body(fields: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return the field of an output line, and the field in it, that has the body, such as ("response", "body").

    None if the provider gave an error instead of a body.

    Raises `ValueError` for a line that is neither of OpenAI nor of Anthropic.
    """
    response = fields.get("response")
    result = fields.get("result")
    if isinstance(response, dict) and isinstance(response.get("body"), dict) and result is None:
        return "response", "body"
    if isinstance(result, dict) and response is None:
        if result.get("type") == "succeeded" and isinstance(result.get("message"), dict):
            return "result", "message"
        if result.get("type") in _FAILED_TYPES:
            return None
    if response is None and result is None and isinstance(fields.get("error"), dict):
        return None
    raise ValueError(f"no output line of a batch of OpenAI or Anthropic; {_FIX}")


def _report_fields(status: Status, reason: str | None, **more: Any) -> dict[str, Any]:
    """Return the object `aligner` that a line gets unless --bare is given."""
    return {"aligner": {"status": status.value, "reason": reason, **more}}
