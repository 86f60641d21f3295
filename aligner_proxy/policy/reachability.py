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
    """Raise `ConfigError` for the first route or tenant that an earlier one hides; names both lines."""
    # Every request has a model, but not every one has a tag, a team or a key.
    _refuse_hidden(
        file, "routes", [(route.match.model, route.match.tag) for route in file.routes], always=(True, False)
    )
    _refuse_hidden(
        file, "tenants", [(tenant.match.team, tenant.match.key) for tenant in file.tenants], always=(False, False)
    )


def _refuse_hidden(file: PolicyFile, key: str, entries: Sequence[_Patterns], always: tuple[bool, ...]) -> None:
    """Raise `ConfigError` for the first entry whose requests all match an earlier entry.

    `always` says of each pattern of an entry whether every request has the property that it is about.
    """
    for j, later in enumerate(entries):
        for i, earlier in enumerate(entries[:j]):
            if all(
                _hides(earlier_pattern, later_pattern, is_always_present)
                for earlier_pattern, later_pattern, is_always_present in zip(earlier, later, always, strict=True)
            ):
                hidden = file.source.place_of(key, j)
                hiding = file.source.place_of(key, i)
                raise ConfigError(
                    f"{hidden}: {key}[{j}] can never match: {key}[{i}] ({hiding}) "
                    "matches everything it matches; put the narrower one first, or remove one"
                )


def _hides(earlier: str | None, later: str | None, is_always_present: bool) -> bool:
    """Whether the pattern `earlier` matches all that `later` matches; None stands for "everything".

    `is_always_present` says that every request has the property that both patterns are about, as it has a model.
    """
    if earlier is None:
        return True
    if later is None:
        # `later` also matches requests without this property, which match no pattern.
        return is_always_present and earlier.strip("*") == ""
    return earlier == later or covers(earlier, later)


@lru_cache(maxsize=4096)
def covers(wide: str, narrow: str) -> bool:
    """Whether the glob `wide` matches every text that the glob `narrow` matches; True is certain, False is not."""
    # Brackets are not analysed: only equal patterns, or one of stars alone, are known to cover.
    if "[" in wide or "[" in narrow:
        return wide == narrow or (bool(wide) and wide.strip("*") == "")
    # Dynamic programming, one row per character of `wide`: fits[j] means that the part of `wide` read so far covers the
    # first j characters of `narrow`. Example: after "gpt-", for `narrow` "gpt-4*", only fits[4] is true.
    fits = [True] + [False] * len(narrow)
    for mark in wide:
        if mark == "*":
            # A star covers any further characters.
            first_fit = fits.index(True) if True in fits else len(fits)
            fits = [j >= first_fit for j in range(len(fits))]
        else:
            # A star of `narrow` stands for any text, which only a star covers.
            fits_after_mark = [fits[j] and narrow[j] != "*" and mark in ("?", narrow[j]) for j in range(len(narrow))]
            fits = [False, *fits_after_mark]
    return fits[-1]
