"""The aligner inside vLLM: what vLLM's entry points call. Nothing of vLLM is imported before it asks."""

from __future__ import annotations

ARCHITECTURE = "AlignerScorer"
"""What `--hf-overrides` names: the aligner's base model with the detector head as its pooler."""


def register() -> None:
    """Make the scoring model known to vLLM; called in every process."""
    from vllm.model_executor.models.registry import ModelRegistry

    if ARCHITECTURE not in ModelRegistry.get_supported_archs():
        ModelRegistry.register_model(ARCHITECTURE, "aligner_proxy_vllm.scorer_model:AlignerScorer")


def io_processor() -> str:
    """The class that reads requests for scores and writes their answers."""
    return "aligner_proxy_vllm.io_processor.ScoringProcessor"
