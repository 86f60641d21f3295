"""JSON schemas in words: which values a key or a field may have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scripts.reference.markdown import code, words

BOOLEAN = "`true` or `false`"
PLURALS = {"text": "texts", "block": "blocks", "integer": "integers", "number": "numbers"}
MAX_LISTED = 12
"""Most values that are listed one by one; only the gate's rules have more, and they have their own table."""

Schema = Mapping[str, Any]


def definition(value: Schema, definitions: Schema) -> Schema:
    """The definition that a schema refers to, or the schema itself."""
    name = value.get("$ref", "").rpartition("/")[2]
    return definitions[name] if name else value


def type_words(value: Schema, definitions: Schema) -> str:
    """A schema in words; null is left out, since it means that the key is missing."""
    choices = value.get("anyOf") or value.get("oneOf")
    if choices:
        kinds = dict.fromkeys(type_words(choice, definitions) for choice in choices if choice.get("type") != "null")
        return words(list(kinds))
    value = definition(value, definitions)
    if "enum" in value or "const" in value:
        values = value.get("enum", [value.get("const")])
        if len(values) > MAX_LISTED:
            return "names of [rules](#gate)"
        # Of on, off, true and false, name only the first two.
        names = [code(one) for one in values if not isinstance(one, bool)]
        return words(names or [code(str(one).lower()) for one in values])
    if value.get("type") == "array":
        items = type_words(value.get("items", {}), definitions)
        return f"list of {PLURALS.get(items, items)}"
    if value.get("type") == "object" or "properties" in value:
        return _block(value, definitions)
    kind = value.get("type", "string")
    return {"boolean": BOOLEAN, "string": "text"}.get(kind, kind) + _bounds(value)


def plain_number(value: object) -> str:
    """A number without an empty fraction; any other value as text."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _block(value: Schema, definitions: Schema) -> str:
    """A block with fixed keys, or one whose names the writer chooses."""
    patterns = value.get("patternProperties") or {}
    inner = next(iter(patterns.values()), value.get("additionalProperties") or None)
    if isinstance(inner, Mapping) and not value.get("properties"):
        return f"name: {type_words(inner, definitions)}"
    return "block"


def _bounds(value: Schema) -> str:
    least = value.get("minimum", value.get("exclusiveMinimum"))
    most = value.get("maximum")
    if least is None:
        return ""
    above = "above " if "exclusiveMinimum" in value else ""
    end = f" to {plain_number(most)}" if most is not None else "" if above else " or more"
    return f", {above}{plain_number(least)}{end}"
