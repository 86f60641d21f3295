"""Memory that an aligner needs, computed from its config before anything is loaded. No torch.

The weights and one window of KV cache must fit. The cache takes the remaining memory, up to its usual size; on a GPU
it may become larger (`plan_gpu`). A model that does not fit is refused with the memory it needs, the memory available,
and what would fit. Otherwise the system would kill the process half-way.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aligner_proxy.engine.weights.manifest import MODEL
from aligner_proxy.errors import WeightsError

CACHE_TOKENS = 16_384
"""Usual size of the KV cache in tokens, if there is memory for it; on a CPU, memory is only touched when used."""
_MAX_GPU_TOKENS = 262_144
"""Largest size of the cache on a GPU where none is set."""
WINDOW = 4096
"""Fewest tokens that the cache must hold: one correction of the greatest length that aligners are made for."""
ROOM_FOR_COPY = 1.25
"""Free memory, in multiples of a bf16 copy of the weights, from which on the copy is kept on a GPU."""
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
    """Heads of queries in a layer."""
    kv_heads: int
    """Heads of keys, and of values, in a layer."""
    head_size: int
    tied: bool
    """Whether embeddings and output layer are one matrix."""

    @property
    def linear(self) -> int:
        """Number of parameters in the linear layers of the stack, which are the ones that are quantised."""
        # query and output have all heads, key and value only the key heads; the inner part has three matrices
        attention = 2 * self.hidden * self.head_size * (self.heads + self.kv_heads)
        return self.layers * (attention + 3 * self.hidden * self.inner)

    @property
    def other(self) -> int:
        """Number of parameters in embeddings, output layer and norms."""
        # tied: embeddings and output layer are one matrix; two norms per layer, and the final one
        return self.vocabulary * self.hidden * (1 if self.tied else 2) + (2 * self.layers + 1) * self.hidden

    def count_weight_bytes(self, quantization: str, width: int) -> float:
        """Bytes of the weights, with `width` bytes for each number that is not quantised."""
        linear = self.linear * (NF4_BITS / 8 if quantization == "nf4" else width)
        return _RESERVE_FACTOR * (linear + self.other * width)

    def count_token_bytes(self, width: int, states: int) -> int:
        """Bytes of one token in the cache: keys, values, and `states` hidden states for detector heads.

        A number has `width` bytes: 2 in bf16, 4 in fp32.
        """
        return width * (2 * self.layers * self.kv_heads * self.head_size + states * self.hidden)

    def count_step_bytes(self) -> int:
        """Approximate bytes of temporary memory in a step."""
        return 4 * (STEP_TOKENS * (3 * self.inner + 8 * self.hidden) + STEP_TOKENS // 4 * self.vocabulary)


@dataclass(frozen=True, slots=True)
class GpuPlan:
    """How an aligner would divide the memory of a GPU: its cache, and whether a bf16 copy of the weights fits."""

    cache_tokens: int
    has_copy: bool


def read_model_sizes(folder: Path) -> ModelSize | None:
    """Read the sizes from a model's config; None if the config does not have them (another model family)."""
    try:
        return read_sizes(json.loads((folder / MODEL).read_bytes()))
    except (OSError, ValueError):
        return None


