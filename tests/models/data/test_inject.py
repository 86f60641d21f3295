"""How labels, target and answer of a made pair fit together: exactly, in every case."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligner_proxy.text.structure import join, split
from models.data.answers import PoolAnswer
from models.data.inject import (
    INNOCENT,
    Piece,
    choose_objectives,
    doubtful_themes,
    insert_defect,
    insert_innocent,
    make_pair,
    pieces_of,
    rewrite_sentence,
)
from models.defects import FAMILY_OF, TRAINING_KINDS, ObjectiveWording
from models.defects.objectives import BUILT_IN

ANSWER = (
    "# Sharpening\n\nSet the blade on the stone at a low angle. Push it away from you in one slow move.\n\n"
    "- Rinse the stone first.\n- Dry the blade at the end.\n\n```sh\nsharpen --angle 15\n```\n\nThe edge lasts a month."
)
OBJECTIVE = [ObjectiveWording("Kindness: be kind", "polite")]
BY_NAME = {kind.name: kind for kind in TRAINING_KINDS}
INSERTED = [kind.name for kind in TRAINING_KINDS if kind.name != "invented-turn"]
REWRITING = [kind.name for kind in TRAINING_KINDS if kind.inside is not None]


def _damaged(seed: int, name: str) -> list[Piece]:
    rng = Random(seed)
    kind = BY_NAME[name]
    made = insert_defect(
        rng, pieces_of(ANSWER), kind, lambda before: kind.make(rng, "How do I sharpen a blade?", before)
    )
    return made or pieces_of(ANSWER)


@given(st.integers(), st.sampled_from(INSERTED))
def test_taking_the_defect_away_gives_the_answer_back(seed: int, name: str) -> None:
    made = make_pair(_damaged(seed, name), {name}, "q", OBJECTIVE, "s")
    if made is not None:
        assert made.target == ANSWER
        kept = [("" if label else s.text, s.gap) for s, label in zip(split(made.answer), made.labels, strict=True)]
        assert join(kept) == made.target


@given(st.integers(), st.sampled_from(INSERTED))
def test_a_defect_that_nobody_asked_about_stays(seed: int, name: str) -> None:
    made = make_pair(_damaged(seed, name), set(), "q", OBJECTIVE, "s")
    assert made is not None
    assert made.answer == made.target
    assert not any(made.labels)


def test_nearly_every_insertion_gives_a_pair() -> None:
    made = [make_pair(_damaged(i, name), {name}, "q", OBJECTIVE, "s") for i in range(20) for name in INSERTED]
    assert sum(p is not None and any(p.labels) for p in made) > 0.9 * len(made)


@given(st.integers(), st.sampled_from(REWRITING))
def test_a_rewritten_sentence_gets_its_original_back(seed: int, name: str) -> None:
    pieces = rewrite_sentence(Random(seed), pieces_of(ANSWER), BY_NAME[name])
    assert pieces is not None
    made = make_pair(pieces, {name}, "q", OBJECTIVE, "s")
    assert made is not None
    assert made.target == ANSWER != made.answer
    assert sum(made.labels) >= 1


def test_nothing_is_rewritten_where_there_is_no_sentence() -> None:
    assert rewrite_sentence(Random(1), pieces_of("- one\n- two"), BY_NAME["insult"]) is None


def test_an_innocent_sentence_stays_or_goes_by_its_own_name() -> None:
    pieces = insert_innocent(Random(3), pieces_of(ANSWER), "The ferry runs on Sundays as well.")
    assert pieces is not None
    kept = make_pair(pieces, set(), "q", OBJECTIVE, "s")
    gone = make_pair(pieces, {INNOCENT}, "q", OBJECTIVE, "s")
    assert kept is not None
    assert gone is not None
    assert "ferry" in kept.target
    assert gone.target == ANSWER


def test_a_segment_that_both_goes_and_stays_gives_no_pair() -> None:
    pieces = [Piece("Cut it here and", " ", "insult"), Piece("glue it there.", "")]
    assert make_pair(pieces, {"insult"}, "q", OBJECTIVE, "s") is None


def test_an_answer_of_which_nothing_would_be_left_gives_no_pair() -> None:
    assert make_pair([Piece("You twit.", "", "insult")], {"insult"}, "q", OBJECTIVE, "s") is None


@given(
    st.integers(),
    st.lists(
        st.tuples(st.sampled_from(INSERTED), st.booleans()), min_size=1, max_size=3, unique_by=lambda drawn: drawn[0]
    ),
)
def test_objectives_ask_for_what_is_wanted_and_for_nothing_else(seed: int, drawn: list[tuple[str, bool]]) -> None:
    present = [BY_NAME[name] for name, _ in drawn]
    wanted = [BY_NAME[name] for name, asked in drawn if asked]
    chosen = choose_objectives(Random(seed), [kind.name for kind in present], wanted, set())
    if chosen is None:
        return
    assert 1 <= len(chosen) <= 4
    assert all(any(kind.is_removed_by(o) for o in chosen) for kind in wanted)
    for kind in present:
        if kind not in wanted:
            assert not any(kind.is_removed_by(o) or kind.is_unclear_under(o, FAMILY_OF) for o in chosen)


def test_half_of_the_texts_are_built_in_where_there_is_one() -> None:
    kind = BY_NAME["threat"]
    texts = [kind.draw_objective(Random(i)).text for i in range(400)]
    assert 0.4 < sum(text in BUILT_IN.values() for text in texts) / 400 < 0.6


def test_objectives_that_must_be_avoided_are_avoided() -> None:
    for i in range(50):
        chosen = choose_objectives(Random(i), [], [], {"harmless", "concise"}) or []
        assert not {o.theme for o in chosen} & {"harmless", "concise"}


@pytest.mark.parametrize(
    ("text", "theme"),
    [
        ("Great question! It is in the shed.", "flattery"),
        ("It is in the shed. Let me know if it is not.", "sign-off"),
        ("Sure! It is in the shed.", "direct"),
        ("I'm sorry, it is in the shed.", "apology"),
    ],
)
def test_an_answer_that_has_it_by_itself_is_not_asked_about_it(text: str, theme: str) -> None:
    assert theme in doubtful_themes(PoolAnswer("q", text, "s"))


def test_replies_to_attacks_are_not_taken_to_be_harmless() -> None:
    assert "harmless" in doubtful_themes(PoolAnswer("q", "It is in the shed.", "hh", harmless=False))
