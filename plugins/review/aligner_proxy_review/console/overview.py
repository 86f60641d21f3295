"""The overview, the first page: is the aligner doing its job, what does it get wrong, and what does it cost?"""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families
from starlette.responses import Response

from aligner_proxy.types import Status
from aligner_proxy_review.console.pages import Visit, count_rates, read_period
from aligner_proxy_review.console.playground import GatewayRefused
from aligner_proxy_review.console.rates import PERIODS, RateGroup, Rates
from aligner_proxy_review.evidence import Evidence, Share

PATH = "/overview"
EVIDENCE_S = 30 * 86_400.0
"""Only reviews of answers that are not older than this count, in seconds."""
_USE_METRIC = re.compile(r"aligner_(judge|editor)_(calls|tokens|seconds)_total")


@dataclass(slots=True)
class ModelUse:
    """How much a judge or an editor was used since the gateway started."""

    calls: int = 0
    failed: int = 0
    """How many of the calls failed."""
    tokens: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Overview:
    """The figures of the page."""

    rates: Rates
    total: RateGroup
    """All answers of the period."""
    evidence: Evidence
    uses: dict[tuple[str, str], ModelUse] | None
    """The use of each model, by ("judge" or "editor", model group); None for reviewers, or without metrics."""

    @property
    def corrected(self) -> Share:
        """Answers that were corrected or, in shadow mode, would have been."""
        total = self.total
        return Share(total.count(Status.CORRECTED) + total.would_correct, total.answer_count)

    @property
    def unprotected(self) -> Share:
        """Answers whose correction failed, or that could not be judged."""
        total = self.total
        return Share(total.count(Status.FAILED) + total.count(Status.NOT_JUDGED), total.answer_count)


async def show_overview(visit: Visit) -> Response:
    """Show the figures of the period in the query string; those of reviews are about the last `EVIDENCE_S`."""
    name, period = read_period(visit)
    rates, evidence, uses = await asyncio.gather(
        asyncio.to_thread(count_rates, visit, period),
        asyncio.to_thread(visit.services.answers.evidence, visit.viewer, time.time() - EVIDENCE_S),
        _read_uses(visit),
    )
    return visit.render_page(
        "overview.html", overview=Overview(rates, rates.total, evidence, uses), period=name, periods=PERIODS
    )


async def _read_uses(visit: Visit) -> dict[tuple[str, str], ModelUse] | None:
    """Read from the gateway what judges and editors were used for, as in `Overview.uses`.

    None for reviewers, since metrics are about all tenants, and if the gateway gives no metrics.
    """
    if not visit.viewer.is_operator:
        return None
    try:
        return parse_uses(await visit.services.gateway.read_metrics())
    except GatewayRefused:
        return None


def parse_uses(metrics_text: str) -> dict[tuple[str, str], ModelUse]:
    """Sum up the use of each (kind, model group) in the text of the gateway's metrics.

    Raises `GatewayRefused` if the text is in another format.
    """
    try:
        samples = [sample for family in text_string_to_metric_families(metrics_text) for sample in family.samples]
    except ValueError:
        raise GatewayRefused("the gateway's metrics are in an unknown form") from None
    uses: dict[tuple[str, str], ModelUse] = {}
    for sample in samples:
        match = _USE_METRIC.fullmatch(sample.name)
        if match is None:
            continue
        kind, quantity = match.groups()
        use = uses.setdefault((kind, sample.labels["model"]), ModelUse())
        if quantity == "seconds":
            use.seconds += sample.value
        elif quantity == "tokens":
            use.tokens += int(sample.value)
        else:
            use.calls += int(sample.value)
            use.failed += int(sample.value) if sample.labels["result"] == "failed" else 0
    return uses
