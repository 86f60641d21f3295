"""Facts by their form, and which of them agree."""

from __future__ import annotations

from decimal import Decimal

import pytest

from aligner_proxy_grounding.facts import Fact, FactKind, RangeEnd, Value
from aligner_proxy_grounding.forms.reader import read_facts
from aligner_proxy_grounding.forms.reading import Conventions
from aligner_proxy_grounding.notation import rewrite_fact
from aligner_proxy_grounding.page import read_page

Read = tuple[FactKind, str, str]


def facts(text: str) -> list[Read]:
    return [(fact.kind, fact.text, str(fact.value)) for fact in read_facts(text)]


def only(text: str) -> Fact:
    (fact,) = read_facts(text)
    return fact


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It costs €4.90.", [(FactKind.MONEY, "€4.90", "4.90")]),
        ("It costs 12 euros.", [(FactKind.MONEY, "12 euros", "12")]),
        ("It costs EUR 1,200.", [(FactKind.MONEY, "EUR 1,200", "1200")]),
        ("It costs thirty cents.", [(FactKind.MONEY, "thirty cents", "0.30")]),
        ("It costs twelve euros and fifty cents.", [(FactKind.MONEY, "twelve euros and fifty cents", "12.5")]),
        ("It costs 3 pounds 20p.", [(FactKind.MONEY, "3 pounds 20p", "3.2")]),
        (
            "It costs 2 euros and 50 cents a page.",
            [(FactKind.MONEY, "2 euros", "2"), (FactKind.MONEY, "50 cents", "0.50")],
        ),
        ("You get 12.5 % off.", [(FactKind.PERCENT, "12.5 %", "12.5")]),
        ("Send it within thirty days.", [(FactKind.DURATION, "thirty days", "30")]),
        ("There is a 14-day trial.", [(FactKind.DURATION, "14-day", "14")]),
        ("It takes a week.", [(FactKind.DURATION, "a week", "1")]),
        ("Let us know a month in advance.", [(FactKind.DURATION, "a month", "1")]),
        ("It costs £5 a week in advance.", [(FactKind.MONEY, "£5", "5")]),
        ("Give us a month's notice.", [(FactKind.DURATION, "a month", "1")]),
        ("We close at seven in the evening.", [(FactKind.TIME, "seven in the evening", "1140")]),
        ("Come at half past two in the afternoon.", [(FactKind.TIME, "half past two in the afternoon", "870")]),
        ("Take two in the morning.", [(FactKind.COUNT, "two", "2")]),
        ("Drivers have to be 25, please.", [(FactKind.AGE, "25", "25")]),
        ("We are in room 3.12 today.", [(FactKind.LABEL, "3.12", "3.12")]),
        ("Bags of up to 23 kg are free.", [(FactKind.AMOUNT, "23 kg", "23000")]),
        (
            "Bags of 55 x 40 x 20 cm fit.",
            [(FactKind.SIZE, "55 x 40 x 20 cm", "(Decimal('55'), Decimal('40'), Decimal('20'))")],
        ),
        ("You may borrow 20 items.", [(FactKind.COUNT, "20", "20")]),
        ("We open at half past nine.", [(FactKind.TIME, "half past nine", "570")]),
        ("We close at 5:30 p.m. sharp.", [(FactKind.TIME, "5:30 p.m.", "1050")]),
        ("Apply by 15 March 2027.", [(FactKind.DATE, "15 March 2027", "(2027, 3, 15)")]),
        ("Apply by March 15th.", [(FactKind.DATE, "March 15th", "(None, 3, 15)")]),
        ("Ring +353 20 915 0140.", [(FactKind.PHONE, "+353 20 915 0140", "353209150140")]),
        ("Write to help@a-b.example.", [(FactKind.MAIL, "help@a-b.example", "help@a-b.example")]),
        ("See www.a-b.example/returns.", [(FactKind.WEB, "www.a-b.example/returns", "a-b.example/returns")]),
        ("It is in room 21.", [(FactKind.LABEL, "21", "21")]),
        ("It is at 12 Mill Road today.", [(FactKind.ADDRESS, "12 Mill Road", "12 mill road")]),
        ("We are closed on Mondays.", [(FactKind.WEEKDAY, "Mondays", "monday")]),
    ],
)
def test_a_fact_is_read_by_its_form(text: str, expected: list[Read]) -> None:
    assert facts(text) == expected


