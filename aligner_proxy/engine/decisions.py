"""Decisions: questions about a text that the head answers with probabilities, in both forms that LiteLLM sends.

Each question is an objective, and yes means that some sentence of the text goes against it. A question names an
objective, writes one out ("Name: description"), or is a question in words, of which an objective is made. Criteria that
are lists of sentences are examples, of which a head is made (example_heads.py). A choice is among objectives, of which
the text goes against one most, or among labels that say what a text may be: each becomes an objective that forbids such
texts. Texts are never logged; only names of fields are in errors.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from math import exp
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from aligner_proxy.engine.api import AlignRequest, Engine
from aligner_proxy.engine.example_heads import MAX_EXAMPLES, MIN_EXAMPLES, Curve, ExampleHeads, ExampleSentences
from aligner_proxy.errors import EngineFault
from aligner_proxy.text.fragments import is_short_answer
from aligner_proxy.types import Correction, Turn, score_whole_answer

MAX_QUESTIONS = 128
"""Most questions in one request, as in LiteLLM."""
MAX_OBJECTIVES = 32
"""Most different objectives in one request, since the engine reads the text once for each."""
MAX_CHARS = 100_000
"""Most characters of the text."""
OBJECTIVE_CURVE = Curve(0.98, 1.4)
QUESTION_CURVE = Curve(1.74, 1.7)
"""The logistic curves from a score in nats to log-odds, for objectives and for questions in words: those of the
embedded head (models/evaluate/decisions.py). A score counts from the threshold, which spares nearly all good sentences,
so a score is lower than the log-odds would be if good and bad sentences were equally frequent."""
_QUESTION = "Question: "
_FORBIDDEN = ": the text must not be one of which this is true: "
"""Words in the objective that is made of a label, as "No spam: the text must not be ...". Of three wordings, with this
one the right label was chosen most often."""
_OBLIGATION = re.compile(r"\b(?:should|must|shall)\b", re.IGNORECASE)
"""A word by which the description of an objective differs from that of a label."""
_MAX_OBJECTIVE_CHARS = 2_000
_MAX_EXAMPLE_CHARS = 1_000
MAX_EXAMPLES_TOGETHER = 128
"""Most examples in one request, since the engine reads each once for its objective."""
_OTHERS_FOR_EACH = 3
"""Examples of other answers of a choice for each of an answer's own."""
_AT_ONCE = 4
"""Objectives against which one text is scored at a time."""
_WRITTEN_OUT = re.compile(r"(?=\w)[^:?\n]{1,80}:\s+\S")
"""The beginning of an objective that is written out, "Name: description"."""
_NAME = re.compile(r"[\w.-]{1,80}")
"""What could be the name of an objective."""
_MAX_LOG_ODDS = 60.0
"""Largest log-odds, so that `exp` cannot overflow."""


class _QuestionPart(BaseModel):
    """A part of a request; fields that a head has no use for are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)


_Words = JsonValue
"""What LiteLLM calls instructions or criteria: a text, or JSON."""
_Label = Annotated[str, Field(min_length=1, max_length=_MAX_OBJECTIVE_CHARS)]


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
        return [Option("", AskedObjective(make_objective(self.instructions)))]


class ChoiceOption(_QuestionPart):
    """One of the objectives of a choice."""

    value: str | bool
    description: str | None = None


class ChoiceQuestion(_QuestionPart):
    """A choice in OpenAI's form."""

    type: Literal["choice"]
    name: str | None = None
    choices: Annotated[tuple[ChoiceOption, ...], Field(min_length=2, max_length=MAX_OBJECTIVES)]

    def options(self) -> list[Option]:
        """The answers of the choice, each with its objective."""
        return make_options([(choice.value, choice.description) for choice in self.choices])


class NoulQuestion(_QuestionPart):
    """A yes/no question in the form of System One."""

    type: Literal["noul"]
    instructions: _Words = None
    criteria: Mapping[Literal["true", "false"], _Words] | None = None

    def options(self) -> list[Option]:
        """The question's only objective; the criteria say what goes against it and what does not."""
        examples = read_examples(self.criteria or {})
        is_described = examples is not None and bool(write_words(self.instructions))
        criteria = {} if is_described else self.criteria or {}
        return [Option("", AskedObjective(make_objective(self.instructions, criteria), examples))]


