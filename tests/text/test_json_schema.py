"""What a schema may refuse, and that no schema a client sends can cost much, reach out, or raise."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aligner_proxy.text.json_answer import LONGEST_SCHEMA, meets_schema

ANSWER = {"note": "It is late.", "kind": "plain", "tags": ["a", "b"], "n": 3}


def met(schema: Any, answer: Any = ANSWER, edited: str = "It is late.") -> bool:
    return meets_schema(json.dumps(answer), json.dumps(schema), frozenset({edited}))


def of_note(**rules: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"note": {"type": "string", **rules}}, "required": ["note"]}


@pytest.mark.parametrize(
    "schema",
    [
        True,
        {},
        of_note(maxLength=11),
        of_note(enum=["It is late.", "It is early."]),
        {"$schema": "http://json-schema.org/draft-07/schema#", **of_note()},
        {"$ref": "#/$defs/all", "$defs": {"all": {**of_note(), "additionalProperties": True}}},
        {"properties": {"kind": {"pattern": "^[a-z]+$", "format": "hostname"}}},
        {"properties": {"tags": {"uniqueItems": True, "items": {"type": "string"}}}},
        {"anyOf": [{"required": ["nothing"]}, of_note()]},
    ],
)
def test_met(schema: Any) -> None:
    assert met(schema)


@pytest.mark.parametrize(
    "schema",
    [
        False,
        of_note(maxLength=10),
        of_note(enum=["It is early."]),
        of_note(const="It is early."),
        {**of_note(), "additionalProperties": False},
        {"required": ["nothing"]},
        {"properties": {"n": {"type": "string"}}},
    ],
)
def test_not_met(schema: Any) -> None:
    assert not met(schema)


def test_items_that_became_equal_are_not_unique() -> None:
    assert not met({"uniqueItems": True}, ["It is late.", "It is late."])


@pytest.mark.parametrize("rules", [{"pattern": "."}, {"format": "date"}, {"contentEncoding": "base64"}])
def test_the_form_of_an_edited_text_is_not_checked_and_so_not_met(rules: dict[str, Any]) -> None:
    assert not met(of_note(**rules))
    assert met(of_note(**rules), edited="another text")


def exponential() -> dict[str, Any]:
    defs = {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(60)}
    return {"$ref": "#/$defs/d0", "$defs": {**defs, "d60": {"type": "object"}}}


@pytest.mark.parametrize(
    "schema",
    [
        exponential(),
        {"unevaluatedProperties": False, **exponential()},
        {"$ref": "#"},
        {"$ref": "http://127.0.0.1:9/schema.json"},
        {"$ref": "file:///etc/hostname"},
        {"patternProperties": {"^(a+)+$": {}}},
        {"additionalProperties": False, "patternProperties": {"^(a+)+$": {}}},
        {"$schema": "http://json-schema.org/draft-07/schema#", "properties": {"note": {"pattern": "^(\\w+\\s?)+$"}}},
        {"properties": {"note": {"$schema": "http://json-schema.org/draft-04/schema#", "pattern": "^(\\w+\\s?)+$"}}},
        {"multipleOf": 1e-320, "properties": {"n": {"multipleOf": 1e-320}}},
        {"properties": []},
        {"minLength": "x", "properties": {"note": {"minLength": "x"}}},
        {"description": "x" * LONGEST_SCHEMA},
        [],
        7,
        "text",
        None,
    ],
)
def test_a_hostile_schema_is_not_met_and_ends(schema: Any) -> None:
    assert not met(schema, {**ANSWER, "note": "a" * 40 + "!"}, "a" * 40 + "!")


def test_a_schema_that_is_no_json_is_not_met() -> None:
    assert not meets_schema("{}", "{", frozenset())
    assert not meets_schema("{}", "[" * 20_000, frozenset())


SCHEMAS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4) | st.sampled_from(["string", "object", "#", "#/a"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["type", "properties", "items", "$ref", "enum", "allOf", "pattern", "if", "a", "$defs", "$id"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(SCHEMAS)
def test_no_schema_raises(schema: Any) -> None:
    assert met(schema) in (True, False)
