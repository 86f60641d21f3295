"""Texts in JSON answers are found where they are written, and everything else stays byte for byte."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aligner_proxy.pipeline.stages.eligibility import LONGEST_JSON, reads_as_json
from aligner_proxy.text.json_answer import MIN_CHARS, begins_json, has_same_shape, replace_literals, text_literals
from tests.support.sampling import examples

LONG = "It is quite late now, and nobody is here any more."
ANSWER = (
    '{ "note":"' + LONG + '",\n "n" : 1.50e3, "id": "' + "x" * 60 + '", "' + LONG + '": ["short", "' + LONG + '"] }'
)


@pytest.mark.parametrize("answer", ["{}", ' [1, "a"]\n', ANSWER, '{"a": 1e999}', "[" * 100_000])
def test_json_from_end_to_end(answer: str) -> None:
    assert reads_as_json(answer) is not False


@pytest.mark.parametrize(
    "answer", ["", "7", '"text"', "[1] Okafor", "{curly}", '{"a": 1} so', '{"a": ', "```\n{}\n```"]
)
def test_no_json(answer: str) -> None:
    assert reads_as_json(answer) is False


def test_long_values_with_a_space_are_texts() -> None:
    assert [literal.text for literal in text_literals(ANSWER)] == [LONG, LONG]
    assert text_literals(
        '{"a": "お茶は台所にありますから、どうぞご自由にお飲みください。お湯は今ちょうど沸いたところですよ。"}'
    )
    assert text_literals(json.dumps({"a": "\ud83d " * MIN_CHARS})) == []


def test_only_the_text_changes() -> None:
    first, second = text_literals(ANSWER)
    edited = replace_literals(ANSWER, {second: 'She said "no".\n'})
    assert edited == ANSWER[: second.start] + '"She said \\"no\\".\\n"' + ANSWER[second.end :]
    assert replace_literals(ANSWER, {}) == ANSWER
    assert replace_literals(ANSWER, {first: LONG, second: LONG}) == ANSWER


def test_ascii_stays_ascii() -> None:
    (literal, _) = text_literals(ANSWER)
    assert replace_literals(ANSWER, {literal: "Grüße"}).isascii()
    there = ANSWER.replace("short", "kürzer")
    assert "Grüße" in replace_literals(there, {text_literals(there)[0]: "Grüße"})


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ('{"a": "x", "b": [1, null]}', '{"a": "y", "b": [1, null]}', True),
        ('{"a": "x"}', '{"a": 1}', False),
        ('{"a": 1.0}', '{"a": 1}', False),
        ('{"a": 1, "b": 2}', '{"b": 2, "a": 1}', False),
        ('["1"]', "[1]", False),
        ("[1]", "[1, 1]", False),
        ("[true]", "[false]", False),
        ("[1]", "[1", False),
        ("[" * 100_000, "[" * 100_000, False),
    ],
)
def test_the_shape(one: str, other: str, same: bool) -> None:
    assert has_same_shape(one, other) is same


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(LONG),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5) | st.just(LONG), inner, max_size=4),
    max_leaves=12,
).filter(lambda value: isinstance(value, dict | list))


@settings(max_examples=examples(150), deadline=None, suppress_health_check=list(HealthCheck))
@given(JSON, st.booleans(), st.sampled_from([None, 2]), st.text())
def test_any_json(value: object, ascii_only: bool, indent: int | None, new: str) -> None:
    answer = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    assert reads_as_json(answer)
    edited = replace_literals(answer, dict.fromkeys(text_literals(answer), new))
    assert has_same_shape(answer, edited)
    assert json.dumps(json.loads(edited)) == json.dumps(_with(value, new))


def _with(value: object, new: str) -> object:
    """The value with `new` in place of every long text; keys stay."""
    if isinstance(value, dict):
        return {key: _with(inner, new) for key, inner in value.items()}
    if isinstance(value, list):
        return [_with(inner, new) for inner in value]
    return new if value == LONG else value


def test_blanks_that_are_no_white_space_do_not_make_a_text_a_word() -> None:
    text = "You are an idiot and nobody likes you at all.".replace(" ", "\u3164")
    assert [literal.text for literal in text_literals(json.dumps({"a": text}))] == [text]


@given(st.recursive(st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(), st.lists), st.data())
def test_the_beginning_of_json_is_known_as_such(value: object, data: st.DataObject) -> None:
    whole = json.dumps([value])
    length = data.draw(st.integers(1, len(whole)))
    assert begins_json(whole[:length])


@pytest.mark.parametrize("text", ["", "It is.", "[Note] It is so, and goes on for longer than a number.", '"a"'])
def test_what_only_begins_like_json(text: str) -> None:
    assert not begins_json(text)


def test_json_that_takes_long_to_read_is_not_read() -> None:
    assert reads_as_json("[" + " " * LONGEST_JSON) is None
