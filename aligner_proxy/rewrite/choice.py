"""One choice of a response while it is read, and the corrected texts by choice.

A `ChoiceBuilder` gathers a choice from one message or from many deltas, so that a stream and a whole response come to
the same exchange. Copies are made along the path to the text only: what is not on that path stays the same object.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from aligner_proxy.rewrite.request import constrained, json_schema, no_store, structured
from aligner_proxy.types import Exchange, Outcome, Status, Turn


@dataclass(slots=True)
class ChoiceBuilder:
    """One choice as far as it was read. The flags are those that eligibility looks at."""

    pieces: list[str] = field(default_factory=list)
    finish_reason: str | None = None
    tool_calls: bool = False
    refusal: bool = False
    non_text: bool = False
    logprobs: bool = False
    annotations: bool = False
    inconsistent: bool = False

    def exchange(self, data: Mapping[str, Any], index: int, turns: tuple[Turn, ...], response: object) -> Exchange:
        """The choice as an exchange; `response` is the whole response or the first item of a stream."""
        return Exchange(
            call_id=str(data.get("litellm_call_id") or ""),
            index=index,
            turns=turns,
            answer="".join(self.pieces) if self.pieces else None,
            finish_reason=self.finish_reason if self.finish_reason is None else str(self.finish_reason),
            tool_calls=self.tool_calls,
            structured=structured(data),
            json_schema=json_schema(data),
            constrained=constrained(data),
            refusal=self.refusal,
            non_text=self.non_text,
            logprobs=self.logprobs,
            annotations=self.annotations,
            inconsistent=self.inconsistent,
            no_store=no_store(data, response),
        )

    def exchanges(
        self, data: Mapping[str, Any], texts: Mapping[int, str], turns: tuple[Turn, ...], response: object
    ) -> list[Exchange]:
        """One exchange per text part of an answer (by number, in order); without any, one with no answer."""
        parts = [
            replace(self, pieces=[text]).exchange(data, index, turns, response) for index, text in texts.items()
        ] or [self.exchange(data, 0, turns, response)]
        return [*(replace(part, inner=True) for part in parts[:-1]), parts[-1]]


def corrected(outcomes: Sequence[Outcome]) -> dict[int, str]:
    """Index and new text of the choices that are to be changed."""
    return {
        outcome.index: outcome.text
        for outcome in outcomes
        if outcome.status is Status.CORRECTED and outcome.text is not None
    }


def carries(value: object) -> bool:
    """Whether an optional field of a choice holds anything (None, "", [] and {} do not)."""
    return value is not None and value not in ("", [], {})


def cites(fields: object) -> bool:
    """Whether LiteLLM's provider fields hold Anthropic's citations, which quote the passages they support."""
    if not isinstance(fields, Mapping):
        return False
    groups = fields.get("citations")
    grouped = isinstance(groups, Sequence) and any(isinstance(group, list) and group for group in groups)
    return grouped or carries(fields.get("citation"))
