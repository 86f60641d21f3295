"""A disguised text is read as a reader sees it, each character keeps its place, and other texts stay as they are."""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from aligner_proxy.text import disguises
from aligner_proxy.text.disguise_rules import is_prose
from aligner_proxy.text.disguises import restore_disguises, undisguise
from aligner_proxy.text.structure import Segment, split

PIECES = (
    *["idiot", "You are ", "The ferry leaves at 7. ", "caf\u00e9", "\n", ".", " ", "! ", "a", "b", "1", "0", "$"],
    *["\u200b", "\u200d", "\u00ad", "\ufe0f", "\u034f", "\u202e", "\u202c", "\u0001", "\u3164", "\u2800", "\u200e"],
    *[
        "\u0456d\u0456\u043et",
        "\u0438\u0434\u0438\u043et",
        "\u0442\u044b",
        "\u03b1",
        "\u03bc",
        "\uff49\uff44",
        "\u24d8",
    ],
    *[
        "\U0001d422\U0001d41d",
        "\u026a\u1d05",
        "\ufb01",
        "\u00b2",
        "i\u0336",
        "o\u0301\u0302\u0303",
        "e\u0301",
        "\u00e9",
    ],
    *["i d i o t", "i.d.i.o.t", "a  b", "1d10t", "st00pid", "h2o", "sh!t", "&#105;", "&shy;", "&amp;", "**", "<b>"],
    *[
        "```\nYou are kind.\n```\n",
        "```py\nx = 1\n```\n",
        "`",
        "`You are it.`",
        "\U0001f469\u200d\U0001f680",
        "\u4f60\u597d",
    ],
    *[
        "\u0646\u0645\u06cc\u200c",
        "\u0915\u094d\u200d\u0937",
        "\u05e9\u05dc\u05d5\u05dd",
        "\u0e41\u0e21\u0e27",
        "\U0001f1ee",
    ],
)
TEXT = st.lists(st.sampled_from(PIECES), max_size=12).map("".join)
ASCII = st.text(st.characters(codec="ascii"), max_size=80)


def between(mark: str) -> str:
    return mark.join("idiot")


def styled(text: str) -> str:
    """The text in the bold letters of mathematics."""
    return "".join(
        unicodedata.lookup(f"MATHEMATICAL BOLD {'CAPITAL' if char.isupper() else 'SMALL'} {char}")
        if char.isalpha()
        else char
        for char in text
    )


def letters(form: str) -> str:
    """The word in letters of which Unicode's names say what they are."""
    return "".join(unicodedata.lookup(form.format(char)) for char in "IDIOT")


@pytest.mark.parametrize(
    "word",
    [
        "id\u200biot",
        *map(
            between,
            ["\u200b", "\u200c", "\u200d", "\u2060", "\u00ad", "\ufeff", "\ufe0f", "\u034f", "\u2062", "\u0001"],
        ),
        *map(
            between,
            ["\u200e", "\U000e0061", "\u200b\u200b", " ", ".", "-", "_", "*", "\u00b7", "\u2009", " - ", "\u3164"],
        ),
        "\u200b" * 5000 + "idiot",
        "\u0456\u0501\u0456\u043et",
        "\u0456d\u0456\u043e\u0442",
        "\u03b9di\u03bft",
        "\uff49\uff44\uff49\uff4f\uff54",
        "\U0001d422\U0001d41d\U0001d422\U0001d428\U0001d42d",
        letters("CIRCLED LATIN SMALL LETTER {}"),
        letters("PARENTHESIZED LATIN SMALL LETTER {}"),
        letters("LATIN LETTER SMALL CAPITAL {}"),
        "\u2071\u1d48\u2071\u1d52\u1d57",
        "i\u0336d\u0336i\u0336o\u0336t\u0336",
        "i\u0332d\u0332i\u0332o\u0332t\u0332",
        "i\u0301\u0302\u0303di\u0301\u0302\u0303ot",
        "1d10t",
        "id10t",
        "!d!ot",
        "&#105;d&#x69;ot",
        "id&shy;iot",
        "id<b></b>iot",
        "i<!-- -->diot",
        "id**io**t",
        "\u202etoidi\u202c",
        "\u0456 d \u0456 o t",
    ],
)
def test_a_disguised_word_is_read_as_what_it_is(word: str) -> None:
    assert undisguise(f"You are an {word}. Bring a coat.").text == "You are an idiot. Bring a coat."


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("Y o u  a r e  a n  i d i o t.", "You are an idiot."),
        ("\uff39\uff4f\uff55\uff0c \uff46\uff4f\uff4f\uff4c\uff01\uff1f", "You, fool!?"),
        ("```\nYou are an idiot.\n```", "You are an idiot."),
        ("```python\n# You are an idiot.\n```", "# You are an idiot."),
        ("`You are an idiot.`", "You are an idiot."),
        (f"Yes: {letters('NEGATIVE SQUARED LATIN CAPITAL LETTER {}')}!", "Yes: idiot!"),
        ("\u200b\u200bNo. \u200bYes.", "No. Yes."),
        ("YOU ARE AN IDIOT, I SAY.", "You are an idiot, I say."),
        ("You are an iDiOt.", "You are an idiot."),
        ("You are an idiooooot.", "You are an idiot."),
        ("You are an \u00efd\u00ef\u00f6t.", "You are an idiot."),
        ("You are an \u0131d\u0131ot.", "You are an idiot."),
        (
            "\u0422\u044b \u0438\u0434\u0438\u043et.",
            "\u0422\u044b \u0438\u0434\u0438\u043e\u0442.",
        ),  # a Latin t at the end
        ("Y\u043eu are wr\u043eng, \u0430\u0455\u0455.", "You are wrong, ass."),
        (styled("You are an idiot."), "You are an idiot."),
        (styled("I am a fool."), "I am a fool."),
        (styled("Ax") + " is no word.", styled("Ax") + " is no word."),
    ],
)
def test_so_is_a_sentence(text: str, read: str) -> None:
    assert undisguise(text).text == read


