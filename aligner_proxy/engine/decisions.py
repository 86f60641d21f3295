"""Decisions: questions about a text that the head answers with probabilities, in both forms that LiteLLM sends.

Each question is an objective, and yes means that some sentence of the text goes against it. A question names an
objective, writes one out ("Name: description"), or is a question in words, of which an objective is made. A choice is
among objectives: the one that the text most goes against. Texts are never logged; only names of fields are in errors.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import exp
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from aligner_proxy.errors import EngineFault
from aligner_proxy.types import Correction, Turn

MOST_QUESTIONS = 128
"""Most questions in one request, as in LiteLLM."""
MOST_OBJECTIVES = 32
"""Most different objectives in one request, since the engine reads the text once for each."""
MOST_CHARS = 100_000
"""Most characters of the text."""
OBJECTIVE_CURVE = (0.98, 1.4)
QUESTION_CURVE = (1.74, 1.7)
"""Slope and shift of the logistic curves from a score in nats to log-odds, for objectives and for questions in words:
those of the embedded head (models/evaluate/decisions.py). A score counts from the threshold, which spares nearly all
good sentences, so it lies below the log-odds among as many good ones as bad."""
_QUESTION = "Question: "
_MOST_OBJECTIVE_CHARS = 2_000
_AT_ONCE = 4
"""Objectives against which one text is scored at a time."""
_WRITTEN_OUT = re.compile(r"(?=\w)[^:?\n]{1,80}:\s+\S")
"""The beginning of an objective that is written out, "Name: description"."""
_NAME = re.compile(r"[\w.-]{1,80}")
"""What could be the name of an objective."""
_STEEPEST = 60.0


class _QuestionPart(BaseModel):
    """A part of a request; fields that a head has no use for are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)


_Words = JsonValue
"""What LiteLLM calls instructions or criteria: a text, or JSON."""
_Label = Annotated[str, Field(min_length=1, max_length=_MOST_OBJECTIVE_CHARS)]


class TextPart(_QuestionPart):
    """A text in a message of OpenAI's form."""

    type: Literal["input_text"]
    text: str


class InputMessage(_QuestionPart):
    """A message of OpenAI's form."""

    content: str | tuple[TextPart, ...]

    @property
    def text(self) -> str:
        return self.content if isinstance(self.content, str) else "\n\n".join(part.text for part in self.content)


class PredicateQuestion(_QuestionPart):
    """A yes/no question in OpenAI's form."""

    type: Literal["predicate"]
    name: str | None = None
    instructions: str

    def options(self) -> list[Option]:
        """The question's only objective."""
        return [Option("", make_objective(self.instructions))]


class ChoiceOption(_QuestionPart):
    """One of the objectives of a choice."""

    value: str | bool
    description: str | None = None


class ChoiceQuestion(_QuestionPart):
    """A choice in OpenAI's form."""

    type: Literal["choice"]
    name: str | None = None
    choices: Annotated[tuple[ChoiceOption, ...], Field(min_length=2, max_length=MOST_OBJECTIVES)]

    def options(self) -> list[Option]:
        return [Option(choice.value, name_objective(str(choice.value), choice.description)) for choice in self.choices]


class NoulQuestion(_QuestionPart):
    """A yes/no question in the form of System One."""

    type: Literal["noul"]
    instructions: _Words = None
    criteria: Mapping[Literal["true", "false"], _Words] | None = None

    def options(self) -> list[Option]:
        """The question's only objective; the criteria say what goes against it and what does not."""
        return [Option("", make_objective(self.instructions, self.criteria or {}))]


class LabelQuestion(_QuestionPart):
    """A choice in the form of System One."""

    type: Literal["choice"]
    criteria: Annotated[Mapping[_Label, _Words], Field(min_length=1, max_length=MOST_OBJECTIVES)]

    def options(self) -> list[Option]:
        return [Option(label, name_objective(label, description)) for label, description in self.criteria.items()]


