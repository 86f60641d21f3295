"""Schema of `editor`: the model that rewrites flagged segments.

A value is parsed into one word: `local`, `upstream`, or `model:GROUP` for the block `{model: GROUP}`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from aligner_proxy.policy.yaml_file import Block, suggest_name
from aligner_proxy.types import EDITOR_GROUP_PREFIX, LOCAL_EDITOR, UPSTREAM_EDITOR

MAX_GROUP_CHARS = 200
WORDS = (LOCAL_EDITOR, UPSTREAM_EDITOR)
_MODEL = "model"
_FORMS = "must be local, upstream, or a block {model: GROUP} with a model group of the LiteLLM file"


class EditorBlock(Block):
    """A separate model group that edits."""

    model: Annotated[str, Field(min_length=1, max_length=MAX_GROUP_CHARS)]
    """A model group of the LiteLLM file, by its model_name."""


def _parse_word(value: object) -> object:
    """Return the value of `editor` as one word: {model: strong} becomes "model:strong". Raises `ValueError`."""
    if isinstance(value, Mapping):
        return EDITOR_GROUP_PREFIX + _read_group(value)
    if not isinstance(value, str):
        raise ValueError(_FORMS)  # noqa: TRY004 - pydantic takes ValueError alone
    names_group = value.startswith(EDITOR_GROUP_PREFIX) and value != EDITOR_GROUP_PREFIX
    if value in WORDS or names_group:
        return value
    raise ValueError(f"{_FORMS}; {suggest_name(value, WORDS)}")


def _read_group(block: Mapping[object, object]) -> str:
    """Check the block {model: GROUP} and return the group; raises `ValueError`."""
    extra_key = next((name for name in block if name != _MODEL), None)
    if extra_key is not None:
        raise ValueError(f"unknown key {extra_key!r}; the only one is {_MODEL}")
    group = block.get(_MODEL)
    if not isinstance(group, str) or not group.strip():
        raise ValueError(f"{_MODEL} must name a model group of the LiteLLM file")
    if len(group) > MAX_GROUP_CHARS:
        raise ValueError(f"{_MODEL} has {len(group):,} characters; shorten it to at most {MAX_GROUP_CHARS}")
    return group.strip()


Editor = Annotated[str, BeforeValidator(_parse_word, json_schema_input_type=Literal["local", "upstream"] | EditorBlock)]
"""The values that a policies file may have for `editor`."""
