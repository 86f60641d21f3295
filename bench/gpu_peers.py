"""Other ways of writing a text on a GPU, as peers of the engine.

Each function takes a Llama model (`shapes.make_model`), the ids of a prompt, the number of tokens to write and the
device, and returns a `Peer`. Creating a peer costs nothing. All of them decode greedily and ignore the end mark, so
each writes exactly as many tokens as it was told, at a time that does not depend on what it writes. Only prompt lookup
gains from what it writes: it is told the text (`forced_decoding.force_model`).

All attention is torch's own (`scaled_dot_product_attention`), since a library of flash attention is not installed.
"""

from __future__ import annotations

import inspect
import statistics
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from bench.device_time import free_memory, time_work
from bench.forced_decoding import force_model

PROMPTS = 16
"""Prompts that continuous batching writes after at once."""
LOOKUP = 10
"""Draft tokens of prompt lookup."""
MAX_SETUP = 180.0
"""Seconds of setting up after which a peer is not timed any more."""
# Tokens in a block of the cache of continuous batching (what transformers takes by itself), and in one of its steps.
_BLOCK = 256
_STEP = 1024
# Continuous batching captures a graph for each multiple of these many tokens in the cache that a step reads.
_READ = 1024
# The static cache's length is a multiple of this, because fused attention pads a mask of any other length at each use.
_ALIGNED = 64
_COMPILED: dict[str, Any] = {"mode": "reduce-overhead", "fullgraph": True, "dynamic": False}


def _do_nothing() -> None:
    """What a peer without anything to set up or to release does."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A way of writing: `setup` compiles and warms up, `write` writes and counts its tokens, `close` frees memory."""

    name: str
    setup: Callable[[], object]
    write: Callable[[], int]
    close: Callable[[], object] = _do_nothing


def list_peers(
    model: Any, prompt: Sequence[int], tokens: int, device: str, *, compiled: bool = True, prompts: int = PROMPTS
) -> list[Peer]:
    """All peers, in the order of their cost; without `compiled` nothing is compiled."""
    return [
        Peer("generate", _do_nothing, partial(_generate, model, prompt, tokens, device)),  # eager, with a dynamic cache
        make_lookup_peer(model, prompt, tokens, device),
        make_batching_peer(model, prompt, tokens, device, prompts=prompts),
        make_decoder_peer(model, prompt, tokens, device, compiled=compiled),
        make_static_peer(model, prompt, tokens, device, compiled=compiled),
    ]


def time_peer(peer: Peer, rounds: int, most_setup: float = MAX_SETUP) -> dict[str, Any]:
    """Time a peer: name, seconds (median), setup_s and tokens; or, if anything fails, its name and the error."""
    row: dict[str, Any] = {"name": peer.name}
    try:
        with ExitStack() as stack:
            stack.callback(peer.close)
            _measure(peer, rounds, most_setup, row)
    except Exception as failure:  # noqa: BLE001 - whatever a peer raises, the others are timed
        row["error"] = f"{type(failure).__name__}: {str(failure)[:200]}"
    free_memory()
    return row


def _measure(peer: Peer, rounds: int, most_setup: float, row: dict[str, Any]) -> None:
    """Fill the row as far as the peer comes; raises TimeoutError if its setup took too long."""
    row["setup_s"], _ = time_work(peer.setup)
    if row["setup_s"] > most_setup:
        raise TimeoutError(f"the setup took {row['setup_s']:.0f} s, and {most_setup:.0f} s were given")
    peer.write()
    done = [time_work(peer.write) for _ in range(rounds)]
    row["seconds"] = statistics.median(seconds for seconds, _ in done)
    row["tokens"] = done[-1][1]


