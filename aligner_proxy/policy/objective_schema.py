"""Schema of an objective in policies.yaml: a text, or a text with a file of examples to teach it by.

Every form becomes the same frozen `ObjectiveEntry`. The examples are read by `aligner_proxy/teaching/`, never here: a
mistake in them must not keep a gateway from starting.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

MAX_OBJECTIVE_CHARS = 2_000
_OBJECTIVE = re.compile(r"[^:\n]{1,80}:\s+\S")


def check_objective_text(text: str) -> str:
    """The text of an objective, checked: "Name: description", within the length limit; raises `ValueError`."""
    text = text.strip()
    if len(text) > MAX_OBJECTIVE_CHARS:
        raise ValueError(f"the text has {len(text):,} characters; shorten it to at most {MAX_OBJECTIVE_CHARS:,}")
    if not _OBJECTIVE.match(text):
        raise ValueError('must read "Name: description", for example "Brevity: the response should be short"')
    return text


ObjectiveText = Annotated[str, AfterValidator(check_objective_text)]


def _check_requested(text: str) -> str:
    text = text.strip()
    return check_objective_text(text) if ":" in text else text


RequestedObjective = Annotated[
    str, Field(min_length=1, max_length=MAX_OBJECTIVE_CHARS), AfterValidator(_check_requested)
]
"""An objective that a request asks for: the name of a configured one, or "Name: description"."""


class ObjectiveEntry(BaseModel):
    """An objective of this file, and the examples that teach it."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    text: ObjectiveText
    """The whole objective, "Name: description"; the aligner reads it."""
    examples: Annotated[str, Field(min_length=1, max_length=400)] | None = None
    """File with sentences that go against it, relative to this file (`against: [...]`, `fine: [...]`); `aligner-proxy
    teach` learns from it."""


def _as_block(value: object) -> object:
    """The short form, a text alone, as a block."""
    if isinstance(value, str):
        return {"text": check_objective_text(value)}
    if not isinstance(value, Mapping | ObjectiveEntry):
        raise ValueError("must be text (put it in quotes), or a block {text: ..., examples: FILE}")  # noqa: TRY004 - pydantic's
    return value


ObjectiveSetting = Annotated[
    ObjectiveEntry, BeforeValidator(_as_block, json_schema_input_type=ObjectiveText | ObjectiveEntry)
]
"""What a policies file may say."""
