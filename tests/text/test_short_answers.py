"""Sentences that answer the question though they say nothing alone, and those that only frame an answer."""

from __future__ import annotations

import pytest

from aligner_proxy.text.remarks import is_about_reader
from aligner_proxy.text.short_answers import answers_question

ANSWERS = [
    ("How do I clean suede shoes?", "Wipe them with a dry brush."),
    ("When does the shop open?", "It opens at nine."),
    ("Can I pay by card?", "Yes, you can."),
    ("Where is my parcel?", "It is in Leeds."),
    ("Who wrote Emma?", "Jane Austen."),
    ("What is 7 times 8?", "56."),
    ("Is the pool heated?", "No."),
    ("How long do I boil an egg?", "About seven minutes."),
    ("How can I get rid of ants?", "Sprinkle cinnamon on their path."),
    ("What should I do with old batteries?", "Take those to the supermarket."),
    ("Which plan is cheaper?", "The basic one."),
    ("Why is my plant yellow?", "You water it too much."),
    ("Does the injection hurt?", "A little."),
    ("How do I reset the router?", "Hold the button for ten seconds."),
    ("What colour is the sofa?", "Green."),
    ("Can my dog eat grapes?", "Never give him any."),
    ("How do I open the file?", "Double-click it."),
    ("What is the capital of Peru?", "That is Lima."),
    ("Should I tip the driver?", "If you like."),
    ("Will the rain stop?", "By noon it will."),
    ("Wie reinige ich Schuhe aus Wildleder?", "B\u00fcrste sie trocken ab."),
    ("O\u00f9 est la gare ?", "Elle est derri\u00e8re le march\u00e9."),
    ("How do I fix a squeaky hinge?", "Oil it."),
    ("How do I store basil?", "Keep it in water, like flowers."),
    ("How do I descale the kettle?", "First, fill it with vinegar."),
    ("Does this work with Windows?", "It does."),
    ("How often should I water a cactus?", "Once a month."),
    ("How do I join the call?", "Here is the link: https://meet.example/abc"),
    ("Which command lists files?", "`ls`"),
    ("How do I stop hiccups?", "Hold your breath, then swallow."),
    ("Why is the sky red at dusk?", "Because the light travels further."),
    ("What's the code for the door?", "It is 4711."),
    ("My screen is black. What now?", "Restart it."),
]
FRAMES = [
    ("How do I clean suede shoes?", "Here is how:"),
    ("How do I clean suede shoes?", "In short,"),
    ("How do I clean suede shoes?", "1."),
    ("How do I clean suede shoes?", "Sure!"),
    ("How do I clean suede shoes?", "Of course."),
    ("How do I clean suede shoes?", "Here you go."),
    ("How do I clean suede shoes?", "Great question!"),
    ("How do I clean suede shoes?", "Step 1:"),
    ("How do I clean suede shoes?", "Firstly,"),
    ("How do I clean suede shoes?", "Okay."),
    ("How do I clean suede shoes?", "Certainly!"),
    ("How do I clean suede shoes?", "I hope that helps."),
    ("How do I clean suede shoes?", "Let me explain."),
    ("How do I clean suede shoes?", "## Answer"),
    ("How do I clean suede shoes?", "**Steps**"),
    ("How do I clean suede shoes?", "Well,"),
    ("How do I clean suede shoes?", "To sum up:"),
    ("How do I clean suede shoes?", "Thanks for asking!"),
    ("How do I clean suede shoes?", "Alright, here we go!"),
    ("How do I clean suede shoes?", "Let's get started."),
    ("How do I reset the router?", "To reset the router, follow these steps:"),
    ("Where is my parcel?", "I'd be happy to help with your parcel!"),
    ("Why is my plant yellow?", "That is a good question."),
    ("What is the capital of Peru?", "Hello!"),
    ("Wie reinige ich Wildleder?", "Gerne!"),
    ("Wie reinige ich Wildleder?", "So geht es:"),
    ("How do I store basil?", "Let me know if you have any questions."),
    ("How do I store basil?", "But"),
    ("How do I store basil?", "Good luck!"),
    ("How do I store basil?", "Here are some tips:"),
]

FRAMES += [("How do I clean suede shoes?", text) for text in ("You got it!", "Sure thing!", "Because", "Then dry it.")]


@pytest.mark.parametrize(
    ("question", "text", "expected"),
    [
        ("How many legs does a dog have?", "4.", True),
        ("What is 2+2?", "4", True),
        ("What is 2+2?", "**4**", True),
        ("What is 2+2?", "$4$", True),
        ("What is the rate?", "5%", True),
        ("What are the steps?", "1.", False),
        ("How do I open it?", "4.", False),
        ("How many?", "4)", False),
        ("How many?", "[1]", False),
        ("How many?", "# 4", False),
    ],
)
def test_answers_question_tells_a_digit_from_a_mark(question: str, text: str, expected: bool) -> None:
    assert answers_question(text, question) is expected


@pytest.mark.parametrize(("question", "text"), ANSWERS)
def test_answers_question_finds_a_short_answer(question: str, text: str) -> None:
    assert answers_question(text, question)


@pytest.mark.parametrize(("question", "text"), FRAMES)
def test_answers_question_finds_no_answer_in_a_frame(question: str, text: str) -> None:
    assert not answers_question(text, question)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It opens at nine.", True),
        ("They are all gone.", False),
        ("The shop is in Leeds.", True),
        ("Then lock it.", False),
    ],
)
def test_answers_question_knows_what_a_word_refers_to_behind_removed_things(text: str, expected: bool) -> None:
    assert answers_question(text, "When does the shop open?", may_refer=False) is expected


def test_is_about_reader_knows_remarks_that_name_no_thing() -> None:
    remarks = [
        "You are a fool.",
        "You fool!",
        "Only a fool would ask that.",
        "Du bist ein Narr.",
        "What a fool you are.",
        "Even you will manage this, you utter dunce.",
        "Owls are smarter than you, blockhead!",
        "Anyone who believes otherwise is an imbecile.",
        "Everybody who doubts this is an imbecile\u00b3.",
        "Can your brainless head take this in?",
    ]
    others = [
        "Take a long wire.",
        "You are to take a long wire.",
        "You mix it with sand.",
        "Our rivals lie.",
        "Feed a cow.",
    ]
    assert [text for text in remarks if not is_about_reader(text)] == []
    assert [text for text in others if is_about_reader(text)] == []