def make_lookup_peer(
    model: Any, prompt: Sequence[int], tokens: int, device: str, target: Sequence[int] | None = None
) -> Peer:
    """`generate` with prompt lookup, told to write `target`, or else the last tokens of the prompt once more."""
    text = list(prompt[-tokens:] if target is None else target)
    text = text * (-(-tokens // len(text)))

    def write() -> int:
        with force_model(model, len(prompt), text[:tokens]):
            return _generate(model, prompt, tokens, device, prompt_lookup_num_tokens=LOOKUP)

    return Peer("generate, prompt lookup", _do_nothing, write)


def make_static_peer(model: Any, prompt: Sequence[int], tokens: int, device: str, *, compiled: bool = True) -> Peer:
    """`generate` with one static cache, and with a forward of one token that is compiled by hand."""
    way = _Static(model, prompt, tokens, device, compiled)
    return Peer(
        "generate, static cache, compiled" if compiled else "generate, static cache", way.setup, way.write, way.close
    )


def make_batching_peer(model: Any, prompt: Sequence[int], tokens: int, device: str, *, prompts: int = PROMPTS) -> Peer:
    """transformers' continuous batching with CUDA graphs, for `prompts` rotations of the prompt at once."""
    shifts = [number * len(prompt) // prompts for number in range(prompts)]
    way = _Batching(model, [[*prompt[shift:], *prompt[:shift]] for shift in shifts], tokens)
    return Peer(f"continuous batching of {prompts}", way.setup, way.write, way.close)


def make_decoder_peer(model: Any, prompt: Sequence[int], tokens: int, device: str, *, compiled: bool = True) -> Peer:
    """A decoder of one compiled graph a token (`CompiledDecoder`)."""
    way = _Decoding(model, prompt, tokens, device, compiled)
    return Peer("compiled decoder" if compiled else "decoder, not compiled", way.setup, way.write, way.close)


def _generate(model: Any, prompt: Sequence[int], tokens: int, device: str, **options: Any) -> int:
    """Let `generate` write exactly `tokens` tokens; return how many it wrote."""
    ids = torch.tensor([prompt], device=device)
    options |= {"min_new_tokens": tokens, "max_new_tokens": tokens, "do_sample": False}
    done = model.generate(ids, attention_mask=torch.ones_like(ids), **options)
    return int(done.shape[1]) - len(prompt)


class _Static:
    """`generate` with a static cache that is allocated once, since compiled graphs know its addresses."""

    def __init__(self, model: Any, prompt: Sequence[int], tokens: int, device: str, compiled: bool) -> None:
        self.model = model
        self.prompt = prompt
        self.tokens = tokens
        self.device = device
        self.compiled = compiled
        self.cache: Any = None

    def setup(self) -> None:
        from transformers import StaticCache

        self.cache = StaticCache(config=self.model.config, max_cache_len=len(self.prompt) + self.tokens)
        if self.compiled:
            self.model.forward = _compile_one_token(self.model.forward)
        self.write()

    def write(self) -> int:
        self.cache.reset()
        options = {"past_key_values": self.cache, "disable_compile": True}
        return _generate(self.model, self.prompt, self.tokens, self.device, **options)

    def close(self) -> None:
        vars(self.model).pop("forward", None)
        self.cache = None
        if self.compiled:
            torch._dynamo.reset()


def _compile_one_token(forward: Callable[..., Any]) -> Callable[..., Any]:
    """Compile the forward for one token; a longer prompt takes the plain one, as `generate` itself does it."""
    fast = torch.compile(forward, **_COMPILED)

    @wraps(forward)
    def choose(*arguments: Any, **keywords: Any) -> Any:
        ids = keywords.get("input_ids")
        return (fast if ids is not None and ids.shape[1] == 1 else forward)(*arguments, **keywords)

    return choose


class _Batching:
    """A manager of continuous batching that runs from `setup` to `close`; its thread's start is not timed."""

    def __init__(self, model: Any, prompts: list[list[int]], tokens: int) -> None:
        self.model = model
        self.prompts = prompts
        self.tokens = tokens
        self.attention = model.config._attn_implementation
        self.manager: Any = None

    def setup(self) -> None:
        import transformers

        kinds: Any = transformers
        # Without these two settings either version would look for flash attention, and find it on the network.
        parameters = inspect.signature(kinds.ContinuousBatchingConfig).parameters
        options = {"auto_switch_to_flash": False} if "auto_switch_to_flash" in parameters else {}
        if not options:
            self.model.set_attn_implementation("paged|sdpa")
        blocks = -(-(len(self.prompts[0]) + self.tokens) // _BLOCK) + 1
        config = kinds.ContinuousBatchingConfig(
            num_blocks=blocks * len(self.prompts),
            max_batch_tokens=_STEP,
            max_requests_per_batch=len(self.prompts),
            use_cuda_graph=torch.cuda.is_available(),
            q_padding_interval_size=len(self.prompts),
            kv_padding_interval_size=_READ,
            allow_block_sharing=False,  # a prompt of the round before would not be computed again
            **options,
        )
        generation = kinds.GenerationConfig(max_new_tokens=self.tokens, do_sample=False, eos_token_id=-1)
        self.manager = self.model.init_continuous_batching(generation, continuous_batching_config=config)
        self.manager.warmup()
        self.manager.start()
        self.write()

    def write(self) -> int:
        """Write after all prompts; raises RuntimeError with the manager's own error."""
        self.manager.add_requests(self.prompts, max_new_tokens=self.tokens)
        token_count = 0
        unfinished = len(self.prompts)
        while unfinished:
            result = self.manager.get_result(timeout=1)
            if result is None and not self.manager.is_running():
                raise RuntimeError("the thread of continuous batching ended")
            if result is not None and result.error is not None:
                raise RuntimeError(result.error)
            if result is not None and result.is_finished():
                token_count += len(result.generated_tokens)
                unfinished -= 1
        return token_count

    def close(self) -> None:
        try:
            if self.manager is not None and self.manager.is_running():
                self.manager.stop(block=True, timeout=10, hard_stop=True)
        finally:
            self.manager = None
            self.model.set_attn_implementation(self.attention)


class _Decoding:
    """A `CompiledDecoder` with its prompt."""

    def __init__(self, model: Any, prompt: Sequence[int], tokens: int, device: str, compiled: bool) -> None:
        self.model = model
        self.prompt = torch.tensor(prompt, device=device)
        self.tokens = tokens
        self.compiled = compiled
        self.decoder: CompiledDecoder | None = None

    def setup(self) -> None:
        self.decoder = CompiledDecoder(self.model, len(self.prompt) + self.tokens, compiled=self.compiled)
        self.write()

    def write(self) -> int:
        if self.decoder is None:
            raise RuntimeError("the decoder is not set up")
        return len(self.decoder.write(self.prompt, self.tokens))

    def close(self) -> None:
        self.decoder = None
        if self.compiled:
            torch._dynamo.reset()


class CompiledDecoder:
    """Greedy decoder of a Llama model, one sequence at a time: one compiled graph a token, and no copy to the host.

    The graph reads and writes tensors at fixed addresses only: the cache, the last token, its place and the text.
    """

    def __init__(self, model: Any, most: int, *, compiled: bool = True) -> None:
        """`most` is the most tokens of a prompt and the text after it."""
        config = model.config
        weight = model.model.embed_tokens.weight
        length = -(-most // _ALIGNED) * _ALIGNED
        self.model = model
        self.heads = config.num_key_value_heads
        self.width = config.hidden_size // config.num_attention_heads
        self.share = config.num_attention_heads // self.heads  # heads that share keys and values
        shape = (config.num_hidden_layers, 1, self.heads, length, self.width)
        self.keys = list(torch.zeros(shape, device=weight.device, dtype=weight.dtype))
        self.values = list(torch.zeros(shape, device=weight.device, dtype=weight.dtype))
        self.places = torch.arange(length, device=weight.device)
        angles = torch.outer(self.places.float(), model.model.rotary_emb.inv_freq.float())
        self.cos = torch.cat((angles, angles), -1).cos().to(weight.dtype)
        self.sin = torch.cat((-angles, angles), -1).sin().to(weight.dtype)
        self.place = torch.zeros(1, device=weight.device, dtype=torch.long)
        self.token = torch.zeros_like(self.place)
        self.text = torch.zeros_like(self.places)
        fixed = [self.places, self.cos, self.sin, self.place, self.token, self.text]
        for tensor in [*self.keys, *self.values, *fixed]:
            torch._dynamo.mark_static_address(tensor)
        self.step: Callable[[], None] = torch.compile(self._step, **_COMPILED) if compiled else self._step

    @torch.no_grad()
    def write(self, prompt: Tensor, tokens: int) -> list[int]:
        """Tokens after the prompt."""
        size = len(prompt)
        self.token.copy_(self._choose(prompt, self.places[:size]))
        self.place.fill_(size)
        self.text[size] = self.token[0]
        for _ in range(tokens - 1):
            self.step()
        return self.text[size : size + tokens].tolist()

    def _step(self) -> None:
        """Write the token after the last one."""
        self.token.copy_(self._choose(self.token, self.place))
        self.place.add_(1)
        self.text.index_copy_(0, self.place, self.token)

    def _choose(self, ids: Tensor, places: Tensor) -> Tensor:
        """Put tokens into the cache at these places; return the likeliest token after the last of them."""
        mask = self.places <= places[:, None]
        x = functional.embedding(ids, self.model.model.embed_tokens.weight)
        for number, layer in enumerate(self.model.model.layers):
            x = x + self._attend(number, layer.self_attn, _norm(layer.input_layernorm, x), places, mask)
            inner = _norm(layer.post_attention_layernorm, x)
            x = x + layer.mlp.down_proj(functional.silu(layer.mlp.gate_proj(inner)) * layer.mlp.up_proj(inner))
        logits: Tensor = self.model.lm_head(_norm(self.model.model.norm, x[-1:]))
        return logits.argmax(-1)

    def _attend(self, number: int, attention: Any, x: Tensor, places: Tensor, mask: Tensor) -> Tensor:
        keys = self.keys[number]
        values = self.values[number]
        keys.index_copy_(2, places, self._turn(self._split(attention.k_proj(x)), places))
        values.index_copy_(2, places, self._split(attention.v_proj(x)))
        queries = self._turn(self._split(attention.q_proj(x)), places)
        # The heads that share keys become rows of one head: keys are not repeated, and a plain mask will do.
        rows = queries.reshape(1, self.heads, self.share * len(x), self.width)
        mixed = functional.scaled_dot_product_attention(rows, keys, values, attn_mask=mask.repeat(self.share, 1))
        joined: Tensor = attention.o_proj(mixed.reshape(-1, len(x), self.width).transpose(0, 1).reshape(len(x), -1))
        return joined

    def _split(self, x: Tensor) -> Tensor:
        """From rows to heads."""
        return x.view(len(x), -1, self.width).transpose(0, 1)[None]

    def _turn(self, x: Tensor, places: Tensor) -> Tensor:
        """Rotate by the place; the signs of the swapped halves are in the sines."""
        return x * self.cos[places] + x.roll(self.width // 2, -1) * self.sin[places]


def _norm(norm: Any, x: Tensor) -> Tensor:
    return functional.rms_norm(x, norm.weight.shape, norm.weight, norm.variance_epsilon)
