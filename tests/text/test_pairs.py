"""Which signs of a text are halves of a pair, and which halves belong together."""

from __future__ import annotations

import pytest

from aligner_proxy.text.pairs import read_halves
from aligner_proxy.text.structure import Segment, split
from tests.support.growth import grows_linearly

PAIRED = [
    ("**It opens.** Bye.", ["**", "**"]),
    ("__It opens.__ *Bye. Now.*", ["__", "__", "*", "*"]),
    ("***It opens.*** Bye.", ["**", "*", "**", "*"]),
    ("~~It opens.~~", ["~~", "~~"]),
    ("\u8fd9\u662f**\u91cd\u70b9**\u3002", ["**", "**"]),
    ('She said "it opens".', ['"', '"']),
    ("\u201cA. B.\u201d \u201eC. D.\u201c", ["\u201c", "\u201d", "\u201e", "\u201c"]),
    ("\u00abE.\u00bb \u00ab\u00a0F.\u00a0\u00bb", ["\u00ab", "\u00bb", "\u00ab", "\u00bb"]),
    ("(It [opens {at} nine].)", ["(", "[", "{", "}", "]", ")"]),
    ("\\(x. y\\) \\[z\\]", ["\\(", "\\)", "\\[", "\\]"]),
    ("\u300cIt opens.\u300d", ["\u300c", "\u300d"]),
    ("$$x. y$$", ["$$", "$$"]),
    ("`a.\nB` now", ["`", "`"]),
    ("<b>A. <i>B.</i></b>", ["<b>", "<i>", "</i>", "</b>"]),
    ("<b>It opens</b> at nine.", ["<b>", "</b>"]),
    ("<p>A. B.</p>\n<li>C.</li><td>D</td>", ["<p>", "</p>", "<li>", "</li>", "<td>", "</td>"]),
    ('<note kind="x">A.\n\nB.</NOTE>', ['<note kind="x">', "</NOTE>"]),
    ("<!-- A.\n\nB. -->", ["<!--", "-->"]),
    ("_(<b>A.</b>)_", ["_", "(", "<b>", "</b>", ")", "_"]),
    ('"It opens."\u00b2 **It closes.**\u00b9 _Bye._\u00b9\u00b2', ['"', '"', "**", "**", "_", "_"]),
    ("*It opens*\u00b9 \u201cand closes\u201d\u00b2.", ["*", "*", "\u201c", "\u201d"]),
    ("**\u00b2\u00b3Na** is **20 m\u00b2**.", ["**", "**", "**", "**"]),
]  # fmt: skip

NO_HALVES = [
    "* It opens.\n* It closes.",
    "It is 3*4 m, or 3 * 4.",
    "Set my_own_name, and a_b_c.",
    "It\\*s \\_so.",
    "Ha :) and :( and ;-) and =(",
    "a) It opens.\nb) It closes.\n1) Bye.\n1.2) Bye.",
    "Call `f(x` and ``a ` *b`` at nine.",
    "```\nf(x\n**\n```",
    "It is ```\nso\n```\n",
    "It opens.<br>It closes.<hr>\n<img>Bye.",
    "Use List<String> and a <b c and 1 < 2.",
    "*****\n_____\n---",
    "See <https://a.example/b_c_d> or <ada@a.example>.",
    "It is <img src='a.png' /> so.",
]

ALONE = ["**It opens.", "It opens.** Bye.", "(It opens.", 'It is 5" wide.', "<b>It opens.", "-->", "**A.\n\nB.**"]
ALONE += ["<p>Bye.\n<li>Bye.", "<p>A.\n\nB.</p>"]


def signs(text: str, *, paired: bool) -> list[str]:
    return [text[h.start : h.end] for h in read_halves(text, split(text)) if (h.partner is not None) is paired]


def test_halves_of_a_pair() -> None:
    wrong = {text: signs(text, paired=True) for text, expected in PAIRED if signs(text, paired=True) != expected}
    assert wrong == {}
    assert {text: single for text, _ in PAIRED if (single := signs(text, paired=False))} == {}


def test_partners_name_each_other() -> None:
    for text, _ in PAIRED:
        halves = {half.start: half for half in read_halves(text, split(text))}
        assert all(half.partner is not None and halves[half.partner].partner == half.start for half in halves.values())
        assert sum(half.opens for half in halves.values()) * 2 == len(halves)


def test_other_signs_are_no_halves() -> None:
    assert {text: halves for text in NO_HALVES if (halves := read_halves(text, split(text)))} == {}


def test_halves_that_stand_alone() -> None:
    assert [text for text in ALONE if not signs(text, paired=False) or signs(text, paired=True)] == []


@pytest.mark.slow
@pytest.mark.some(10)
@pytest.mark.parametrize(
    "unit", ["<", "*", "(", ")", "[", '"', "`", "` `` ", "```` ``` ", "<a ", "**a ", "***a", "_a", ":(", "a)\n", "<!--",
             "$$", "\\(", "<b>x</b>", "<\n", "-->"]
)  # fmt: skip
def test_signs_without_end_are_read_at_once(unit: str) -> None:
    def make(size: int) -> tuple[str, list[Segment]]:
        text = unit * (size // len(unit))
        return text, list(split(text))

    assert grows_linearly(make, lambda made: read_halves(*made))
