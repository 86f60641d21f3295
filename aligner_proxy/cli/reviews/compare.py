"""`aligner-proxy compare A B`: two aligners or two policies by their recorded answers and what reviewers said of them.

A and B are beginnings of hashes, of aligners or policies, as the audit store has them. Figures come with their 95 %
intervals; where both judged the same answers, these are compared one by one.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from aligner_proxy.audit.comparison import Comparison, compared
from aligner_proxy.audit.evidence import Both, Evidence, Share
from aligner_proxy.cli.diff import table
from aligner_proxy.cli.reviews.options import as_numbers, opened, percent, review_options, shares
from aligner_proxy.cli.terminal import Terminal, echo_json

_NO_DIFFERENCE = "the intervals overlap: the difference may be chance; more reviews would tell"


@click.command("compare")
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@review_options
def command(first: str, second: str, as_json: bool, **given: Any) -> None:
    """Compare two aligners, or two policies, by the beginnings of their hashes."""
    with opened(given) as store:
        found = compared(store.entries(), store.reviews(), first, second)
    if as_json:
        told: dict[str, Any] = {first: _as_json(found.first), second: _as_json(found.second)}
        same = asdict(found.both) | {"intervals": _intervals(found.both)}
        echo_json({"sides": told, "same_answers": same}, indent=2)
        return
    _show(found, first, second)


def _show(found: Comparison, first: str, second: str) -> None:
    console = Terminal()
    rows = [("answers", str(found.first.answers), str(found.second.answers))]
    rows += [(label, percent(one), percent(other)) for label, one, other in found.shares]
    rows.append(("reviewers disagree", str(len(found.first.disagreed)), str(len(found.second.disagreed))))
    console.print(table(("", first, second), rows))
    if found.may_be_chance:
        console.print(_NO_DIFFERENCE, soft_wrap=True)
    console.print(table(("the same answers", ""), _same(found)))


def _same(found: Comparison) -> list[tuple[str, str]]:
    """What became of the answers that both judged, with intervals."""
    told = [(label, percent(share) if share.of else "0") for label, share in found.same]
    return [("answers that both judged", str(found.both.answers)), *told]


def _intervals(both: Both) -> dict[str, list[float]]:
    """The share of each count, and the ends of its interval."""
    counts = asdict(both)
    del counts["answers"]
    return {name: list(Share(count, both.answers).interval) for name, count in counts.items()}


def _as_json(side: Evidence) -> dict[str, Any]:
    told = {name: as_numbers(share) for name, share in shares(side).items()}
    return {"answers": side.answers, **told, "verdicts": dict(side.verdicts), "disagreed": len(side.disagreed)}
