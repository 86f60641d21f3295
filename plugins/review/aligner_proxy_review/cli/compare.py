"""`aligner-proxy compare A B`: compares two aligners or two policies by recorded answers and reviews.

A and B are the first digits of hashes of aligners or policies, as the audit store has them. Figures have 95 %
intervals. Answers that both judged are also compared one by one.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from aligner_proxy.cli.diff import TextTable
from aligner_proxy.cli.terminal import Terminal, echo_json
from aligner_proxy_review.cli.options import evidence_shares, open_reviews, review_options, share_fields, share_text
from aligner_proxy_review.comparison import EvidenceComparison, compare_evidence
from aligner_proxy_review.evidence import Evidence, PairedAnswers, Share

_NO_DIFFERENCE = "the intervals overlap: the difference may be chance; more reviews would tell"


@click.command("compare")
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@review_options
def command(first: str, second: str, as_json: bool, **options: Any) -> None:
    """Compare two aligners, or two policies, which are named by prefixes of their hashes.

    For example: aligner-proxy compare 3f9a 71c2 --policy gateway/policies.yaml
    """
    with open_reviews(options) as store:
        comparison = compare_evidence(store.entries(), store.reviews(), first, second)
    if as_json:
        sides: dict[str, Any] = {first: _evidence_fields(comparison.first), second: _evidence_fields(comparison.second)}
        same_answers = asdict(comparison.both) | {"intervals": _count_intervals(comparison.both)}
        echo_json({"sides": sides, "same_answers": same_answers}, indent=2)
        return
    _print_comparison(comparison, first, second)


def _print_comparison(comparison: EvidenceComparison, first: str, second: str) -> None:
    """Print the shares of A and B, which are named by `first` and `second`, and the answers that both judged."""
    console = Terminal()
    rows = [("answers", str(comparison.first.answers), str(comparison.second.answers))]
    rows += [
        (label, share_text(first_share), share_text(second_share))
        for label, first_share, second_share in comparison.shares
    ]
    rows.append(("reviewers disagree", str(len(comparison.first.disagreed)), str(len(comparison.second.disagreed))))
    console.print(TextTable(("", first, second), rows))
    if comparison.may_be_chance:
        console.print(_NO_DIFFERENCE, soft_wrap=True)
    paired_rows = [("answers that both judged", str(comparison.both.answers))]
    paired_rows += [(label, share_text(share) if share.total else "0") for label, share in comparison.paired_shares]
    console.print(TextTable(("the same answers", ""), paired_rows))


def _count_intervals(both: PairedAnswers) -> dict[str, list[float]]:
    """For each count of `both`, by its name: [share, lower end of its 95 % interval, upper end]."""
    counts = asdict(both)
    del counts["answers"]
    return {name: list(Share(count, both.answers).interval) for name, count in counts.items()}


def _evidence_fields(evidence: Evidence) -> dict[str, Any]:
    """The evidence about A or B as JSON, without texts."""
    return {
        "answers": evidence.answers,
        **{name: share_fields(share) for name, share in evidence_shares(evidence).items()},
        "verdicts": dict(evidence.verdicts),
        "disagreed": len(evidence.disagreed),
    }
