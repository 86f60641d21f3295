"""References of a request: texts of configured files, and texts from the request."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import lru_cache
from itertools import combinations
from pathlib import Path

from aligner_proxy.errors import ConfigError, ForbiddenError
from aligner_proxy.policy.request_facts import RequestFacts
from aligner_proxy.policy.yaml_file import quote_name
from aligner_proxy.types import Policy, Requirement
from aligner_proxy_grounding.contradictions import find_contradiction
from aligner_proxy_grounding.matching import Matcher
from aligner_proxy_grounding.page import MAX_CHARS, ReferencePage, read_page

_CACHED_MATCHERS = 64
"""How many matchers are cached; a matcher belongs to the references of a policy."""
REFERENCES_KEY = "references"
GRANT_KEY = "allow_references"
GROUNDED = "grounded"
"""The `against` value of findings about sentences that contradict a reference."""


class ReferenceKind(StrEnum):
    """Where the text of a reference comes from."""

    SYSTEM = "system"
    """The request's system prompt."""
    TOOL_RESULTS = "tool_results"
    FILE = "file"
    """A file of the operator."""
    HEADER = "header"
    """A header of the request."""
    REQUEST = "request"
    """The body of the request."""


@dataclass(frozen=True, slots=True)
class Reference:
    """A text that answers must agree with; `name` is its file or header, or its number in the request's body.

    `text` is empty until it is known.
    """

    kind: ReferenceKind
    name: str = ""
    text: str = field(default="", repr=False)

    @property
    def label(self) -> str:
        """Its name in the sources of edits: a file's name without folder, else kind and name ("header x-facts")."""
        if self.kind is ReferenceKind.FILE:
            # without its folder, also for a path in the style of Windows
            return self.name.replace("\\", "/").rpartition("/")[2]
        return f"{self.kind.value} {self.name}".strip()


class References(tuple[Reference, ...], Requirement):
    """The references of a policy; before a request is resolved, only files have a text."""

    __slots__ = ()

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(reference.label for reference in self)

    @property
    def source_texts(self) -> tuple[str, ...]:
        return tuple(reference.text for reference in self)

    @property
    def operator_settings(self) -> object:
        """(kind, name, text) of each reference, with the text only of the operator's files.

        It is part of the policy's hash, which must not depend on the request.
        """
        return [
            (reference.kind, reference.name, reference.text if reference.kind is ReferenceKind.FILE else "")
            for reference in self
        ]

    @property
    def header_names(self) -> tuple[str, ...]:
        return tuple(reference.name for reference in self if reference.kind is ReferenceKind.HEADER)

    @property
    def reads_tool_results(self) -> bool:
        return any(reference.kind is ReferenceKind.TOOL_RESULTS for reference in self)

    @property
    def file_names(self) -> tuple[str, ...]:
        return tuple(reference.name for reference in self if reference.kind is ReferenceKind.FILE)

    def read_files(self, place: Callable[[int], str], path: Callable[[str], Path]) -> dict[str, str]:
        """Return the text of each file by its name as configured.

        `place` returns, for errors, the "file:line" at which the reference with an index is configured; `path` returns
        the path of a configured name. Raises `ConfigError` for a file that cannot be used, and if two files contradict
        each other.
        """
        texts: dict[str, str] = {}
        indexed_pages: list[tuple[int, ReferencePage]] = []
        for index, reference in enumerate(self):
            if reference.kind is ReferenceKind.FILE:
                text = _read_file(reference.name, path(reference.name), place(index))
                texts[reference.name] = text
                indexed_pages.append((index, read_page(reference.label, text)))
        for (_, earlier_page), (index, page) in combinations(indexed_pages, 2):
            _refuse_contradiction(earlier_page, page, place(index))
        return texts

    def with_files(self, texts: Mapping[str, str]) -> References:
        """Return the references with the texts of files, by their names as configured."""
        return References(
            replace(reference, text=texts.get(reference.name, ""))
            if reference.kind is ReferenceKind.FILE
            else reference
            for reference in self
        )


NO_REFERENCES = References()


def references_of(policy: Policy) -> References:
    """The references of a policy; empty without any."""
    references: References = policy.extension(REFERENCES_KEY, NO_REFERENCES)
    return references


