"""Extension of the gateway that checks answers against references: policy keys, stage, headers, metric and tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

from prometheus_client import Counter
from pydantic import Field

from aligner_proxy.plugins.api import BodyField, CheckTable, Extension, Finding, PolicyKey, Stage
from aligner_proxy.policy.request_facts import RequestFacts
from aligner_proxy.types import Outcome, Policy
from aligner_proxy_grounding import tables
from aligner_proxy_grounding.page import MAX_CHARS
from aligner_proxy_grounding.references import (
    GRANT_KEY,
    GROUNDED,
    NO_REFERENCES,
    REFERENCES_KEY,
    fill_references,
    references_of,
)
from aligner_proxy_grounding.references_schema import MAX_REFERENCES, ReferenceList
from aligner_proxy_grounding.sentences import REPLACE_FACTS_FROM
from aligner_proxy_grounding.stage import CERTAINTY_KEY, GroundingStage

FACTS = Counter(
    "aligner_grounded_total",
    "Facts of answers that contradict a reference, by kind: replaced, or unsettled if it was not clear by what",
    ("result", "kind"),
)
ReferenceText = Annotated[str, Field(min_length=1, max_length=MAX_CHARS)]


class Grounding(Extension):
    """Replaces facts of an answer that contradict the references of its policy."""

    name = GROUNDED
    keys = (
        PolicyKey(
            REFERENCES_KEY,
            ReferenceList,
            NO_REFERENCES,
            "Reference texts whose facts an answer must not contradict: system, tool_results, {file: PATH}, "
            "{header: NAME}. They need no objective. A later list replaces an earlier one.",
        ),
        PolicyKey(
            CERTAINTY_KEY,
            Annotated[float, Field(ge=0.5, le=1, strict=True)],
            REPLACE_FACTS_FROM,
            "How likely a contradiction must be, from 0.5 to 1, for a fact to be replaced without asking a judge or an "
            "editor. A lower value corrects more wrong facts but also changes more correct ones; with 1, only "
            "a judge or an editor replaces facts.",
        ),
        PolicyKey(
            GRANT_KEY,
            Annotated[bool, Field(strict=True)],
            False,
            "Whether a request may send its own reference text, in a header that `references` names.",
            grant=True,
        ),
    )
    body_fields = (
        BodyField(
            REFERENCES_KEY,
            Annotated[tuple[ReferenceText, ...], Field(max_length=MAX_REFERENCES)],
            (),
            "Reference texts for this answer, besides those of route and tenant; needs `allow_references`.",
        ),
    )

    def resolve(self, policy: Policy, request: RequestFacts) -> Policy:
        """Return the policy with the references that have a text in this request."""
        return fill_references(policy, request)

    def stages(self, policy: Policy) -> Sequence[Stage]:
        """The stage that checks an answer; empty for a policy without references, so that its answers cost nothing."""
        return [GroundingStage(policy)] if references_of(policy) else []

    def headers(self, policy: Policy, outcomes: Sequence[Outcome]) -> Mapping[str, str]:
        """The header x-aligner-grounded, which says how many facts were replaced; empty if none were."""
        replaced_count = sum(finding.is_replaced for outcome in outcomes for finding in _own_findings(outcome))
        return {"grounded": str(replaced_count)} if replaced_count else {}

    def trailer(self, policy: Policy, outcomes: Sequence[Outcome]) -> Mapping[str, str]:
        return self.headers(policy, outcomes)

    def observe(self, outcome: Outcome) -> None:
        """Count replaced and unsettled facts in the metric."""
        for finding in _own_findings(outcome):
            FACTS.labels("replaced" if finding.is_replaced else "unsettled", finding.kind).inc()

    def tables(self, policy: Policy) -> Iterable[CheckTable]:
        """Tables for `check`: how many facts each reference yields, and the list of facts."""
        return tables.reference_tables(references_of(policy))

    def details(self, policy: Policy) -> Mapping[str, Any]:
        return {REFERENCES_KEY: tables.as_json(references_of(policy))}


def _own_findings(outcome: Outcome) -> list[Finding]:
    """The findings about references, without those of other stages."""
    return [finding for finding in outcome.findings if finding.against == GROUNDED]
