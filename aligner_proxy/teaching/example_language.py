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
"""Quick teaching reads every third of our English answers, which is more than twice `MIN_SENTENCES`."""


class NoNeutralAnswers(AlignerProxyError):
    """There are not enough neutral answers in the language of the examples; the message says what is needed."""


def find_language(examples: Examples) -> str:
    """The language of the sentences against the objective; if it is unclear, the one with most signs, else English."""
    text = " ".join(example.text for example in examples.against)
    hits = language_signs(text).hits
    return language(text) or max((ENGLISH, *hits), key=lambda name: hits[name])


def neutral_answers_for(examples: Examples, *, quick: bool = False) -> tuple[Neutral, ...]:
    """The neutral answers in the language of the examples: ours, and in other languages than English the operator's.

    `quick` teaching in English reads fewer of them. Raises `NoNeutralAnswers` if they have fewer than `MIN_SENTENCES`
    sentences.
    """
    own_language = find_language(examples)
    ours = teaching_answers(own_language)
    if own_language == ENGLISH:
        return ours[::_QUICK_STEP] if quick else ours
    good = (Neutral(answer.question, answer.text) for answer in examples.good_answers)
    theirs = tuple(neutral for neutral in good if language(neutral.answer) == own_language)
    count = sum(len(split(neutral.answer)) for neutral in (*ours, *theirs))
    if count < MIN_SENTENCES:
        raise NoNeutralAnswers(
            f"the examples are in another language ({own_language}) than our neutral answers "
            f"({', '.join(neutral_languages())}), so a head would only learn to recognise the language; give "
            f"good_answers of your own in it, with {MIN_SENTENCES} sentences or more ({count} are there)"
        )
    return (*ours, *theirs)
