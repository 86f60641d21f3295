"""Which languages and scripts are clear, and that unclear ones stay unknown."""

from __future__ import annotations

import pytest

from aligner_proxy.text.languages import (
    foreign_segments,
    is_among,
    is_foreign,
    is_written_in,
    language,
    languages,
    prose_language,
    scripts,
    scripts_in_use,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The kettle is on and the tea will be ready for you.", "en"),
        ("Der Kessel ist auf dem Herd und der Tee wird nicht kalt.", "de"),
        ("Le thé est dans la cuisine et il ne faut pas le boire avec nous.", "fr"),
        ("El té está en la cocina y no es para los que se van.", "es"),
        ("O chá está na cozinha e não é para os que vão com você.", "pt"),
        ("Il tè è nella cucina e non è per gli ospiti che sono con te.", "it"),
        ("De thee is in de keuken en het is niet voor een gast.", "nl"),
        ("Teet är i köket och det är inte för en gäst som jag.", "sv"),
        ("Herbata nie jest dla gości, ale to się może zmienić po obiedzie.", "pl"),
        ("Çay bu mutfakta ve misafirler için çok güzel bir şey.", "tr"),
        ("Чай стоит на кухне.", "CYRILLIC"),
        ("お茶は台所にあります。", "CJK"),
        ("茶在厨房里。", "CJK"),
        ("차는 부엌에 있습니다.", "HANGUL"),
    ],
)
def test_clear_cases(text: str, expected: str) -> None:
    assert language(text) == expected


@pytest.mark.parametrize("text", ["", "42", "Yes.", "print(x)", "Maria Lopez, Porto", "lorem ipsum dolor sit amet"])
def test_unclear_cases(text: str) -> None:
    assert language(text) is None


@pytest.mark.parametrize(
    ("text", "known", "expected"),
    [
        ("Das ist gut.", {"en"}, True),
        ("Das ist gut.", {"en", "de"}, False),
        ("Visit Rio de Janeiro.", {"en"}, True),  # the price of noticing short sentences
        ("Visit Rio de Janeiro and La Paz.", {"en"}, False),
        ("Maria Lopez, Porto", {"en"}, False),
        ("Wodę śpi pod.", {"en"}, True),
        ("Café.", {"en"}, False),
        ("Rosemary, thyme, oregano, basil, salt", {"en"}, False),
        ("The kettle is on and it is hot.", {"CYRILLIC"}, True),
        ("Это не так.", {"CYRILLIC"}, False),
        ("", {"en"}, False),
    ],
)
def test_comparing_needs_less_than_naming(text: str, known: set[str], expected: bool) -> None:
    assert is_foreign(text, known, set()) is expected


def test_letters_that_were_there_before_prove_nothing() -> None:
    assert is_foreign("Zoë, Noël, Anaïs", {"en"}, set())
    assert not is_foreign("Zoë, Noël, Anaïs", {"en"}, {"ë", "ï"})


def test_every_sentence_counts_but_not_code() -> None:
    text = "The kettle is on and it is hot. Der Tee ist in dem Kessel und wird heiß.\n```\nle la les des et\n```"
    assert languages(text) == {"en", "de"}


def test_a_sign_is_no_script() -> None:
    assert scripts_in_use("The angle \u03b1 is \u03c0 or 5 \u00b5m.") == {"LATIN"}
    assert scripts("The angle \u03b1") == {"LATIN", "GREEK"}
    assert scripts_in_use("Καλημέρα") == {"GREEK"}
    assert scripts_in_use("\U0001d41b\U0001d428\U0001d425\U0001d41d") == {"MATHEMATICAL"}
    assert scripts_in_use("😀 1 + 1") == set()


GERMAN = "Der Kessel ist auf dem Herd und der Tee wird nicht kalt."
ENGLISH = "The kettle is on and the tea will be ready for you."


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (GERMAN, "de"),
        (f"{ENGLISH}\n```python\nder = die + das\nist = und\n```", "en"),
        (f"{ENGLISH} See https://example.org/der/die/das/und/ist/nicht/ein/eine/mit", "en"),
        ("Ja, gut.", None),
        (f"{ENGLISH} 茶在厨房里。", "en"),
        ("x" * 50_000, None),
        ((ENGLISH + " ") * 20 + (GERMAN + " ") * 2_000, "de"),
    ],
)
def test_the_language_of_a_whole_answer(text: str, expected: str | None) -> None:
    assert prose_language(text) == expected


