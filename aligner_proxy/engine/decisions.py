"""Decisions: questions about a text, which the detector head answers with probabilities; LiteLLM has two request forms.

Each question becomes an objective (`make_objective`), and "yes" means that some sentence of the text goes against it.
In a choice, each answer becomes an objective (`make_options`); the one that the text goes against most is chosen.
Criteria that are lists of sentences are examples, from which a head is made (example_heads.py). Texts are never logged;
errors contain only names of fields.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from math import exp
from operator import itemgetter
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
"""The beginning of an objective that is made from a question in words."""
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
    """Base class of the parts of a request; fields that are not declared are ignored."""

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
        """The question's only objective, as an option without a value."""
        return [Option("", AskedObjective(make_objective(self.instructions)))]


class ChoiceOption(_QuestionPart):
    """One of the answers of a choice: its name, and perhaps what it means."""

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
    """A yes/no question in the form of System One; "noul" is its name for such a question."""

    type: Literal["noul"]
    instructions: _Words = None
    criteria: Mapping[Literal["true", "false"], _Words] | None = None

    def options(self) -> list[Option]:
        """The question's only objective; the criteria say what goes against it ("true") and what does not ("false")."""
        criteria = self.criteria or {}
        examples = read_examples(criteria)
        # examples teach a head, so they need not be in the objective's text unless it would be empty
        is_described = examples is not None and bool(write_words(self.instructions))
        text = make_objective(self.instructions, {} if is_described else criteria)
        return [Option("", AskedObjective(text, examples))]


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
            DecisionQuestion(question.name, is_choice=question.type == "choice", options=tuple(question.options()))
            for question in self.questions
        ]
        return Decision(turns=(), text=text, questions=tuple(questions))

    def report(self, questions: Sequence[DecisionQuestion], scores: Scores, tokens: int) -> dict[str, Any]:
        """Return the response's JSON in OpenAI's form; `tokens` is the number of tokens read."""
        answers: list[dict[str, Any]] = []
        for question in questions:
            if question.is_choice:
                probabilities = question.probabilities(scores)
                choice, confidence = max(probabilities, key=itemgetter(1))
                entries = [{"value": value, "probability": probability} for value, probability in probabilities]
                answer = {"choice": choice, "probabilities": entries, "confidence": confidence}
                answers.append({"type": "choice", "name": question.name, **answer})
            else:
                probability = question.options[0].estimate_probability(scores)
                answers.append({"type": "predicate", "name": question.name, "probability": probability})
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
        questions = [
            DecisionQuestion(name, is_choice=question.type == "choice", options=tuple(question.options()))
            for name, question in self.questions.items()
        ]
        turns, text = _read_state(self.state)
        return Decision(turns, text, tuple(questions))

    def report(self, questions: Sequence[DecisionQuestion], scores: Scores, tokens: int) -> dict[str, Any]:
        """Return the response's JSON in the form of System One; `tokens` is the number of tokens read."""
        answers: dict[str, dict[str, Any]] = {}
        for question in questions:
            name = str(question.name)
            if question.is_choice:
                probabilities = {str(value): probability for value, probability in question.probabilities(scores)}
                choice, confidence = max(probabilities.items(), key=itemgetter(1))
                answer = {"choice": choice, "confidence": confidence, "probabilities": probabilities}
                answers[name] = {"type": "choice", **answer}
            else:
                answers[name] = {"type": "noul", "noul": question.options[0].estimate_probability(scores)}
        usage = {"input_tokens": tokens, "output_tokens": 0}
        return {"model": self.model or "aligner", "answers": answers, "usage": usage}


DecisionForm = OpenAIDecision | SystemOneDecision
"""A parsed request, which also writes the response in its own form (`report`)."""


@dataclass(frozen=True, slots=True)
class AskedObjective:
    """What the text is scored against: an objective, by name or text, and the examples that a request gives of it."""

    text: str
    """The name of an objective, or its text."""
    examples: ExampleSentences | None = None

    @property
    def curve(self) -> Curve:
        """The curve from its scores to log-odds; objectives made from questions or labels have another curve."""
        is_made_from_words = self.text.startswith(_QUESTION) or _FORBIDDEN in self.text
        return QUESTION_CURVE if is_made_from_words else OBJECTIVE_CURVE


Scores = Mapping[AskedObjective, float]
"""The text's score in nats (`find_highest_score`), by the objective that it was scored against."""