@pytest.mark.parametrize("text", ["Order 4471902 is yours.", "You may go.", "The sun sat low.", "It is one of ours."])
def test_what_has_no_form_is_no_fact(text: str) -> None:
    assert read_facts(text) == []


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
    first, second = read_facts(text)
    assert (first.text, first.side, second.text, second.side) == (low, RangeEnd.LOW, high, RangeEnd.HIGH)


def test_the_high_end_of_a_range_begins_no_other() -> None:
    low, high, other = read_facts("It rose from £10 to £20 to £30.")
    assert (low.side, high.side, other.ranged) == (RangeEnd.LOW, RangeEnd.HIGH, False)


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
        ("a minute and a half", "90 seconds"),
        ("two and a half days", "60 hours"),
        ("three hours and a half", "210 minutes"),
        ("one and a half hours", "90 minutes"),
        ("after 10 working days", "after 14 calendar days"),
        ("after 10 calendar days", "after 10 days"),
        ("from nine people on", "for more than 8 people"),
        ("grupos de nueve personas o más", "para más de 8 personas"),
        ("at most 11 people", "fewer than 12 people"),
    ],
)
def test_two_notations_of_one_value_agree(one: str, other: str) -> None:
    assert only(one).same_form(only(other))
    assert only(one).agrees(only(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("within 14 days", "within three weeks"),
        ("until 5 pm", "until 6 pm"),
        ("€5", "€5.50"),
        ("on 3 May", "on 4 May"),
        ("ten calendar days", "10 working days"),
        ("zehn Werktage", "10 Kalendertage"),
        ("from nine people on", "for no more than 8 people"),
        ("from seven people on", "for more than 8 people"),
    ],
)
def test_two_values_do_not_agree(one: str, other: str) -> None:
    assert not only(one).agrees(only(other))


def test_pounds_are_a_weight_where_there_is_no_sterling() -> None:
    (fact,) = read_facts("up to 17 pounds", Conventions(pounds_weigh=True))
    assert (fact.kind, fact.unit) == (FactKind.AMOUNT, "lbs")


def test_a_very_long_sentence_is_not_read() -> None:
    assert read_facts("It costs €5 " * 300) == []


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("Drivers must be at least 21 and have a licence.", FactKind.AGE, 21),
        ("Under-26s pay less.", FactKind.AGE, 26),
        ("It is free from the age of 6.", FactKind.AGE, 6),
        ("Children under 2 travel on a lap.", FactKind.AGE, 2),
        ("It lasts half an hour.", FactKind.DURATION, 30),
        ("An hour and a half is enough.", FactKind.DURATION, 90),
        ("It takes an hour and a quarter.", FactKind.DURATION, 75),
        ("You pay half of the fee.", FactKind.PERCENT, 50),
        ("We begin at quarter past eight.", FactKind.TIME, 495),
    ],
)
def test_ages_and_fractions_are_read(text: str, kind: FactKind, value: int) -> None:
    assert [(fact.kind, fact.value) for fact in read_facts(text)] == [(kind, Decimal(value))]


def test_the_age_of_a_person_is_no_age_limit() -> None:
    assert not [fact for fact in read_facts("The four-year-old sleeps here.") if fact.kind is FactKind.AGE]


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("We insure £5 million.", FactKind.MONEY, 5_000_000),
        ("The prize is £2.5k.", FactKind.MONEY, 2_500),
        ("It earns 4.1 billion euros.", FactKind.MONEY, 4_100_000_000),
        ("Das sind 2 Mio. Euro.", FactKind.MONEY, 2_000_000),
        ("Son 3 millones de euros.", FactKind.MONEY, 3_000_000),
        ("We have 1.2 million users.", FactKind.COUNT, 1_200_000),
        ("A rope of 5 m.", FactKind.AMOUNT, 5),
        ("Bottles of 100 ml.", FactKind.AMOUNT, Decimal("0.1")),
        ("A lounge of 120 square metres.", FactKind.AMOUNT, 120),
        ("Mitglieder zahlen 20 Prozent.", FactKind.PERCENT, 20),
    ],
)
def test_magnitudes_and_units_are_part_of_the_value(text: str, kind: FactKind, value: Decimal) -> None:
    assert [(fact.kind, fact.value) for fact in read_facts(text)] == [(kind, Decimal(value))]


def test_what_is_counted_may_stand_apart_from_its_number() -> None:
    assert only("Groups of 8 or more get a discount.").unit.split()[0] == only("A tour for 8 groups.").unit
    assert only("Choose 12 or more characters.").unit == only("Choose 12 characters.").unit