class LabelQuestion(_QuestionPart):
    """A choice in the form of System One."""

    type: Literal["choice"]
    criteria: Annotated[Mapping[_Label, _Words], Field(min_length=1, max_length=MAX_OBJECTIVES)]

    def options(self) -> list[Option]:
        """The answers of the choice, each with its objective."""
        return make_options(list(self.criteria.items()))


class OpenAIDecision(_QuestionPart):
    """A request in OpenAI's form, `POST /v1/decisions`."""

    model: str = ""
    input: str | tuple[InputMessage, ...]
    questions: Annotated[
        tuple[Annotated[PredicateQuestion | ChoiceQuestion, Field(discriminator="type")], ...],
        Field(min_length=1, max_length=MAX_QUESTIONS),
    ]

    def read(self) -> Decision:
        """The request in our own form; nothing is checked yet (`Decision.find_fault`)."""
        text = self.input if isinstance(self.input, str) else "\n\n".join(message.text for message in self.input)
        questions = [
            DecisionQuestion(question.name, question.type == "choice", tuple(question.options()))
            for question in self.questions
        ]
        return Decision((), text, tuple(questions))

    def report(self, questions: Sequence[DecisionQuestion], scores: Scores, tokens: int) -> dict[str, Any]:
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
                answers.append(answer | {"probability": question.options[0].estimate_probability(scores)})
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
        Field(min_length=1, max_length=MAX_QUESTIONS),
    ]

    def read(self) -> Decision:
        """The request in our own form; nothing is checked yet (`Decision.find_fault`)."""
        questions = (
            DecisionQuestion(name, question.type == "choice", tuple(question.options()))
            for name, question in self.questions.items()
        )
        return Decision(*_read_state(self.state), tuple(questions))

    def report(self, questions: Sequence[DecisionQuestion], scores: Scores, tokens: int) -> dict[str, Any]:
        """Write the answers in the form of the request; `tokens` is the number of tokens read."""
        answers: dict[str, dict[str, Any]] = {}
        for question in questions:
            name = str(question.name)
            if question.is_choice:
                shares = {str(value): share for value, share in question.probabilities(scores)}
                best = max(shares, key=lambda label: shares[label])
                answers[name] = {"type": "choice", "choice": best, "confidence": shares[best], "probabilities": shares}
            else:
                answers[name] = {"type": "noul", "noul": question.options[0].estimate_probability(scores)}
        usage = {"input_tokens": tokens, "output_tokens": 0}
        return {"model": self.model or "aligner", "answers": answers, "usage": usage}


DecisionForm = OpenAIDecision | SystemOneDecision


@dataclass(frozen=True, slots=True)
class AskedObjective:
    """What the text is scored against: an objective, by name or text, and the examples that a request gives of it."""

    text: str
    """The name of an objective, or its text."""
    examples: ExampleSentences | None = None

    @property
    def curve(self) -> Curve:
        """The curve from its scores to log-odds: one for questions in words, another for objectives."""
        is_made = self.text.startswith(_QUESTION) or _FORBIDDEN in self.text
        return QUESTION_CURVE if is_made else OBJECTIVE_CURVE


Scores = Mapping[AskedObjective, float]
"""The highest score of the text (`find_highest_score`), by what it was scored against."""


@dataclass(frozen=True, slots=True)
class Option:
    """One answer of a choice, or the only objective of a yes/no question."""

    value: str | bool
    """What the client calls the answer; empty for a yes/no question."""
    objective: AskedObjective

    def log_odds(self, scores: Scores) -> float:
        """The log-odds that the text goes against the objective, within `_MAX_LOG_ODDS` of 0."""
        return max(-_MAX_LOG_ODDS, min(_MAX_LOG_ODDS, self.objective.curve.log_odds(scores[self.objective])))

    def estimate_probability(self, scores: Scores) -> float:
        """The probability that the text goes against the objective."""
        return 1 / (1 + exp(-self.log_odds(scores)))


