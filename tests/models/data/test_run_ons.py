"""Where a real answer runs on: the reply stays, every invented turn goes, under objectives by their built-in texts."""

from __future__ import annotations

import pytest

from models.data.answers import RunOnAnswer
from models.data.labels import relation
from models.data.pairs import CHANGES, STAYS
from models.data.run_ons import make_run_on_pair, split_run_on
from models.defects.objectives import BUILT_IN

REPLY = "Rub the board with oil. Let it dry overnight."
TURNS = "Human: And the lid?\n\nAssistant: Oil that as well. Then wait."
RUN = RunOnAnswer("How do I care for a wooden board?", f"{REPLY}\n\n{TURNS}", len(REPLY))


def test_the_reply_is_known_and_only_the_turns_carry_their_kind() -> None:
    answer, pieces = split_run_on(RUN)
    assert answer.text == REPLY
    assert "".join(p.text + p.gap for p in pieces).rstrip() == RUN.text
    assert "".join(p.text + p.gap for p in pieces if not p.kind).rstrip() == REPLY
    assert {p.kind for p in pieces} == {"", "invented-turn"}


@pytest.mark.parametrize("names", [("helpful",), ("harmless", "helpful")])
def test_only_the_reply_is_left_under_what_most_operators_ask_for(names: tuple[str, ...]) -> None:
    made = make_run_on_pair(RUN, names)
    assert made is not None
    assert made.target == REPLY
    assert made.objectives == tuple(BUILT_IN[name] for name in names)
    assert made.themes == names
    assert made.labels[:2] == (STAYS, STAYS)
    assert set(made.labels[2:]) == {CHANGES}


def test_helpful_asks_for_it_and_harmless_does_not() -> None:
    assert relation("invented-turn", "helpful") == CHANGES
    assert relation("invented-turn", "harmless") == STAYS
