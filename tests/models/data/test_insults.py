"""Insults written for this project: sentences of many forms, none with a wording of the test side."""

from __future__ import annotations

import re
from random import Random

import pytest

from aligner_proxy.text.structure import split
from models.data.answers import PoolAnswer
from models.data.insults import plant_sentence, read_sentences
from models.data.labelled_replies import AGAINST, FINE, HARMLESS, UNKNOWN
from models.defects import phrases

TEST_FRAMES = (
    "dropped on your head",
    "a mind as",
    "must be hard to",
    "pities you",
    "has no business with",
    "for five seconds",
    "You have the depth",
)
"""What the templates of the test side say besides choices and words of abuse."""
ANSWER = PoolAnswer("What is lava?", "Lava is molten rock. It flows downhill. It cools into basalt.", "own")


def test_each_sentence_is_one_segment_and_stands_there_once() -> None:
    sentences = [text for text, _ in read_sentences()]
    assert len(set(sentences)) == len(sentences) > 400
    assert [text for text in sentences if len(split(text)) != 1] == []


def test_no_insult_has_a_word_of_abuse_or_a_frame_of_the_test_side() -> None:
    words = phrases.read_table("hostile")["word_lists"]["held_out_words"]["fool"]
    for text, _ in read_sentences():
        assert not any(re.search(rf"\b{re.escape(part)}\b", text, re.IGNORECASE) for part in (*words, *TEST_FRAMES)), (
            text
        )


@pytest.mark.parametrize("label", [AGAINST, FINE])
def test_only_the_planted_sentence_has_a_label(label: int) -> None:
    sentence = "You could not find your own nose."
    for seed in range(20):
        reply = plant_sentence(Random(seed), ANSWER, sentence, label, "insults-1-0")
        texts = [segment.text for segment in split(reply.answer)]
        assert reply.segments == tuple(label if text == sentence else UNKNOWN for text in texts)
        assert (reply.segments.count(label), reply.harmful, reply.objective) == (1, label == AGAINST, HARMLESS)