@dataclass(frozen=True, slots=True)
class Option:
    """One answer of a choice, or the only objective of a yes/no question."""

    value: str | bool
    """What the client calls the answer; "" for a yes/no question."""
    objective: AskedObjective

    def log_odds(self, scores: Scores) -> float:
        """The log-odds that the text goes against the objective, between -`_MAX_LOG_ODDS` and `_MAX_LOG_ODDS`."""
        log_odds = self.objective.curve.log_odds(scores[self.objective])
        return max(-_MAX_LOG_ODDS, min(_MAX_LOG_ODDS, log_odds))

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
        """The (value, probability) of each option of a choice; the probability is its odds divided by all odds.

        Odds of 3, 1 and 1 give 0.6, 0.2 and 0.2.
        """
        all_log_odds = [option.log_odds(scores) for option in self.options]
        # all odds are divided by the highest, so that `exp` cannot overflow
        odds = [exp(log_odds - max(all_log_odds)) for log_odds in all_log_odds]
        return [(option.value, option_odds / sum(odds)) for option, option_odds in zip(self.options, odds, strict=True)]


@dataclass(frozen=True, slots=True)
class Decision:
    """A request in our own form: the conversation before the text (may be empty), the text, and the questions."""

    turns: tuple[Turn, ...]
    text: str
    questions: tuple[DecisionQuestion, ...]

    @property
    def objectives(self) -> tuple[str, ...]:
        """The different objectives, by name or text."""
        return tuple(dict.fromkeys(objective.text for objective in self.asked_objectives))

    @property
    def asked_objectives(self) -> tuple[AskedObjective, ...]:
        """The different objectives with their examples; the text is scored once against each."""
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
        """Why no head can be made from the examples in the criteria; None if it can, or if there are none."""
        if any(objective.examples and _NAME.fullmatch(objective.text) for objective in self.asked_objectives):
            return "an objective that is named has a head of its own; write the objective out to give examples of it"
        all_examples = [objective.examples for objective in self.asked_objectives if objective.examples]
        if any(max(len(examples.against), len(examples.fine)) > MAX_EXAMPLES for examples in all_examples):
            return f"a criterion has at most {MAX_EXAMPLES} examples"
        if sum(len(examples.texts) for examples in all_examples) > MAX_EXAMPLES_TOGETHER:
            return f"all criteria together have at most {MAX_EXAMPLES_TOGETHER} examples"
        if any(len(text) > _MAX_EXAMPLE_CHARS for examples in all_examples for text in examples.texts):
            return f"an example has at most {_MAX_EXAMPLE_CHARS:,} characters"
        return None


Correct = Callable[[AskedObjective], Awaitable[Correction]]
"""Lets the engine read the text with one objective; returns the correction, which holds the segments' scores."""


async def score_objective(
    engine: Engine, heads: ExampleHeads, request: AlignRequest, objective: AskedObjective
) -> Correction:
    """Return the engine's correction of `request`, whose only objective is `objective`.

    If the objective has examples, a head that is made from them scores the request. Raises `CorrectionError` if the
    engine fails.
    """
    if objective.examples:
        request = await heads.add_head(engine, request, objective.examples, objective.curve)
    return await engine.align(request)


async def answer_decision(form: DecisionForm, decision: Decision, correct: Correct) -> dict[str, Any]:
    """Score the text against each objective; return the response's JSON in the form of the request `form`.

    `decision` is the same request in our own form. `correct` is called once for each objective and returns the engine's
    correction, which has the scores. Raises `CorrectionError` if the engine fails.
    """
    scores: dict[AskedObjective, float] = {}
    tokens = 0
    for first in range(0, len(decision.asked_objectives), _AT_ONCE):
        batch = decision.asked_objectives[first : first + _AT_ONCE]
        # exceptions are returned, so that all calls of the batch have ended before one is raised
        results = await asyncio.gather(*map(correct, batch), return_exceptions=True)
        for objective, result in zip(batch, results, strict=True):
            if isinstance(result, BaseException):
                raise result
            scores[objective] = find_highest_score(result)
            tokens += result.prompt_tokens
    return form.report(decision.questions, scores, tokens)


def find_highest_score(correction: Correction) -> float:
    """The highest score of a sentence, or the score of the text as a whole if this is higher; in nats.

    Raises `EngineFault` if the aligner has no detector head, and so no scores.
    """
    # the last segment may stand for the end of the text; its text is then empty
    scores = [segment.score for segment in correction.segments if segment.text]
    highest_score = max((score for score in scores if score is not None), default=None)
    if highest_score is None or None in scores:
        raise EngineFault("this aligner has no detector head, so there are no probabilities")
    if is_short_answer(segment.text for segment in correction.segments):
        return highest_score
    whole_answer = score_whole_answer(correction.segments)
    return highest_score if whole_answer is None else max(highest_score, whole_answer.score)


