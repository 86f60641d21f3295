"""Answers held to their references: what is replaced, and what is left alone."""

from __future__ import annotations

import pytest

from aligner_proxy.text.structure import split
from aligner_proxy_grounding.evidence import FactSubject, StatementScorer
from aligner_proxy_grounding.facts import Fact, FactKind
from aligner_proxy_grounding.matching import MAX_RANKED, Matcher, SharingStatements
from aligner_proxy_grounding.page import MAX_CHARS, read_page
from aligner_proxy_grounding.sentences import REPLACE_FACTS_FROM, Arbiter, Grounder, apply_fact_edits

PAGE = """# Rules

## Returns

- Online orders can be returned within 28 days of delivery.
- Orders from a shop can be returned within 14 days of purchase.
- Posting a return costs £2.95.

## Opening hours

| | Weekdays | Saturday |
|---|---|---|
| Warehouse | 08:00\u201317:00 | 09:00\u201313:00 |
| Office | 09:00\u201316:00 | closed |

Complaints go to care@shop.example. Repairs of kettles
take 15 working days.
"""


def held(
    answer: str, question: str = "", text: str = PAGE, *, stream: bool = False, replace_from: float = REPLACE_FACTS_FROM
) -> tuple[str, list[str]]:
    grounder = Grounder.for_question(Matcher([read_page("PAGE.md", text)]), question, replace_from=replace_from)
    edits, _ = grounder.check_segments(split(answer)) if stream else grounder.check_answer(answer)
    return apply_fact_edits(answer, edits), [edit.source for edit in edits]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("answer", "question", "expected", "source"),
    [
        ("Online orders can go back within thirty days of delivery.", "", "twenty-eight days", "PAGE.md:5"),
        ("Posting a return costs GBP 3.50.", "", "GBP 2.95", "PAGE.md:7"),
        ("On Saturday the warehouse is open until 3 pm.", "When does the warehouse close?", "1 pm", "PAGE.md:13"),
        ("Please send complaints to help@shop.example.", "", "care@shop.example", "PAGE.md:16"),
        ("The repair of a kettle takes 10 working days.", "", "15 working days", "PAGE.md:17"),
    ],
)
def test_a_fact_that_the_page_gives_otherwise_is_replaced(
    answer: str, question: str, expected: str, source: str, stream: bool
) -> None:
    text, sources = held(answer, question, stream=stream)
    assert expected in text
    assert sources == [source]


@pytest.mark.parametrize(
    ("answer", "question"),
    [
        ("Online orders can go back within four weeks of delivery.", ""),
        ("You can return an order from a shop within two weeks of purchase.", ""),
        ("Your return of 9 days ago has arrived.", ""),
        ("You asked about 40 days for returns of online orders after delivery.", "Do I have 40 days?"),
        ("Returns used to take 30 days after delivery, now online orders have 28 days.", ""),
        ('The letter says "online orders can be returned within 30 days of delivery", I see.', ""),
        ("Express delivery to Norway takes 9 days.", ""),
        ("Gift wrapping costs £2.", ""),
        ("Two returns at £2.95 each, that makes £5.90 in total.", ""),
        ("```\nreturn within 30 days of delivery\n```", ""),
    ],
)
def test_what_agrees_or_is_not_known_stays(answer: str, question: str) -> None:
    assert held(answer, question) == (answer, [])


def test_two_candidates_settle_nothing() -> None:
    grounder = Grounder.for_question(Matcher([read_page("PAGE.md", PAGE)]), "")
    edits, unsettled = grounder.check_answer("Orders can be returned within 20 days.")
    assert (edits, [part.source for part in unsettled]) == ([], ["PAGE.md:6"])


def test_a_page_that_is_too_long_says_nothing() -> None:
    assert read_page("LONG.md", PAGE + " " * MAX_CHARS).statements == ()


def test_every_edit_lies_in_the_answer() -> None:
    answer = "Hello!\n\n- Posting a return costs **£3.50**.\n- Online orders: 30 days after delivery to return.\n"
    grounder = Grounder.for_question(Matcher([read_page("PAGE.md", PAGE)]), "")
    edits, _ = grounder.check_answer(answer)
    assert [answer[edit.start : edit.end] for edit in edits] == ["3.50", "30 days"]
    assert apply_fact_edits(answer, edits) == answer.replace("3.50", "2.95").replace("30 days", "28 days")


@pytest.mark.parametrize(
    "answer",
    [
        "Posting a return does not cost £4 but £2.95.",
        "Posting a return costs £2.95 each. For 3 of them we take £8.85 for posting.",
    ],
)
def test_what_is_denied_or_computed_stays(answer: str) -> None:
    assert held(answer, "What does posting a return cost?") == (answer, [])


