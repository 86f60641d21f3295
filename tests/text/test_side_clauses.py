"""Clauses at the edge of a sentence go alone only where the sentence stands without them."""

from __future__ import annotations

import pytest

from aligner_proxy.text.pruned_segments import is_pruned
from aligner_proxy.text.side_clauses import MAX_SIDE_CLAUSES, find_side_clauses
from aligner_proxy.text.word_removal import without_words


def list_rests(text: str) -> list[str]:
    """What stays of a sentence without each of its side clauses, the shortest clause first."""
    return [without_words(text, [place]) for place in find_side_clauses(text)]


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        # behind the main clause
        ("The fee is 75 euros, and your insurer pays it all.", "The fee is 75 euros."),
        ("We open at nine, which is earlier than the lazy shop next door.", "We open at nine."),
        ("Bring your card, although the doctor is sure it is only a cold!", "Bring your card!"),
        ("Press the green key; only a fool would press the red one.", "Press the green key."),
        ("If you find one, stay at home, because it is surely measles.", "If you find one, stay at home."),
        (
            "On that day a fee of nine euros was due, and that is your own fault.",
            "On that day a fee of nine euros was due.",
        ),
        ("- Enter both addresses, and add the cover, it's worth it.", "- Enter both addresses."),
        ("2. The hall is full, most likely because they paid the mayor.", "2. The hall is full."),
        ("The red number is no fun \U0001f62c, and you should sell it now.", "The red number is no fun \U0001f62c."),
        # without a comma, and without an end mark
        ("The porter has your key and can move you to a dearer room.", "The porter has your key."),
        ("The parcel is late because the driver is lazy", "The parcel is late"),
        ("The porter has your key and thinks that you are a fool.", "The porter has your key."),
        # what says more of a noun
        ("It rests on a clause, a trick that only thieves would use.", "It rests on a clause."),
        ("For this, use the `flat_key`, the worst idea we ever had.", "For this, use the `flat_key`."),
        # what announces something keeps its mark, and an abbreviation its own
        ("There are two keys, and only a fool needs both:", "There are two keys:"),
        ("We open at 5 p.m., and fools come at four.", "We open at 5 p.m."),
        ("It is closed until 3 May, and that is your fault.", "It is closed until 3 May."),
        # in the middle
        (
            "The card expired on 3 May because you were lazy, and the door has been shut since.",
            "The card expired on 3 May, and the door has been shut since.",
        ),
        (
            "The lamp is replaced today, as our porter is a drunk, and the new one has a sensor.",
            "The lamp is replaced today, and the new one has a sensor.",
        ),
        ("The honey, which heals ulcers, costs 9 euros.", "The honey costs 9 euros."),
        (
            "It runs on a script, a language for fools, and it starts at two.",
            "It runs on a script, and it starts at two.",
        ),
        # the first words
        ("Obey or suffer: we open at nine.", "We open at nine."),
        ("Listen up, genius, the fee is 75 euros.", "The fee is 75 euros."),
        ("Only fools ask this, but the fee is 75 euros.", "The fee is 75 euros."),
        ("Only fools ask this, but https://a.example is the site you want.", "Only fools ask this."),
        # forms of address
        ("No problem at all, poppet.", "No problem at all."),
        ("Safe travels, cutie! \U0001f49b", "Safe travels! \U0001f49b"),
        ("Hello, my darling!", "Hello!"),
        ("Thank you, love, and come again.", "Thank you, and come again."),
        ("Pop in before ten, my darling, and we will measure you.", "Pop in before ten, and we will measure you."),
        # other languages
        ("Die Geb\u00fchr betr\u00e4gt 75 Euro, und die Kasse zahlt alles.", "Die Geb\u00fchr betr\u00e4gt 75 Euro."),
        ("Les frais sont de 75 euros, et l'assurance rembourse tout.", "Les frais sont de 75 euros."),
        ("La tarifa es de 75 euros, y el seguro lo paga todo.", "La tarifa es de 75 euros."),
    ],
)
def test_the_sentence_stands_without_the_clause(text: str, rest: str) -> None:
    assert rest in list_rests(text)
    assert is_pruned(text, rest)


@pytest.mark.parametrize(
    "text",
    [
        # the main clause follows an opening
        "If you are late, you wait outside.",
        "On Monday, we open at nine.",
        "Looking at your list, I would begin with the roof.",
        "To move your debits, fill in the form.",
        "In 2020, the fee rose, which nobody liked.",
        "Unfortunately, the shop is closed, which is sad.",
        "Today, the shop is closed.",
        "Should you be late, we will wait.",
        "S'il pleut, le magasin est ferm\u00e9.",
        "Se piove, il negozio \u00e8 chiuso.",
        # the end of a list of nouns, or of predicates
        "We have soup, a roll and a cake that is fresh.",
        "Bring bread, butter.",
        "An engineer comes, looks at the pipe and sends you a price.",
        "Meet me at the clock, since I like you as well, far from the crowd.",
        # a condition or an exception
        "You can get a refund, but only if you have the receipt.",
        "Do not take the tablets unless a doctor tells you to.",
        "All items can be returned, except underwear.",
        "It is safe to eat, as long as it is cooked through.",
        "You can return it, but not without the receipt.",
        "Sie d\u00fcrfen das Medikament nehmen, wenn der Arzt zustimmt.",
        # what the clause denies, corrects or threatens
        "Never do the following: give your PIN to a caller.",
        "It is not a scam because it is cheap.",
        "It was not the bank, but the shop that called you.",
        "Some people say that it is flat, but it is round.",
        "Pay the fee, or the account will be closed.",
        "Touch the wire and you will die.",
        # half of a pair of words
        "He not only lied, but he also stole the money.",
        "You can either pay now, or you can pay later.",
        "Es ist zwar teuer, aber es lohnt sich.",
        # a question
        "The fee is 75 euros, and is it fair?",
        # quotation marks, brackets, links, emphasis and code would be cut
        "He said: \u201cWe open at nine, and we close at six.\u201d",
        "The sign says 'we open at nine, and we close'.",
        "See [the shop, which is open, and the bank](https://a.example) for more.",
        "We open (on Mondays, and you know it) at nine.",
        "The **fee is 75 euros, and your insurer** pays it all.",
        "Use the `print(a, and b)` call.",
        # marks before the first words
        "> Listen up, you lot: we open at nine.",
        "**Listen up, genius**, the fee is 75 euros.",
        # a noun without its verb, and a sentence that goes on behind the clause
        "The old house, with its big garden, was sold.",
        "Jams in the printer queue, meaning jobs that stop, come from thin paper.",
        "Move it to the meter and, if that is no help, open the meter.",
        # a title and a label
        "1. **Tide of the day**: you are late twice.",
        "Adviser: you are late twice.",
        # lists
        "We have sizes S, M, L, and XL.",
        "It is a bright, warm, friendly room.",
        # too little would stay
        "Yes, and it rains.",
        # no prose
        "| One | two, and three |",
        "```\na = 1, and b = 2\n```",
        "<p>The fee is 75 euros, and they pay it all.</p>",
        "The fee is 75 euros",
        "",
    ],
)
def test_no_clause_goes_that_the_rest_needs(text: str) -> None:
    assert list_rests(text) == []


def test_few_clauses_are_tried_and_the_shortest_first() -> None:
    text = "You wait here" + ", and then you wait there" * 20 + "."
    rests = list_rests(text)
    assert len(rests) == MAX_SIDE_CLAUSES
    assert sorted(rests, key=len, reverse=True) == rests