def test_a_day_of_the_month_is_read_and_written() -> None:
    (old,), (new,) = read_facts("Bills come on the 10th."), read_facts("Due on the 3rd of each month.")
    assert rewrite_fact(old, new, "Bills come on the 10th.") == (18, 22, "3rd")


def test_a_local_telephone_number_is_read_whole() -> None:
    (fact,) = read_facts("Call 555-0142 in an emergency.")
    assert (fact.kind, fact.value, fact.text) == (FactKind.PHONE, "5550142", "555-0142")


def test_a_date_with_slashes_is_no_telephone_number() -> None:
    assert facts("Apply by 30/09/2026, or 01/05/2026.") == [
        (FactKind.DATE, "30/09/2026", "(2026, 9, 30)"),
        (FactKind.DATE, "01/05/2026", "(2026, 5, 1)"),
    ]
    assert facts("It costs 12 000 000 yen.") == [(FactKind.MONEY, "12 000 000 yen", "12000000")]


def test_the_order_of_day_and_month_is_that_of_the_page() -> None:
    (march,) = read_facts("until 3/4/2026", Conventions(month_first=True))
    (april,) = read_facts("until 3/4/2026", Conventions(month_first=False))
    (either,) = read_facts("until 3/4/2026")
    assert (march.value, april.value) == ((2026, 3, 4), (2026, 4, 3))
    assert either.agrees(march)
    assert either.agrees(april)
    assert not march.agrees(april)
    assert read_page("A.md", "Due 11/17/2026.\n\nPaid 3/4/2026.").statements[1].fact.value == march.value
    assert read_page("A.md", "Due 17/11/2026.\n\nPaid 3/4/2026.").statements[1].fact.value == april.value


def test_a_telephone_number_agrees_whatever_its_notation() -> None:
    one = only("Ring 030 / 90 18 20 25.")
    assert one.text == "030 / 90 18 20 25"
    assert one.agrees(only("Ring +49 30 901820-25."))
    assert not one.agrees(only("Ring +49 30 901820-52."))
    assert only("Ring (415) 555-0132.").agrees(only("Ring +1 415 555 0132."))
    assert only("Ring 415.555.0132.").agrees(only("Ring 415-555-0132."))


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("It is on the fourth floor.", "Take the lift to floor 4."),
        ("Paper is collected every second Thursday.", "Every 2nd Thursday we collect paper."),
        ("Heating is serviced in the 40th week.", "It is serviced in week 40."),
        ("It listens on port 8480.", "The port is 8480 by default."),
        ("You need Python 3.11.", "It runs on Python version 3.11 or later."),
        ("The current release is 4.2.1.", "We are at version 4.2."),
        ("Firmware: 2.14", "Your firmware must be at least 2.14."),
    ],
)
def test_labels_and_versions_agree_whatever_their_notation(text: str, other: str) -> None:
    one, two = read_facts(text)[0], read_facts(other)[0]
    assert one.kind in (FactKind.LABEL, FactKind.VERSION)
    assert one.same_form(two)
    assert one.agrees(two)