def matcher_of(references: Iterable[Reference]) -> Matcher:
    """Return the matcher for the texts of these references, from a cache if it was made before."""
    return _make_matcher(tuple((reference.label, reference.text) for reference in references))


@lru_cache(maxsize=_CACHED_MATCHERS)
def _make_matcher(texts: tuple[tuple[str, str], ...]) -> Matcher:
    """Make the matcher for references, given as (label, text) pairs."""
    return Matcher([read_page(label, text) for label, text in texts])


def fill_references(policy: Policy, facts: RequestFacts) -> Policy:
    """Return the policy with its references for one request: those that have a text, and those of the request's body.

    Raises `ForbiddenError` if the request brings a reference without permission.
    """
    configured_references = references_of(policy)
    body_texts = facts.brought.get(REFERENCES_KEY, ())
    # most policies have no references and stay as they are
    if not (configured_references or body_texts):
        return policy
    may_bring = bool(policy.extension(GRANT_KEY, False))
    references = (
        *_fill_texts(configured_references, facts, may_bring=may_bring),
        *_make_body_references(body_texts, may_bring=may_bring),
    )
    return policy.with_extension(REFERENCES_KEY, References(references))


def _fill_texts(references: Iterable[Reference], facts: RequestFacts, *, may_bring: bool) -> Iterator[Reference]:
    """Yield the references with their texts: of files as read, of other kinds from the request; without empty ones.

    Raises `ForbiddenError` for a header with a text if the tenant may not bring references.
    """
    for reference in references:
        match reference.kind:
            case ReferenceKind.SYSTEM:
                text = facts.system
            case ReferenceKind.TOOL_RESULTS:
                text = facts.tool_results
            case ReferenceKind.HEADER:
                text = facts.given.get(reference.name, "")
                if text.strip() and not may_bring:
                    raise ForbiddenError(
                        f"this key may not send references ({reference.name}); its tenant needs allow_references: true"
                    )
            case _:
                text = reference.text
        if text.strip():
            yield replace(reference, text=text)


def _make_body_references(texts: Iterable[str], *, may_bring: bool) -> list[Reference]:
    """Make the references of the request's body, named 1, 2, ...; raises `ForbiddenError` unless `may_bring`."""
    references = [
        Reference(ReferenceKind.REQUEST, str(number), text) for number, text in enumerate(texts, 1) if text.strip()
    ]
    if references and not may_bring:
        raise ForbiddenError("this key may not send references; its tenant needs allow_references: true")
    return references


def _read_file(name: str, path: Path, place: str) -> str:
    """Read a reference file; raises `ConfigError` if it is unreadable, not UTF-8, too long or empty."""
    try:
        with path.open("rb") as file:
            # a character has at most four bytes in UTF-8, so one more byte shows that the file is too long
            content = file.read(4 * MAX_CHARS + 1)
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{place}: reference {quote_name(name)}: cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        if len(content) > 4 * MAX_CHARS:
            # The cut may have split a character. Any text that is too long makes the check below report this.
            text = " " * (MAX_CHARS + 1)
        else:
            raise ConfigError(
                f"{place}: reference {quote_name(name)}: not UTF-8 text (byte {error.start}); save it as UTF-8"
            ) from None
    if len(text) > MAX_CHARS:
        raise ConfigError(
            f"{place}: reference {quote_name(name)} has more than {MAX_CHARS:,} characters; divide it, and name what "
            "each route needs"
        )
    if not text.strip():
        raise ConfigError(f"{place}: reference {quote_name(name)} is empty; write there what answers must agree with")
    return text.replace("\r\n", "\n")


def _refuse_contradiction(one: ReferencePage, other: ReferencePage, place: str) -> None:
    """Raise `ConfigError`, which names both lines, if two files contradict each other; `place` is the other's."""
    contradiction = find_contradiction(one, other)
    if contradiction is not None:
        first, second = contradiction
        raise ConfigError(
            f"{place}: {first.place} and {second.place} contradict each other ({first.fact.kind.value}); "
            "correct one of them, or name only one of the two files"
        )