def test_a_column_gives_its_numbers_a_unit() -> None:
    table = "# Fees (dollars)\n\n| What | Dog | Cat |\n|---|---|---|\n| Consultation | 68 | 62 |\n"
    answer = "A consultation for a cat costs $65."
    assert held(answer, "What is a consultation for my cat?", table)[0] == "A consultation for a cat costs $62."


def test_chances_of_statements_add_up_to_less_than_one() -> None:
    matcher = Matcher([read_page("PAGE.md", PAGE)])
    (sentence,) = Grounder.for_question(matcher, "").read_all("Orders can be returned within 20 days.")
    scored = matcher.rank_statements(sentence.facts[0], sentence.subjects[0])
    weigher = StatementScorer(sentence.facts[0], sentence.subjects[0], matcher.vocabularies[FactKind.DURATION])
    chances = weigher.chances(scored, set())
    assert 0 < sum(chances) < 1
    taken = weigher.chances(scored, {scored[0][1]})
    assert taken[0] < chances[0]


def test_a_cell_of_a_table_in_an_answer_is_held_to_the_row_of_the_page() -> None:
    table = "| Country | Price | Time |\n|---|---|---|\n| Germany | €4.90 | 3 days |\n| Austria | €9.90 | 5 days |\n"
    question = "What does delivery cost?"
    wrong = table.replace("3 days", "4 days").replace("€9.90", "€8.90")
    held = Grounder.for_question(Matcher([read_page("P", f"# Delivery\n\n{table}")]), question, question)
    edits, unsettled = held.check_answer(wrong)
    assert (apply_fact_edits(wrong, edits), unsettled) == (table, [])
    assert held.check_answer(table) == ([], [])


RENT = """# Loan cars

A loan car includes 100 km a day. A side of a parcel may be 120 cm long. For absences of more than 8 hours you get a
meal.
The courier is late from 45 minutes on, and the Christmas bonus is 55% of a salary. Paying annually saves 20 %.

# Visit

Our garage: 18 Harbor Road. Drivers must be 21 or older.
"""


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("I drove the loan car 160 km.", "100 of them are included, so for a loan car it is 60 km a day."),
        ("My parcel is 40 x 40 x 130 cm.", "A side of a parcel is 130 cm long, that is too much."),
        ("I was away from 7 am to 6 pm.", "Your absence of eleven hours gets you a meal."),
    ],
)
def test_what_follows_from_the_clients_numbers_stays(question: str, answer: str) -> None:
    assert held(answer, question, RENT, replace_from=0.5) == (answer, [])
    assert held(answer, "", RENT, replace_from=0.5)[0] != answer


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("The courier is late from more than 30 minutes late on.", "45 minutes"),
        ("You get the Christmas bonus, which is 50% of a salary.", "55%"),
        ("Paying annually saves you 15 percent.", "20 percent"),
    ],
)
def test_a_bound_and_a_share_are_no_sums_for_this_client(answer: str, right: str) -> None:
    assert right in held(answer, "", RENT)[0]


@pytest.mark.parametrize(
    ("answer", "value"),
    [("You find us at 80 Harbor Road.", "18 Harbor Road"), ("You have to be at least 18 years old.", "21")],
)
def test_a_judge_is_asked_about_a_street_or_an_age_without_a_shared_word(answer: str, value: str) -> None:
    assert held(answer, "Where are you?", RENT) == (answer, [])
    grounder = Grounder.for_question(Matcher([read_page("PAGE.md", RENT)]), "Where?", arbiter=Arbiter.JUDGE)
    edits, (doubt,) = grounder.check_answer(answer)
    assert edits == []
    assert doubt.question is not None
    assert [one.text for one in doubt.question.values] == [value]


SURGERY = """# After surgery

Do not drive a lorry for 72 hours after the operation; climbing and diving are possible after 48 hours.

Members get 10% off in our shops.

Members get 15% off in the café. Groups of 30 people or more get their own guide.
"""


@pytest.mark.parametrize(
    ("answer", "question", "expected"),
    [
        (
            "You shouldn't drive a lorry for two days after the operation.",
            "I drive a lorry. How soon may I be back at the wheel after the operation?",
            "three days",
        ),
        ("Yes, members get 15 percent off in our shops.", "Any reduction for members?", "10 percent"),
    ],
)
def test_what_the_page_says_of_something_else_confirms_nothing(answer: str, question: str, expected: str) -> None:
    text, _ = held(answer, question, SURGERY, replace_from=0.8)
    assert expected in text


@pytest.mark.parametrize(
    ("answer", "question"),
    [
        ("You can go diving two days after the operation.", "When may I dive?"),
        ("Members get 15 percent off in the café.", "Any reduction for members?"),
        ("Gladly, with 35 people you get your own guide.", "Our firm has around 35 volunteers. A guide?"),
    ],
)
def test_what_the_page_or_the_client_says_of_this_stays(answer: str, question: str) -> None:
    assert held(answer, question, SURGERY) == (answer, [])


