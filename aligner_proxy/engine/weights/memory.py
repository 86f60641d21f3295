"""Memory that an aligner needs, in bytes, computed from its config before anything is loaded. No torch.

The weights and one window of KV cache must fit. The cache takes the remaining memory, up to its usual size; on a GPU
it may become larger (`plan_gpu`). A model that does not fit is refused, because otherwise the system would kill the
process half-way.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aligner_proxy.engine.weights.manifest import MODEL_CONFIG
from aligner_proxy.errors import WeightsError

CACHE_TOKENS = 16_384
"""Usual size of the KV cache in tokens, if there is memory for it; on a CPU, memory is only touched when used."""
_MAX_GPU_TOKENS = 262_144
"""Largest size of the cache on a GPU where none is set."""
WINDOW = 4096
"""Fewest tokens that the cache must hold: one correction of the greatest length that aligners are made for."""
ROOM_FOR_COPY = 1.25
"""A bf16 copy of the weights is kept on a GPU if its size times this factor is free."""
NF4_BITS = 4.127
"""Bits per 4-bit weight, including its share of the scales, which are quantised, too."""
STEP_TOKENS = 1024
"""Most tokens in a step."""
_RESERVE_FACTOR = 1.05
"""Factor on the computed size of the weights, as a reserve."""
_GB = 2**30


@dataclass(frozen=True, slots=True)
class ModelSize:
    """The sizes of a Llama-family model."""

    hidden: int
    """Width of the hidden states."""
    layers: int
    inner: int
    """Width inside the feed-forward part of a layer."""
    vocabulary: int
    heads: int
    """Number of query heads in a layer."""
    kv_heads: int
    """Number of heads of keys, and of values, in a layer."""
    head_size: int
    tied: bool
    """Whether embeddings and output layer are one matrix."""

    @property
    def linear(self) -> int:
        """Number of parameters in the linear layers of all decoder layers, which are the ones that are quantised."""
        # query and output have all heads, key and value only the key heads; the feed-forward part has three matrices
        attention = 2 * self.hidden * self.head_size * (self.heads + self.kv_heads)
        return self.layers * (attention + 3 * self.hidden * self.inner)

    @property
    def other(self) -> int:
        """Number of parameters in embeddings, output layer and norms."""
        # two norms per layer, and the final one
        return self.vocabulary * self.hidden * (1 if self.tied else 2) + (2 * self.layers + 1) * self.hidden

    def count_weight_bytes(self, quantization: str, width: int) -> float:
        """Return the bytes of the weights; a number that is not quantised has `width` bytes."""
        linear_bytes = self.linear * (NF4_BITS / 8 if quantization == "nf4" else width)
        return _RESERVE_FACTOR * (linear_bytes + self.other * width)

    def count_token_bytes(self, width: int, states: int) -> int:
        """Return the bytes of one token in the cache: its keys, values, and `states` hidden states for detector heads.

        A number has `width` bytes: 2 in bf16, 4 in fp32.
        """
        return width * (2 * self.layers * self.kv_heads * self.head_size + states * self.hidden)

    def count_step_bytes(self) -> int:
        """Return the approximate bytes of temporary memory in a step."""
        return 4 * (STEP_TOKENS * (3 * self.inner + 8 * self.hidden) + STEP_TOKENS // 4 * self.vocabulary)


@dataclass(frozen=True, slots=True)
class GpuPlan:
    """How an aligner would divide the memory of a GPU: its cache, and whether a bf16 copy of the weights fits."""

    cache_tokens: int
    has_copy: bool


def read_model_sizes(folder: Path) -> ModelSize | None:
    """Read the sizes from a model's config; None if the config does not have them (another model family)."""
    try:
        return read_sizes(json.loads((folder / MODEL_CONFIG).read_bytes()))
    except (OSError, ValueError):
        return None


def read_sizes(config: Mapping[str, Any]) -> ModelSize | None:
    """Return the sizes in a model's config; None if the config does not have the fields (another model family)."""
    try:
        heads = config["num_attention_heads"]
        hidden = config["hidden_size"]
        return ModelSize(
            hidden=hidden,
            layers=config["num_hidden_layers"],
            inner=config["intermediate_size"],
            vocabulary=config["vocab_size"],
            heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            head_size=config.get("head_dim") or hidden // heads,
            tied=bool(config.get("tie_word_embeddings", False)),
        )
    except (KeyError, TypeError, ZeroDivisionError):
        return None


