"""Policies that hold answers to references, and the extension that does it."""

from __future__ import annotations

from aligner_proxy.plugins.extensions import Extensions
from aligner_proxy.types import Policy
from aligner_proxy_grounding.extension import Grounding
from aligner_proxy_grounding.references import REFERENCES_KEY, Reference, References

EXTENSIONS = Extensions([Grounding()])


def held(policy: Policy, *references: Reference) -> Policy:
    """The policy with these references."""
    return policy.with_extension(REFERENCES_KEY, References(references))
