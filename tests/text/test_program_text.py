"""Calls, data and forms are known by their structure; prose that looks a little like them is not taken for one."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from aligner_proxy.text.program_text import (
    DATA_SIGN,
    CallReader,
    begins_data,
    begins_form,
    fills_middle,
    has_call,
    is_data,
    may_become_data,
)
from aligner_proxy.text.structure import split
from tests.support.growth import grows_linearly
from tests.text.programs import CALLS, DATA, FORMS_BEGUN, MIDDLES, NO_MIDDLES, PROSE, PROSE_BEGUN


def test_calls_are_known() -> None:
    assert len(CALLS) >= 40
    assert [name for name, text in CALLS.items() if not has_call(text)] == []


def test_calls_are_known_behind_prose_and_before_it() -> None:
    assert [name for name, text in CALLS.items() if not has_call(f"It is so.\n\n{text}\n\nThat is all.")] == []


def test_calls_in_fenced_code_and_inside_a_line_are_none() -> None:
    fenced = [name for name, text in CALLS.items() if "```" not in text and has_call(f"So:\n\n```\n{text}\n```\nBye.")]
    assert fenced == []
    assert [name for name, text in CALLS.items() if has_call(f"It is {text.splitlines()[-1]}")] == []


def test_prose_has_no_calls_and_is_no_data() -> None:
    assert len(PROSE) >= 60
    assert [name for name, text in PROSE.items() if has_call(text)] == []
    assert [name for name, text in PROSE.items() if is_data(text)] == []


def test_data_are_known_and_no_calls() -> None:
    assert [name for name, text in DATA.items() if not is_data(text) or not DATA_SIGN.match(text)] == []
    assert [name for name, text in DATA.items() if has_call(text)] == []


def test_data_are_known_from_their_beginning_on() -> None:
    """A stream that may become data is held, and not cut into parts."""
    for text in DATA.values():
        lines = text.splitlines(keepends=True)
        assert all(may_become_data("".join(lines[: count + 1])) for count in range(len(lines)))
        assert all(begins_data(text[:end]) for end in range(len(lines[0]), len(text)))


def test_a_growing_text_has_a_call_from_its_first_lines_on() -> None:
    for name, text in CALLS.items():
        answer = f"{text}\nIt goes on. And on."
        reader = CallReader()
        segments = split(answer)
        known = [
            reader.read(answer[: after.start + 1], segments[: count + 1]) for count, after in enumerate(segments[1:])
        ]
        assert any(known), name
        # nothing in the call was finished before but the words around it
        before = answer[: segments[known.index(True)].end]
        assert len(before) <= len(text), name


def test_a_reader_reads_nothing_twice() -> None:
    text = "It is <b>so</b>.\n" * 2_000
    segments = split(text)
    reader = CallReader()
    started = time.process_time()
    for count in range(len(segments)):
        assert not reader.read(text, segments[:count])
    assert time.process_time() - started < 0.5


def test_forms_that_a_request_has_begun() -> None:
    assert [text for text in FORMS_BEGUN if not begins_form(text)] == []
    assert [text for text in PROSE_BEGUN if begins_form(text)] == []


def test_prompts_that_ask_for_the_middle() -> None:
    assert [text for text in MIDDLES if not fills_middle(text)] == []
    assert [text for text in NO_MIDDLES if fills_middle(text)] == []


def takes_less(seconds: float, work: Callable[[], object]) -> bool:
    """Whether the work takes less time of the CPU than that, at least once of five times."""
    for _ in range(5):
        started = time.process_time()
        work()
        if time.process_time() - started < seconds:
            return True
    return False


# The last one cuts texts of its own, which drives those that are known to the others out of the cache.
WAYS: list[Callable[[str], object]] = [has_call, is_data, begins_data, fills_middle, DATA_SIGN.match, begins_form]


@pytest.mark.slow
@pytest.mark.some(6)
@pytest.mark.parametrize(
    "unit",
    ["<", "*", "(", "[", "{", '"', "`", "-", "- ", "<a ", "<a_b>", "<a_a_a", "<\n", "--- a\n", "Action: a\n",
     "Action:", "[a(", '{"name": "a"\n', "@@ -1\n", "a: b\n", "a:", "a,b,c\n", "a,", '"a",', "  - - a: b\n", "<|fim_",
     "[PRE", "\n", "```\n<tool_call>\n```\n", "<<<<<<< SEARCH x\n", "a: |\n b\n"],
)  # fmt: skip
def test_texts_without_end_are_read_at_once(unit: str) -> None:
    for head in ("", "a: b\n", "x"):

        def make(size: int, head: str = head) -> str:
            text = (head + unit * (size // len(unit)))[:size]
            split(text)  # cut before and cached, as for the driver
            return text

        for way in WAYS:
            assert grows_linearly(make, way), (unit, head, way)


def test_ordinary_prose_costs_next_to_nothing() -> None:
    text = "The tide comes in twice a day, and the boats rise with it. Bring Anna a coat. " * 1_000
    # a microsecond per 100 characters, with room for a busy machine
    assert takes_less(len(text) / 100 * 3e-6, lambda: (has_call(text), DATA_SIGN.match(text)))
