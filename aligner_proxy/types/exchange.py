"""An answer with the conversation before it, independent of its wire format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of the conversation before the answer; `role` as in the OpenAI API."""

    role: str
    content: str


def last_question(turns: Sequence[Turn]) -> str | None:
    """The last turn of the user; None if there is none."""
    return next((turn.content for turn in reversed(turns) if turn.role == "user"), None)


@dataclass(frozen=True, slots=True)
class Exchange:
    """One choice of one response (in Responses and Messages: one text part) with its conversation."""

    call_id: str
    index: int
    """Number of the choice or text part in its response."""
    turns: tuple[Turn, ...]
    """The conversation before the answer."""
    answer: str | None
    """None if the response has no text here."""
    finish_reason: str | None = "stop"
    tool_calls: bool = False
    """The answer calls tools, in fields of the response or, where that matters, in its text."""
    structured: bool = False
    """The request prescribed the form of the answer, or began it."""
    json_schema: str | None = None
    """JSON schema for the answer from the request, as JSON text."""
    constrained: bool = False
    """The answer follows a grammar that cannot be checked here, so its JSON is never edited."""
    refusal: bool = False
    """The response says, apart from its text, that the model declined."""
    non_text: bool = False
    """The answer has parts that are not text, such as images."""
    logprobs: bool = False
    """The response has probabilities of tokens, which an edit would make wrong."""
    annotations: bool = False
    """The answer has citations that refer to its text by offset or quotation, which an edit would break."""
    inconsistent: bool = False
    """The events of a stream disagree about the text, so an edit has no defined place."""
    hidden_text: bool = False
    """A field that is delivered unchanged holds text, such as a refusal field with something other than a refusal."""
    no_store: bool = False
    """The client or upstream asked for `Cache-Control: no-store`."""
    fault: str | None = None
    """Why the response could not be read; None if it could."""
    inner: bool = False
    """More of the response follows, so nothing may be added at the end of the answer."""
    is_call: bool = False
    """The answer is the arguments of a tool call, of which only prose is judged and edited."""
    tagged_reasoning: str = ""
    """Reasoning between tags that stands before the answer in the same text; it is no part of the answer."""

    @property
    def question(self) -> str:
        """The last turn of the user; empty if there is none."""
        return last_question(self.turns) or ""
