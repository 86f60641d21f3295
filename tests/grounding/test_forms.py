"""Facts by their form, and which of them agree."""

from __future__ import annotations

from decimal import Decimal

import pytest

from aligner_proxy.grounding.facts import Fact, Kind, Side
from aligner_proxy.grounding.forms import read
from aligner_proxy.grounding.notation import rewritten

Read = tuple[Kind, str, str]


def facts(text: str) -> list[Read]:
    return [(fact.kind, fact.text, str(fact.value)) for fact in read(text)]


def only(text: str) -> Fact:
    (fact,) = read(text)
    return fact


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It costs €4.90.", [(Kind.MONEY, "€4.90", "4.90")]),
        ("It costs 12 euros.", [(Kind.MONEY, "12 euros", "12")]),
        ("It costs EUR 1,200.", [(Kind.MONEY, "EUR 1,200", "1200")]),
        ("It costs thirty cents.", [(Kind.MONEY, "thirty cents", "0.30")]),
        ("You get 12.5 % off.", [(Kind.PERCENT, "12.5 %", "12.5")]),
        ("Send it within thirty days.", [(Kind.DURATION, "thirty days", "30")]),
        ("There is a 14-day trial.", [(Kind.DURATION, "14-day", "14")]),
        ("It takes a week.", [(Kind.DURATION, "a week", "1")]),
        ("We close at seven in the evening.", [(Kind.TIME, "seven in the evening", "1140")]),
        ("Come at half past two in the afternoon.", [(Kind.TIME, "half past two in the afternoon", "870")]),
        ("Take two in the morning.", [(Kind.COUNT, "two", "2")]),
        ("Drivers have to be 25, please.", [(Kind.AGE, "25", "25")]),
        ("We are in room 3.12 today.", [(Kind.LABEL, "3.12", "3.12")]),
        ("Bags of up to 23 kg are free.", [(Kind.AMOUNT, "23 kg", "23")]),
        (
            "Bags of 55 x 40 x 20 cm fit.",
            [(Kind.SIZE, "55 x 40 x 20 cm", "(Decimal('55'), Decimal('40'), Decimal('20'))")],
        ),
        ("You may borrow 20 items.", [(Kind.COUNT, "20", "20")]),
        ("We open at half past nine.", [(Kind.TIME, "half past nine", "570")]),
        ("We close at 5:30 p.m. sharp.", [(Kind.TIME, "5:30 p.m.", "1050")]),
        ("Apply by 15 March 2027.", [(Kind.DATE, "15 March 2027", "(2027, 3, 15)")]),
        ("Apply by March 15th.", [(Kind.DATE, "March 15th", "(None, 3, 15)")]),
        ("Ring +353 20 915 0140.", [(Kind.PHONE, "+353 20 915 0140", "353209150140")]),
        ("Write to help@a-b.example.", [(Kind.MAIL, "help@a-b.example", "help@a-b.example")]),
        ("See www.a-b.example/returns.", [(Kind.WEB, "www.a-b.example/returns", "a-b.example/returns")]),
        ("It is in room 21.", [(Kind.LABEL, "21", "21")]),
        ("It is at 12 Mill Road today.", [(Kind.ADDRESS, "12 Mill Road", "12 mill road")]),
        ("We are closed on Mondays.", [(Kind.WEEKDAY, "Mondays", "monday")]),
    ],
)
def test_a_fact_is_read_by_its_form(text: str, expected: list[Read]) -> None:
    assert facts(text) == expected


@pytest.mark.parametrize("text", ["Order 4471902 is yours.", "You may go.", "The sun sat low.", "It is one of ours."])
def test_what_has_no_form_is_no_fact(text: str) -> None:
    assert read(text) == []


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("It takes 3 to 5 working days.", "3", "5 working days"),
        ("We are open 9 am\u20135.30 pm.", "9 am", "5.30 pm"),
        ("It costs between £10 and £20.", "£10", "£20"),
        ("Open Mon\u2013Fri.", "Mon", "Fri"),
    ],
)
def test_a_range_has_two_ends(text: str, low: str, high: str) -> None:
    first, second = read(text)
    assert (first.text, first.side, second.text, second.side) == (low, Side.LOW, high, Side.HIGH)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("within 14 days", "within two weeks"),
        ("within a month", "within 30 days"),
        ("for one year", "for 12 months"),
        ("a fee of 30 cents", "a fee of €0.30"),
        ("until 5 pm", "until 17:00"),
        ("until half past five", "until 17:30"),
        ("on 3 May", "on 3 May 2027"),
        ("after 5 working days", "after a week"),
        ("about 19 days", "after 20 days"),
    ],
)
def test_two_notations_of_one_value_agree(one: str, other: str) -> None:
    assert only(one).same_form(only(other))
    assert only(one).agrees(only(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [("within 14 days", "within three weeks"), ("until 5 pm", "until 6 pm"), ("€5", "€5.50"), ("on 3 May", "on 4 May")],
)
def test_two_values_do_not_agree(one: str, other: str) -> None:
    assert not only(one).agrees(only(other))


def test_pounds_are_a_weight_where_there_is_no_sterling() -> None:
    (fact,) = read("up to 17 pounds", pounds_weigh=True)
    assert (fact.kind, fact.unit) == (Kind.AMOUNT, "lbs")


def test_a_very_long_sentence_is_not_read() -> None:
    assert read("It costs €5 " * 300) == []


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("Drivers must be at least 21 and have a licence.", Kind.AGE, 21),
        ("Under-26s pay less.", Kind.AGE, 26),
        ("It is free from the age of 6.", Kind.AGE, 6),
        ("Children under 2 travel on a lap.", Kind.AGE, 2),
        ("It lasts half an hour.", Kind.DURATION, 30),
        ("An hour and a half is enough.", Kind.DURATION, 90),
        ("It takes an hour and a quarter.", Kind.DURATION, 75),
        ("You pay half of the fee.", Kind.PERCENT, 50),
        ("We begin at quarter past eight.", Kind.TIME, 495),
    ],
)
def test_ages_and_fractions_are_read(text: str, kind: Kind, value: int) -> None:
    assert [(fact.kind, fact.value) for fact in read(text)] == [(kind, Decimal(value))]


@pytest.mark.parametrize("text", ["The four-year-old sleeps here.", "We insure £5 million."])
def test_persons_and_millions_are_no_ages_and_no_amounts(text: str) -> None:
    assert not [fact for fact in read(text) if fact.kind in (Kind.AGE, Kind.MONEY)]


def test_a_day_of_the_month_is_read_and_written() -> None:
    (old,), (new,) = read("Bills come on the 10th."), read("Due on the 3rd of each month.")
    assert rewritten(old, new, "Bills come on the 10th.") == (18, 22, "3rd")


def test_a_local_telephone_number_is_read_whole() -> None:
    (fact,) = read("Call 555-0142 in an emergency.")
    assert (fact.kind, fact.value, fact.text) == (Kind.PHONE, "5550142", "555-0142")
