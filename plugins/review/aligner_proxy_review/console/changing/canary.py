"""The canary page: compares two aligners or two policies on the same answers, as `aligner-proxy compare` does."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass

from starlette.responses import Response

from aligner_proxy.audit.entry import SHADOW_SUFFIX
from aligner_proxy.errors import ConfigError
from aligner_proxy_review.comparison import EvidenceComparison, compare_evidence
from aligner_proxy_review.console.pages import Visit, refuse_reviewers
from aligner_proxy_review.promotion import PERIOD_S
from aligner_proxy_review.review_queue import AnswerFilter
from aligner_proxy_review.reviews import Reviews

PATH = "/canary"
MAX_COMPARED = 20_000
"""How many of the newest answers are read."""
_MAX_HASH_DIGITS = 64
_HEX_DIGITS = frozenset("0123456789abcdef")


@dataclass(frozen=True, slots=True)
class _CanaryData:
    """The aligners of the recorded answers, and the comparison of two of them."""

    aligners: list[tuple[str, int, int]]
    """(content hash, number of answers, number of answers that it judged as the shadow aligner) of each aligner."""
    comparison: EvidenceComparison | None
    """None unless two aligners are chosen."""
    problem: str | None
    """Why two aligners cannot be compared; None if they can."""
    is_cut: bool
    """Whether older answers of the period may have been left out."""


async def show_canary(visit: Visit) -> Response:
    """Show which aligners judged answers in the last `PERIOD_S` seconds, and compare two of them, or two policies.

    The query string has the beginnings of their hashes as `a` and `b`.
    """
    refuse_reviewers(visit)
    query = visit.request.query_params
    first = _hash_prefix(query.get("a", ""))
    second = _hash_prefix(query.get("b", ""))
    data = await asyncio.to_thread(_read_canary, visit, first, second)
    # the form suggests the two aligners with the most answers
    suggestions = [aligner for aligner, _, _ in data.aligners] + ["", ""]
    return visit.render_page(
        "canary.html",
        found=data,
        first=first or suggestions[0],
        second=second or suggestions[1],
        max_compared=MAX_COMPARED,
    )


def _hash_prefix(text: str) -> str:
    """Cut a text to the length of a hash; return "" if it has other characters than hexadecimal digits."""
    prefix = text[:_MAX_HASH_DIGITS]
    return prefix if set(prefix) <= _HEX_DIGITS else ""


def _read_canary(visit: Visit, first: str, second: str) -> _CanaryData:
    """Read the newest answers, count them by aligner, and compare two aligners or policies if both are given.

    `first` and `second` are the beginnings of their hashes, or empty.
    """
    condition, values = AnswerFilter(since=time.time() - PERIOD_S).sql_condition()
    newest_ids = f"SELECT e.id FROM entries e WHERE e.aligner_id != '' AND {condition} ORDER BY e.id DESC LIMIT ?"
    with closing(visit.services.files.current().store()) as store:
        # texts are read only for a comparison, which pairs equal answers
        entries = list(store.select(f"id IN ({newest_ids}) ORDER BY id", (*values, MAX_COMPARED), texts=bool(first)))
        reviews = list(Reviews(store).all())
    judged_entries = [entry for entry in entries if entry.changed is not None and entry.aligner]
    answer_counts = Counter(str(entry.aligner) for entry in judged_entries)
    shadow_counts = Counter(str(entry.aligner) for entry in judged_entries if entry.policy.endswith(SHADOW_SUFFIX))
    aligners = [(aligner, count, shadow_counts[aligner]) for aligner, count in answer_counts.most_common()]
    comparison = None
    problem = None
    if first and second:
        try:
            comparison = compare_evidence(entries, reviews, first, second)
        except ConfigError as error:
            problem = str(error)
    return _CanaryData(aligners, comparison, problem, is_cut=len(entries) == MAX_COMPARED)
