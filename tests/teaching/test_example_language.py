"""The neutral answers of teaching are in the language of the examples, or nothing is taught."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from aligner_proxy.teaching.example_language import MIN_SENTENCES, NoNeutralAnswers, find_language, neutral_answers_for
from aligner_proxy.teaching.examples import Examples, parse_examples
from aligner_proxy.teaching.neutral import neutral_languages, teaching_answers
from aligner_proxy.text.languages import language
from aligner_proxy.text.structure import split

AGAINST = {
    "en": ("I feel lonely at night.", "My heart aches."),
    "de": ("Ich fühle mich nachts einsam.", "Mir tut das Herz weh, wenn du so schreibst."),
    "fr": ("Je me sens seul la nuit.", "Mon cœur est triste quand vous partez."),
    "es": ("Me siento solo por la noche.", "Mi corazón está triste cuando usted se va."),
    "it": ("Mi sento solo di notte.", "Il mio cuore è triste quando lei va via."),
    "pt": ("Eu me sinto só à noite.", "O meu coração está triste quando você vai."),
    "nl": ("Ik voel me in de nacht eenzaam.", "Mijn hart doet pijn als je weg gaat."),
    "sv": ("Jag känner mig ensam på natten.", "Mitt hjärta gör ont när du går."),
    "da": ("Jeg føler mig alene om natten.", "Mit hjerte gør ondt, når du ikke er her."),
    "pl": ("Czuję się w nocy samotny.", "Jest mi bardzo smutno, kiedy nie ma cię tam."),
    "cs": ("Cítím se v noci sám.", "Je mi smutno, když tady nejsi a jsem jen sám."),
}
OTHER = ("Tunnen itseni yöllä yksinäiseksi.", "Minulla on ikävä, kun sinä et ole täällä.")


def examples(against: tuple[str, ...], good: str = "") -> Examples:
    lines = ["against:", *(f'  - "{text}"' for text in against)]
    lines += ["good_answers:", '  - question: "What is new?"', f'    answer: "{good}"'] if good else []
    return parse_examples("\n".join(lines), Path("x.yaml"), "no-feelings", "No feelings: it has none")


def test_the_neutral_answers_are_in_the_language_of_the_examples() -> None:
    failures = []
    for name, against in AGAINST.items():
        given = examples(against)
        answers = neutral_answers_for(given)
        if find_language(given) != name or answers != teaching_answers(name):
            failures.append(f"{name}: {find_language(given)}")
    assert not failures, "\n".join(failures)
    assert set(AGAINST) == set(neutral_languages())


def test_our_neutral_sentences_are_many_different_and_of_their_language() -> None:
    failures = []
    for name in neutral_languages():
        sentences = [piece.text for answer in teaching_answers(name) for piece in split(answer.answer)]
        text = " ".join(sentences)
        if len(set(sentences)) < MIN_SENTENCES or language(text) != name:
            failures.append(f"{name}: {len(set(sentences))} {language(text)}")
        repeated = [sentence for sentence, count in Counter(sentences).items() if count > 1]
        failures += [f"{name}: {sentence}" for sentence in repeated if name != "en"]
    assert not failures, "\n".join(failures)


def test_quick_teaching_reads_a_third_of_the_english_answers_and_still_enough_of_them() -> None:
    quick = neutral_answers_for(examples(AGAINST["en"]), quick=True)
    assert 3 * len(quick) <= len(teaching_answers()) + 2
    assert sum(len(split(neutral.answer)) for neutral in quick) >= 2 * MIN_SENTENCES
    german = examples(AGAINST["de"])
    assert neutral_answers_for(german, quick=True) == neutral_answers_for(german), "of these there are few"


def test_without_neutral_sentences_of_the_language_nothing_is_taught() -> None:
    for against in (OTHER, ("Я чувствую себя одиноко ночью.", "Мне грустно, когда ты уходишь.")):
        with pytest.raises(NoNeutralAnswers, match="good_answers of your own in it, with 60 sentences or more"):
            neutral_answers_for(examples(against))
    sentence = "Juna lähtee kello {}, ja se on nyt asemalla. "
    few = examples(OTHER, "".join(sentence.format(n) for n in range(20)))
    with pytest.raises(NoNeutralAnswers, match="20 are there"):
        neutral_answers_for(few)
    many = examples(OTHER, "".join(sentence.format(n) for n in range(60)))
    assert [neutral.answer for neutral in neutral_answers_for(many)] == [good.text for good in many.good_answers]
    english = examples(OTHER, "The train leaves now. " * 60)
    with pytest.raises(NoNeutralAnswers, match="0 are there"):
        neutral_answers_for(english)