def test_a_fact_is_compared_with_a_bounded_number_of_statements(monkeypatch: pytest.MonkeyPatch) -> None:
    count = 2 * MAX_RANKED
    page = "\n\n".join(f"Parcels to zone {number}A cost \u20ac{number}." for number in range(1, count))
    matcher = Matcher([read_page("PRICES.md", page)])
    searched: list[str] = []
    find = Matcher._find_sharing_statements

    def count_searches(self: Matcher, fact: Fact, subject: FactSubject) -> SharingStatements:
        searched.append(fact.text)
        return find(self, fact, subject)

    monkeypatch.setattr(Matcher, "_find_sharing_statements", count_searches)
    grounder = Grounder.for_question(matcher, "What do parcels cost?")
    (sentence,) = grounder.read_all(f"Parcels cost \u20ac{count - 1} or \u20ac{count + 1} or \u20ac{count + 2}.")
    # the sentence has the same words for each of its amounts
    assert searched == [sentence.facts[0].text]
    scored = matcher.rank_statements(sentence.facts[0], sentence.subjects[0])
    assert len(scored) <= MAX_RANKED + 1
    # the last statement of the page has the fact's value
    assert any(statement.fact.agrees(sentence.facts[0]) for _, statement in scored)


HIRE = """# Bicycle hire

| Length of hire | City bicycle | Cargo bicycle |
|---|---|---|
| Up to 2 hours | €6 | €14 |
| Up to 5 hours | €9 | €22 |
| A whole day | €13 | €30 |

Last returns are 30 minutes before closing. A helmet is €2.50.
We close at 19:00 in summer. The last return in winter is at 17:00.
"""


def test_a_row_is_told_by_the_number_that_it_holds_for() -> None:
    wrong = "A city bicycle for four hours costs €7."
    text, sources = held(wrong, "How much is a city bicycle?", HIRE, replace_from=0.5)
    assert (text, sources) == ("A city bicycle for four hours costs €9.", ["PAGE.md:6"])


@pytest.mark.parametrize(
    ("answer", "question"),
    [
        ("Helmets for both of you cost €5.", "What does a helmet cost?"),
        ("The last return is at 18:30, since we close at 19:00.", "When is the last return?"),
        ("A helmet works out at €2 with the discount.", "What does a helmet cost?"),
    ],
)
def test_what_follows_from_the_page_stays(answer: str, question: str) -> None:
    assert held(answer, question, HIRE, replace_from=0.5) == (answer, [])


def test_what_is_less_certain_than_asked_for_is_noted_instead() -> None:
    answer = "A city bicycle for five hours costs €8."
    matcher = Matcher([read_page("PAGE.md", HIRE)])
    for bar, edits, noted in ((0.5, 1, 0), (1.0, 0, 1)):
        found, unsettled = Grounder.for_question(matcher, "How much is a city bicycle?", replace_from=bar).check_answer(
            answer
        )
        assert (len(found), len(unsettled)) == (edits, noted)


def test_a_value_within_a_range_of_the_page_stays() -> None:
    page = "Sow in rows. Tomatoes sprout after 8 to 12 days, 2 cm deep. Peas are sown in May. Beans need a pole."
    for answer in ("Tomatoes sprout after ten days or so.", "Tomatoes sprout after 9 days."):
        assert held(answer, "When do tomatoes sprout?", page)[0] == answer


def test_more_and_less_than_a_bound_are_two_conditions() -> None:
    page = "The rate is 4.9 % for terms of up to 36 months. The rate is 5.6 % for terms of more than 36 months."
    answer = "Terms of more than 36 months cost 6.1 %."
    assert held(answer, "What is the rate?", page)[0] in (answer, answer.replace("6.1", "5.6"))
    right = answer.replace("6.1", "5.6")
    assert held(right, "What is the rate?", page)[0] == right


def test_the_length_of_the_clients_own_password_stays() -> None:
    page = "Your master password has at least 12 characters."
    answer = "It has 10 characters, and your master password needs more."
    assert held(answer, "My master password is hunter2024. Why does it fail?", page)[0] == answer
    assert "12" in held(answer.replace("It", "The master password"), "How long is my master password?", page)[0]


PARK = """# Park

Pony rides take 20 to 30 minutes. The maze takes 45 to 60 minutes. The small gate closes at 12 noon.
"""


@pytest.mark.parametrize("stream", [False, True])
def test_both_ends_of_a_range_come_from_the_same_range(stream: bool) -> None:
    answer = "A pony ride takes 50 to 60 minutes."
    assert held(answer, "How long do pony rides take?", PARK, stream=stream)[0] == "A pony ride takes 20 to 30 minutes."


