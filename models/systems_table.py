"""How is a comparison of systems laid out? A table with n and interval in every cell, one of costs, and a plot.

Where each system loses is said by the figures themselves: which column it is last in.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from . import publish
from .adherence import mcnemar
from .rates import Rate

if TYPE_CHECKING:
    from .systems import Found

MISSING = "not there"
QUALITY = (
    "repaired exactly",
    "fault gone",
    "harmed",
    "good ones identical",
    "not asked, identical",
    "preference met",
)


def rates(found: Sequence[Found]) -> dict[str, Rate]:
    """One rate a column; `harmed` counts every answer in which something that had to stay is not there any more."""
    by = {
        group: [one for one in found if one.group == group] for group in ("faulty", "good", "not asked", "preference")
    }
    return {
        "repaired exactly": Rate.of(bool(one.exact) for one in by["faulty"]),
        "fault gone": Rate.of(bool(one.gone) for one in by["faulty"]),
        "harmed": Rate.of(not one.kept for one in found),
        "good ones identical": Rate.of(one.same for one in by["good"]),
        "not asked, identical": Rate.of(one.same for one in by["not asked"]),
        "preference met": Rate.of(bool(one.after) for one in by["preference"]),
    }


def costs(found: Sequence[Found], base: float | None) -> tuple[object, ...]:
    """What it took: seconds in the middle, 95th percentile, ratio to `base` seconds; tokens and forwards an answer."""
    seconds = sorted(one.seconds for one in found)
    middle, late = statistics.median(seconds), seconds[min(len(seconds) - 1, int(0.95 * len(seconds)))]
    return (
        len(found),
        f"{middle:.2f}",
        f"{late:.2f}",
        f"{middle / base:.2f}" if base else "-",
        f"{statistics.fmean(one.written for one in found):.1f}",
        f"{statistics.fmean(one.forwards for one in found):.1f}",
        Rate.of(one.refused for one in found),
        Rate.of(one.failed for one in found),
    )


def changes(found: Sequence[Found]) -> tuple[object, ...]:
    """Of preferences: met before, gained, lost, and McNemar's exact p."""
    asked = [one for one in found if one.before is not None]
    gained = sum(bool(one.after and not one.before) for one in asked)
    lost = sum(bool(one.before and not one.after) for one in asked)
    return Rate.of(bool(one.before) for one in asked), gained, lost, f"{mcnemar(gained, lost):.2g}"


def losing(rows: Mapping[str, Sequence[Found]]) -> list[str]:
    """Which columns each system is last in, ties included; a column in which all are alike says nothing.

    Systems that were measured on fewer answers than others are left out: theirs are other answers.
    """
    most = max(map(len, rows.values()), default=0)
    lines, found = [], {name: rates(one) for name, one in rows.items()}
    for name, mine in found.items():
        last = []
        for column in QUALITY:
            full = max(other[column].n for other in found.values())
            values = [other[column].percent for other in found.values() if other[column].n == full > 0]
            worst = max(values, default=0.0) if column == "harmed" else min(values, default=0.0)
            if mine[column].n == full and len(set(values)) > 1 and mine[column].percent == worst:
                last.append(f"{column} ({mine[column].percent:.0f} %)")
        fewer = f" (of {len(rows[name])} answers where others have {most})" if len(rows[name]) < most else ""
        lines.append(f"- {name}: {', '.join(last) or 'last in nothing'}{fewer}")
    return lines


def text(rows: Mapping[str, Sequence[Found] | None]) -> str:
    """The tables as Markdown."""
    there = {name: found for name, found in rows.items() if found}
    reference = there.get("MetaAligner")
    base = statistics.median(one.seconds for one in reference) if reference else None
    quality = [(name, *(rates(found).values() if found else (MISSING,) * len(QUALITY))) for name, found in rows.items()]
    cost = [(name, *costs(found, base)) for name, found in there.items()]
    wishes = [(name, *changes(found)) for name, found in there.items() if any(one.before is not None for one in found)]
    parts = [
        publish.table(("system", *QUALITY), quality),
        publish.table(
            ("system", "n", "s, median", "s, p95", "x MetaAligner", "tokens", "forwards", "gate objected", "failed"),
            cost,
        ),
        *([publish.table(("system", "met before", "gained", "lost", "p"), wishes)] if wishes else []),
        "Last in:\n\n" + "\n".join(losing(there)),
    ]
    return "\n\n".join(parts)


def draw(rows: Mapping[str, Sequence[Found]], path: Path) -> None:
    """One panel a column, one dot a system."""
    found = {name: rates(one) for name, one in rows.items()}
    columns = [column for column in QUALITY if any(one[column].n for one in found.values())]
    size = (2.6 * len(columns) + 1.5, 1.2 + 0.35 * len(found))
    with publish.plot(path, 1, len(columns), size=size, sharey=True) as (panels,):
        for panel, column in zip(panels, columns, strict=True):
            publish.whiskers(panel, [one[column] for one in found.values()], list(found))
            panel.set_xlabel(f"{column}, %", fontsize=8)


def report(rows: Mapping[str, Sequence[Found] | None], out: Path, told: object) -> str:
    """Write systems.md, .json and .svg; no text of anybody is in them."""
    there = {name: found for name, found in rows.items() if found}
    tables = text(rows)
    figures = {name: rates(found) for name, found in there.items()}
    publish.write(out, "systems", tables, {"comparison": told, "rates": figures})
    draw(there, out / "systems.svg")
    return tables
