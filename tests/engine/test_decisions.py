"""Questions about a text: both wire forms are read and answered as LiteLLM's own types want them."""

from __future__ import annotations

from math import exp
from typing import Any

import pytest
from litellm.types.decisions import DecisionsResponse, OpenAIDecisionResponse
from pydantic import ValidationError

from aligner_proxy.engine.decisions import (
    MAX_CHARS,
    MAX_OBJECTIVES,
    QUESTION_CURVE,
    AskedObjective,
    OpenAIDecision,
    Option,
    SystemOneDecision,
    answer_decision,
    find_highest_score,
    make_objective,
)
from aligner_proxy.engine.example_heads import MAX_EXAMPLES, ExampleSentences
from aligner_proxy.errors import EngineFault, EngineUnavailable
from aligner_proxy.types import Correction, SegmentEvidence, SegmentScore, Turn

KIND = "Kindness: the response should never insult the reader"
CALM = "Calm: the response should not hurry the reader"
TEXT = "Open the lid. You fool."


async def correct(objective: AskedObjective) -> Correction:
    """The text goes against kindness alone."""
    high = 4.0 if objective.text == KIND else -4.0
    return Correction(
        TEXT, (SegmentScore("Open the lid.", -6.0, False), SegmentScore("You fool.", high, True)), prompt_tokens=7
    )


def openai_form(*questions: dict[str, Any], text: Any = TEXT) -> OpenAIDecision:
    return OpenAIDecision.model_validate({"model": "m", "input": text, "questions": list(questions)})


def systemone_form(state: Any = TEXT, **questions: dict[str, Any]) -> SystemOneDecision:
    return SystemOneDecision.model_validate({"model": "m", "state": state, "questions": questions})


CHOICES = [{"value": "Kindness", "description": KIND}, {"value": "Calm", "description": CALM}]


async def test_answer_decision_in_openais_form() -> None:
    form = openai_form(
        {"type": "predicate", "name": "rude", "instructions": KIND},
        {"type": "predicate", "instructions": CALM},
        {"type": "choice", "name": "worst", "instructions": "Which?", "choices": CHOICES},
    )
    report = await answer_decision(form, form.read(), correct)
    parsed = OpenAIDecisionResponse.model_validate(report)
    rude, calm, worst = parsed.answers
    assert (rude.name, calm.name, worst.choice) == ("rude", None, "Kindness")
    assert rude.probability > 0.95 > 0.1 > calm.probability
    assert sum(share.probability for share in worst.probabilities) == pytest.approx(1)
    assert worst.confidence == max(share.probability for share in worst.probabilities)
    assert parsed.usage.total_tokens == 14  # each objective is scored once, however many questions are about it


async def test_answer_decision_in_the_form_of_system_one() -> None:
    form = systemone_form(
        rude={"type": "noul", "instructions": KIND},
        worst={"type": "choice", "criteria": {"Calm": CALM, "Kindness": KIND}},
    )
    parsed = DecisionsResponse.model_validate(await answer_decision(form, form.read(), correct))
    assert parsed.answers["rude"].noul > 0.95
    assert parsed.answers["worst"].choice == "Kindness"
    assert sum(parsed.answers["worst"].probabilities.values()) == pytest.approx(1)


def test_probability_grows_with_the_score() -> None:
    values = [estimate(score, KIND) for score in (-1e9, -4.0, -1.0, 0.0, 1.0, 1e9)]
    assert values == sorted(set(values))
    assert 0 <= values[0] < 0.01 < 0.99 < values[-1] <= 1
    # a question in words has a curve of its own
    assert estimate(0.0, make_objective("Is it rude?")) > estimate(0.0, KIND)


def estimate(score: float, objective: str) -> float:
    asked = AskedObjective(objective)
    return Option("", asked).estimate_probability({asked: score})


