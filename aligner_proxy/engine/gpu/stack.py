"""A forward pass of Llama's family over the loaded model's own weights, through few kernels.

    stack = Stack(model, kernels, cache, positions)
    stack.forward(step_input.view(rows))       # writes stack.hidden
    tokens = stack.choose(step_input.view_choice(count))

Nothing in it is read back to the host and every shape is known from the number of rows, so it can be recorded. A model
that it does not know is named by `find_obstacle`, and stays on the library's forward.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aligner_proxy.engine.gpu import nf4
from aligner_proxy.engine.gpu.nf4 import PackedWeights
from aligner_proxy.engine.gpu.step import BUCKETS, ChoiceInput, StepView

_FEW_ROWS = 128
"""Most rows that are multiplied with 4-bit weights directly; for more, it is faster to unpack them first."""
_FEW_ROWS_BESIDE_COPY = 64
"""Most rows where a bf16 copy is kept, too (both as timed on an H100, docs/lab/2026-11-26-gpu-engine.md)."""
_ROUNDING = 0.02
"""Relative difference of two products that round their sums to bf16 in another order."""
_FAMILY = ("llama", "mistral", "qwen2", "qwen3")
"""Architectures that are computed alike; others may turn other pairs of numbers, or turn them in some layers only."""
_ROPE_TYPES = ("default", "linear", "llama3", "yarn")
"""Kinds of rotary embeddings whose angles depend on nothing but the position."""
_ATTENTION_PARTS = {"q_proj", "k_proj", "v_proj", "o_proj", "q_norm", "k_norm", "rotary_emb"}
_LAYER_PARTS = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}
_GATE_PARTS = {"gate_proj", "up_proj", "down_proj", "act_fn"}


class Kernels(Protocol):
    """What a stack is computed with: in Triton (triton_kernels.py), and in plain torch in the tests.

    A row is one token of the step, with numbers of the width that the tensor has. The inputs of a product may be
    divided among programs, so its sums come in parts, [parts, rows, width], which the next kernel adds up in order.
    """

    def normalise(
        self, residual: Tensor, parts: Tensor | None, weight: Tensor, epsilon: float, out: Tensor | None = None
    ) -> Tensor:
        """Add a product to the residual stream [rows, width], in place, and return the stream, normalised.

        By root mean square. The result is written to `out` if that is given.
        """
        ...

    def rotate_and_put(
        self,
        parts: Tensor,
        bias: Tensor | None,
        norms: tuple[Tensor, Tensor, float] | None,
        turns: tuple[Tensor, Tensor],
        step: StepView,
        keys: Tensor,
        values: Tensor,
        dtype: torch.dtype,
    ) -> Tensor:
        """Rotate queries and keys by their positions (rotary embeddings), and store keys and values in the cache.

        Returns the queries [rows, heads, size]. `parts` are the product for queries, keys and values side by side.
        `turns` are cosine and sine of every position, [positions, size / 2]. `keys` and `values`
        [key heads, slots, size] are those of one layer. `norms` are the weights of the norms of queries and keys, and
        their epsilon.
        """
        ...

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, step: StepView, scale: float) -> Tensor:
        """Attention of queries [rows, heads, size] over their sequences' slots, [rows, heads * size]."""
        ...

    def gate(self, parts: Tensor, dtype: torch.dtype) -> Tensor:
        """SiLU of the first half of a product's width, times its second half."""
        ...

    def multiply(self, rows: Tensor, packed: PackedWeights) -> Tensor:
        """The product [parts, rows, outputs] of rows with 4-bit weights in fp32; the parts are still to be added."""
        ...

    def unpack(self, packed: PackedWeights) -> Tensor:
        """The 4-bit weights [outputs, inputs] in bf16, rounded as bitsandbytes rounds them."""
        ...

    def put_states(self, states: Tensor, index: int, step: StepView, hidden: Tensor) -> None:
        """Store the hidden states [rows, width] of a layer that a head reads in `states`, at [slot, index]."""
        ...

    def choose(self, logits: Tensor, choice: ChoiceInput) -> Tensor:
        """The best token of each row, the first of equals.

        A favoured one is kept unless another is better by more than the caution.
        """
        ...