def count_cache_tokens(
    sizes: ModelSize, quantization: str, width: int, states: int, available: float, most: int = CACHE_TOKENS
) -> int:
    """Return how many tokens of KV cache fit into `available` bytes beside the weights, at most `most`.

    A number that is not quantised has `width` bytes, and `states` hidden states are stored with each token. The cache
    holds at least `WINDOW` tokens; raises `WeightsError` if these do not fit.
    """
    weight_bytes = sizes.count_weight_bytes(quantization, width)
    step_bytes = sizes.count_step_bytes()
    token_bytes = sizes.count_token_bytes(width, states)
    needed_bytes = weight_bytes + step_bytes + WINDOW * token_bytes
    if needed_bytes > available:
        raise WeightsError(
            f"not enough memory: it needs {_write_gb(needed_bytes)} ({_write_gb(weight_bytes)} of weights, "
            f"{_write_gb(WINDOW * token_bytes)} of cache for one window of {WINDOW} tokens, {_write_gb(step_bytes)} to "
            f"compute in) and there are {_write_gb(available)}; {_suggest_fit(sizes, quantization, states, available)}"
        )
    fitting_tokens = int((available - (weight_bytes + step_bytes)) // token_bytes)
    # at least one window, even if `most` is less, because the longest prompt has to fit
    return max(WINDOW, min(most, fitting_tokens))


def plan_gpu(
    sizes: ModelSize, quantization: str, width: int, states: int, available: float, *, copies: bool
) -> GpuPlan:
    """Return how the `available` bytes of a GPU's memory are divided if no cache size is set.

    The cache gets its usual size if this fits, or else what fits. It becomes larger if half of the memory that weights,
    one step and the copy leave holds more. `copies` says whether a bf16 copy of the weights would be used. The rest is
    as in `count_cache_tokens`.
    """
    usual_tokens = count_cache_tokens(sizes, quantization, width, states, available)
    token_bytes = sizes.count_token_bytes(width, states)
    free_bytes = available - sizes.count_weight_bytes(quantization, width) - sizes.count_step_bytes()
    # The copy comes before a larger cache, because it speeds up the reading of every prompt. The usual size of the
    # cache is enough for 32 answers; a larger one only holds more conversations, whose prompts are not read again.
    copy_bytes = ROOM_FOR_COPY * 2 * sizes.linear
    fits_beside_cache = usual_tokens >= CACHE_TOKENS and copy_bytes + usual_tokens * token_bytes <= free_bytes
    has_copy = copies and fits_beside_cache
    if has_copy:
        free_bytes -= copy_bytes
    tokens_in_half = int(free_bytes / 2 // token_bytes)
    return GpuPlan(max(usual_tokens, min(_MAX_GPU_TOKENS, tokens_in_half)), has_copy)


def check_preparation(sizes: ModelSize, available: float, *, merges: bool) -> None:
    """Raise `WeightsError` if the preparation of weights needs more memory than is `available`, in bytes.

    It merges an adapter into them in fp32 (4 bytes per number) if `merges`; otherwise it only quantises them from bf16.
    """
    if merges:
        needed_bytes = sizes.count_weight_bytes("none", 4)
    else:
        # while a model is quantised, both forms are in memory
        needed_bytes = sizes.count_weight_bytes("none", 2) + sizes.count_weight_bytes("nf4", 2)
    if needed_bytes > available:
        step = "merging the adapter" if merges else "quantising"
        raise WeightsError(
            f"not enough memory: {step}, which happens once, needs {_write_gb(needed_bytes)} and there are "
            f"{_write_gb(available)}; do it on a larger machine and copy the folder models/ of ALIGNER_PROXY_HOME, "
            f"which then needs {_write_gb(sizes.count_weight_bytes('nf4', 2))}"
        )


def _suggest_fit(sizes: ModelSize, quantization: str, states: int, available: float) -> str:
    """Return what would fit, as text; the parameters are those of `count_cache_tokens`."""
    cache_bytes = WINDOW * sizes.count_token_bytes(2, states)
    nf4_bytes = sizes.count_weight_bytes("nf4", 2) + sizes.count_step_bytes() + cache_bytes
    if quantization != "nf4" and nf4_bytes <= available:
        return f"quantization: nf4 would fit, it needs {_write_gb(nf4_bytes)}"
    share = available / nf4_bytes
    parameters = share * (sizes.linear + sizes.other)
    return f"a model of about {parameters / 1e9:.1f} billion parameters in nf4 would fit"


def _write_gb(byte_count: float) -> str:
    return f"{byte_count / _GB:.1f} GB"


def measure_free_bytes() -> float | None:
    """Return how many bytes this process can still allocate, by the system and by its container; None if unknown."""
    system_bytes = _read_system_memory(Path("/proc/meminfo"))
    container_bytes = _read_container_memory(Path("/sys/fs/cgroup"))
    return min((count for count in (system_bytes, container_bytes) if count is not None), default=None)


def _read_system_memory(info_file: Path) -> float | None:
    """Return how many bytes the system can still allocate; None if it does not say."""
    match = re.search(r"MemAvailable:\s+(\d+) kB", info_file.read_text()) if info_file.exists() else None
    return int(match[1]) * 1024.0 if match else None


def _read_container_memory(folder: Path) -> float | None:
    """Return the bytes left by a container's memory limit, with cached files as free; None without a limit."""
    try:
        # "max", which stands for no limit, raises ValueError
        limit = int((folder / "memory.max").read_text())
        used = int((folder / "memory.current").read_text())
        cached_match = re.search(r"^inactive_file (\d+)$", (folder / "memory.stat").read_text(), re.MULTILINE)
    except (OSError, ValueError):
        return None
    cached = int(cached_match[1]) if cached_match else 0
    return max(0.0, limit - used + cached)