def read_sizes(config: Mapping[str, Any]) -> ModelSize | None:
    """The sizes in the fields of a config; None if it does not have them."""
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
    sizes: ModelSize,
    quantization: str,
    width: int,
    window: int,
    states: int,
    available: float,
    most: int = CACHE_TOKENS,
) -> int:
    """Tokens of KV cache that fit into `available` bytes, at most `most`.

    A number has `width` bytes, and `states` hidden states are stored with each token. Raises `WeightsError` if not even
    one window fits.
    """
    fixed = sizes.count_weight_bytes(quantization, width) + sizes.count_step_bytes()
    token = sizes.count_token_bytes(width, states)
    least = fixed + window * token
    if least > available:
        raise WeightsError(
            f"not enough memory: it needs {_gb(least)} "
            f"({_gb(sizes.count_weight_bytes(quantization, width))} of weights, "
            f"{_gb(window * token)} of cache for one window of {window} tokens, "
            f"{_gb(sizes.count_step_bytes())} to compute in) "
            f"and there are {_gb(available)}; {_suggest_fit(sizes, quantization, window, states, available)}"
        )
    # at least one window, even if `most` is less, because the longest prompt has to fit
    return max(window, min(most, int((available - fixed) // token)))


def plan_gpu(
    sizes: ModelSize, quantization: str, width: int, states: int, available: float, *, copies: bool
) -> GpuPlan:
    """Return how the free memory of a GPU is divided if no cache size is set; `copies`: a bf16 copy would be used.

    The cache gets its usual size if that fits. It gets more, up to half of the memory left by weights, one step and the
    copy, if that is more. Raises `WeightsError` if not even one window fits.
    """
    least = count_cache_tokens(sizes, quantization, width, WINDOW, states, available)
    token = sizes.count_token_bytes(width, states)
    free_bytes = available - sizes.count_weight_bytes(quantization, width) - sizes.count_step_bytes()
    # The copy comes before a larger cache, because it speeds up the reading of every prompt. The usual size of the
    # cache is enough for 32 answers; a larger one only holds more conversations, whose prompts are not read again.
    copy_bytes = ROOM_FOR_COPY * 2 * sizes.linear
    has_copy = copies and least >= CACHE_TOKENS and copy_bytes + least * token <= free_bytes
    if has_copy:
        free_bytes -= copy_bytes
    return GpuPlan(max(least, min(_MAX_GPU_TOKENS, int(free_bytes / 2 // token))), has_copy)


def check_preparation(sizes: ModelSize, available: float, *, merges: bool) -> None:
    """Raise `WeightsError` if the preparation of weights needs more memory than is `available`, in bytes.

    It `merges` an adapter into them, in fp32, or only quantises them, from bf16.
    """
    # 4 bytes per number in fp32, 2 in bf16
    if merges:
        needed_bytes = sizes.count_weight_bytes("none", 4)
    else:
        # while quantising, both forms are in memory
        needed_bytes = sizes.count_weight_bytes("none", 2) + sizes.count_weight_bytes("nf4", 2)
    if needed_bytes > available:
        step = "merging the adapter" if merges else "quantising"
        raise WeightsError(
            f"not enough memory: {step}, which happens once, needs {_gb(needed_bytes)} and there are {_gb(available)}; "
            "do it on a larger machine and copy the folder models/ of ALIGNER_PROXY_HOME, which then needs "
            f"{_gb(sizes.count_weight_bytes('nf4', 2))}"
        )


def _suggest_fit(sizes: ModelSize, quantization: str, window: int, states: int, available: float) -> str:
    """Suggest what would fit: nf4 quantisation, or a smaller model."""
    nf4_bytes = (
        sizes.count_weight_bytes("nf4", 2) + sizes.count_step_bytes() + window * sizes.count_token_bytes(2, states)
    )
    if quantization != "nf4" and nf4_bytes <= available:
        return f"quantization: nf4 would fit, it needs {_gb(nf4_bytes)}"
    share = available / nf4_bytes
    parameters = share * (sizes.linear + sizes.other)
    return f"a model of about {parameters / 1e9:.1f} billion parameters in nf4 would fit"


def _gb(count: float) -> str:
    return f"{count / _GB:.1f} GB"


def measure_free_bytes() -> float | None:
    """Bytes that this process can still allocate, by system and container limits; None if neither is known."""
    counts = (_read_system_memory(Path("/proc/meminfo")), _read_container_memory(Path("/sys/fs/cgroup")))
    return min((count for count in counts if count is not None), default=None)


def _read_system_memory(info: Path) -> float | None:
    """Bytes that the system can still allocate; None if it does not say."""
    match = re.search(r"MemAvailable:\s+(\d+) kB", info.read_text()) if info.exists() else None
    return int(match[1]) * 1024.0 if match else None


def _read_container_memory(folder: Path) -> float | None:
    """Bytes left by a container's memory limit; cached files count as free. None if there is no limit."""
    try:
        limit, used = (int((folder / name).read_text()) for name in ("memory.max", "memory.current"))
        cached = re.search(r"^inactive_file (\d+)$", (folder / "memory.stat").read_text(), re.MULTILINE)
    except (OSError, ValueError):
        return None
    return max(0.0, limit - used + (int(cached[1]) if cached else 0))
