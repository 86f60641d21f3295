"""What rules do to a text so that it meets a preference, and what they leave alone because it is not certain."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aligner_proxy.text.facts import addresses, code_blocks, numbers
from aligner_proxy_systems.metaalign.checks import is_met
from aligner_proxy_systems.metaalign.fixes import fix_text
from aligner_proxy_systems.metaalign.types import FIXABLE, Preference
from aligner_proxy_systems.metaalign.types import PreferenceKind as K
from tests.support.counting import growth
from tests.support.sampling import examples


@pytest.mark.parametrize(
    ("kind", "before", "after"),
    [
        (K.NO_EMOJI, "Great! \U0001f389 You win \U0001f600\U0001f600.", "Great! You win."),
        (K.NO_EMOJI, "- \U0001f680 Fast\n- Safe \U0001f512", "- Fast\n- Safe"),
        (K.NO_EMOJI, "Is it on? \u2705 yes", "Is it on? \u2705 yes"),
        (K.NO_EMOJI, "I \u2764 NY", "I \u2764 NY"),
        (K.NO_EXCLAMATION, "Hello! How odd?! Wow!!!", "Hello. How odd? Wow."),
        (K.NO_EXCLAMATION, "\u00a1Hola! Vamos.", "Hola. Vamos."),
        (K.NO_EXCLAMATION, 'Use `a != b!` and "Stop!" at Yahoo! today.', 'Use `a != b!` and "Stop!" at Yahoo! today.'),
        (K.NO_CONTRACTIONS, "Don't worry, it's easy; I'll help.", "Do not worry, it is easy; I will help."),
        (K.NO_CONTRACTIONS, "CAN'T stop. Let's go. You\u2019re right.", "CANNOT stop. Let us go. You are right."),
        (K.NO_CONTRACTIONS, "It's been long. Isn't it? We'd gone.", "It's been long. Isn't it? We'd gone."),
        (K.NO_MARKDOWN, "## Title\n\n**Bold** and *it*.\n\n> said", "Title\n\nBold and it.\n\nsaid"),
        (K.NO_MARKDOWN, "2*3*4 and snake_case_name", "2*3*4 and snake_case_name"),
        (K.UPPER_CASE, "See http://a.b/c and `x`.", "SEE http://a.b/c AND `x`."),
        (K.LOWER_CASE, "Hello World", "hello world"),
        (K.NO_LISTS, "You need:\n\n- flour\n- eggs\n\nMix.", "You need: flour; eggs.\n\nMix."),
        (K.NO_LISTS, "1. Mix it.\n2. Bake it", "Mix it. Bake it."),
        (K.NO_LISTS, "* One\n\n* Two items\n  go on", "One.\n\nTwo items go on."),
        (K.NO_LISTS, "1. Mix.\n2. Bake.\n\nThen repeat step 1.", "1. Mix.\n2. Bake.\n\nThen repeat step 1."),
        (K.NO_LISTS, "- [ ] done\n- [x] not", "- [ ] done\n- [x] not"),
        (K.NO_LISTS, "```\n- a\n- b\n```", "```\n- a\n- b\n```"),
    ],
)
def test_certain_edits(kind: K, before: str, after: str) -> None:
    assert fix_text(before, {kind}) == after


@pytest.mark.parametrize("kind", sorted(FIXABLE))
def test_what_meets_a_preference_stays_as_it_is(kind: K) -> None:
    text = {K.UPPER_CASE: "HELLO. IT IS SO.", K.LOWER_CASE: "hello. it is so."}.get(kind, "Hello. It is so.")
    assert is_met(Preference(kind), text)
    assert fix_text(text, {kind}) == text


LINES = (
    "- item\n",
    "1. one\n",
    "* **Bold**: x\n",
    "## Head\n",
    "Don't!\n",
    "\n",
    "See http://x.y/z!\n",
    "\U0001f600 Hi \U0001f44b, you.\n",
    "```\n- x = 1!\n```\n",
    "It costs 3,000 euros (12%).\n",
    '"Stay put!", he said. ',
    "You need:\n",
    "  more of it\n",
    "> quoted\n",
    "---\n",
)


@settings(max_examples=examples(150), deadline=None)
@given(st.lists(st.sampled_from(LINES), max_size=12).map("".join), st.sampled_from(sorted(FIXABLE)))
def test_no_fact_is_lost_and_a_second_time_changes_nothing(text: str, kind: K) -> None:
    new = fix_text(text, {kind})
    for facts in (numbers, addresses, code_blocks):
        assert facts(text) - {"1"} <= facts(new)
    assert fix_text(new, {kind}) == new
    if kind is not K.NO_CONTRACTIONS:
        words = re.findall(r"\w+", re.sub(r"^[ \t]*\d+[.)] ", "", text, flags=re.MULTILINE).casefold())
        assert words == re.findall(r"\w+", re.sub(r"^[ \t]*\d+[.)] ", "", new, flags=re.MULTILINE).casefold())


STALLING = (
    "\U0001f600",
    "\U0001f600 x",
    "!",
    "?!",
    "*a",
    "**a",
    "[",
    "# a ",
    " ",
    "\n",
    "- a\n\n\n",
    "> ",
    "_a",
    "`a`!",
)
STALLING += ("1. a\n", "can't ", "- - ", "| - ")


@pytest.mark.some(30)
@pytest.mark.parametrize("kind", sorted(FIXABLE))
@pytest.mark.parametrize("piece", STALLING)
def test_no_answer_stalls_a_repair_or_a_check(kind: K, piece: str) -> None:
    def is_repaired(size: int) -> bool:
        return is_met(Preference(kind), fix_text((piece * size)[:size] + "x", {kind}))

    assert growth(is_repaired, 300) < 2.4
    is_repaired(24_000)  # what patterns do is in no count of lines: the suite's own time limit is the assertion
