"""transformers' continuous batching over the same 4-bit weights, in its own process; it has no drafts.

In one process with it, our engine took 1.4 times as long (docs/lab/2026-11-21-peer-in-process.md).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, GenerationConfig
from transformers.generation.configuration_utils import ContinuousBatchingConfig

# Enough pages for all sixteen requests. By default it takes all memory of the machine, and a hundred seconds to clear
# it.
_PAGE = 32
_PAGES = 512
_model: Any = None
"""The model of this process."""


def load(weights: Path) -> None:
    """Load the model; must run before `write`."""
    global _model  # calls in a pool's worker share state only through globals
    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    _model = AutoModelForCausalLM.from_pretrained(str(weights), device_map=device, dtype=torch.bfloat16)


def write(prompts: list[list[int]], tokens: int) -> list[int]:
    """Write `tokens` tokens after each prompt; return how many were written for each."""
    generation = GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=tokens, do_sample=False, eos_token_id=-1, pad_token_id=0
    )
    pages = ContinuousBatchingConfig(page_size=_PAGE, num_blocks=_PAGES)
    done = _model.generate_batch(prompts, generation_config=generation, continuous_batching_config=pages)
    return [len(output.generated_tokens) for output in done.values()]