class OpenAIDecision(_QuestionPart):
    """A request in OpenAI's form, `POST /v1/decisions`."""

    model: str = ""
    input: str | tuple[InputMessage, ...]
    questions: Annotated[
        tuple[Annotated[PredicateQuestion | ChoiceQuestion, Field(discriminator="type")], ...],
        Field(min_length=1, max_length=MOST_QUESTIONS),
    ]

    def read(self) -> Decision:
        text = self.input if isinstance(self.input, str) else "\n\n".join(message.text for message in self.input)
        questions = [
            DecisionQuestion(question.name, question.type == "choice", tuple(question.options()))
            for question in self.questions
        ]
        return Decision((), text, tuple(questions))

    def report(self, questions: Sequence[DecisionQuestion], scores: Mapping[str, float], tokens: int) -> dict[str, Any]:
        """Write the answers in the form of the request; `tokens` is the number of tokens read."""
        answers: list[dict[str, Any]] = []
        for question in questions:
            answer: dict[str, Any] = {"type": "choice" if question.is_choice else "predicate", "name": question.name}
            if question.is_choice:
                shares = question.probabilities(scores)
                best = max(shares, key=lambda share: share[1])
                entries = [{"value": value, "probability": share} for value, share in shares]
                answers.append(answer | {"choice": best[0], "probabilities": entries, "confidence": best[1]})
            else:
                objective = question.options[0].objective
                answers.append(answer | {"probability": estimate_probability(scores[objective], objective)})
        usage = {"input_tokens": tokens, "output_tokens": 0, "total_tokens": tokens}
        return {"model": self.model or "aligner", "answers": answers, "usage": usage}


class SystemOneDecision(_QuestionPart):
    """A request in the form of System One, `POST /v1/systemone`."""

    model: str = ""
    state: JsonValue
    questions: Annotated[
        Mapping[
            Annotated[str, Field(min_length=1)],
            Annotated[NoulQuestion | LabelQuestion, Field(discriminator="type")],
        ],
        Field(min_length=1, max_length=MOST_QUESTIONS),
    ]

    def read(self) -> Decision:
        questions = (
            DecisionQuestion(name, question.type == "choice", tuple(question.options()))
            for name, question in self.questions.items()
        )
        return Decision(*_read_state(self.state), tuple(questions))

    def report(self, questions: Sequence[DecisionQuestion], scores: Mapping[str, float], tokens: int) -> dict[str, Any]:
        """Write the answers in the form of the request; `tokens` is the number of tokens read."""
        answers: dict[str, dict[str, Any]] = {}
        for question in questions:
            name = str(question.name)
            if question.is_choice:
                shares = {str(value): share for value, share in question.probabilities(scores)}
                best = max(shares, key=lambda label: shares[label])
                answers[name] = {"type": "choice", "choice": best, "confidence": shares[best], "probabilities": shares}
            else:
                objective = question.options[0].objective
                answers[name] = {"type": "noul", "noul": estimate_probability(scores[objective], objective)}
        usage = {"input_tokens": tokens, "output_tokens": 0}
        return {"model": self.model or "aligner", "answers": answers, "usage": usage}


DecisionForm = OpenAIDecision | SystemOneDecision


@dataclass(frozen=True, slots=True)
class Option:
    """One answer of a choice, or the only objective of a yes/no question."""

    value: str | bool
    objective: str
    """The name of an objective, or its text."""


@dataclass(frozen=True, slots=True)
class DecisionQuestion:
    """A question about the text."""

    name: str | None
    is_choice: bool
    options: tuple[Option, ...]

    def probabilities(self, scores: Mapping[str, float]) -> list[tuple[str | bool, float]]:
        """The options of a choice, each with its probability: its share of the odds."""
        logits = [_logit(scores[option.objective], option.objective) for option in self.options]
        odds = [exp(logit - max(logits)) for logit in logits]
        return [(option.value, option_odds / sum(odds)) for option, option_odds in zip(self.options, odds, strict=True)]


@dataclass(frozen=True, slots=True)
class Decision:
    """What is asked: the conversation before the text, if there is one, the text, and the questions about it."""

    turns: tuple[Turn, ...]
    text: str
    questions: tuple[DecisionQuestion, ...]

    @property
    def objectives(self) -> tuple[str, ...]:
        """The different objectives, by name or text."""
        return tuple(dict.fromkeys(option.objective for question in self.questions for option in question.options))

    @property
    def names(self) -> tuple[str, ...]:
        """The objectives that are only named, not written out."""
        return tuple(objective for objective in self.objectives if _NAME.fullmatch(objective))

    def find_fault(self) -> str | None:
        """Why the questions cannot be answered; None if they can."""
        if not self.text.strip():
            return "the input has no text"
        if len(self.text) > MOST_CHARS:
            return f"the input has {len(self.text):,} characters; at most {MOST_CHARS:,} are read"
        if len(self.objectives) > MOST_OBJECTIVES:
            return f"the questions are about {len(self.objectives)} objectives; at most {MOST_OBJECTIVES} are read"
        if not all(_NAME.fullmatch(text) or _WRITTEN_OUT.match(text) for text in self.objectives):
            return 'a question needs instructions or criteria, and a choice labels without ":"'
        if any(len(objective) > _MOST_OBJECTIVE_CHARS for objective in self.objectives):
            return f"the words of a question have at most {_MOST_OBJECTIVE_CHARS:,} characters"
        return None


