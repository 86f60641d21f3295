"""transformers' continuous batching over the same 4-bit weights, run in a separate process. It has no drafts.

In one process with it our engine took 1.4 times as long (docs/lab/2026-11-21-peer-in-process.md).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, GenerationConfig
from transformers.generation.configuration_utils import ContinuousBatchingConfig

# Room for all sixteen; left to itself it takes all memory of the machine, and a hundred seconds to clear it.
_PAGE = 32
_PAGES = 512
_model: Any = None
"""Of this process."""


def load(weights: Path) -> None:
    """Before anything is written."""
    global _model  # what the one worker of a pool has, its calls can only find here
    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    _model = AutoModelForCausalLM.from_pretrained(str(weights), device_map=device, dtype=torch.bfloat16)


def write(prompts: list[list[int]], tokens: int) -> list[int]:
    """How many tokens were written to each prompt, where `tokens` were wanted."""
    wanted = GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=tokens, do_sample=False, eos_token_id=-1, pad_token_id=0
    )
    pages = ContinuousBatchingConfig(page_size=_PAGE, num_blocks=_PAGES)
    done = _model.generate_batch(prompts, generation_config=wanted, continuous_batching_config=pages)
    return [len(output.generated_tokens) for output in done.values()]