@dataclass(frozen=True, slots=True)
class DecisionQuestion:
    """A question about the text."""

    name: str | None
    is_choice: bool
    options: tuple[Option, ...]

    def probabilities(self, scores: Scores) -> list[tuple[str | bool, float]]:
        """The options of a choice, each as (value, probability); the probability is its share of all odds.

        Odds of 3, 1 and 1 give 0.6, 0.2 and 0.2.
        """
        logits = [option.log_odds(scores) for option in self.options]
        # relative to the highest, so that `exp` cannot overflow
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
        return tuple(dict.fromkeys(objective.text for objective in self.asked_objectives))

    @property
    def asked_objectives(self) -> tuple[AskedObjective, ...]:
        """What the text is scored against, each once."""
        return tuple(dict.fromkeys(option.objective for question in self.questions for option in question.options))

    @property
    def names(self) -> tuple[str, ...]:
        """The objectives that are only named, not written out."""
        return tuple(objective for objective in self.objectives if _NAME.fullmatch(objective))

    def find_fault(self) -> str | None:
        """Why the questions cannot be answered; None if they can."""
        if not self.text.strip():
            return "the input has no text"
        if len(self.text) > MAX_CHARS:
            return f"the input has {len(self.text):,} characters; at most {MAX_CHARS:,} are read"
        if len(self.asked_objectives) > MAX_OBJECTIVES:
            return f"the questions are about {len(self.asked_objectives)} objectives; at most {MAX_OBJECTIVES} are read"
        if not all(_NAME.fullmatch(text) or _WRITTEN_OUT.match(text) for text in self.objectives):
            return 'a question needs instructions or criteria, and a choice labels without ":"'
        if any(len(objective) > _MAX_OBJECTIVE_CHARS for objective in self.objectives):
            return f"the words of a question have at most {_MAX_OBJECTIVE_CHARS:,} characters"
        return self._find_fault_in_examples()

    def _find_fault_in_examples(self) -> str | None:
        """Why the examples of the criteria cannot be learned from; None if they can."""
        if any(objective.examples and _NAME.fullmatch(objective.text) for objective in self.asked_objectives):
            return "an objective that is named has a head of its own; write the objective out to give examples of it"
        examples = [objective.examples for objective in self.asked_objectives if objective.examples]
        if any(max(len(one.against), len(one.fine)) > MAX_EXAMPLES for one in examples):
            return f"a criterion has at most {MAX_EXAMPLES} examples"
        if sum(len(one.texts) for one in examples) > MAX_EXAMPLES_TOGETHER:
            return f"all criteria together have at most {MAX_EXAMPLES_TOGETHER} examples"
        if any(len(text) > _MAX_EXAMPLE_CHARS for one in examples for text in one.texts):
            return f"an example has at most {_MAX_EXAMPLE_CHARS:,} characters"
        return None


Correct = Callable[[AskedObjective], Awaitable[Correction]]
"""Is given an objective; returns the correction with the text's scores against it."""


async def score_objective(
    engine: Engine, heads: ExampleHeads, request: AlignRequest, objective: AskedObjective
) -> Correction:
    """The scores of one request about this objective alone, by a head of its examples if it has any.

    Raises `CorrectionError` if the engine fails.
    """
    if objective.examples:
        request = await heads.add_head(engine, request, objective.examples, objective.curve)
    return await engine.align(request)


async def answer_decision(form: DecisionForm, decision: Decision, correct: Correct) -> dict[str, Any]:
    """Score the text against each objective; return the answers as JSON in the request's form.

    Raises `CorrectionError` if the engine fails.
    """
    scores: dict[AskedObjective, float] = {}
    tokens = 0
    for first in range(0, len(decision.asked_objectives), _AT_ONCE):
        batch = decision.asked_objectives[first : first + _AT_ONCE]
        results = await asyncio.gather(*map(correct, batch), return_exceptions=True)
        for objective, result in zip(batch, results, strict=True):
            if isinstance(result, BaseException):
                raise result
            scores[objective] = find_highest_score(result)
            tokens += result.prompt_tokens
    return form.report(decision.questions, scores, tokens)


