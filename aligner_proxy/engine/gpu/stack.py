"""A forward pass of Llama's family over the loaded model's own weights, through few kernels. A row is one token of a
step. The result of a matrix product comes in parts, [parts, rows, width], which the next kernel adds up.

    stack = Stack(model, kernels, cache, positions, taps, states)
    stack.forward(step_input.view(rows))       # writes stack.hidden
    tokens = stack.choose(step_input.view_choice(count))

The forward pass reads nothing back to the host, and every shape is known from the number of rows, so it can be recorded
as a CUDA graph. For other models `find_obstacle` gives the reason, and they stay on the library's forward.
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

_MAX_PACKED_ROWS = 128
"""Most rows that are multiplied with 4-bit weights directly; for more rows, it is faster to unpack the weights."""
_MAX_PACKED_ROWS_WITH_COPY = 64
"""The same limit where a bf16 copy is kept (both as timed on an H100, docs/lab/2026-11-26-gpu-engine.md)."""
_MAX_ROUNDING = 0.02
"""Largest relative difference of two products that round their sums to bf16 in another order."""
_FAMILY = ("llama", "mistral", "qwen2", "qwen3")
"""Architectures that are computed alike; others may rotate other pairs of numbers, or only in some layers."""
_ROPE_TYPES = ("default", "linear", "llama3", "yarn")
"""Kinds of rotary embeddings whose angles depend on nothing but the position."""
# the modules that a layer of the family has, and those of its attention and of its gated network
_ATTENTION_MODULES = {"q_proj", "k_proj", "v_proj", "o_proj", "q_norm", "k_norm", "rotary_emb"}
_LAYER_MODULES = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}
_GATE_MODULES = {"gate_proj", "up_proj", "down_proj", "act_fn"}


class Kernels(Protocol):
    """The operations of a forward pass, implemented by Triton kernels (triton_kernels.py) and, for tests, in plain
    torch. The inputs of a product may be divided among programs, so its sums come in parts, [parts, rows, width], which
    the next kernel adds up in order.
    """

    def normalise(
        self, residual: Tensor, parts: Tensor | None, weight: Tensor, epsilon: float, out: Tensor | None = None
    ) -> Tensor:
        """Add the `parts` of a product, if any, to the residual stream [rows, width], and return the normalised stream.

        The stream is changed in place. The result is divided by the root mean square of its row and scaled by `weight`
        [width]; it is written to `out` if that is given.
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

        Returns the queries [rows, heads, size] in `dtype`. `parts` are the product for queries, keys and values side by
        side, to which `bias` is added, if not None. `turns` are the cosines and the sines for every position,
        [positions, size / 2] each. `keys` and `values` [key heads, slots, size] are the cache of one layer. `norms` are
        the weights of the norms of queries and of keys, and their epsilon; None without norms.
        """
        ...

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, step: StepView, scale: float) -> Tensor:
        """Return the attention [rows, heads * size] of queries [rows, heads, size] over their sequences' slots."""
        ...

    def gate(self, parts: Tensor, dtype: torch.dtype) -> Tensor:
        """Return SiLU of the first half of a product's width, times its second half: [rows, width / 2] in `dtype`."""
        ...

    def multiply(self, rows: Tensor, packed: PackedWeights) -> Tensor:
        """Return the product [parts, rows, outputs] of rows with 4-bit weights in fp32; its parts are to be added."""
        ...

    def unpack(self, packed: PackedWeights) -> Tensor:
        """Return 4-bit weights as a matrix [outputs, inputs] in bf16, rounded as bitsandbytes rounds them."""
        ...

    def put_states(self, states: Tensor, index: int, step: StepView, hidden: Tensor) -> None:
        """Copy the states [rows, width] of a layer, which a detector head reads, to `states` at [slot, index]."""
        ...

    def choose(self, logits: Tensor, choice: ChoiceInput) -> Tensor:
        """Return each row's token: the favoured one (`ChoiceInput`), or the first one with the highest logit."""
        ...


