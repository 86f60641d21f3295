"""References of one request: the texts of files, and what the request itself brings."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from aligner_proxy.errors import ForbiddenError
from aligner_proxy.policy.schema import PolicyFile
from aligner_proxy.types import Reference, ReferenceKind

BASE64 = "base64:"
"""How a header begins whose text has lines or letters that headers cannot hold."""


class ReferenceFacts(Protocol):
    """What a request brings that may be a reference."""

    @property
    def system(self) -> str:
        """Its system prompt."""

    @property
    def tool_results(self) -> str:
        """What tools returned."""

    @property
    def given(self) -> Mapping[str, str]:
        """References of its own by the name of their header."""

    @property
    def brought(self) -> Sequence[str]:
        """References of its own in its body."""


def attach_file_texts(settings: Iterable[Reference], texts: Mapping[str, str], granted: bool) -> tuple[Reference, ...]:
    """The references of a policy with the texts of their files; `granted`: its tenant may give references."""
    return tuple(
        replace(reference, text=texts.get(reference.name, ""))
        if reference.kind is ReferenceKind.FILE
        else replace(reference, granted=granted)
        for reference in settings
    )


def all_files_known(references: Iterable[Reference], texts: Mapping[str, str]) -> bool:
    """Whether all files among these are named in the policies file, too; metadata must not open others."""
    return all(reference.name in texts for reference in references if reference.kind is ReferenceKind.FILE)


def header_names(lists: Iterable[Iterable[Reference]]) -> tuple[str, ...]:
    """The names of all headers that these lists name."""
    named = (reference for listed in lists for reference in listed if reference.kind is ReferenceKind.HEADER)
    return tuple(dict.fromkeys(reference.name for reference in named))


def uses_tool_results(file: PolicyFile) -> bool:
    """Whether the results of tools may be a reference of some request; metadata says so only where the file does."""
    named = (reference.kind for _, block in file.blocks() for reference in block.references or ())
    return ReferenceKind.TOOL_RESULTS in named


def request_references(references: Iterable[Reference], facts: ReferenceFacts) -> tuple[Reference, ...]:
    """The references that a request has a text for; raises `ForbiddenError` for a header that it may not send."""
    return tuple(_fill_texts(references, facts))


def _fill_texts(references: Iterable[Reference], facts: ReferenceFacts) -> Iterator[Reference]:
    for reference in references:
        match reference.kind:
            case ReferenceKind.SYSTEM:
                text = facts.system
            case ReferenceKind.TOOL_RESULTS:
                text = facts.tool_results
            case ReferenceKind.HEADER:
                text = facts.given.get(reference.name, "")
                if text.strip() and not reference.granted:
                    raise ForbiddenError(
                        f"this key may not bring references ({reference.name}); its tenant needs allow_references: true"
                    )
            case _:
                text = reference.text
        if text.strip():
            yield replace(reference, text=text)


def body_references(facts: ReferenceFacts, *, granted: bool) -> tuple[Reference, ...]:
    """The references of a body, named 1, 2, ...; raises `ForbiddenError` where the tenant may give none."""
    result = tuple(
        Reference(ReferenceKind.REQUEST, str(number), text)
        for number, text in enumerate(facts.brought, 1)
        if text.strip()
    )
    if result and not granted:
        raise ForbiddenError("this key may not bring references; its tenant needs allow_references: true")
    return result


def decode_header(header: str) -> str:
    """The text of a header: as it is, or in base64 behind `base64:`; empty where that is not valid."""
    if not header.startswith(BASE64):
        return header
    try:
        return base64.b64decode(header.removeprefix(BASE64), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""
