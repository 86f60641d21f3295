"""Where the reasoning at the beginning of a text ends, in a whole text and however a stream cuts it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from litellm.litellm_core_utils.prompt_templates.common_utils import parse_content_for_reasoning

from aligner_proxy.formats.think_tags import (
    DividedText,
    ThinkTagReader,
    divide_exchange,
    find_answer_start,
    remove_tags,
)
from aligner_proxy.types import Exchange
from tests.support.sampling import examples, spread

THOUGHT = "The reader is a fool. 1 < 2, </p> and </th"
ANSWER = "So it is. <think>Not this.</think> Nor `</think>`."
# (text before the answer, the reasoning in it, the answer)
TEXTS = [
    (f"<think>{THOUGHT}</think>", THOUGHT, f"\n\n{ANSWER}"),
    (f"<thinking>{THOUGHT}</thinking>", THOUGHT, ANSWER),
    (f"<budget:thinking>{THOUGHT}</budget:thinking>", THOUGHT, ANSWER),
    (f"<think>{THOUGHT}</thinking>", THOUGHT, ANSWER),
    (f" \n\t<think>\n{THOUGHT}\n</think>", f"\n{THOUGHT}\n", ANSWER),
    ("<think></think>", "", ANSWER),
    ("<think>\n\n</think>", "\n\n", f"\n\n{ANSWER}"),
    # several blocks are one reasoning
    (f"<think>{THOUGHT}</think>\n<think>{THOUGHT}</think>", THOUGHT * 2, ANSWER),
    # no answer
    (f"<think>{THOUGHT}</think>", THOUGHT, ""),
    (f"<think>{THOUGHT}</think>", THOUGHT, "\n"),
    ("<think>The reader", "The reader", ""),
    ("<think>", "", ""),
    # no reasoning
    ("", "", ANSWER),
    ("", "", f"{THOUGHT}</think>{ANSWER}"),
    ("", "", f"`<think>{THOUGHT}</think>`"),
    ("", "", f"```\n<think>{THOUGHT}</think>\n```"),
    ("", "", f"\n <b>{ANSWER}</b>"),
    ("", "", f"<thinker>{THOUGHT}</thinker>"),
    ("", "", f"</think>{ANSWER}"),
    ("", "", f"<Think>{THOUGHT}</Think>"),
    ("", "", "\n<thi"),
    ("", "", "\n"),
    ("", "", "<"),
]


@pytest.mark.parametrize(("before", "reasoning", "answer"), TEXTS)
def test_a_whole_text(before: str, reasoning: str, answer: str) -> None:
    assert find_answer_start(before + answer) == len(before)
    assert remove_tags(before) == reasoning
    exchange = Exchange("c", 0, (), before + answer)
    divided = divide_exchange(exchange)
    assert divided == replace(exchange, answer=answer, tagged_reasoning=before)
    assert DividedText.from_exchange(divided) == (before, reasoning, answer)
    assert DividedText.from_exchange(divided).whole == before + answer
    assert divide_exchange(replace(divided, tagged_reasoning="")).answer == answer
    if not before:
        assert divided is exchange


def test_an_answer_that_is_none_stays_none() -> None:
    exchange = Exchange("c", 0, (), None)
    assert divide_exchange(exchange) is exchange


def cuts(text: str) -> list[list[str]]:
    """The text letter by letter, in pieces of three, and cut in two at each place."""
    sizes = [[text[i : i + size] for i in range(0, len(text), size)] for size in (1, 3)]
    return sizes + [[text[:i], text[i:]] for i in range(1, len(text))]


def some_cuts(text: str) -> Iterator[list[str]]:
    """All of them; in the sample every fourth."""
    every = cuts(text)
    return spread(every, max(1, examples(len(every))))


def test_a_growing_text_wherever_it_is_cut() -> None:
    failures = []
    for before, reasoning, answer in TEXTS:
        for pieces in cuts(before + answer):
            reader = ThinkTagReader()
            found = "".join(map(reader.feed, pieces))
            reader.end()
            if (reader.reasoning_end, found) != (len(before), reasoning):
                failures.append((pieces, reader.reasoning_end, found))
    assert failures == []


def test_only_what_may_be_a_tag_is_undecided() -> None:
    for beginning in ("", "\n", "<", " <th", "<budget:thinking", "<think></think>", "<think></think>\n<t"):
        reader = ThinkTagReader()
        reader.feed(beginning)
        assert reader.is_undecided, beginning
        reader.end()
        assert reader.is_answer
    for beginning in ("S", "<p", "\nS", "<think>", "<think></thin", "<think></think>S"):
        reader = ThinkTagReader()
        reader.feed(beginning)
        assert not reader.is_undecided, beginning


def test_litellm_takes_the_same_out_of_whole_answers() -> None:
    """But white space before the tag, a second block and a missing closing tag are our own cases."""
    for before, _, answer in TEXTS:
        reasoning, rest = parse_content_for_reasoning(before + answer)
        if reasoning is not None:
            assert divide_exchange(Exchange("c", 0, (), rest)).answer == answer
            assert before.startswith("<")
        elif before:
            assert before.startswith(" ") or "</think>" not in before


def test_blocks_of_reasoning_without_end_take_linear_time() -> None:
    began = time.process_time()
    assert find_answer_start("<think></think>" * 100_000) == 1_500_000
    assert time.process_time() - began < 1