class Product:
    """Multiplies rows with the weights of layers that have the same inputs, joined to one matrix. The layers then use
    the memory of this matrix, too. Weights in 4 bits are reordered for our kernel ("packed").
    """

    def __init__(self, layers: list[Any], kernels: Kernels) -> None:
        self._kernels = kernels
        self._layers: list[Any] = []
        """The layers themselves, if their weights cannot be joined; else empty."""
        self.packed: PackedWeights | None = None
        """The joined weights in 4 bits; None if the layers have no such weights."""
        self.weight: Tensor | None = None
        """The joined weights unpacked [outputs, inputs]; beside `packed` only after `copy_weights`."""
        bounds = list(accumulate((layer.out_features for layer in layers), initial=0))
        # each layer with the outputs that it has in the joined matrix: the first, and the one after the last
        layers_with_outputs = list(zip(layers, bounds[:-1], bounds[1:], strict=True))
        if all(map(nf4.can_pack, layers)):
            self.packed = nf4.pack(layers)
            if all(self._is_equal(layer, first, stop) for layer, first, stop in layers_with_outputs):
                for layer, first, stop in layers_with_outputs:
                    _use_packed(self, layer, first, stop)
                return
            self.packed = None
        if all(type(layer) is nn.Linear for layer in layers):
            self.weight = torch.cat([layer.weight.data for layer in layers])
            for layer, first, stop in layers_with_outputs:
                layer.weight.data = self.weight[first:stop]
        else:
            self._layers = layers

    def _is_equal(self, layer: Any, first: int, stop: int) -> bool:
        """Whether outputs `first` to `stop`, excluded, of the joined weights are a layer's, except for rounding."""
        device = layer.weight.device
        sample_rows = torch.linspace(-1, 1, 3 * layer.in_features, device=device).sin().bfloat16().view(3, -1)
        expected = layer(sample_rows).float()
        difference = (self.multiply_part(sample_rows, first, stop).float() - expected).norm()
        return bool(difference <= _MAX_ROUNDING * expected.norm())

    def copy_weights(self) -> None:
        """Keep the weights in bf16 as well, for products with many rows."""
        if self.packed is not None:
            self.weight = self._kernels.unpack(self.packed)

    def __call__(self, rows: Tensor) -> Tensor:
        """Return the product with `rows` [rows, inputs] in parts, [parts, rows, outputs]."""
        if self._layers:
            return torch.cat([layer(rows) for layer in self._layers], dim=-1)[None]
        return self._multiply(rows, self.packed, self.weight)

    def multiply_part(self, rows: Tensor, first: int, stop: int) -> Tensor:
        """Return the outputs `first` to `stop`, excluded, which one of the packed layers computes of `rows`."""
        assert self.packed is not None
        weight = None if self.weight is None else self.weight[first:stop]
        return self._multiply(rows, self.packed.select(first, stop), weight).sum(0).to(rows.dtype)

    def _multiply(self, rows: Tensor, packed: PackedWeights | None, weight: Tensor | None) -> Tensor:
        """Return the product in parts; the weights are given `packed`, as a matrix (`weight`), or both."""
        max_packed_rows = _MAX_PACKED_ROWS if weight is None else _MAX_PACKED_ROWS_WITH_COPY
        if packed is not None and len(rows) <= max_packed_rows:
            return self._kernels.multiply(rows, packed)
        if weight is None:
            assert packed is not None
            weight = self._kernels.unpack(packed)
        return F.linear(rows, weight)[None]


def _use_packed(product: Product, layer: Any, first: int, stop: int) -> None:
    """Let a 4-bit layer, which may be run with an adapter, compute with its outputs of `product`; free its weights."""

    def multiply(inputs: Tensor) -> Tensor:
        rows = inputs.to(torch.bfloat16).reshape(-1, inputs.shape[-1])
        return product.multiply_part(rows, first, stop).view(*inputs.shape[:-1], -1).to(inputs.dtype)

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
    """The bias of the projections; None if they have none."""
    query_and_key_norms: tuple[Tensor, Tensor, float] | None
    """The weights of the norms of queries and of keys, and their epsilon; None without these norms."""
    output: Product
    second_norm: Tensor
    gates: Product
    """Gate and up projections, side by side."""
    down: Product
    epsilon: float


def find_obstacle(model: Any) -> str | None:
    """Return, in a few words, why the stack cannot compute this model; None if it can."""
    base: Any = getattr(model, "model", None)
    if not all(hasattr(base, name) for name in ("layers", "norm", "rotary_emb", "embed_tokens")):
        return "another architecture than Llama's"
    layer_obstacles = (_find_layer_obstacle(layer) for layer in base.layers)
    return find_config_obstacle(model.config) or next(filter(None, layer_obstacles), None)


def find_config_obstacle(config: Any) -> str | None:
    """Return, in a few words, why the stack cannot compute a model with this config; None if it may, by the config."""
    activation = getattr(config, "hidden_act", None)
    if activation != "silu":
        return f"the activation {activation}"
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
    """Return why the stack cannot compute a decoder layer: which modules other layers lack; None if it can."""
    modules = {name for name, _ in layer.named_children()}
    attention = {name for name, _ in layer.self_attn.named_children()} if hasattr(layer, "self_attn") else set()
    gates = {name for name, _ in layer.mlp.named_children()} if hasattr(layer, "mlp") else set()
    unknown_modules = (modules - _LAYER_MODULES) | (attention - _ATTENTION_MODULES) | (gates - _GATE_MODULES)
    if unknown_modules or not {"self_attn", "mlp"} <= modules:
        return f"layers with {', '.join(sorted(unknown_modules)) or 'other parts'}"
    return None