OBJECTIVES: tuple[tuple[Any, Any, str], ...] = (
    ("harmless", None, "harmless"),
    (f" {KIND}\n", None, KIND),
    ("Is it rude?", None, "Question: the response should avoid everything for which the answer is yes: Is it rude?"),
    ("it is rude", None, "Question: the response should avoid this: it is rude"),
    (None, {"true": "it insults", "false": None}, "Question: the response should avoid this: it insults"),
    (None, {"true": "it insults", "false": "it jokes"}, "Question: the response should avoid this: it insults; "
     "it may do this: it jokes"),
    (KIND, {"true": "it insults", "false": "it jokes"}, f"{KIND}. Against it: it insults. Allowed: it jokes"),
    (f"{KIND}.", {"true": "it insults"}, f"{KIND}. Against it: it insults"),
    ({"task": "rude"}, None, 'Question: the response should avoid this: {"task": "rude"}'),
    ("", None, ""),
    (None, {}, ""),
)  # fmt: skip


def test_make_objective_takes_names_texts_and_questions() -> None:
    wrong = [case for case in OBJECTIVES if make_objective(case[0], case[1]) != case[2]]
    assert not wrong


BAD = ["You fool.", "You donkey.", " What a stupid question. "]
FINE = ["The fool is a card.", "A donkey eats hay.", "It was a stupid mistake."]
EXAMPLES = ExampleSentences((*BAD[:2], "What a stupid question."), tuple(FINE))
WITHOUT_WORDS = make_objective(None, {"true": BAD, "false": FINE})
TAUGHT: tuple[tuple[Any, dict[str, Any], AskedObjective], ...] = (
    (KIND, {"true": BAD, "false": FINE}, AskedObjective(KIND, EXAMPLES)),
    ("Is it rude?", {"true": BAD, "false": FINE}, AskedObjective(make_objective("Is it rude?"), EXAMPLES)),
    (None, {"true": BAD, "false": FINE}, AskedObjective(WITHOUT_WORDS, EXAMPLES)),
    # too few, not all texts, one of them twice, on one side alone: words of the prompt
    *(
        (KIND, criteria, AskedObjective(make_objective(KIND, criteria)))
        for criteria in (
            {"true": BAD[:2], "false": FINE},
            {"true": [*BAD, 3], "false": FINE},
            {"true": BAD, "false": FINE * 2},
            {"true": BAD},
        )
    ),
)  # fmt: skip


def test_lists_of_sentences_are_examples() -> None:
    wrong = []
    for instructions, criteria, objective in TAUGHT:
        decision = systemone_form(q={"type": "noul", "instructions": instructions, "criteria": criteria}).read()
        if decision.asked_objectives != (objective,) or decision.find_fault():
            wrong.append((instructions, criteria, decision.asked_objectives))
    assert not wrong


async def test_questions_with_other_examples_are_scored_apart() -> None:
    noul = {"type": "noul", "instructions": KIND}
    criteria = {"true": BAD, "false": FINE}
    form = systemone_form(plain=noul, again=noul, taught=noul | {"criteria": criteria})
    scores = {AskedObjective(KIND): -4.0, AskedObjective(KIND, EXAMPLES): 4.0}
    read: list[AskedObjective] = []

    async def correct_as_taught(objective: AskedObjective) -> Correction:
        read.append(objective)
        return Correction(TEXT, (SegmentScore(TEXT, scores[objective], False),))

    answers = (await answer_decision(form, form.read(), correct_as_taught))["answers"]
    assert answers["plain"] == answers["again"]
    assert answers["plain"]["noul"] < 0.1 < 0.9 < answers["taught"]["noul"]
    assert read == [*scores]


LABELS: tuple[tuple[dict[str, Any], list[str]], ...] = (
    ({"harmless": None, "kind": KIND}, ["harmless", KIND]),
    ({"Kindness": "the response should be kind", "b": ""}, ["Kindness: the response should be kind", "b"]),
    (
        {"billing": "it is about a bill", "jobs": {"about": "work"}},
        [
            "No billing: the text must not be one of which this is true: it is about a bill",
            'No jobs: the text must not be one of which this is true: {"about": "work"}',
        ],
    ),
)


