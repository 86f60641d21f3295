"""Does one policy hold for every model that may answer a request? If not, it is refused before anything is spent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from aligner_proxy.errors import SeveralPolicies
from aligner_proxy.policy import PolicyResolver, RequestFacts
from aligner_proxy.types import Policy


def policy_for_all(resolver: PolicyResolver, asked: RequestFacts, further: Sequence[str]) -> Policy:
    """The policy of a request that `further` models may answer, too; raises like `resolve`, or `SeveralPolicies`."""
    policy = resolver.resolve(asked)
    others = (resolver.resolve(replace(asked, model=model)) for model in further)
    # Of several models in one field LiteLLM makes a list of answers, which no guardrail is given to read.
    if "," in asked.model or any(_meant(other) != _meant(policy) for other in others):
        raise SeveralPolicies("models of different policies in one request")
    return policy


def _meant(policy: Policy) -> Policy:
    """What a policy does, whatever it is called and wherever it stands."""
    return replace(policy, name="", origins=())