def read_examples(criteria: Mapping[Any, JsonValue]) -> ExampleSentences | None:
    """The examples in the criteria "true" and "false", if both are lists of at least `MIN_EXAMPLES` sentences.

    None means that the criteria are something else, such as descriptions.
    """
    against = _read_sentences(criteria.get("true"))
    fine = _read_sentences(criteria.get("false"))
    return ExampleSentences(against, fine) if min(len(against), len(fine)) >= MIN_EXAMPLES else None


def _read_sentences(criterion: JsonValue) -> tuple[str, ...]:
    """The example sentences in a criterion; empty unless it is a list of different texts and nothing else."""
    if not isinstance(criterion, list):
        return ()
    sentences = tuple(dict.fromkeys(text.strip() for text in criterion if isinstance(text, str) and text.strip()))
    return sentences if len(sentences) == len(criterion) else ()


def make_objective(instructions: JsonValue, criteria: Mapping[Any, JsonValue] | None = None) -> str:
    """The objective of a yes/no question: the name or text in its instructions, or one made from a question in words.

    The criteria "true" and "false" describe what goes against the objective, and what it allows. "" if both the
    instructions and the criteria are empty.

    "Is it rude?" -> "Question: the response should avoid everything for which the answer is yes: Is it rude?"
    """
    criteria = criteria or {}
    words = write_words(instructions)
    against = write_words(criteria.get("true"))
    allowed = write_words(criteria.get("false"))
    is_name = _NAME.fullmatch(words) is not None
    is_written_out = _WRITTEN_OUT.match(words) is not None
    if (is_name or is_written_out) and not against and not allowed:
        return words
    if is_written_out:
        sentences = [words.rstrip(".")]
        descriptions = {"Against it": against, "Allowed": allowed}
        sentences += [f"{label}: {description}" for label, description in descriptions.items() if description]
        return ". ".join(sentences)
    # of several wordings, scores with these separated violations from good texts best
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

    If every description is a list of at least `MIN_EXAMPLES` sentences, a label's sentences are the examples against
    its objective, and the sentences of the other labels are the examples that are fine.
    """
    sentences_by_answer = [_read_sentences(description) for _, description in answers]
    if len(answers) < 2 or any(len(sentences) < MIN_EXAMPLES for sentences in sentences_by_answer):
        return [Option(value, AskedObjective(name_objective(value, description))) for value, description in answers]
    options = []
    for (value, _description), own_sentences in zip(answers, sentences_by_answer, strict=True):
        # the first sentence of each other label, then the second of each: `[[1, 2], [3]]` -> `[(1, 3), (2, None)]`
        rounds = zip_longest(*(sentences for sentences in sentences_by_answer if sentences is not own_sentences))
        fine_sentences = [text for texts in rounds for text in texts if text is not None and text not in own_sentences]
        max_fine = min(MAX_EXAMPLES, _OTHERS_FOR_EACH * len(own_sentences))
        examples = ExampleSentences(against=own_sentences, fine=tuple(fine_sentences[:max_fine]))
        options.append(Option(value, AskedObjective(f"No {value}{_FORBIDDEN}{value}", examples)))
    return options


def name_objective(value: str | bool, description: JsonValue) -> str:
    """The objective of an answer of a choice, from the answer's label `value` and its description.

    Without a description, the label is the name of an objective. A description is an objective's full text, or the part
    after its name, or what a text of this label is; the objective then forbids such texts.

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
    """The conversation and the text to judge, from the `state` of a request in the form of System One.

    A state {"question", "answer"} of two strings is a turn and the text. Of other JSON, all strings are the text.
    """
    if isinstance(state, dict) and state.keys() == {"question", "answer"}:
        question, answer = state["question"], state["answer"]
        if isinstance(question, str) and isinstance(answer, str):
            turns = (Turn("user", question),) if question else ()
            return turns, answer
    return (), "\n\n".join(_list_texts(state))


def _list_texts(state: JsonValue) -> Iterator[str]:
    """All strings in a JSON value, from first to last; of an object first its keys, then its values."""
    pending_values = [state]  # a stack instead of recursion, because JSON may be nested deeply
    while pending_values:
        value = pending_values.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            pending_values += reversed(value)
        elif isinstance(value, dict):
            pending_values += reversed([*value, *value.values()])
