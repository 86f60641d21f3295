"""Entry points for running the aligner inside vLLM; vLLM is imported only when it calls them."""

from __future__ import annotations

ARCHITECTURE = "AlignerScorer"
"""Name for `--hf-overrides`: the aligner's base model with the detector head as its pooler."""


def register() -> None:
    """Register the scoring model with vLLM; vLLM calls this in every process."""
    from vllm.model_executor.models.registry import ModelRegistry

    if ARCHITECTURE not in ModelRegistry.get_supported_archs():
        ModelRegistry.register_model(ARCHITECTURE, "aligner_proxy_vllm.scorer_model:AlignerScorer")


def io_processor() -> str:
    """Name of the class that reads scoring requests and writes their answers."""
    return "aligner_proxy_vllm.io_processor.ScoringProcessor"