def test_noon_is_written_as_on_the_page_where_no_minutes_are_given() -> None:
    assert held("The small gate closes at 1 pm.", "", PARK)[0] == "The small gate closes at 12 noon."
    assert held("The small gate closes at 1:30 pm.", "", PARK)[0] == "The small gate closes at 12:00 pm."


@pytest.mark.parametrize(
    ("answer", "is_replaced"),
    [
        ("You left through the small gate yesterday when it closed at 1 pm.", False),
        ("You booked the small gate, and it closes at 1 pm.", True),
        ("The small gate closes at 1 pm.", True),
    ],
)
def test_what_this_client_did_is_no_rule(answer: str, is_replaced: bool) -> None:
    assert (held(answer, "", PARK)[0] != answer) is is_replaced


FERRY = """# Ferry

The ferry takes 52 minutes; the express boat needs 38 minutes. Report your meter between the 10th and 31st of December.
The fee is £4 for bags. Please call at least 2 hours before you travel; groups call at least 14 days before.
"""


def test_a_number_whose_unit_is_left_out_is_not_written_twice() -> None:
    page = (
        "Stations and times. Old Mill to Linden Park takes 52 minutes; express trains need 38 minutes. Bikes cost £3."
    )
    answer = "The express does the trip from Old Mill to Linden Park in 42 minutes, quicker than the regular 52."
    for replace_from in (0.5, REPLACE_FACTS_FROM):
        assert "in 52 minutes" not in held(answer, "How fast is the express?", page, replace_from=replace_from)[0]


@pytest.mark.parametrize(
    "answer",
    [
        "Report your meter between 10 December and New Year's Eve.",
        "Your meter can be reported on 20 December.",
        "You report your meter from 10 to 31 December.",
    ],
)
def test_days_within_two_days_of_one_month_stay(answer: str) -> None:
    assert held(answer, "When do I report my meter?", FERRY, replace_from=0.5) == (answer, [])


def test_a_denial_ends_where_another_clause_begins() -> None:
    grounder = Grounder.for_question(Matcher([read_page("PAGE.md", FERRY)]), "What about bags?", arbiter=Arbiter.JUDGE)
    (sentence,) = grounder.read_all("There's no limit, and you only pay a fee of £6 for bags.")
    assert not grounder.is_left_alone(sentence, sentence.facts[0])
    (sentence,) = grounder.read_all("There's no fee, deposit or charge of £6 for bags.")
    assert grounder.is_left_alone(sentence, sentence.facts[0])


def test_a_judge_may_choose_a_value_of_another_size_behind_the_others() -> None:
    question = "How early do I call before I travel?"
    grounder = Grounder.for_question(Matcher([read_page("PAGE.md", FERRY)]), question, arbiter=Arbiter.JUDGE)
    edits, (doubt,) = grounder.check_answer("Please call 24 hours before you travel.")
    assert edits == []
    assert doubt.question is not None
    assert "2 hours" in [value.text for value in doubt.question.values]


def test_a_judge_is_asked_about_a_value_of_another_size_where_no_other_is_near() -> None:
    page = "Please call at least 2 hours before you travel."
    answer = "Please call at least 24 hours before you travel."
    assert held(answer, "", page, replace_from=0.5) == (answer, [])
    grounder = Grounder.for_question(Matcher([read_page("PAGE.md", page)]), "", arbiter=Arbiter.JUDGE)
    edits, (doubt,) = grounder.check_answer(answer)
    assert edits == []
    assert doubt.question is not None
    assert [value.text for value in doubt.question.values] == ["2 hours"]


@pytest.mark.parametrize(
    ("answer", "is_left"),
    [
        ("If the rent is five days late, a fee is added.", False),
        ("Your rent is five days late.", True),
        ("If you have five days left, you can still pay.", True),
    ],
)
def test_a_condition_for_everybody_is_not_about_this_client(answer: str, is_left: bool) -> None:
    page = "After 7 days we add a late fee to the rent."
    grounder = Grounder.for_question(Matcher([read_page("PAGE.md", page)]), "When is a fee added?")
    (sentence,) = grounder.read_all(answer)
    assert grounder.is_left_alone(sentence, sentence.facts[0]) is is_left


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("25 participants are the limit of the free plan; with 30 participants you need Plus.", None),
        ("Plus is limited to 100 participants.", "Plus is limited to 150 participants."),
    ],
)
def test_a_number_that_a_limit_allows_is_no_other_limit(answer: str, expected: str | None) -> None:
    table = "| | Starter | Plus |\n|---|---|---|\n| Participants | up to 25 | up to 150 |\n| Rooms | 3 | 20 |\n"
    page = f"# Meetings\n\n{table}\nYou may move to a smaller plan once a month. Refunds are possible within 14 days.\n"
    assert held(answer, "How many may take part?", page, replace_from=0.5)[0] == (expected or answer)
