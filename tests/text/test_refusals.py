"""Which sentences decline."""

from __future__ import annotations

import pytest

from aligner_proxy.text.refusals import declines


@pytest.mark.parametrize(
    "sentence",
    [
        "I'm sorry, but I can\u2019t help with that.",
        "I cannot provide medical advice.",
        "- Unfortunately, I am unable to answer this.",
        "Sorry, but I won't be able to do this.",
        "That is not something I can talk about.",
        "It would not be appropriate for me to say.",
        "I'd rather not talk about it.",
        "This request goes against my guidelines.",
        "As an AI language model, I don't have opinions.",
        "We won't discuss it.",
        "I'm really sorry that the move has left you so worn out this month, but I cannot provide advice on that.",
        "We are very sorry for the trouble that this delay has caused all your guests, and we are unable to refund it.",
        "Es tut mir leid, aber das kann ich leider nicht sagen.",
        "Je suis désolé, mais je ne peux pas répondre.",
        "Lo siento, no puedo ayudarte con eso.",
        "Desculpe, mas não posso falar disso.",
        "Mi dispiace, non posso rispondere.",
    ],
)
def test_these_do(sentence: str) -> None:
    assert declines(sentence)


@pytest.mark.parametrize(
    "sentence",
    [
        "I cannot recommend it enough.",
        "It is not appropriate for children.",
        "That is not something you can see.",
        "You cannot answer that by looking.",
        "Sorry about the wait.",
        "I'm sorry that it rained, but the boat leaves at nine.",
        "I'm so sorry to hear that about your garden. Water it at night, and you cannot go wrong.",
        "It can't help with rust.",
        "Leider regnet es heute nicht.",
        "Help is on its way.",
    ],
)
def test_these_do_not(sentence: str) -> None:
    assert not declines(sentence)
