"""Schema of an objective in policies.yaml: a text alone, or a text and a file of examples for teaching.

Every form is parsed into the same frozen `ObjectiveEntry`. `aligner_proxy/teaching/` reads the examples, not this
module, because a mistake in them must not keep a gateway from starting.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from aligner_proxy.policy.model_schema import JudgeSetting
from aligner_proxy.policy.yaml_file import Block, FilePath

MAX_OBJECTIVE_CHARS = 2_000
_NAME_AND_DESCRIPTION = re.compile(r"[^:\n]{1,80}:\s+\S")


def check_objective_text(text: str) -> str:
    """Return the stripped text; raises `ValueError` if it is too long or is not of the form "Name: description"."""
    text = text.strip()
    if len(text) > MAX_OBJECTIVE_CHARS:
        raise ValueError(f"the text has {len(text):,} characters; shorten it to at most {MAX_OBJECTIVE_CHARS:,}")
    if not _NAME_AND_DESCRIPTION.match(text):
        raise ValueError('must read "Name: description", for example "Brevity: the response should be short"')
    return text


ObjectiveText = Annotated[str, AfterValidator(check_objective_text)]


def _check_requested(text: str) -> str:
    """Return the name of an objective, or its text, which has a colon; raises `ValueError` for a wrong text."""
    text = text.strip()
    return check_objective_text(text) if ":" in text else text


RequestedObjective = Annotated[
    str, Field(min_length=1, max_length=MAX_OBJECTIVE_CHARS), AfterValidator(_check_requested)
]
"""An objective in a request: the name of a configured one, or "Name: description"."""


class ObjectiveEntry(Block):
    """An objective of this file, with the examples that teach it."""

    text: ObjectiveText
    """The whole text of the objective, "Name: description"; the aligner reads it."""
    examples: Annotated[FilePath, Field(min_length=1, max_length=400)] | None = None
    """File with example sentences, relative to this file: `against: [...]` violate the objective, `fine: [...]` do not.
    `aligner-proxy teach` learns from them."""
    judge: JudgeSetting | None = None
    """The judge that is asked about this objective in place of the policy's; off: none."""


def _expand_text(value: object) -> object:
    """Expand the short form of an objective (its text alone) into a block; raises `ValueError` for other types."""
    if isinstance(value, str):
        return {"text": check_objective_text(value)}
    if not isinstance(value, Mapping | ObjectiveEntry):
        raise ValueError("must be text (put it in quotes), or a block {text: ..., examples: FILE}")  # noqa: TRY004 - pydantic's
    return value


ObjectiveSetting = Annotated[
    ObjectiveEntry, BeforeValidator(_expand_text, json_schema_input_type=ObjectiveText | ObjectiveEntry)
]
"""The values that a policies file may have for an objective."""
