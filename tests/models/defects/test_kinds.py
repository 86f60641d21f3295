"""The grammars: enough different sentences, held-out wordings that are never trained, texts that name their kind."""

from __future__ import annotations

from functools import cache
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligner_proxy.text.structure import split
from models.defects import ALL_KINDS, FAMILY_OF, TRAINING_KINDS, UNSEEN_KINDS, DefectKind
from models.defects.grammar import Grammar, capitalise, expand, uncapitalise
from models.defects.objectives import BUILT_IN, CLEAN, SHARED
from models.defects.topic import topic_of
from models.defects.turns import write_dialogue
from tests.support.sampling import examples
from tests.support.tables import for_every

QUERY = "How do I water tomatoes on a balcony?"
ANSWER = "Water the tomatoes early in the day. The balcony gets hot, so check the soil twice. Use a can with a rose."
KIND_BY_NAME = {kind.name: kind for kind in ALL_KINDS}
by_name = for_every(ALL_KINDS, lambda kind: kind.name)
in_training = for_every(TRAINING_KINDS, lambda kind: kind.name)
inside = pytest.mark.parametrize("kind", [k for k in TRAINING_KINDS if k.inside], ids=lambda kind: kind.name)


def _made(kind: DefectKind, count: int, held_out: bool = False) -> set[str]:
    return {_make(kind.name, i, held_out) for i in range(count)}


@cache
def _make(name: str, seed: int, held_out: bool) -> str:
    """Several tests look at the same sentences."""
    return KIND_BY_NAME[name].make(Random(seed), QUERY, ANSWER, held_out)


def test_there_are_enough_kinds_and_no_name_twice() -> None:
    assert len(TRAINING_KINDS) >= 26
    assert len(UNSEEN_KINDS) >= 6
    assert len(FAMILY_OF) == len(ALL_KINDS)


@by_name
def test_themes_of_a_kind_exist(kind: DefectKind) -> None:
    known = {*BUILT_IN, *SHARED, *FAMILY_OF}
    assert not {*kind.asks, *kind.unclear} - known
    assert not {*kind.asks} & {*kind.unclear}


@in_training
def test_a_kind_says_many_things(kind: DefectKind) -> None:
    least = 6 if kind.name == "repetition" else 60  # an answer of three sentences has few repetitions
    assert len(_made(kind, 300)) >= least


@in_training
def test_held_out_wordings_are_never_trained(kind: DefectKind) -> None:
    if kind.name != "invented-turn":  # its questions are shared, its role marks are held out
        assert not _made(kind, 400) & _made(kind, 400, held_out=True)


@in_training
def test_a_kind_is_asked_about_in_many_wordings(kind: DefectKind) -> None:
    texts = {kind.draw_objective(Random(i)).text for i in range(300)}
    assert len(texts) >= 40
    assert all(kind.is_removed_by(kind.draw_objective(Random(i))) for i in range(50))


@by_name
def test_no_slot_or_choice_is_left_open(kind: DefectKind) -> None:
    for text in _made(kind, examples(200)) | _made(kind, examples(60), held_out=True):
        if kind.name not in {"template-leak", "invented-turn"}:
            assert not set("{}|") & set(text), text
        assert "  " not in text
        assert text == text.strip()
        assert not text[0].islower()


@inside
@given(seed=st.integers())
def test_a_sentence_with_a_defect_inside_stays_one_segment(kind: DefectKind, seed: int) -> None:
    text = kind.rewrite(Random(seed), "The soil is dry by noon.")
    assert "soil" in text.lower()
    assert text != "The soil is dry by noon."
    assert len(split(text)) == 1


def test_a_kind_without_a_grammar_for_it_rewrites_nothing() -> None:
    with pytest.raises(ValueError, match="has no grammar for rewriting"):
        UNSEEN_KINDS[0].rewrite(Random(1), "The soil is dry.")


@for_every([k for k in TRAINING_KINDS if k.maker is None], lambda kind: kind.name)
def test_every_kind_can_be_on_the_topic_in_both_editions(kind: DefectKind) -> None:
    for held_out in (False, True):
        said = [kind.make(Random(i), QUERY, ANSWER, held_out, about=True).lower() for i in range(10)]
        assert all("tomatoes" in text or "balcony" in text or "water" in text for text in said)


