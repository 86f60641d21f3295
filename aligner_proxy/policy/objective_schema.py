"""Schema of an objective in policies.yaml: a text, or a text with a file of examples to teach it by.

Every form becomes the same frozen `ObjectiveEntry`. The examples are read by `aligner_proxy/teaching/`, never here: a
mistake in them must not keep a gateway from starting.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag

from aligner_proxy.policy.yaml_file import BLOCK_FORM

MAX_OBJECTIVE_CHARS = 2_000
_OBJECTIVE = re.compile(r"[^:\n]{1,80}:\s+\S")
_TEXT_FORM = "[text]"


def objective_text(text: str) -> str:
    """The text of an objective, checked: "Name: description", within the length limit; raises `ValueError`."""
    text = text.strip()
    if len(text) > MAX_OBJECTIVE_CHARS:
        raise ValueError(f"the text has {len(text):,} characters; shorten it to at most {MAX_OBJECTIVE_CHARS:,}")
    if not _OBJECTIVE.match(text):
        raise ValueError('must read "Name: description", for example "Brevity: the response should be short"')
    return text


ObjectiveText = Annotated[str, AfterValidator(objective_text)]


class ObjectiveEntry(BaseModel):
    """An objective of this file, and the examples that teach it."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    text: ObjectiveText
    """The whole objective, "Name: description"; the aligner reads it."""
    examples: Annotated[str, Field(min_length=1, max_length=400)] | None = None
    """File with sentences that go against it, relative to this file (`against: [...]`, `fine: [...]`); `aligner-proxy
    teach` learns from it."""


def _form(value: object) -> str:
    return BLOCK_FORM if isinstance(value, Mapping | ObjectiveEntry) else _TEXT_FORM


def _as_entry(value: Any) -> ObjectiveEntry:
    return value if isinstance(value, ObjectiveEntry) else ObjectiveEntry(text=value)


ObjectiveSetting = Annotated[
    Annotated[ObjectiveEntry, Tag(BLOCK_FORM)] | Annotated[ObjectiveText, Tag(_TEXT_FORM)],
    Discriminator(_form),
    AfterValidator(_as_entry),
]
"""What a policies file may say; always an `ObjectiveEntry` once it is read."""
