"""Schema of `references`: the texts to whose facts answers are held, and the reader of those that are files.

A list of the words `system` and `tool_results`, of `{file: PATH}` and of `{header: NAME}`. Files are read when the
policies are, so that a mistake in one is known before there is a request.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from aligner_proxy.errors import ConfigError
from aligner_proxy.grounding.contradictions import find_contradiction
from aligner_proxy.grounding.page import MOST_CHARS, ReferencePage, read_page
from aligner_proxy.policy.yaml_file import KeyPath, Source, nearest, short
from aligner_proxy.types import Reference, ReferenceKind

MOST_REFERENCES = 16
_WORDS = (ReferenceKind.SYSTEM.value, ReferenceKind.TOOL_RESULTS.value)
_BLOCKS = (ReferenceKind.FILE.value, ReferenceKind.HEADER.value)
_HEADER = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}")
_MOST_PATH_CHARS = 400
_FORM = "must be system, tool_results, {file: PATH} or {header: NAME}"


def _listed(value: object) -> object:
    """The references of a list, in their order."""
    if isinstance(value, tuple) and all(isinstance(entry, Reference) for entry in value):
        return value
    if not isinstance(value, list | tuple):
        raise ValueError("must be a list, for example [system, {file: POLICY.md}]")  # noqa: TRY004 - pydantic's
    if len(value) > MOST_REFERENCES:
        raise ValueError(f"has {len(value)} entries; name at most {MOST_REFERENCES}")
    references = tuple(map(_reference, value))
    twice = next((r for n, r in enumerate(references) if r in references[:n]), None)
    if twice is not None:
        raise ValueError(f"names {short(twice.name or twice.kind.value)} twice; keep one")
    return references


def _reference(entry: object) -> Reference:
    if isinstance(entry, str):
        if entry not in _WORDS:
            hint = "; a file is written {file: PATH}" if "." in entry or "/" in entry else f"; {nearest(entry, _WORDS)}"
            raise ValueError(f"{_FORM}{hint}")
        return Reference(ReferenceKind(entry))
    if not isinstance(entry, Mapping) or len(entry) != 1:
        raise ValueError(_FORM)
    kind, name = next(iter(entry.items()))
    if kind not in _BLOCKS:
        raise ValueError(f"{_FORM}; {nearest(str(kind), _BLOCKS)}")
    if kind == ReferenceKind.HEADER.value:
        if not isinstance(name, str) or not _HEADER.fullmatch(name):
            raise ValueError("header must be the name of a header, for example x-account-facts")
        return Reference(ReferenceKind.HEADER, name.lower())
    if not isinstance(name, str) or not 0 < len(name) <= _MOST_PATH_CHARS:
        raise ValueError("file must be a path, relative to this file")
    return Reference(ReferenceKind.FILE, name)


_JSON_SCHEMA: dict[str, Any] = {
    "type": "array",
    "maxItems": MOST_REFERENCES,
    "items": {
        "anyOf": [
            {"enum": list(_WORDS)},
            *(
                {
                    "type": "object",
                    "properties": {word: {"type": "string"}},
                    "required": [word],
                    "additionalProperties": False,
                }
                for word in _BLOCKS
            ),
        ]
    },
}
References = Annotated[tuple[Reference, ...], BeforeValidator(_listed), Field(json_schema_extra=_JSON_SCHEMA)]
"""What a policies file may say; the later of two lists replaces the earlier."""


def read_files(blocks: Iterable[tuple[KeyPath, tuple[Reference, ...]]], source: Source) -> dict[str, str]:
    """The text of each file that these lists name, by its path as written.

    Raises `ConfigError` for a file that is missing, too large or no text, and for two of a list that contradict each
    other.
    """
    texts: dict[str, str] = {}
    for path, references in blocks:
        pages: list[tuple[int, ReferencePage]] = []
        for n, reference in enumerate(references):
            if reference.kind is ReferenceKind.FILE:
                place = source.at(*path, n)
                texts.setdefault(reference.name, _text_of(reference.name, source, place))
                pages.append((n, read_page(reference.label, texts[reference.name])))
        for (_, one), (n, other) in combinations(pages, 2):
            _refuse_contradiction(one, other, source.at(*path, n))
    return texts


def _text_of(name: str, source: Source, place: str) -> str:
    path = source.resolve(name)
    try:
        with path.open("rb") as file:
            raw = file.read(4 * MOST_CHARS + 1)
        text = raw.decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{place}: reference {short(name)}: cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        if len(raw) > 4 * MOST_CHARS:
            text = " " * (MOST_CHARS + 1)
        else:
            raise ConfigError(
                f"{place}: reference {short(name)}: not UTF-8 text (byte {error.start}); save it as UTF-8"
            ) from None
    if len(text) > MOST_CHARS:
        raise ConfigError(
            f"{place}: reference {short(name)} has more than {MOST_CHARS:,} characters; divide it, and name what "
            "each route needs"
        )
    if not text.strip():
        raise ConfigError(f"{place}: reference {short(name)} is empty; write there what answers must agree with")
    return text.replace("\r\n", "\n")


def _refuse_contradiction(one: ReferencePage, other: ReferencePage, place: str) -> None:
    conflict = find_contradiction(one, other)
    if conflict is not None:
        first, second = conflict
        raise ConfigError(
            f"{place}: {first.place} and {second.place} contradict each other ({first.fact.kind.value}); "
            "correct one of them, or name only one of the two files"
        )


def with_files(references: Iterable[Reference], texts: Mapping[str, str]) -> Iterator[Reference]:
    """The references with the texts of their files."""
    for reference in references:
        if reference.kind is ReferenceKind.FILE:
            yield Reference(reference.kind, reference.name, texts[reference.name])
        else:
            yield reference
