"""`aligner-proxy export`: writes reviews as training rows for models/, each row with its provenance.

The file contains texts of the traffic, so only its owner can read it. The command trains nothing.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from aligner_proxy.cli.terminal import echo, echo_json
from aligner_proxy.errors import ConfigError
from aligner_proxy.plugins.api import Entry
from aligner_proxy.policy import config
from aligner_proxy.policy.resolver import tenant_matches
from aligner_proxy.policy.schema import PolicyFile
from aligner_proxy.prompts import TEMPLATES
from aligner_proxy.types import Objective
from aligner_proxy_review.cli.options import OpenReviews, open_reviews, review_options
from aligner_proxy_review.review_queue import group_reviews
from aligner_proxy_review.training_rows import NoRow, ObjectiveLookup, make_training_row

_FAMILY = "hh-rlhf"
"""Name of the prompt template that writes the query of a row."""


@click.command("export")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="File to write the rows to, as JSON lines.")
@click.option(
    "--feedback", is_flag=True, help="Include feedback from POST /v1/feedback, which no reviewer has checked."
)
@review_options
def command(out: Path, feedback: bool, as_json: bool, **options: Any) -> None:
    """Write reviewed answers as training rows.

    For example: aligner-proxy export --policy gateway/policies.yaml --out rows.jsonl
    """
    with open_reviews(options) as store:
        rows, skipped_counts = _make_rows(store, with_feedback=feedback)
    _write_rows(out, rows)
    if as_json:
        echo_json({"file": str(out), "rows": len(rows), "without": dict(skipped_counts)})
        return
    echo(f"{len(rows)} rows in {out}")
    for reason, count in skipped_counts.most_common():
        echo(f"{count} reviewed answers gave no row: {reason}")


def _make_rows(store: OpenReviews, *, with_feedback: bool) -> tuple[list[Mapping[str, Any]], Counter[str]]:
    """Return (training rows of the reviewed answers, number of answers that gave no row, by reason)."""
    reviews = group_reviews(store.reviews(), with_feedback=with_feedback)
    lookup = _make_objective_lookup(store.file)
    rows: list[Mapping[str, Any]] = []
    skipped_counts: Counter[str] = Counter()
    for entry in store.entries():
        answer_reviews = reviews.get((entry.aligner_id, entry.choice))
        if answer_reviews:
            try:
                rows.append(make_training_row(entry, answer_reviews, TEMPLATES[_FAMILY], lookup))
            except NoRow as reason:
                skipped_counts[str(reason)] += 1
    return rows, skipped_counts


def _make_objective_lookup(file: PolicyFile) -> ObjectiveLookup:
    """Return a function that finds the objectives of an entry's tenant: the first tenant in the file that matches."""

    def find_objectives(entry: Entry) -> dict[str, Objective]:
        facts = entry.content.facts if entry.content else None
        matching_tenants = (
            tenant for tenant in file.tenants if facts is not None and tenant_matches(tenant, facts, file.trust.aliases)
        )
        return config.objectives(file, next(matching_tenants, None))

    return find_objectives


def _write_rows(out: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write the rows to a file that only its owner can read; on failure no partial file remains."""
    draft = out.with_name(out.name + ".part")
    try:
        # O_NOFOLLOW, because a link in the draft's place could lead the texts elsewhere
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with open(descriptor, "w") as file:
            for row in rows:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        draft.replace(out)
    except OSError as error:
        raise ConfigError(f"cannot write {out}: {error.strerror}") from None
    finally:
        draft.unlink(missing_ok=True)
