"""Policies that hold answers to references, the extension that does it, and a page with a doubtful answer."""

from __future__ import annotations

from aligner_proxy.plugins.extensions import Extensions
from aligner_proxy.types import Exchange, Policy, Turn
from aligner_proxy_grounding.extension import Grounding
from aligner_proxy_grounding.references import REFERENCES_KEY, Reference, ReferenceKind, References

EXTENSIONS = Extensions([Grounding()])
PAGE = """# Returns

Online orders can be returned within 28 days of delivery. Posting a return costs £2.95.

# Gifts

Wrapping a present costs £4 in paper and £6 in a box. Vouchers are valid for 3 years.
"""
FILE = Reference(ReferenceKind.FILE, "POLICY.md", PAGE)
ASKED = Exchange("c", 0, (Turn("user", "Can you wrap my present?"),), None)
DOUBTFUL = "Gladly. That will be £5."


def held(policy: Policy, *references: Reference) -> Policy:
    """The policy with these references."""
    return policy.with_extension(REFERENCES_KEY, References(references))