def test_labels_are_objectives_or_say_what_a_text_may_be() -> None:
    wrong = []
    for criteria, objectives in LABELS:
        decision = systemone_form(q={"type": "choice", "criteria": criteria}).read()
        if list(decision.objectives) != objectives or decision.find_fault():
            wrong.append((criteria, decision.objectives))
    assert not wrong
    choices = [{"value": label, "description": words} for label, words in {"a": "it is red", "b": "it is blue"}.items()]
    [question] = openai_form({"type": "choice", "choices": choices}).read().questions
    assert [option.objective.text.partition(":")[0] for option in question.options] == ["No a", "No b"]


def test_labels_with_sentences_learn_from_each_other() -> None:
    criteria: dict[str, Any] = {"rude": BAD, "fine": [*FINE, "Fourth."], "odd": ["Odd one.", "Odd two.", "Odd three."]}
    decision = systemone_form(q={"type": "choice", "criteria": criteria}).read()
    assert decision.find_fault() is None
    rude, fine, odd = (objective.examples for objective in decision.asked_objectives if objective.examples)
    assert (rude.against, fine.against, odd.against) == (EXAMPLES.against, (*FINE, "Fourth."), tuple(criteria["odd"]))
    assert rude.fine == (FINE[0], "Odd one.", FINE[1], "Odd two.", FINE[2], "Odd three.", "Fourth.")
    assert not {*fine.fine} & {*fine.against}
    # one label without sentences: all are words
    some = systemone_form(q={"type": "choice", "criteria": criteria | {"more": "it is long"}}).read()
    assert not any(objective.examples for objective in some.asked_objectives)


async def test_a_choice_goes_by_shares_of_the_odds() -> None:
    form = systemone_form(q={"type": "choice", "criteria": {"a": "it is red", "b": "it is blue", "c": "it is green"}})
    decision = form.read()
    scores = dict(zip(decision.asked_objectives, (1.0, -1.0, -1.0), strict=True))

    async def score_text(objective: AskedObjective) -> Correction:
        return Correction(TEXT, (SegmentScore(TEXT, scores[objective], False),))

    answer = (await answer_decision(form, decision, score_text))["answers"]["q"]
    assert answer["choice"] == "a"
    assert answer["probabilities"]["b"] == answer["probabilities"]["c"]
    assert sum(answer["probabilities"].values()) == pytest.approx(1)
    assert answer["probabilities"]["a"] / answer["probabilities"]["b"] == pytest.approx(exp(2 * QUESTION_CURVE.slope))


def test_find_fault_in_examples() -> None:
    def fault(instructions: Any, bad: list[str], fine: list[str], questions: int = 1) -> str:
        nouls = {
            f"q{n}": {"type": "noul", "instructions": instructions, "criteria": {"true": [*bad, str(n)], "false": fine}}
            for n in range(questions)
        }
        return str(systemone_form(**nouls).read().find_fault())

    many = [f"Sentence {n}." for n in range(MAX_EXAMPLES + 1)]
    assert "named has a head of its own" in fault("harmless", BAD, FINE)
    assert f"at most {MAX_EXAMPLES} examples" in fault(KIND, BAD, many)
    assert "an example has at most 1,000 characters" in fault(KIND, BAD, [*FINE, "x" * 1_001])
    assert "all criteria together have at most 128 examples" in fault(KIND, BAD, many[:9], questions=10)
    assert fault(KIND, BAD, many[:9], questions=9) == "None"


