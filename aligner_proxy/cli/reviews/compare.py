"""`aligner-proxy compare A B`: two aligners or two policies by their recorded answers and what reviewers said of them.

A and B are beginnings of hashes, of aligners or policies, as the audit store has them. Figures come with their 95 %
intervals; where both judged the same answers, these are compared one by one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import click
from rich.console import Console

from aligner_proxy.audit.evidence import Both, Evidence, Share, evidence, same_answers
from aligner_proxy.cli.diff import table
from aligner_proxy.cli.reviews.options import as_numbers, opened, percent, review_options, shares
from aligner_proxy.errors import ConfigError
from aligner_proxy.plugins.api import Entry

_SHORTEST = 4
_NO_DIFFERENCE = "the intervals overlap: the difference may be chance; more reviews would tell"


@click.command("compare")
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@review_options
def command(first: str, second: str, as_json: bool, **given: Any) -> None:
    """Compare two aligners, or two policies, by the beginnings of their hashes."""
    with opened(given) as store:
        entries = [entry for entry in store.entries() if entry.changed is not None]
        reviews = store.reviews()
    sides = {name: _of(entries, name) for name in (first, second)}
    if len(sides) == 1:
        raise ConfigError("A and B are the same; name two")
    found = {name: evidence(side, reviews) for name, side in sides.items()}
    both = same_answers(*sides.values())
    if as_json:
        told: dict[str, Any] = {name: _as_json(side) for name, side in found.items()}
        same = asdict(both) | {"intervals": _intervals(both)}
        click.echo(json.dumps({"sides": told, "same_answers": same}, indent=2))
        return
    _show(found, both)


def _of(entries: Sequence[Entry], beginning: str) -> list[Entry]:
    """The answers of one aligner or policy; raises `ConfigError` where the hash fits none, or several."""
    if len(beginning) < _SHORTEST:
        raise ConfigError(f"{beginning!r} is too short; give at least {_SHORTEST} digits of a hash")
    hashes = {hash_ for entry in entries for hash_ in (entry.aligner, entry.policy_hash) if hash_}
    fitting = sorted(hash_ for hash_ in hashes if hash_.startswith(beginning))
    if len(fitting) != 1:
        known = ", ".join(sorted(hash_[:12] for hash_ in hashes)) or "none"
        what = "several hashes begin" if fitting else "no hash begins"
        raise ConfigError(f"{what} with {beginning!r} among these answers; there are: {known}")
    return [entry for entry in entries if fitting[0] in (entry.aligner, entry.policy_hash)]


def _show(found: dict[str, Evidence], both: Both) -> None:
    console = Console()
    sides = list(found.values())
    rows = [("answers", *(str(side.answers) for side in sides))]
    for label, name in (
        ("changed", "changed"),
        ("edits that are right", "right"),
        ("edits that are wrong or do harm", "wrong"),
        ("missed, of those drawn at random", "missed"),
    ):
        rows.append((label, *(percent(getattr(side, name)) for side in sides)))
    rows.append(("reviewers disagree", *(str(len(side.disagreed)) for side in sides)))
    console.print(table(("", *found), rows))
    if _overlap(*(side.wrong for side in sides)):
        console.print(_NO_DIFFERENCE, soft_wrap=True)
    console.print(table(("the same answers", ""), _same(both)))


def _same(both: Both) -> list[tuple[str, str]]:
    """What became of the answers that both judged, with intervals."""
    names = ("changed by neither", "by A alone", "by B alone", "alike", "otherwise")
    counts = list(asdict(both).values())[1:]
    told = [percent(Share(count, both.answers)) if both.answers else "0" for count in counts]
    return [("answers that both judged", str(both.answers)), *zip(names, told, strict=True)]


def _overlap(first: Share, second: Share) -> bool:
    return first.interval[1] <= second.interval[2] and second.interval[1] <= first.interval[2]


def _intervals(both: Both) -> dict[str, list[float]]:
    """The share of each count, and the ends of its interval."""
    counts = asdict(both)
    del counts["answers"]
    return {name: list(Share(count, both.answers).interval) for name, count in counts.items()}


def _as_json(side: Evidence) -> dict[str, Any]:
    told = {name: as_numbers(share) for name, share in shares(side).items()}
    return {"answers": side.answers, **told, "verdicts": dict(side.verdicts), "disagreed": len(side.disagreed)}
