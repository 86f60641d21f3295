"""transformers' continuous batching over the same 4-bit weights, in a process of its own. It has no drafts.

Beside it in one process our engine took 1.4 times as long (docs/experiments.md).
"""

from __future__ import annotations

import contextlib
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, GenerationConfig
from transformers.generation.configuration_utils import ContinuousBatchingConfig

_PAGE, _PAGES = 32, 512
"""Room for all sixteen; left to itself it takes all memory of the machine, and a hundred seconds to clear it."""
_model: Any = None
"""Of the process that writes."""


class Batched:
    """A process that writes for many at once."""

    def __init__(self, stack: contextlib.ExitStack, weights: Path) -> None:
        self._process = stack.enter_context(ProcessPoolExecutor(1, mp_context=get_context("spawn")))
        self._process.submit(_load, str(weights)).result()

    def write(self, prompts: list[list[int]], tokens: int) -> list[int]:
        """How many tokens were written to each prompt, where `tokens` were wanted."""
        return self._process.submit(_write, prompts, tokens).result()


def _load(weights: str) -> None:
    global _model  # what the one worker of a pool has, its calls can only find here
    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    _model = AutoModelForCausalLM.from_pretrained(weights, device_map=device, dtype=torch.bfloat16)


def _write(prompts: list[list[int]], tokens: int) -> list[int]:
    wanted = GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=tokens, do_sample=False, eos_token_id=-1, pad_token_id=0
    )
    pages = ContinuousBatchingConfig(page_size=_PAGE, num_blocks=_PAGES)
    done = _model.generate_batch(prompts, generation_config=wanted, continuous_batching_config=pages)
    return [len(output.generated_tokens) for output in done.values()]
