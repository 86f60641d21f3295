"""What do all wire formats have in common? One choice as it is read, and texts as they are put back.

A `Reading` gathers a choice from one message or from many deltas, so that a stream and a whole response come to the
same exchange. Copies are made along the path to the text only: what is not on that path stays the same object.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from aligner_proxy.rewrite.request import constrained, json_schema, no_store, structured
from aligner_proxy.types import Exchange, Outcome, Status, Turn

Speech = Callable[[object], list[tuple[int, str]]]
"""Says (choice, text) of what an item of a stream adds to the answers."""


@dataclass(slots=True)
class Reading:
    """One choice while it is read. The flags are what eligibility asks about."""

    pieces: list[str] = field(default_factory=list)
    finish_reason: str | None = None
    tool_calls: bool = False
    refusal: bool = False
    non_text: bool = False
    logprobs: bool = False
    annotations: bool = False
    inconsistent: bool = False

    def exchange(self, data: Mapping[str, Any], index: int, turns: tuple[Turn, ...], response: object) -> Exchange:
        """The finished reading as an exchange; `response` is the whole response or the first chunk."""
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


def per_part(
    reading: Reading, texts: Sequence[str], data: Mapping[str, Any], turns: tuple[Turn, ...], response: object
) -> list[Exchange]:
    """One exchange per text part of an answer that has several; without any, one that says why there is none."""
    read = [replace(reading, pieces=[text]) for text in texts] or [reading]
    found = [part.exchange(data, index, turns, response) for index, part in enumerate(read)]
    return [*(replace(one, inner=True) for one in found[:-1]), found[-1]]


def corrected(outcomes: Sequence[Outcome]) -> dict[int, str]:
    """Index and new text of the choices that are to be changed."""
    return {
        outcome.index: outcome.text
        for outcome in outcomes
        if outcome.status is Status.CORRECTED and outcome.text is not None
    }


def carries(value: object) -> bool:
    """Whether an optional field of a choice says anything (None, "", [] and {} do not)."""
    return value is not None and value not in ("", [], {})


def cites(fields: object) -> bool:
    """Whether LiteLLM's provider fields hold Anthropic's citations, which quote the passages they support."""
    if not isinstance(fields, Mapping):
        return False
    groups = fields.get("citations")
    grouped = isinstance(groups, Sequence) and any(isinstance(group, list) and group for group in groups)
    return grouped or carries(fields.get("citation"))


def spread(text: str, sizes: Sequence[int]) -> list[str]:
    """Cut `text` into `len(sizes)` pieces in the proportion of `sizes`, so that a replay keeps the stream's pace."""
    total, seen, start, pieces = sum(sizes), 0, 0, []
    for size in sizes:
        seen += size
        end = len(text) * seen // total if total else len(text)
        pieces.append(text[start:end])
        start = end
    return pieces
