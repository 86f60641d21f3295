"""Options that the review commands share, and functions with which they read the audit store and show shares."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from aligner_proxy.audit import writer
from aligner_proxy.audit.store import AuditStore
from aligner_proxy.cli.options import add_options, parse_moment
from aligner_proxy.plugins import registry
from aligner_proxy.plugins.api import Entry
from aligner_proxy.policy.litellm_config import resolve_policies_file
from aligner_proxy.policy.schema import PolicyFile
from aligner_proxy_review.evidence import Evidence, Share
from aligner_proxy_review.review_queue import AnswerFilter
from aligner_proxy_review.reviews import Review, Reviews

F = TypeVar("F", bound=Callable[..., Any])
_OPTIONS = (
    click.option(
        "--policy",
        "policies",
        required=True,
        type=click.Path(path_type=Path),
        help="The policies file, or LiteLLM YAML, that names the audit store.",
    ),
    click.option("--audit", "path", type=click.Path(path_type=Path), help="A store other than that of the policies."),
    click.option("--route", help="Only answers under this route, or policy as x-aligner-policy shows it."),
    click.option("--tenant", help="Only answers of this tenant: a team's id, or as the store has it."),
    click.option("--since", default="30d", show_default=True, help="How far back: 30m, 12h, 7d, or a date."),
    click.option("--json", "as_json", is_flag=True, help="Print one JSON object, without texts."),
)


def review_options(command: F) -> F:
    """Decorate a command with the options that select the store and the answers."""
    return add_options(command, _OPTIONS)


@dataclass(frozen=True, slots=True)
class OpenReviews:
    """An open store, the policies file that names it, and the selection of answers."""

    store: AuditStore
    file: PolicyFile
    answer_filter: AnswerFilter

    def entries(self) -> Iterator[Entry]:
        """The selected answers, oldest first."""
        condition, values = self.answer_filter.sql_condition()
        selected_ids = f"SELECT e.id FROM entries e WHERE e.aligner_id != '' AND {condition}"
        return self.store.select(f"id IN ({selected_ids}) ORDER BY id", values)

    def reviews(self) -> list[Review]:
        """All reviews in the store, also of answers that are not selected."""
        return list(Reviews(self.store).all())


@contextmanager
def open_reviews(options: dict[str, Any]) -> Iterator[OpenReviews]:
    """Open the store that the options of `review_options` name, and close it at the end of the block.

    `options` are the values of the command's options by name; those of `review_options` are removed from it.
    """
    file = registry.load_policies(resolve_policies_file(options.pop("policies")))
    answer_filter = AnswerFilter(options.pop("tenant"), options.pop("route"), parse_moment(options.pop("since")))
    with closing(writer.open_for_reading(file, options.pop("path"))) as store:
        yield OpenReviews(store, file, answer_filter)


def share_text(share: Share) -> str:
    """A share and its 95 % interval as text, as in "2 of 100 (2.0 %, 0.6 to 7.0)"."""
    if not share.total:
        return "none reviewed"
    value, low, high = (100 * part for part in share.interval)
    return f"{share.count} of {share.total} ({value:.1f} %, {low:.1f} to {high:.1f})"


def share_fields(share: Share) -> dict[str, float | int]:
    """A share as JSON, with the ends of its 95 % interval."""
    value, low, high = share.interval
    return {"count": share.count, "of": share.total, "share": value, "low": low, "high": high}


def evidence_shares(evidence: Evidence) -> dict[str, Share]:
    """The shares that reviews prove, by name."""
    return {"changed": evidence.changed, "right": evidence.right, "wrong": evidence.wrong, "missed": evidence.missed}
