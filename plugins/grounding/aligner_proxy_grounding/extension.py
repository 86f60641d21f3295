"""The extension that holds answers to references, from the policies file to the headers of a response."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

from prometheus_client import Counter
from pydantic import Field

from aligner_proxy.plugins.api import BodyField, CheckTable, Extension, Finding, PolicyKey, Stage
from aligner_proxy.policy.resolver import RequestFacts
from aligner_proxy.types import Outcome, Policy
from aligner_proxy_grounding import tables
from aligner_proxy_grounding.page import MOST_CHARS
from aligner_proxy_grounding.references import (
    GRANT_KEY,
    GROUNDED,
    NO_REFERENCES,
    REFERENCES_KEY,
    fill_references,
    references_of,
)
from aligner_proxy_grounding.references_schema import MOST_REFERENCES, ReferenceList
from aligner_proxy_grounding.sentences import REPLACE_FACTS_FROM
from aligner_proxy_grounding.stage import CERTAINTY_KEY, GroundingStage

FACTS = Counter(
    "aligner_grounded_total",
    "Facts of answers that references give otherwise, by kind: replaced, or unsettled where more than one could stand",
    ("result", "kind"),
)
ReferenceText = Annotated[str, Field(min_length=1, max_length=MOST_CHARS)]


class Grounding(Extension):
    """Facts that the references of a policy give otherwise are replaced by theirs."""

    name = GROUNDED
    keys = (
        PolicyKey(
            REFERENCES_KEY,
            ReferenceList,
            NO_REFERENCES,
            "Texts to whose facts answers are held: system, tool_results, {file: PATH}, {header: NAME}. They need no "
            "objective. The last place that says any names all of them.",
        ),
        PolicyKey(
            CERTAINTY_KEY,
            Annotated[float, Field(ge=0.5, le=1, strict=True)],
            REPLACE_FACTS_FROM,
            "How certain it must be that the references give a fact otherwise, for it to be replaced by words alone, "
            "without an editor: 0.5 to 1. Less puts more right, and touches more that was right; 1: never.",
        ),
        PolicyKey(
            GRANT_KEY,
            Annotated[bool, Field(strict=True)],
            False,
            "Whether a request may bring a reference of its own, in a header that `references` names.",
            grant=True,
        ),
    )
    body_fields = (
        BodyField(
            REFERENCES_KEY,
            Annotated[tuple[ReferenceText, ...], Field(max_length=MOST_REFERENCES)],
            (),
            "Texts to whose facts the answer is held, besides those of route and tenant; needs `allow_references`.",
        ),
    )

    def resolve(self, policy: Policy, request: RequestFacts) -> Policy:
        """The policy with the references that this request has a text for."""
        return fill_references(policy, request)

    def stages(self, policy: Policy) -> Sequence[Stage]:
        """One that replaces facts, where the policy has references."""
        return [GroundingStage(policy)] if references_of(policy) else []

    def headers(self, policy: Policy, outcomes: Sequence[Outcome]) -> Mapping[str, str]:
        """The header x-aligner-grounded: how many facts were replaced."""
        count = sum(finding.is_settled for outcome in outcomes for finding in _own_findings(outcome))
        return {"grounded": str(count)} if count else {}

    def trailer(self, policy: Policy, outcomes: Sequence[Outcome]) -> Mapping[str, str]:
        """The same at the end of a stream."""
        return self.headers(policy, outcomes)

    def observe(self, outcome: Outcome) -> None:
        """Count what was replaced, and what stayed in doubt."""
        for finding in _own_findings(outcome):
            FACTS.labels("replaced" if finding.is_settled else "unsettled", finding.kind).inc()

    def tables(self, policy: Policy) -> Iterable[CheckTable]:
        """What each reference yields, and the facts one by one."""
        return tables.reference_tables(references_of(policy))

    def details(self, policy: Policy) -> Mapping[str, Any]:
        """The facts of each reference."""
        return {REFERENCES_KEY: tables.as_json(references_of(policy))}


def _own_findings(outcome: Outcome) -> list[Finding]:
    return [finding for finding in outcome.findings if finding.against == GROUNDED]
