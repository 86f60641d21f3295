"""The language of an objective's examples, in which the neutral answers must be, too.

Against neutral answers of another language a head would learn to tell languages apart, and flag every good sentence of
the examples' language. So teaching is refused if there are not enough neutral sentences of that language.
"""

from __future__ import annotations

from aligner_proxy.errors import AlignerProxyError
from aligner_proxy.teaching.examples import Examples
from aligner_proxy.teaching.neutral import ENGLISH, Neutral, neutral_languages, teaching_answers
from aligner_proxy.text.languages import language, language_signs
from aligner_proxy.text.structure import split

MIN_SENTENCES = 60
"""Fewest neutral sentences from which a head learns what is usual in a language."""
_QUICK_STEP = 3
"""Quick teaching reads every third of our English answers; they have more than twice `MIN_SENTENCES`."""


class NoNeutralAnswers(AlignerProxyError):
    """There are not enough neutral answers in the language of the examples; the message says what is needed."""


def find_language(examples: Examples) -> str:
    """Return the language of the sentences against the objective.

    If it is unclear, this is the language of which the sentences have most signs, else English.
    """
    text = " ".join(example.text for example in examples.against)
    sign_counts = language_signs(text).hits
    return language(text) or max((ENGLISH, *sign_counts), key=lambda name: sign_counts[name])


def neutral_answers_for(examples: Examples, *, quick: bool = False) -> tuple[Neutral, ...]:
    """Return the neutral answers in the language of the examples.

    These are the package's answers and, in other languages than English, the operator's good answers, too. `quick` says
    whether teaching in English should read only a part of them. Raises `NoNeutralAnswers` if the answers in another
    language than English have fewer than `MIN_SENTENCES` sentences.
    """
    own_language = find_language(examples)
    package_answers = teaching_answers(own_language)
    if own_language == ENGLISH:
        return package_answers[::_QUICK_STEP] if quick else package_answers
    operator_answers = tuple(
        Neutral(answer.question, answer.text)
        for answer in examples.good_answers
        if language(answer.text) == own_language
    )
    all_answers = (*package_answers, *operator_answers)
    sentence_count = sum(len(split(neutral.answer)) for neutral in all_answers)
    if sentence_count < MIN_SENTENCES:
        raise NoNeutralAnswers(
            f"the examples are in another language ({own_language}) than our neutral answers "
            f"({', '.join(neutral_languages())}), so a head would only learn to recognise the language; give "
            f"good_answers of your own in it, with {MIN_SENTENCES} sentences or more ({sentence_count} are there)"
        )
    return all_answers