def find_highest_score(correction: Correction) -> float:
    """The score of the sentence that most goes against the objective, or of the text as a whole if that is higher.

    Raises `EngineFault` without a detector head.
    """
    # the last entry may be the end of the text, which has no text itself
    scores = [segment.score for segment in correction.segments if segment.text]
    numbers = [score for score in scores if score is not None]
    if len(numbers) < len(scores) or not numbers:
        raise EngineFault("this aligner has no detector head, so there are no probabilities")
    is_short = is_short_answer(segment.text for segment in correction.segments)
    whole = None if is_short else score_whole_answer(correction.segments)
    return max(numbers) if whole is None else max(*numbers, whole.score)


def read_examples(criteria: Mapping[Any, JsonValue]) -> ExampleSentences | None:
    """The examples of criteria of which both are lists of sentences, long enough to learn from; None for others."""
    against, fine = (_read_sentences(criteria.get(answer)) for answer in ("true", "false"))
    return ExampleSentences(against, fine) if min(len(against), len(fine)) >= MIN_EXAMPLES else None


def _read_sentences(criterion: JsonValue) -> tuple[str, ...]:
    """The sentences of a criterion; empty unless it is a list of different texts and nothing else."""
    if not isinstance(criterion, list):
        return ()
    sentences = tuple(dict.fromkeys(text.strip() for text in criterion if isinstance(text, str) and text.strip()))
    return sentences if len(sentences) == len(criterion) else ()


def make_objective(instructions: JsonValue, criteria: Mapping[Any, JsonValue] | None = None) -> str:
    """The objective of a yes/no question: its name, its text, or one made of a question in words.

    "Is it rude?" -> "Question: the response should avoid everything for which the answer is yes: Is it rude?"
    """
    words = write_words(instructions)
    against, allowed = (write_words((criteria or {}).get(answer)) for answer in ("true", "false"))
    if _WRITTEN_OUT.match(words):
        criteria_texts = (("Against it", against), ("Allowed", allowed))
        sentences = [words.rstrip("."), *(f"{name}: {text}" for name, text in criteria_texts if text)]
        return ". ".join(filter(None, sentences)) if against or allowed else words
    if _NAME.fullmatch(words) and not against and not allowed:
        return words
    # of several wordings these told texts of our own apart best
    parts: list[str] = []
    if words.endswith("?"):
        parts.append(f"the response should avoid everything for which the answer is yes: {words}")
    elif words:
        parts.append(f"the response should avoid this: {words}")
    if against:
        parts.append(f"the response should avoid this: {against}")
    if allowed:
        parts.append(f"it may do this: {allowed}")
    return f"{_QUESTION}{'; '.join(parts)}" if parts else ""


def make_options(answers: Sequence[tuple[str | bool, JsonValue]]) -> list[Option]:
    """The answers of a choice, given as (label, description), each with its objective.

    If every description is a list of enough sentences, these are the label's examples, and those of the other labels
    its counter-examples.
    """
    sentences = [_read_sentences(description) for _, description in answers]
    if len(answers) < 2 or any(len(own) < MIN_EXAMPLES for own in sentences):
        return [Option(value, AskedObjective(name_objective(value, description))) for value, description in answers]
    options = []
    for (value, _), own in zip(answers, sentences, strict=True):
        # the first of each other label, then the second of each: `[[1, 2], [3]]` -> `[1, 3, 2]`
        turns = zip_longest(*(one for one in sentences if one is not own))
        others = [text for turn in turns for text in turn if text is not None and text not in own]
        examples = ExampleSentences(own, tuple(others[: min(MAX_EXAMPLES, _OTHERS_FOR_EACH * len(own))]))
        options.append(Option(value, AskedObjective(f"No {value}{_FORBIDDEN}{value}", examples)))
    return options


def name_objective(value: str | bool, description: JsonValue) -> str:
    """The objective of an answer of a choice: its name alone, its text, or one that forbids what is described.

    `("spam", "advertising")` -> "No spam: the text must not be one of which this is true: advertising"
    """
    words = write_words(description)
    if not words:
        return str(value)
    if _WRITTEN_OUT.match(words):
        return words
    return f"{value}: {words}" if _OBLIGATION.search(words) else f"No {value}{_FORBIDDEN}{words}"


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
