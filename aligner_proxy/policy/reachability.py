"""Refusal of routes and tenants that can never match, because an earlier entry matches all their requests.

The check is sound but not complete: a refused entry can never match, but a hidden entry with a complex pattern (for
example with [brackets]) may not be noticed.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from aligner_proxy.errors import ConfigError
from aligner_proxy.policy.schema import PolicyFile

_Patterns = tuple[str | None, ...]
"""The patterns of one entry: (model, tag) of a route, (team, key) of a tenant; None matches everything."""


def refuse_unreachable(file: PolicyFile) -> None:
    """Raise `ConfigError` for the first route or tenant that an earlier one hides; the message names both lines."""
    routes = [(route.match.model, route.match.tag) for route in file.routes]
    tenants = [(tenant.match.team, tenant.match.key) for tenant in file.tenants]
    # Every request has a model, but not every request has a tag, a team or a key.
    _refuse_hidden(file, "routes", routes, always_present=(True, False))
    _refuse_hidden(file, "tenants", tenants, always_present=(False, False))


def _refuse_hidden(file: PolicyFile, key: str, entries: Sequence[_Patterns], always_present: tuple[bool, bool]) -> None:
    """Raise `ConfigError` for the first entry whose requests all match an earlier entry.

    `entries` has the two patterns of each entry of the list `key` in the file. `always_present` says for each of the
    two whether every request has the property (such as a model) that the pattern is about.
    """
    for later_index, later in enumerate(entries):
        for earlier_index, earlier in enumerate(entries[:later_index]):
            if all(map(_hides, earlier, later, always_present)):
                hidden_place = file.source.place_of(key, later_index)
                hiding_place = file.source.place_of(key, earlier_index)
                raise ConfigError(
                    f"{hidden_place}: {key}[{later_index}] can never match: {key}[{earlier_index}] ({hiding_place}) "
                    "matches everything it matches; put the narrower one first, or remove one"
                )


def _hides(earlier: str | None, later: str | None, is_always_present: bool) -> bool:
    """Whether the pattern `earlier` matches all that `later` matches (see `_refuse_hidden`); None matches all."""
    if earlier is None:
        return True
    if later is None:
        # `later` also matches requests without this property, but a pattern does not.
        return is_always_present and earlier.strip("*") == ""
    return earlier == later or covers(earlier, later)


@lru_cache(maxsize=4096)
def covers(wide: str, narrow: str) -> bool:
    """Whether the glob `wide` matches every text that the glob `narrow` matches; True is certain, False is not."""
    # Brackets are not analysed. With them, only an equal pattern, or one of stars alone, certainly covers.
    if "[" in wide or "[" in narrow:
        return wide == narrow or (bool(wide) and wide.strip("*") == "")
    # Dynamic programming over the characters of `wide`: covered[n] says whether the part of `wide` read so far covers
    # the first n characters of `narrow`. Example: after "gpt-", for `narrow` "gpt-4*", only covered[4] is true.
    covered = [True] + [False] * len(narrow)
    for character in wide:
        if character == "*":
            # A star covers any further characters.
            first_length = covered.index(True) if True in covered else len(covered)
            covered = [length >= first_length for length in range(len(covered))]
        else:
            # Another character covers one equal character, and "?" covers any, but not a star, which is any text.
            longer = [
                is_covered and next_narrow != "*" and character in ("?", next_narrow)
                for is_covered, next_narrow in zip(covered, narrow, strict=False)
            ]
            covered = [False, *longer]
    return covered[-1]