class Product:
    """Multiplies rows with the weights of layers that have the same inputs, joined to one matrix.

    Weights in 4 bits are reordered for our kernel, and the layers then use the same memory; others are joined in place.
    """

    def __init__(self, layers: list[Any], kernels: Kernels) -> None:
        self._kernels = kernels
        self._layers: list[Any] = []
        """The layers themselves, if their weights cannot be joined; else empty."""
        self.packed: PackedWeights | None = None
        """The joined weights in 4 bits, if the layers have such."""
        self.weight: Tensor | None = None
        """The joined weights unpacked [outputs, inputs]; beside `packed` only after `copy_weights`."""
        ends = list(accumulate((layer.out_features for layer in layers), initial=0))
        ranges = list(zip(layers, ends, ends[1:], strict=False))
        if all(map(nf4.can_pack, layers)):
            self.packed = nf4.pack(layers)
            if all(self._is_equal(layer, first, last) for layer, first, last in ranges):
                for layer, first, last in ranges:
                    _use_packed(self, layer, first, last)
                return
            self.packed = None
        if all(type(layer) is nn.Linear for layer in layers):
            self.weight = torch.cat([layer.weight.data for layer in layers])
            for layer, first, last in ranges:
                layer.weight.data = self.weight[first:last]
        else:
            self._layers = layers

    def _is_equal(self, layer: Any, first: int, last: int) -> bool:
        """Whether the joined weights give the same product as a layer, except for rounding."""
        device = layer.weight.device
        sample = torch.linspace(-1, 1, 3 * layer.in_features, device=device).sin().bfloat16().view(3, -1)
        expected = layer(sample).float()
        difference = (self.multiply_part(sample, first, last).float() - expected).norm()
        return bool(difference <= _ROUNDING * expected.norm())

    def copy_weights(self) -> None:
        """Keep the weights in bf16 as well, for products with many rows."""
        if self.packed is not None:
            self.weight = self._kernels.unpack(self.packed)

    def __call__(self, rows: Tensor) -> Tensor:
        """The product with rows [rows, inputs] in parts, [parts, rows, outputs]."""
        if self._layers:
            return torch.cat([layer(rows) for layer in self._layers], dim=-1)[None]
        return self._multiply(rows, self.packed, self.weight)

    def multiply_part(self, rows: Tensor, first: int, last: int) -> Tensor:
        """The product for the outputs `first` to `last`, in the type of `rows`, as one of the layers computes it."""
        assert self.packed is not None
        weight = None if self.weight is None else self.weight[first:last]
        return self._multiply(rows, self.packed.select(first, last), weight).sum(0).to(rows.dtype)

    def _multiply(self, rows: Tensor, packed: PackedWeights | None, weight: Tensor | None) -> Tensor:
        """The product in parts with weights that are given in one form or in both."""
        few_rows = _FEW_ROWS if weight is None else _FEW_ROWS_BESIDE_COPY
        if packed is not None and len(rows) <= few_rows:
            return self._kernels.multiply(rows, packed)
        if weight is None:
            assert packed is not None
            weight = self._kernels.unpack(packed)
        return F.linear(rows, weight)[None]


def _use_packed(product: Product, layer: Any, first: int, last: int) -> None:
    """Let a 4-bit layer compute with the joined weights, and give up its own."""

    def multiply(inputs: Tensor) -> Tensor:
        rows = inputs.to(torch.bfloat16).reshape(-1, inputs.shape[-1])
        return product.multiply_part(rows, first, last).view(*inputs.shape[:-1], -1).to(inputs.dtype)

    layer.forward = multiply
    layer.weight.data = layer.weight.data.new_empty(0)
    layer.weight.quant_state = None


@dataclass(frozen=True, slots=True)
class _DecoderLayer:
    """The weights of one decoder layer."""

    first_norm: Tensor
    projections: Product
    """Queries, keys and values, side by side."""
    bias: Tensor | None
    """Of the projections."""
    head_norms: tuple[Tensor, Tensor, float] | None
    """Weights of the norms of queries and keys, and their epsilon."""
    output: Product
    second_norm: Tensor
    gates: Product
    """Gate and up projections, side by side."""
    down: Product
    epsilon: float


def find_obstacle(model: Any) -> str | None:
    """Why the stack cannot compute this model, in a few words; None if it can."""
    base: Any = getattr(model, "model", None)
    if not all(hasattr(base, name) for name in ("layers", "norm", "rotary_emb", "embed_tokens")):
        return "another architecture than Llama's"
    return find_config_obstacle(model.config) or next(filter(None, map(_find_layer_obstacle, base.layers)), None)


def find_config_obstacle(config: Any) -> str | None:
    """Why the stack cannot compute a model with this config, in a few words, or None; layers are not looked at."""
    if getattr(config, "hidden_act", None) != "silu":
        return f"the activation {getattr(config, 'hidden_act', None)}"
    if getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True):
        return "attention over a sliding window"
    rope_type = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    if rope_type not in _ROPE_TYPES:
        return f"rotary embeddings of the kind {rope_type}"
    if config.model_type not in _FAMILY:
        return f"the architecture {config.model_type}"
    if getattr(config, "attention_bias", False) or getattr(config, "mlp_bias", False):
        return "biases outside of queries, keys and values"
    head_size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    is_power_of_two = head_size & (head_size - 1) == 0
    return None if is_power_of_two and head_size >= 16 else f"heads of {head_size} numbers"


def _find_layer_obstacle(layer: Any) -> str | None:
    """Why the stack cannot compute a decoder layer: it has other parts than those of the family; None if it can."""
    parts = {name for name, _ in layer.named_children()}
    attention = {name for name, _ in layer.self_attn.named_children()} if hasattr(layer, "self_attn") else set()
    gates = {name for name, _ in layer.mlp.named_children()} if hasattr(layer, "mlp") else set()
    others = (parts - _LAYER_PARTS) | (attention - _ATTENTION_PARTS) | (gates - _GATE_PARTS)
    if others or not {"self_attn", "mlp"} <= parts:
        return f"layers with {', '.join(sorted(others)) or 'other parts'}"
    return None


