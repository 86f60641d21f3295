"""Whose word is it? The three tiers of a dialogue as MetaAlign has them (arXiv 2410.14184), as frozen types.

System info is said by whoever runs the application, user info by or about the person who asks, the query by that person
in this turn. The first two are the meta prompt, where preferences are looked for; a query is never one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from aligner_proxy.wishes import WishSource


@dataclass(frozen=True, slots=True)
class SystemInfo:
    """The system prompt, whatever the endpoint calls it."""

    text: str = ""


@dataclass(frozen=True, slots=True)
class UserInfo:
    """Who asks (`persona`), and how the answer should be (`preference`), both in the request's own words."""

    persona: str = ""
    preference: str = ""


@dataclass(frozen=True, slots=True)
class MetaPrompt:
    """What is known before a question is asked."""

    system: SystemInfo = SystemInfo()
    user: UserInfo = UserInfo()

    def tiers(self) -> Iterator[tuple[WishSource, str]]:
        """Every text in which preferences may stand; who is first goes before who comes later."""
        yield WishSource.SYSTEM, self.system.text
        yield WishSource.REQUEST, self.user.preference
        yield WishSource.PERSONA, self.user.persona


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked."""

    text: str


@dataclass(frozen=True, slots=True)
class Dialogue:
    """One question with all that stands above it."""

    meta: MetaPrompt
    query: Query
