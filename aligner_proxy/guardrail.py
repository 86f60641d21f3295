"""Import path that LiteLLM's configuration uses for the guardrail; the code is in `gateway/guardrail.py`."""

from aligner_proxy.gateway.guardrail import AlignerGuardrail

__all__ = ["AlignerGuardrail"]