Correct = Callable[[str], Awaitable[Correction]]
"""Scores the text against one objective, by name or text."""


async def answer_decision(form: DecisionForm, decision: Decision, correct: Correct) -> dict[str, Any]:
    """Score the text against each objective, and report the answers; raises `CorrectionError` if the engine fails."""
    scores: dict[str, float] = {}
    tokens = 0
    for first in range(0, len(decision.objectives), _AT_ONCE):
        batch = decision.objectives[first : first + _AT_ONCE]
        results = await asyncio.gather(*map(correct, batch), return_exceptions=True)
        for objective, result in zip(batch, results, strict=True):
            if isinstance(result, BaseException):
                raise result
            scores[objective] = find_highest_score(result)
            tokens += result.prompt_tokens
    return form.report(decision.questions, scores, tokens)


def find_highest_score(correction: Correction) -> float:
    """The score of the sentence that most goes against the objective; raises `EngineFault` without a detector head."""
    # the last entry may stand for what is missing behind the text
    scores = [segment.score for segment in correction.segments if segment.text]
    numbers = [score for score in scores if score is not None]
    if len(numbers) < len(scores) or not numbers:
        raise EngineFault("this aligner has no detector head, so there are no probabilities")
    return max(numbers)


def estimate_probability(score: float, objective: str) -> float:
    """The probability that a text with this score goes against the objective."""
    return 1 / (1 + exp(-_logit(score, objective)))


def _logit(score: float, objective: str) -> float:
    """The log-odds of a score in nats, within `_STEEPEST` of 0."""
    slope, shift = QUESTION_CURVE if objective.startswith(_QUESTION) else OBJECTIVE_CURVE
    return max(-_STEEPEST, min(_STEEPEST, slope * score + shift))


def make_objective(instructions: JsonValue, criteria: Mapping[Any, JsonValue] | None = None) -> str:
    """The objective of a yes/no question: its name, its text, or one made of a question in words."""
    words = write_words(instructions)
    against, allowed = (write_words((criteria or {}).get(answer)) for answer in ("true", "false"))
    if not against and not allowed and (_NAME.fullmatch(words) or _WRITTEN_OUT.match(words)):
        return words
    # of several wordings these told texts of our own apart best
    avoided = f"everything for which the answer is yes: {words}" if words.endswith("?") else words and f"this: {words}"
    parts = (
        avoided and f"the response should avoid {avoided}",
        against and f"the response should avoid this: {against}",
        allowed and f"it may do this: {allowed}",
    )
    description = "; ".join(filter(None, parts))
    return f"{_QUESTION}{description}" if description else ""


def name_objective(label: str, description: JsonValue) -> str:
    """The objective of an answer of a choice: its name alone, or "label: description"."""
    words = write_words(description)
    if not words:
        return label
    return words if _WRITTEN_OUT.match(words) else f"{label}: {words}"


def write_words(value: JsonValue) -> str:
    """The text itself, or other JSON written as text; "" for null."""
    if value is None:
        return ""
    return (value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)).strip()


def _read_state(state: JsonValue) -> tuple[tuple[Turn, ...], str]:
    """The conversation and the text of a state: {"question": ..., "answer": ...}, or all texts of other JSON."""
    # a state with anything else is read whole, so that no text in it is passed over
    if isinstance(state, dict) and state.keys() == {"question", "answer"}:
        question, answer = state["question"], state["answer"]
        if isinstance(question, str) and isinstance(answer, str):
            return ((Turn("user", question),) if question else ()), answer
    return (), "\n\n".join(_list_texts(state))


def _list_texts(state: JsonValue) -> Iterator[str]:
    """All texts in JSON, from first to last; of an object first its keys, then its values."""
    pending = [state]
    while pending:
        value = pending.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            pending += reversed(value)
        elif isinstance(value, dict):
            pending += reversed([*value, *value.values()])
