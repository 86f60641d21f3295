"""Of sentences that begin with a small letter only the faulty one goes, whole and in streams."""

from __future__ import annotations

import pytest

from tests.support.pruning import correct_in_all_ways

CASES: list[tuple[str, str]] = [
    ("it is fine. you are a fool. call us.", "it is fine. call us."),
    ("yes, we open at nine. you are a fool. see you then.", "yes, we open at nine. see you then."),
    ("sure, that works. only a fool would ask. bring your card.", "sure, that works. bring your card."),
    ("you are a fool. the shop opens at nine.", "the shop opens at nine."),
    ("the shop opens at nine. you are a fool.", "the shop opens at nine."),
    (
        "i checked the order. it left today. you are a fool. it arrives on monday.",
        "i checked the order. it left today. it arrives on monday.",
    ),
    ("try a new cable! you are a fool. then call us.", "try a new cable! then call us."),
    ("did you restart it? you are a fool. restart it now.", "did you restart it? restart it now."),
    ("it costs 5.50 a month. you are a fool. pay by card.", "it costs 5.50 a month. pay by card."),
    ("Open the app. tap the gear. you are a fool. choose a plan.", "Open the app. tap the gear. choose a plan."),
    ("your parcel is in leeds. what a fool you are. it comes tomorrow.", "your parcel is in leeds. it comes tomorrow."),
    ("ok so the build is red. you absolute fool. fix the import.", "ok so the build is red. fix the import."),
    ("we close at six. you fool! come back tomorrow.", "we close at six. come back tomorrow."),
    ("das passt so. du bist a fool. ruf uns an.", "das passt so. ruf uns an."),
    ("c'est bon pour demain. tu es a fool. appelle-nous ce soir.", "c'est bon pour demain. appelle-nous ce soir."),
]


@pytest.mark.parametrize(("answer", "left"), CASES)
async def test_only_the_faulty_sentence_goes_where_all_begin_with_small_letters(answer: str, left: str) -> None:
    assert set((await correct_in_all_ways(answer)).values()) == {left}