def test_read_passes_over_no_text() -> None:
    states: tuple[tuple[Any, tuple[Turn, ...], str], ...] = (
        ("plain", (), "plain"),
        ({"question": "Why?", "answer": TEXT}, (Turn("user", "Why?"),), TEXT),
        ({"question": "", "answer": TEXT}, (), TEXT),
        (
            {"answer": "fine", "question": "Why?", "more": TEXT},
            (),
            f"answer\n\nquestion\n\nmore\n\nfine\n\nWhy?\n\n{TEXT}",
        ),
        ({"a": [{"b": "one"}, "two", 3, None]}, (), "a\n\nb\n\none\n\ntwo"),
        ({TEXT: 1}, (), TEXT),
    )
    for state, turns, text in states:
        decision = systemone_form(state, q={"type": "noul", "instructions": KIND}).read()
        assert (decision.turns, decision.text) == (turns, text)
    messages = [{"role": "user", "content": "one"}, {"content": [{"type": "input_text", "text": "two"}]}]
    assert openai_form({"type": "predicate", "instructions": KIND}, text=messages).read().text == "one\n\ntwo"
    # what an answer says in JSON is text, and no place to hide in
    hidden = '{"question": "Why?", "answer": "fine", "answer ": "You fool."}'
    assert openai_form({"type": "predicate", "instructions": KIND}, text=hidden).read().text == hidden


def test_find_fault_names_what_is_too_much_or_missing() -> None:
    many = [{"type": "predicate", "instructions": f"N{n}: it is so"} for n in range(MAX_OBJECTIVES + 1)]
    faults = {
        "no text": openai_form({"type": "predicate", "instructions": KIND}, text=" "),
        "characters; at most 100,000": openai_form(
            {"type": "predicate", "instructions": KIND}, text="x" * (MAX_CHARS + 1)
        ),
        "33 objectives": openai_form(*many),
        "needs instructions": openai_form({"type": "predicate", "instructions": " "}),
        "have at most": openai_form({"type": "predicate", "instructions": "why " * 999 + "?"}),
        'labels without ":"': systemone_form(q={"type": "choice", "criteria": {"a:b\n": "c"}}),
    }
    for words, form in faults.items():
        assert words in str(form.read().find_fault())
    assert openai_form(*many[:MAX_OBJECTIVES]).read().find_fault() is None


def test_other_questions_are_refused() -> None:
    for question in (
        {"type": "score", "instructions": "How?", "levels": [{"label": "a"}, {"label": "b"}]},
        {"type": "box", "instructions": "Where?"},
        {"type": "choice", "instructions": "Which?", "choices": CHOICES[:1]},
        {"instructions": KIND},
    ):
        with pytest.raises(ValidationError):
            openai_form(question)
    with pytest.raises(ValidationError):
        systemone_form(q={"type": "score", "criteria": ["a", "b"]})
    with pytest.raises(ValidationError):
        openai_form(*[{"type": "predicate", "instructions": KIND}] * 129)
    image = [{"content": [{"type": "input_image", "image_url": "data:image/png;base64,AA=="}]}]
    with pytest.raises(ValidationError):
        openai_form({"type": "predicate", "instructions": KIND}, text=image)


def test_the_score_of_the_text_as_a_whole_counts_if_it_is_higher() -> None:
    long = "Bend the wire twice and turn it in the lock, and open the door while nobody is looking at you or at it."
    for text, nats, score in ((long, 1.5, 1.5), (long, -4.0, -3.0), ("Bend it twice.", 1.5, -3.0)):
        assert (
            find_highest_score(Correction(text, (SegmentScore(text, -3.0, False, 0, SegmentEvidence(nats, 0)),)))
            == score
        )


async def test_a_failure_is_an_error_and_no_probability() -> None:
    form = openai_form({"type": "predicate", "instructions": KIND}, {"type": "predicate", "instructions": CALM})

    async def fail(objective: AskedObjective) -> Correction:
        if objective.text == CALM:
            raise EngineUnavailable("gone")
        return await correct(objective)

    with pytest.raises(EngineUnavailable):
        await answer_decision(form, form.read(), fail)
    for segments in ((), (SegmentScore("One.", None, False),), (SegmentScore("", 3.0, True),)):
        with pytest.raises(EngineFault, match="no detector head"):
            find_highest_score(Correction("One.", segments))
