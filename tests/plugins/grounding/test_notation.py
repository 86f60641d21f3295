"""A fact of a reference in the notation of the answer."""

from __future__ import annotations

import pytest

from aligner_proxy_grounding.forms.reader import read_facts
from aligner_proxy_grounding.notation import rewrite_fact


def put(text: str, reference: str) -> str | None:
    (new,) = read_facts(reference)
    place = rewrite_fact(read_facts(text)[0], new, text)
    return None if place is None else text[: place[0]] + place[2] + text[place[1] :]


@pytest.mark.parametrize(
    ("text", "reference", "expected"),
    [
        ("until seven in the evening", "8 pm", "until eight in the evening"),
        ("until seven in the evening", "7.30 pm", "until half past seven in the evening"),
        ("until half past six", "18:00", "until six o'clock"),
        ("at 8 o'clock in the morning", "7.45 am", "at quarter to 8 in the morning"),
        ("within thirty days", "within 14 days", "within fourteen days"),
        ("within 30 days", "within fourteen days", "within 14 days"),
        ("a 30-day trial", "after 8 days", "an 8-day trial"),
        ("for 2 weeks", "for 1 week", "for 1 week"),
        ("for two weeks", "for 21 days", "for three weeks"),
        ("for two weeks", "for 30 days", "for thirty days"),
        ("two months' notice", "a month", "one month's notice"),
        ("one month's notice", "3 months", "three months' notice"),
        ("in 10 working days", "in 5 working days", "in 5 working days"),
        ("costs €5.00 now", "€3.50", "costs €3.50 now"),
        ("costs 5 euros", "€3.50", "costs 3.50 euros"),
        ("costs 30 cents", "€0.25", "costs 25 cents"),
        ("costs one euro", "€2", "costs two euros"),
        ("costs €1,200", "€12500", "costs €12,500"),
        ("gets 15 percent off", "10%", "gets 10 percent off"),
        ("until 7 pm", "20:00", "until 8 pm"),
        ("until 7 p.m. only", "20:30", "until 8:30 p.m. only"),
        ("until 16:00", "1 pm", "until 13:00"),
        ("until 15 January", "31 January", "until 31 January"),
        ("by March 3rd", "12 April", "by April 12th"),
        ("earns $65k a year", "$58,000", "earns $58k a year"),
        ("costs £3k", "£2,500", "costs £2.5k"),
        ("pays $10,000", "$12k", "pays $12,000"),
        ("made $1.4 million", "$950,000", "made $0.95 million"),
        ("holds 150 ml", "0.1 litres", "holds 100 ml"),
        ("weighs 10 kg", "8,500 g", "weighs 8.5 kg"),
        ("weighs 1 t", "23 kg", "weighs 23 kg"),
        ("on June 19", "12 July", "on July 12"),
        ("by 30 June 2027", "31 March 2027", "by 31 March 2027"),
        ("by 2 Sept", "12 June", "by 12 Jun"),
        ("on 15/09/2026", "30 September 2026", "on 30/09/2026"),
        ("on 11/24/2026", "November 3, 2026", "on 11/03/2026"),
        ("on 2026-12-08", "December 1st, 2026", "on 2026-12-01"),
        ("on 5.10.2026", "2026-11-03", "on 3.11.2026"),
        ("on 3/4/2026", "5/4/2026", "on 5/4/2026"),
        ("on Mondays", "Thursday", "on Thursdays"),
        ("at help@a.example", "care@a.example", "at care@a.example"),
        ("in room 12", "room 21", "in room 21"),
        ("seit drei Jahren", "zwei Jahre", "seit zwei Jahren"),
        ("in vierzehn Tagen", "zehn Tage", "in zehn Tagen"),
        ("in 14 Tagen", "3 Wochen", "in 3 Wochen"),
        ("la garantie de trois ans", "2 ans", "la garantie de deux ans"),
        ("gilt ein Jahr", "zwei Jahre", "gilt zwei Jahre"),
        ("dure un an", "deux ans", "dure deux ans"),
        ("bis 20 Uhr", "18:30 Uhr", "bis 18:30 Uhr"),
        ("jusqu'à 19h30", "18:00", "jusqu'à 18h"),
        ("am 3. Oktober", "5. März", "am 5. März"),
        ("le 14 juillet", "6 août", "le 6 août"),
        ("fermé le lundi", "mardi", "fermé le mardi"),
        ("at 12 noon", "1 pm", "at 1 pm"),
        ("on the second floor", "floor 4", "on the fourth floor"),
        ("on floor 2", "the 4th floor", "on floor 4"),
        ("needs iOS 15", "iOS 16", "needs iOS 16"),
        ("in a week and a half", "2 weeks", "in 2 weeks"),
        ("from 9 people on", "more than 12 people", "from 13 people on"),
        ("more than 9 people", "at least 12 people", "more than 11 people"),
        ("more than 9 people", "more than 12 people", "more than 12 people"),
        ("runs over eight evenings", "10 evenings", "runs over ten evenings"),
        ("from 3 to 5 May", "4 May", "from 4 to 5 May"),
        ("le 1er mai", "6 mai", "le 6 mai"),
        ("le 5 mai", "6 juin", "le 6 juin"),
        ("am 5. Mai", "6. Juni", "am 6. Juni"),
        ("am 1. jedes Monats", "am 5. jedes Monats", "am 5. jedes Monats"),
        ("within ten calendar days", "10 working days", "within ten working days"),
    ],
)
def test_the_notation_of_the_answer_stays(text: str, reference: str, expected: str) -> None:
    assert put(text, reference) == expected


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("one item only", "20 items"),
        ("costs 80 cents", "€12"),
        ("on 3/4/2026", "5 April 2026"),
        ("$2 million", "$4,512"),
        ("seit einem Jahr", "zwei Jahre"),
        ("gilt ein Jahr", "seit zwei Jahren"),
        ("from 3 to 5 May", "4 June"),
    ],
)
def test_nothing_is_written_where_no_notation_is_safe(text: str, reference: str) -> None:
    assert put(text, reference) is None
