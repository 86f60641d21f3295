"""Second copies of an answer: which fields describe it, which strings quote it, and what is dropped from a body."""

from __future__ import annotations

import time
from typing import Any

import pytest

from aligner_proxy.errors import CopyStays
from aligner_proxy.formats.copies import RemovedText, describes, drop_copies, quotes
from aligner_proxy.types import SideKind

FIRST = "We open at nine in the morning."
RUDE = "Only a perfect fool would ask that."


def test_what_points_into_a_text_or_encodes_it_describes_it() -> None:
    describing = {
        "annotations": [{"url_citation": {"start_index": 0, "end_index": 4}}],
        "groundingSupports": [{"segment": {"endIndex": 12}}],
        "location": {"documentChar": {"start": 2, "end": 9}},
        "token_ids": [5],
        "raw": [101, 2023, 2003, 1996, 3437, 2000, 102, 0],
    }
    other: dict[str, Any] = {
        "scores": [0.1, 0.9],
        "flags": {"index": 0, "hate": False},
        "severity": [1, 2],
        "note": "Served by the second machine.",
    }
    assert [name for name, value in describing.items() if not describes(value, name)] == []
    assert [name for name, value in other.items() if describes(value, name)] == []


def test_a_sentence_of_the_answer_is_a_quotation_and_a_word_is_none() -> None:
    answer = f"{FIRST} {RUDE}"
    quotations = (RUDE, answer, f"Checked: {answer}", RUDE.replace(" ", "\n"), RUDE.replace(" ", "%20"))
    others = ("in the morning", "nine", "Opening hours of the office", "")
    assert [text for text in quotations if not quotes(text, answer)] == []
    assert [text for text in others if quotes(text, answer)] == []


def test_only_what_an_edit_took_out_is_looked_for() -> None:
    removed = RemovedText.compare_texts([f"{FIRST} {RUDE}"], [FIRST])
    held = (
        RUDE,
        f"He said: {RUDE}",
        "the words 'perfect fool would ask'",
        '{"a": "Only a perfect fool\\nwould ask that."}',
    )
    assert [text for text in held if not removed.is_quoted_in(text, SideKind.OTHER_TEXT)] == []
    assert not removed.is_quoted_in(FIRST, SideKind.OTHER_TEXT)
    # reasoning shares words with any answer, so that more of a sentence has to stand in it
    assert not removed.is_quoted_in("Would a perfect fool would ask", SideKind.REASONING)
    assert removed.is_quoted_in(f"I could say: {RUDE}", SideKind.REASONING)


def test_a_copy_goes_and_everything_else_stays_the_same_object() -> None:
    removed = RemovedText.compare_texts([f"{FIRST} {RUDE}"], [FIRST])
    kept = {"role": "assistant", "content": FIRST, "extra": {"note": "Served by the second machine."}}
    body = {"stop": None, "choices": [{"message": kept}], "trace": {"modelOutput": [RUDE]}}
    cleaned = drop_copies(body, removed, [FIRST])
    assert cleaned == {"stop": None, "choices": [{"message": kept}]}
    assert cleaned["choices"] is body["choices"]
    assert drop_copies(cleaned, removed, [FIRST]) is cleaned


def test_pointers_stay_beside_an_answer_that_stayed() -> None:
    removed = RemovedText.compare_texts([f"{FIRST} {RUDE}"], [FIRST])
    notes = [{"start_index": 0, "end_index": 4}]
    texts = ("All is well today.", FIRST)
    body = {"choices": [{"message": {"content": text, "notes": notes}} for text in texts]}
    cleaned = drop_copies(body, removed, texts, unchanged_texts=texts[:1])
    assert cleaned["choices"][0] == body["choices"][0]
    assert cleaned["choices"][1] == {"message": {"content": FIRST, "notes": []}}


def test_a_copy_that_a_program_acts_on_has_to_stay() -> None:
    removed = RemovedText.compare_texts([f"{FIRST} {RUDE}"], [FIRST])
    call = {"function": {"name": "send", "arguments": f'{{"body": "{RUDE}"}}'}}
    with pytest.raises(CopyStays) as caught:
        drop_copies({"content": FIRST, "tool_calls": [call]}, removed, [FIRST])
    assert caught.value.kind is SideKind.TOOL_ARGUMENTS
    assert RUDE not in str(caught.value)


def test_what_the_request_said_may_be_repeated() -> None:
    removed = RemovedText.compare_texts([f"{FIRST} {RUDE}"], [FIRST])
    body = {"instructions": f"Never write: {RUDE}"}
    assert drop_copies(body, removed, [FIRST], echoed_texts=[body["instructions"]]) is body
    assert drop_copies(body, removed, [FIRST]) == {"instructions": ""}


def test_many_quotations_and_many_removed_sentences_take_linear_time() -> None:
    """A body with ten thousand citations beside a thousand removed sentences stopped a gateway for three seconds."""

    def seconds(count: int) -> float:
        kept = [f"Bring Anna {number} warm coats to the shore." for number in range(count)]
        rude = [f"You fool of the harbour number {number} today." for number in range(count)]
        notes = [{"title": f"The harbour book, page {number} of many, by Anna"} for number in range(5 * count)]
        original = " ".join(f"{first} {second}" for first, second in zip(kept, rude, strict=True))
        began = time.process_time()
        removed = RemovedText.compare_texts([original], [" ".join(kept)])
        body = {"notes": notes, "more": [rude[-1]]}
        assert drop_copies(body, removed, [" ".join(kept)]) == {"notes": notes, "more": []}
        return time.process_time() - began

    seconds(50)
    assert min(seconds(1_600) for _ in range(2)) < 10 * max(seconds(400), 0.02)
