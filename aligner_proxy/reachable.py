"""Can every route and tenant of a policies file ever match? One that an earlier one hides is an operator's mistake.

The answer is sound, not complete: what is reported can never match; a hidden entry whose pattern is too clever (with
[brackets], say) may go unreported. Several earlier entries that only together hide one are not looked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from aligner_proxy.errors import ConfigError
from aligner_proxy.policy_file import PolicyFile

_Patterns = tuple[str | None, ...]


def refuse_unreachable(file: PolicyFile) -> None:
    """Raise for the first route or tenant that an earlier one hides, naming both lines."""
    _check(file, "routes", [(route.match.model, route.match.tag) for route in file.routes], always=(True, False))
    _check(file, "tenants", [(one.match.team, one.match.key) for one in file.tenants], always=(False, False))


def _check(file: PolicyFile, key: str, entries: Sequence[_Patterns], always: tuple[bool, ...]) -> None:
    for j, later in enumerate(entries):
        for i, earlier in enumerate(entries[:j]):
            if all(_hides(a, b, there) for a, b, there in zip(earlier, later, always, strict=True)):
                raise ConfigError(
                    f"{file.source.at(key, j)}: {key}[{j}] can never match: {key}[{i}] ({file.source.at(key, i)}) "
                    "matches everything it matches; put the narrower one first, or remove one"
                )


def _hides(earlier: str | None, later: str | None, always: bool) -> bool:
    """Whether `earlier` accepts whatever `later` accepts; `always`: every request has this property."""
    if earlier is None:
        return True
    if later is None:
        return always and earlier.strip("*") == ""
    return earlier == later or covers(earlier, later)


@lru_cache(maxsize=4096)
def covers(wide: str, narrow: str) -> bool:
    """Whether the glob `wide` accepts every text that the glob `narrow` accepts (never a false yes)."""
    if "[" in wide or "[" in narrow:
        return wide == narrow or (bool(wide) and wide.strip("*") == "")
    # One row per character of `wide`: fits[j] says that what was read of it covers the first j characters of `narrow`.
    fits = [True] + [False] * len(narrow)
    for mark in wide:
        if mark == "*":
            first = fits.index(True) if True in fits else len(fits)
            fits = [j >= first for j in range(len(fits))]
        else:
            steps = [fits[j] and narrow[j] != "*" and mark in ("?", narrow[j]) for j in range(len(narrow))]
            fits = [False, *steps]
    return fits[-1]