@pytest.mark.parametrize(
    ("name", "theme"),
    [
        ("insult", "harmless"),
        ("threat", "harmless"),
        ("group-generalisation", "fair"),
        ("repetition", "non-repetitive"),
        ("padding", "concise"),
        ("sign-off", "concise"),
        ("jargon", "readable"),
        ("conspiracy", "factual"),
        ("hedging", "specific"),
    ],
)
def test_built_in_objectives_ask_for_what_offends_against_them(name: str, theme: str) -> None:
    kind = next(k for k in TRAINING_KINDS if k.name == name)
    assert BUILT_IN[theme] in {kind.draw_objective(Random(i)).text for i in range(60)}


def test_relatives_of_a_kind_leave_it_unclear() -> None:
    mockery = next(k for k in TRAINING_KINDS if k.name == "mockery")
    insult = next(k for k in TRAINING_KINDS if k.name == "insult")
    own = next(o for o in (insult.draw_objective(Random(i)) for i in range(99)) if o.theme == "insult")
    assert mockery.is_unclear_under(own, FAMILY_OF)
    assert not insult.is_unclear_under(own, FAMILY_OF)


def test_wordings_are_not_repeated_in_the_lists() -> None:
    shared = [text for texts in SHARED.values() for text in texts]
    assert len({*CLEAN, *shared, *BUILT_IN.values()}) == len(CLEAN) + len(shared) + len(BUILT_IN)


@given(st.integers())
def test_invented_turns_start_with_the_user_and_use_other_marks_in_the_test(seed: int) -> None:
    trained = write_dialogue(Random(seed), QUERY, ANSWER)
    held_out = write_dialogue(Random(seed), QUERY, ANSWER, held_out=True)
    assert trained.split()[0] != held_out.split()[0]


def test_ready_made_replies_are_used() -> None:
    assert any(
        "Ask the gardener." in write_dialogue(Random(i), QUERY, ANSWER, replies=("Ask the gardener.",))
        for i in range(20)
    )
    assert any("Is it ripe?" in write_dialogue(Random(i), QUERY, ANSWER, questions=("Is it ripe?",)) for i in range(20))


def test_a_repetition_says_what_was_said_before() -> None:
    kind = next(k for k in TRAINING_KINDS if k.name == "repetition")
    assert kind.make(Random(1), QUERY, "") == ""
    for text in _made(kind, 50):
        assert any(words in text for words in ("early in the day", "gets hot", "with a rose"))


def test_choices_nest_and_articles_fit() -> None:
    made = {expand(Random(i), "[a|the] [old [red|blue]|new] {what}", {"what": ["axe"]}) for i in range(60)}
    assert made == {f"{a} {b} axe" for a in ("A", "The") for b in ("old red", "old blue", "new")} - {
        "A old red axe",
        "A old blue axe",
    } | {
        "An old red axe",
        "An old blue axe",
    }


def test_the_article_looks_at_the_sound() -> None:
    assert expand(Random(1), "a user and a idea", {}) == "A user and an idea"


def test_the_size_of_a_grammar_counts_what_it_can_say() -> None:
    assert Grammar(("[a|b] {x} [c|d|e]",), {"x": ("[1|2]", "3")}).count_derivations() == 18


def test_templates_about_the_topic_need_a_topic() -> None:
    grammar = Grammar(("On {topic}.", "On nothing."))
    assert {grammar.make(Random(i)) for i in range(20)} == {"On nothing."}
    assert {grammar.make(Random(i), "tea", True) for i in range(20)} == {"On tea."}
    assert len({grammar.make(Random(i), "tea") for i in range(20)}) == 2


@pytest.mark.parametrize(
    ("text", "lower"),
    [("The tea.", "the tea."), ("I am.", "I am."), ("NASA flies.", "NASA flies."), ("A cup.", "a cup."), ("", "")],
)
def test_a_sentence_can_stand_inside_another(text: str, lower: str) -> None:
    assert uncapitalise(text) == lower
    assert capitalise(lower) == text


def test_the_topic_is_what_query_and_answer_share() -> None:
    assert {topic_of(Random(i), QUERY, ANSWER) for i in range(30)} <= {"tomatoes", "balcony", "water"}
    assert topic_of(Random(1), "Why?", "So.") == ""
    assert topic_of(Random(1), "Why?", "Because of winter.") == "winter"