@pytest.mark.parametrize("text", ["Come in the last week.", "It takes version control.", "Sie kommt am 5.10.2026."])
def test_what_is_no_label_and_no_version(text: str) -> None:
    assert not [fact for fact in read_facts(text) if fact.kind in (FactKind.LABEL, FactKind.VERSION)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Die Garantie beträgt zwei Jahre.", [(FactKind.DURATION, "2")]),
        ("Das dauert zehn bis vierzehn Werktage.", [(FactKind.DURATION, "10"), (FactKind.DURATION, "14")]),
        ("Les retours sont acceptés sous quinze jours ouvrés.", [(FactKind.DURATION, "15")]),
        ("La garantía es de tres años.", [(FactKind.DURATION, "3")]),
        ("Once a month you pay.", []),
        ("Vale un año y medio.", []),
        ("La garantie dure un an et demi.", []),
        ("Une remise de quinze pour cent.", [(FactKind.PERCENT, "15")]),
        ("El depósito es de cien euros.", [(FactKind.MONEY, "100")]),
        ("Abgabe am 3. Oktober 2026.", [(FactKind.DATE, "(2026, 10, 3)")]),
        ("Cerramos el 6 de enero de 2027.", [(FactKind.DATE, "(2027, 1, 6)")]),
        ("Montags zu.", [(FactKind.WEEKDAY, "monday")]),
        ("Von 8 bis 18 Uhr.", [(FactKind.TIME, "480"), (FactKind.TIME, "1080")]),
        ("Ouvert de 9 h à 18h30.", [(FactKind.TIME, "540"), (FactKind.TIME, "1110")]),
        ("It lasts 9 h.", [(FactKind.DURATION, "9")]),
        ("Das geht in zwölf Raten.", [(FactKind.COUNT, "12")]),
        ("Zwei kleine Hunde sind frei.", [(FactKind.COUNT, "2")]),
        ("Deux enfants entrent avec vous.", [(FactKind.COUNT, "2")]),
        ("Elf on the shelf, and the dos and don'ts.", []),
        ("Zwei der drei sind frei.", []),
        ("Sie wird von Frau Petra Neumann geleitet.", [(FactKind.NAME, "petra neumann")]),
        ("We are open 9 to 5.", [(FactKind.TIME, "540"), (FactKind.TIME, "1020")]),
        ("We are open 5 to 7 days a week.", [(FactKind.DURATION, "5"), (FactKind.DURATION, "7")]),
        ("The break is from 12 noon to 1 pm.", [(FactKind.TIME, "720"), (FactKind.TIME, "780")]),
    ],
)
def test_facts_in_other_languages_and_hours_are_read(text: str, expected: list[tuple[FactKind, str]]) -> None:
    assert [(fact.kind, str(fact.value)) for fact in read_facts(text)] == expected


def test_a_number_at_the_end_of_a_sentence_is_no_date() -> None:
    assert not [fact for fact in read_facts("It needs an average of 3.7.") if fact.kind is FactKind.DATE]
    assert [fact.kind for fact in read_facts("Abgabe bis 3.7.")] == [FactKind.DATE]


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("Open from 3 to 5 May.", (None, 5, 3), (None, 5, 5)),
        ("Open 3-5 May 2026.", (2026, 5, 3), (2026, 5, 5)),
        ("Open between the 10th and 31st of December.", (None, 12, 10), (None, 12, 31)),
        ("Zwischen dem 10. und dem 31. Dezember.", (None, 12, 10), (None, 12, 31)),
        ("Vom 20.–24.12.2026.", (2026, 12, 20), (2026, 12, 24)),
        ("Du 3 au 5 mai.", (None, 5, 3), (None, 5, 5)),
        ("Entre el 3 y el 5 de mayo.", (None, 5, 3), (None, 5, 5)),
        ("December 10–31 is busy.", (None, 12, 10), (None, 12, 31)),
        ("May 3 to 5, 2026", (2026, 5, 3), (2026, 5, 5)),
    ],
)
def test_two_days_of_one_month_are_two_dates(text: str, low: Value, high: Value) -> None:
    facts_read = read_facts(text)
    assert [(fact.kind, fact.value, fact.side) for fact in facts_read] == [
        (FactKind.DATE, low, RangeEnd.LOW),
        (FactKind.DATE, high, RangeEnd.HIGH),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("on the 3rd and 5th of May", [(None, 5, 3), (None, 5, 5)]),
        ("am 20. und 21. Mai", [(None, 5, 20), (None, 5, 21)]),
        ("rooms 3 and 5 May", [(None, 5, 5)]),
        ("Zone 1 bis 5. Mai", [(None, 5, 5)]),
        ("May 3 to 5 pm", [(None, 5, 3)]),
        ("May 3 and 20 people", [(None, 5, 3)]),
        ("Children aged 3 to 5 may travel free.", []),
        ("Groups of 6 may book.", []),
        ("by 5 may", [(None, 5, 5)]),
        ("am 5. jedes Monats", [(None, None, 5)]),
        ("zum 1. des Monats", [(None, None, 1)]),
        ("le 5 de chaque mois", [(None, None, 5)]),
        ("el día 5 de cada mes", [(None, None, 5)]),
    ],
)
def test_days_beside_other_numbers_are_read_with_their_own_month(text: str, expected: list[Value]) -> None:
    assert [fact.value for fact in read_facts(text) if fact.kind is FactKind.DATE] == expected


def test_a_bare_number_is_a_score_behind_the_word_for_it() -> None:
    score, stated = read_facts("An overall score of 7.0."), read_facts("Law 7.5 overall.")
    assert score[0].same_form(stated[0])
