"""The address by which LiteLLM's configuration names the guardrail; the code is in `gateway/guardrail.py`."""

from aligner_proxy.gateway.guardrail import AlignerGuardrail

__all__ = ["AlignerGuardrail"]
