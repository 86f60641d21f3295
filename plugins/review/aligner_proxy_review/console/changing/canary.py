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
_LONGEST = 64
"""Digits of the longest hash."""
_HEX = frozenset("0123456789abcdef")


@dataclass(frozen=True, slots=True)
class _CanaryData:
    """The aligners of the recorded answers, and the comparison of two of them."""

    aligners: list[tuple[str, int, int]]
    """Content hash, number of answers, and how many of them it judged as the shadow aligner."""
    comparison: EvidenceComparison | None
    """None unless two aligners are chosen."""
    problem: str | None
    """Why two aligners cannot be compared; None if they can."""
    cut: bool
    """Whether older answers of the period were left out."""


async def show_canary(visit: Visit) -> Response:
    """Show the aligners of the last 30 days, and the comparison of two."""
    refuse_reviewers(visit)
    query = visit.request.query_params
    hashes = [_hash_prefix(query.get(name, "")) for name in ("a", "b")]
    data = await asyncio.to_thread(_read_canary, visit, *hashes)
    names = [aligner for aligner, _, _ in data.aligners]
    # by default the two aligners with the most answers
    first, second = (value or default for value, default in zip(hashes, [*names, "", ""], strict=False))
    return visit.render_page("canary.html", found=data, first=first, second=second, most=MAX_COMPARED)


def _hash_prefix(text: str) -> str:
    """Return the text, cut to the length of a hash; empty if it has other characters than hexadecimal digits."""
    text = text[:_LONGEST]
    return text if set(text) <= _HEX else ""


def _read_canary(visit: Visit, first: str, second: str) -> _CanaryData:
    """Read the newest answers, count them by aligner, and compare two aligners if both are given."""
    condition, values = AnswerFilter(since=time.time() - PERIOD_S).sql_condition()
    inner = f"SELECT e.id FROM entries e WHERE e.aligner_id != '' AND {condition} ORDER BY e.id DESC LIMIT ?"
    with closing(visit.services.files.current().store()) as store:
        # texts are needed only to compare answers one by one
        entries = list(store.select(f"id IN ({inner}) ORDER BY id", (*values, MAX_COMPARED), texts=bool(first)))
        reviews = list(Reviews(store).all())
    judged_entries = [entry for entry in entries if entry.changed is not None and entry.aligner]
    answers = Counter(str(entry.aligner) for entry in judged_entries)
    shadow_counts = Counter(str(entry.aligner) for entry in judged_entries if entry.policy.endswith(SHADOW_SUFFIX))
    aligners = [(name, count, shadow_counts[name]) for name, count in answers.most_common()]
    comparison = None
    problem = None
    if first and second:
        try:
            comparison = compare_evidence(entries, reviews, first, second)
        except ConfigError as error:
            problem = str(error)
    return _CanaryData(aligners, comparison, problem, len(entries) == MAX_COMPARED)