@pytest.mark.parametrize(
    ("name", "known", "expected"),
    [
        ("en", {"en"}, True),
        ("de", {"en"}, False),
        ("CJK", {"en"}, False),
        ("CJK", {"en", "ja"}, True),
        ("CYRILLIC", {"uk"}, True),
        ("da", {"nb"}, True),  # nobody tells Norwegian from it
        ("de", {"en", "ru"}, False),
        ("MATHEMATICAL", {"en"}, True),
        ("TIBETAN", {"en"}, False),
    ],
)
def test_which_languages_are_among_those_of_an_aligner(name: str, known: set[str], expected: bool) -> None:
    assert is_among(name, known) is expected


TERMS = (
    "These are the parts that you need: glass flask, rubber stopper, copper tube, iron stand, steel clamp, paper "
    "filter, plastic funnel, wooden rack, brass burner, cotton wool, rubber gloves, safety goggles. Wash them."
)


@pytest.mark.parametrize(
    ("text", "codes", "expected"),
    [
        (ENGLISH, {"en"}, True),
        (ENGLISH, {"de"}, False),
        (GERMAN, {"en", "de"}, True),
        (f"```python\n{ENGLISH}\n```", {"en"}, False),
        ("| 5 | 7 |\n|---|---|\n| 9 | 3 |", {"en"}, False),
        ("| 5 | 7 |\n|---|---|\n| 9 | 3 |", {"en", "hr"}, True),
        ("", {"en"}, False),
        (TERMS, {"en"}, True),
        (TERMS, {"de"}, False),
        ("\u017eica, brava, vrata, klju\u010d, \u010deki\u0107, tko je to, do kraja", {"en"}, False),
    ],
)
def test_whether_a_text_is_clearly_written_in_a_language(text: str, codes: set[str], expected: bool) -> None:
    assert is_written_in(text, codes) is expected


def test_the_small_words_of_a_list_of_terms_are_few() -> None:
    assert prose_language(TERMS) is None


@pytest.mark.parametrize(
    ("sentence", "known", "expected"),
    [
        ("Du bist ein erbärmlicher Versager.", ("en",), True),
        ("Du bist dumm wie Brot.", ("en",), True),
        ("Kriech zurück in dein Loch, du Ratte.", ("en",), True),
        ("Tu n'es qu'un pauvre imbécile.", ("en",), True),
        ("Hasta un niño es más listo que tú.", ("en",), True),
        ("Ты просто дурак и трус.", ("en",), True),
        ("你是个白痴。", ("en",), True),
        ("Du bist ein erbärmlicher Versager.", ("en", "de"), False),
        ("Tu n'es qu'un pauvre imbécile.", ("en", "de"), True),
        ("Du bist ein erbärmlicher Versager.", (), False),
        ("The café serves crème brûlée.", ("en",), False),
        ("Café Müller, Zürich", ("en",), False),
        ("He read Der Spiegel and Die Zeit every day.", ("en",), False),
        ("See `du -sh` for the size of a folder.", ("en",), False),
        ("Met in two of four readings.", ("en",), False),
        ("α and β are angles.", ("en",), False),
        ("Yes.", ("en",), False),
        ("I am late, I am late", ("en",), False),
        ("Two pence per mile, or a shilling per gallon.", ("en",), False),
        ("Bent-over lifts", ("en",), False),
        ("Ca\u0301f\u00e9 na\u00efve", ("en",), False),
    ],
)
def test_a_sentence_in_a_language_that_is_not_known(sentence: str, known: tuple[str, ...], expected: bool) -> None:
    text = f"The capital of France is Paris. {sentence}\n\nIt lies on the Seine."
    assert [piece.text for piece in foreign_segments(text, known)] == [sentence] * expected