class Stack:
    """One model's forward over sequences of at most `positions` tokens.

    `cache` are keys and values of all layers, [layers, key heads, slots, head size] each.
    `states` [slots, layers + 1, hidden] receives the outputs of the layers `taps`, and of the final norm.
    """

    def __init__(
        self,
        model: Any,
        kernels: Kernels,
        cache: tuple[Tensor, Tensor],
        positions: int,
        taps: Sequence[int] = (),
        states: Tensor | None = None,
    ) -> None:
        base = model.model
        self._kernels = kernels
        self._keys, self._values = cache
        self._taps = {layer: index for index, layer in enumerate(taps)}  # index in `states`, by number of the layer
        self._states = states
        self._embedding: Tensor = base.embed_tokens.weight
        self._norm: Tensor = base.norm.weight
        self._output: nn.Module = model.get_output_embeddings()
        self._scale = float(base.layers[0].self_attn.scaling)
        self._layers = [self._read_layer(layer) for layer in base.layers]
        places = torch.arange(positions, device=model.device)
        # in fp32 whatever the model's type: `rotary_emb` gives its angles in the type of its first argument
        cosine_and_sine = base.rotary_emb(torch.zeros(1, device=model.device), places[None])
        self._turns: tuple[Tensor, Tensor] = tuple(
            turn[0, :, : turn.shape[-1] // 2].contiguous() for turn in cosine_and_sine
        )
        shape = (BUCKETS[-1], model.config.hidden_size)
        self.hidden = torch.zeros(shape, dtype=model.dtype, device=model.device)
        """States after the final norm, [rows, hidden size], of the last forward."""

    def _read_layer(self, layer: Any) -> _DecoderLayer:
        """The weights of a decoder layer, those with the same inputs joined."""
        attention = layer.self_attn
        projections = [attention.q_proj, attention.k_proj, attention.v_proj]
        # either all projections have a bias, or none has
        has_bias = projections[0].bias is not None
        bias = torch.cat([projection.bias for projection in projections]) if has_bias else None
        norms = None
        if hasattr(attention, "q_norm"):
            norms = (attention.q_norm.weight, attention.k_norm.weight, float(attention.q_norm.variance_epsilon))
        return _DecoderLayer(
            layer.input_layernorm.weight,
            Product(projections, self._kernels),
            bias,
            head_norms=norms,
            output=Product([attention.o_proj], self._kernels),
            second_norm=layer.post_attention_layernorm.weight,
            gates=Product([layer.mlp.gate_proj, layer.mlp.up_proj], self._kernels),
            down=Product([layer.mlp.down_proj], self._kernels),
            epsilon=float(layer.input_layernorm.variance_epsilon),
        )

    @property
    def products(self) -> list[Product]:
        return [each for layer in self._layers for each in (layer.projections, layer.output, layer.gates, layer.down)]

    @property
    def copy_bytes(self) -> int:
        """Bytes of a bf16 copy of all weights in 4 bits."""
        return sum(2 * each.packed.outputs * each.packed.inputs for each in self.products if each.packed is not None)

    def forward(self, step: StepView, most_layers: int | None = None) -> Tensor:
        """Run all rows of a step; return their states after the final norm, which are also in `hidden`.

        With `most_layers`, only the first layers are run, and what is stored for detector heads is of no use.
        """
        kernels = self._kernels
        layers = self._layers[:most_layers]
        residual = F.embedding(step.ids, self._embedding)
        parts: Tensor | None = None
        for number, layer in enumerate(layers):
            normed = kernels.normalise(residual, parts, layer.first_norm, layer.epsilon)
            # the residual stream now has the output of the layer before
            self._keep_states(number - 1, step, residual)
            keys = self._keys[number]
            values = self._values[number]
            queries = kernels.rotate_and_put(
                layer.projections(normed),
                layer.bias,
                layer.head_norms,
                self._turns,
                step,
                keys,
                values,
                self.hidden.dtype,
            )
            attended = kernels.attend(queries, keys, values, step, self._scale)
            normed = kernels.normalise(residual, layer.output(attended), layer.second_norm, layer.epsilon)
            parts = layer.down(kernels.gate(layer.gates(normed), self.hidden.dtype))
        hidden = kernels.normalise(residual, parts, self._norm, self._layers[-1].epsilon, self.hidden[: step.rows])
        self._keep_states(len(layers) - 1, step, residual)
        if self._states is not None:
            kernels.put_states(self._states, self._states.shape[1] - 1, step, hidden)
        return hidden

    def _keep_states(self, layer: int, step: StepView, hidden: Tensor) -> None:
        """Store a layer's output if a detector head reads it."""
        if self._states is not None and layer in self._taps:
            self._kernels.put_states(self._states, self._taps[layer], step, hidden)

    def choose(self, choice: ChoiceInput) -> Tensor:
        """The tokens [count] that are chosen after some rows of the last forward."""
        logits = self._output(self.hidden.index_select(0, choice.rows))
        return self._kernels.choose(logits, choice)
