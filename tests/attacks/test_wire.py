"""Answers that an edit could tear on the wire: letters cut between events, pairs of marks, calls and data as text."""

from __future__ import annotations

import pytest

from aligner_proxy.types import OnSkip, Status, StreamMode, join_surrogates
from tests.attacks.attack import Attack, rows
from tests.gateway.streaming.test_program_text import FOOL, play, policy
from tests.gateway.streaming.test_released import halve
from tests.support.stream_fixtures import FORMATS
from tests.text.programs import CALLS, DATA

BY_NAME = {form.name: form for form in FORMATS}
LETTERS = f"It opens at nine \U0001f33f\U0001f33f. {FOOL} Bye \U0001f600."
HALVES = rows(
    *(
        (
            f"wire-{name}-half-{size}",
            "upstream",
            f"cuts letters between the events of a {name} stream, every {size} units of UTF-16, beside an insult",
            "the letters come whole, without the insult",
            (name, size),
        )
        for name in BY_NAME
        for size in (1, 3)
    )
)
PAIRS = {
    "bold": (f"**{FOOL} It opens at nine.** Bye.", "**It opens at nine.** Bye."),
    "quoted": (f'"{FOOL} It opens at nine." Bye.', '"It opens at nine." Bye.'),
    "bracketed": (f"It is ({FOOL} It opens at nine.) Bye.", None),
}
MARKS = rows(
    *(
        (
            f"wire-{name}-pair-{kind}",
            "upstream",
            f"puts an insult into one half of a pair of signs, {kind}, in a {name} stream",
            "the pair stays whole",
            (name, kind),
        )
        for name in BY_NAME
        for kind in PAIRS
    )
)
PROGRAMS = {"xml": CALLS["cline"], "react": CALLS["react"], "table": DATA["commas"]}
WRITTEN = rows(
    *(
        (
            f"wire-{name}-{kind}",
            "upstream",
            f"writes a call or data as text with an insult beside or in it ({kind}), in a {name} stream",
            "it goes out as it came, or is blocked, as `on_skip` says",
            (name, kind),
        )
        for name in BY_NAME
        for kind in PROGRAMS
    )
)
MODES = (StreamMode.HOLD, StreamMode.SENTENCE)


@pytest.mark.parametrize("attack", HALVES)
async def test_letters_cut_between_events_come_whole(attack: Attack) -> None:
    name, size = attack.payload
    form = BY_NAME[name]
    for mode in MODES:
        items, _ = await play(form, LETTERS, policy(mode, OnSkip.JUDGE), pieces=halve(LETTERS, size))
        assert join_surrogates(form.read(items)) == LETTERS.replace(f"{FOOL} ", ""), mode


@pytest.mark.parametrize("attack", MARKS)
async def test_pairs_of_signs_stay_whole(attack: Attack) -> None:
    name, kind = attack.payload
    form = BY_NAME[name]
    answer, wanted = PAIRS[kind]
    for mode in MODES:
        items, _ = await play(form, answer, policy(mode, OnSkip.JUDGE))
        text = form.read(items)
        assert text == wanted if wanted else text.count("(") == text.count(")"), (mode, text)


@pytest.mark.parametrize("attack", WRITTEN)
async def test_calls_and_data_written_as_text_are_not_torn(attack: Attack) -> None:
    name, kind = attack.payload
    form = BY_NAME[name]
    program = PROGRAMS[kind]
    answer = program.replace("Brest", FOOL) if kind == "table" else f"{program}\n{FOOL} It goes on."
    for mode in MODES:
        items, ledger = await play(form, answer, policy(mode, OnSkip.PASSTHROUGH))
        assert (form.read(items), ledger.status) == (answer, Status.SKIPPED), mode