class Stack:
    """One model's forward over sequences of at most `positions` tokens. `cache` are keys and values of all layers,
    [layers, key heads, slots, head size] each. `states` [slots, tapped layers + 1, hidden] receives what detector heads
    read: the outputs of the layers with the indices `taps`, and of the final norm; None without detector heads.
    """

    def __init__(
        self,
        model: Any,
        kernels: Kernels,
        cache: tuple[Tensor, Tensor],
        positions: int,
        taps: Sequence[int],
        states: Tensor | None,
    ) -> None:
        base = model.model
        self._kernels = kernels
        self._keys, self._values = cache
        self._state_indices = {layer: index for index, layer in enumerate(taps)}  # index in `states`, by layer
        self._states = states
        self._embedding: Tensor = base.embed_tokens.weight
        self._norm: Tensor = base.norm.weight
        self._output: nn.Module = model.get_output_embeddings()
        self._scale = float(base.layers[0].self_attn.scaling)
        self._layers = [self._read_layer(layer) for layer in base.layers]
        all_positions = torch.arange(positions, device=model.device)
        # `rotary_emb` computes in the type of its first argument, which is fp32 here, whatever the model's type
        cosines, sines = base.rotary_emb(torch.zeros(1, device=model.device), all_positions[None])
        # both halves of the library's tables are equal
        half = cosines.shape[-1] // 2
        self._cosines_and_sines = (cosines[0, :, :half].contiguous(), sines[0, :, :half].contiguous())
        shape = (BUCKETS[-1], model.config.hidden_size)
        self.hidden = torch.zeros(shape, dtype=model.dtype, device=model.device)
        """States after the final norm, [rows, hidden size], of the last forward."""

    def _read_layer(self, layer: Any) -> _DecoderLayer:
        """Return the weights of a decoder layer; those with the same inputs are joined."""
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
            query_and_key_norms=norms,
            output=Product([attention.o_proj], self._kernels),
            second_norm=layer.post_attention_layernorm.weight,
            gates=Product([layer.mlp.gate_proj, layer.mlp.up_proj], self._kernels),
            down=Product([layer.mlp.down_proj], self._kernels),
            epsilon=float(layer.input_layernorm.variance_epsilon),
        )

    @property
    def products(self) -> list[Product]:
        """All products with weights, layer by layer."""
        products: list[Product] = []
        for layer in self._layers:
            products += [layer.projections, layer.output, layer.gates, layer.down]
        return products

    @property
    def copy_bytes(self) -> int:
        """Bytes of a bf16 copy of all weights in 4 bits."""
        return sum(2 * product.packed.outputs * product.packed.inputs for product in self.products if product.packed)

    def forward(self, step: StepView, layer_count: int | None = None) -> Tensor:
        """Run all rows of a step through all or the first `layer_count` layers.

        Returns their states after the final norm, a view of `self.hidden`.
        """
        kernels = self._kernels
        layers = self._layers[:layer_count]
        residual = F.embedding(step.ids, self._embedding)
        # the output of the layer before, which `normalise` adds to the residual stream
        output_parts: Tensor | None = None
        for index, layer in enumerate(layers):
            # attention; `normalise` also adds its second argument to `residual` in place
            normed = kernels.normalise(residual, output_parts, layer.first_norm, layer.epsilon)
            # the residual stream now has the output of the layer before (-1 is the index of no layer)
            self._store_states(index - 1, step, residual)
            keys = self._keys[index]
            values = self._values[index]
            queries = kernels.rotate_and_put(
                layer.projections(normed),
                layer.bias,
                layer.query_and_key_norms,
                self._cosines_and_sines,
                step,
                keys,
                values,
                self.hidden.dtype,
            )
            attended = kernels.attend(queries, keys, values, step, self._scale)
            # feed-forward network
            normed = kernels.normalise(residual, layer.output(attended), layer.second_norm, layer.epsilon)
            output_parts = layer.down(kernels.gate(layer.gates(normed), self.hidden.dtype))
        epsilon = self._layers[-1].epsilon
        hidden = kernels.normalise(residual, output_parts, self._norm, epsilon, out=self.hidden[: step.rows])
        self._store_states(len(layers) - 1, step, residual)
        if self._states is not None:
            final_norm_index = self._states.shape[1] - 1
            kernels.put_states(self._states, final_norm_index, step, hidden)
        return hidden

    def _store_states(self, layer: int, step: StepView, hidden: Tensor) -> None:
        """Store the output of the layer with the index `layer`, if a detector head reads it."""
        if self._states is not None and layer in self._state_indices:
            self._kernels.put_states(self._states, self._state_indices[layer], step, hidden)

    def choose(self, choice: ChoiceInput) -> Tensor:
        """Return the tokens that are chosen after the rows of `choice` in the last forward."""
        logits = self._output(self.hidden.index_select(0, choice.rows))
        return self._kernels.choose(logits, choice)