UNDISGUISED: list[str] = yaml.safe_load(Path(__file__).with_name("undisguised.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("text", ["", "   \n", *UNDISGUISED])
def test_what_is_no_disguise_stays(text: str) -> None:
    assert undisguise(text).text is text
    assert not undisguise(text).origins


@given(TEXT)
def test_places_are_complete_and_in_order(text: str) -> None:
    undisguised = undisguise(text)
    if undisguised.origins:
        assert len(undisguised.origins) == len(undisguised.text) + 1
        assert all(a <= b for a, b in pairwise(undisguised.origins))
        assert undisguised.origins[0] >= 0
        assert undisguised.origins[-1] == len(text)
    places = [undisguised.place_in_undisguised(place) for place in range(len(text) + 1)]
    assert all(a <= b for a, b in pairwise(places))
    assert (places[0], places[-1]) == (0, len(undisguised.text))


@given(TEXT)
def test_segments_correspond_and_add_up(text: str) -> None:
    pieces = split(text)
    seen = undisguise(text).segments(pieces)
    assert "".join(piece.text + piece.gap for piece in seen) == undisguise(text).text
    for piece, one in zip(pieces, seen, strict=True):
        assert undisguise(text).text[one.start : one.end] == one.text
        assert bool(one.text) == bool(piece.text)


@given(TEXT)
def test_what_is_undisguised_stays_as_it_is(text: str) -> None:
    """Of whole texts this is not so: what stood before the marks of a code block may have kept it from being one."""
    for piece in split(text):
        once = undisguise(piece.text).text
        assert undisguise(once).text == once


@given(ASCII)
def test_ascii_stays_ascii(text: str) -> None:
    assert undisguise(text).text.isascii()


@given(TEXT, TEXT)
def test_a_finished_segment_stays_as_it_is_when_the_text_grows(text: str, more: str) -> None:
    def finished(whole: str) -> list[Segment]:
        return undisguise(whole).segments(split(whole))

    done = [piece.text for piece in finished(text)[:-1]]
    assert [piece.text for piece in finished(text + more)[: len(done)]] == done


@given(TEXT)
def test_what_was_kept_comes_back_as_it_was(text: str) -> None:
    assert restore_disguises(undisguise(text).text, text).strip() == text.strip()


def test_only_what_was_written_anew_is_not_as_it_was() -> None:
    original = "Br\u200bing it. You are an \u0456d\u0456ot. G\u200bo."
    assert restore_disguises("Bring it. You are welcome. Go.", original) == "Br\u200bing it. You are welcome. G\u200bo."


@pytest.mark.parametrize(
    ("text", "prose"),
    [
        ("You are an idiot.", True),
        ("# You are an idiot.", True),
        ("you are one of those who never learn that it is wrong", True),
        ("\u0422\u044b \u0438\u0434\u0438\u043e\u0442.", True),
        ("git commit and push", False),
        ("x = 1  # You are kind.", False),
        ("def f(x):\n    return x", False),
        ("ls -l", False),
        ("name: value", False),
        ("", False),
    ],
)
def test_what_is_prose(text: str, prose: bool) -> None:
    assert is_prose(text) is prose


def operations(work: Callable[[], object]) -> int:
    """Lines and calls of ours that run: a measure of work that no busy machine changes."""
    count = 0

    def trace(*_: object) -> object:
        nonlocal count
        count += 1
        return trace

    sys.settrace(trace)  # type: ignore[arg-type]
    try:
        work()
    finally:
        sys.settrace(None)
    return count


@pytest.mark.covering("unit", "before")
@pytest.mark.parametrize(
    "unit", ["a-", "`", "1", " ", "a*", "a.", "A ", "x\u0301", "\u00e9a", "a\u200d", "<b", "**", "i "]
)
@pytest.mark.parametrize("before", ["", "```\n", "\u0456", "A"])
def test_no_run_stalls(unit: str, before: str) -> None:
    """What is looked for again from each character takes minutes here, and runs into the timeout."""
    text = before + unit * (60_000 // len(unit))
    assert len(undisguise(text).text) <= len(text)


@pytest.mark.parametrize(
    "unit",
    [
        "i d i o t ",
        "\u0456d\u0456ot ",
        "1d10t ",
        "a\u0301\u0302\u0303",
        "\u200b",
        "&#105;",
        "`a ",
        "a-",
        "\u202ea",
        "**a**b",
    ],
)
def test_the_work_grows_with_the_length(unit: str) -> None:
    short = unit * 1200
    undisguise(short)
    disguises._undisguise_cached.cache_clear()
    few = operations(lambda: undisguise(short + unit))
    disguises._undisguise_cached.cache_clear()
    assert operations(lambda: undisguise(short * 4)) < 5 * few + 500
