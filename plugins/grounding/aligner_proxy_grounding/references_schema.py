"""Schema of `references`: a list of `system`, `tool_results`, `{file: PATH}` and `{header: NAME}`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from aligner_proxy.policy.yaml_file import check_path, quote_name, suggest_name
from aligner_proxy_grounding.references import Reference, ReferenceKind, References

MAX_REFERENCES = 16
"""Limit on the references of a policy or a request."""
_KINDS_WITHOUT_NAME = (ReferenceKind.SYSTEM.value, ReferenceKind.TOOL_RESULTS.value)
_KINDS_WITH_NAME = (ReferenceKind.FILE.value, ReferenceKind.HEADER.value)
_HEADER = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}")
_MAX_PATH_CHARS = 400
"""Longest path of a file."""
_ALLOWED_ENTRIES = "must be system, tool_results, {file: PATH} or {header: NAME}"


def _parse_references(value: object) -> object:
    """Parse the list of the policies file into a tuple of references; raises `ValueError`."""
    # pydantic also passes a default or a copied value, which is already parsed
    if isinstance(value, tuple) and all(isinstance(entry, Reference) for entry in value):
        return value
    if not isinstance(value, list | tuple):
        raise ValueError("must be a list, for example [system, {file: POLICY.md}]")  # noqa: TRY004 - pydantic's
    if len(value) > MAX_REFERENCES:
        raise ValueError(f"has {len(value)} entries; name at most {MAX_REFERENCES}")
    references = tuple(map(_parse_reference, value))
    for index, reference in enumerate(references):
        if reference in references[:index]:
            raise ValueError(f"names {quote_name(reference.name or reference.kind.value)} twice; keep one")
    return references


def _parse_reference(entry: object) -> Reference:
    """Parse one entry of the list; raises `ValueError` with a hint at what is allowed."""
    if isinstance(entry, str):
        if entry in _KINDS_WITHOUT_NAME:
            return Reference(ReferenceKind(entry))
        looks_like_path = "." in entry or "/" in entry
        hint = "a file is written {file: PATH}" if looks_like_path else suggest_name(entry, _KINDS_WITHOUT_NAME)
        raise ValueError(f"{_ALLOWED_ENTRIES}; {hint}")
    if not isinstance(entry, Mapping) or len(entry) != 1:
        raise ValueError(_ALLOWED_ENTRIES)
    kind, name = next(iter(entry.items()))
    if kind not in _KINDS_WITH_NAME:
        raise ValueError(f"{_ALLOWED_ENTRIES}; {suggest_name(str(kind), _KINDS_WITH_NAME)}")
    if kind == ReferenceKind.HEADER.value:
        if not isinstance(name, str) or not _HEADER.fullmatch(name):
            raise ValueError("header must be the name of a header, for example x-account-facts")
        # names of headers have no case
        return Reference(ReferenceKind.HEADER, name.lower())
    if not isinstance(name, str) or not 0 < len(name) <= _MAX_PATH_CHARS:
        raise ValueError("file must be a path, relative to this file")
    return Reference(ReferenceKind.FILE, check_path(name))


_JSON_SCHEMA: dict[str, Any] = {
    "type": "array",
    "maxItems": MAX_REFERENCES,
    "items": {
        "anyOf": [
            {"enum": list(_KINDS_WITHOUT_NAME)},
            *(
                {
                    "type": "object",
                    "properties": {kind: {"type": "string"}},
                    "required": [kind],
                    "additionalProperties": False,
                }
                for kind in _KINDS_WITH_NAME
            ),
        ]
    },
}
ReferenceList = Annotated[
    tuple[Reference, ...],
    BeforeValidator(_parse_references),
    AfterValidator(References),
    Field(json_schema_extra=_JSON_SCHEMA),
]
"""Type of `references` in a policies file; a later list replaces an earlier one."""
