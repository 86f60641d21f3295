"""The trained network: the model, its head, and the loss of both on a batch.

The whole loss of a batch comes from one call of the module, because libraries that shard a model over processes gather
its weights in that call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from aligner_proxy.engine.model.detector import DetectorHead, Taps

from . import batches
from .batches import TrainingBatch
from .detector_loss import BatchFacts, bag_loss, detection_loss
from .features import EncodedExample


class Network(nn.Module):
    """The model that is trained, its head, and the states that the head reads."""

    def __init__(self, model: Any, head: DetectorHead) -> None:
        super().__init__()
        self.model = model
        self.head = head
        self.touch_all = False
        """Whether every batch gives every weight a gradient, even if it is 0; several processes need that."""
        self._taps: Taps = head.taps(self.causal.model)
        # Under autocast all products are in bf16, so PEFT's conversion of inputs to fp32 would be undone at once.
        for module in self.modules():
            if isinstance(module, BaseTunerLayer):
                module.cast_input_dtype_enabled = False

    @property
    def causal(self) -> Any:
        """The model below the adapter, if there is one."""
        return self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model

    # Libraries that shard a model ask by these names which of its weights are shared.

    def get_input_embeddings(self) -> nn.Module:
        layer: nn.Module = self.causal.get_input_embeddings()
        return layer

    def get_output_embeddings(self) -> nn.Module:
        layer: nn.Module = self.causal.get_output_embeddings()
        return layer

    def tie_weights(self) -> None:
        """Let embeddings and output layer share their weights again, if the model's config says so."""
        self.causal.tie_weights()

    def trained_parameters(self) -> list[Tensor]:
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def fuse(self) -> None:
        """Fuse the element-wise work of each layer; on 2 CPU cores a step takes half the time (docs/lab)."""
        for layer in self.causal.model.layers:
            layer.compile(dynamic=True)

    def recompute(self) -> None:
        """Keep no activations inside the layers, but compute them again on the way back."""
        self.train()  # transformers does so in training mode only; no weight here is dropped in it
        self.causal.gradient_checkpointing_enable({"use_reentrant": False})

    def forward(self, batch: TrainingBatch, facts: BatchFacts) -> tuple[Tensor, Tensor]:
        """The loss of the correction and that of the detection, each a sum over the batch."""
        device = self.head.score.bias.device
        with torch.autocast(device.type, torch.bfloat16):
            ids, hidden, states = self.read(batch.examples)
            repaired = self._correction_loss(batch.examples, ids, hidden)
        if batch.bags:
            return repaired, bag_loss(self.head, states, batch.examples)
        return repaired, detection_loss(self.head, states, batch.examples, facts.move_to(device))

    def read(self, batch: Sequence[EncodedExample]) -> tuple[Tensor, Tensor, Tensor]:
        """Run a batch; return its padded token ids, the states after the final norm, and those at the tapped layers.

        They are [examples, tokens], [examples, tokens, hidden] and [examples, tokens, layers + 1, hidden].
        """
        device = self.head.score.bias.device
        width = batches.pad_length(max(len(example.ids) for example in batch))
        ids = torch.tensor([example.ids + [0] * (width - len(example.ids)) for example in batch], device=device)
        # Right padding under a causal mask is never looked at, so no attention mask is needed.
        hidden = self.causal.model(input_ids=ids, use_cache=False).last_hidden_state
        return ids, hidden, self._taps.take(hidden)

    def _correction_loss(self, batch: Sequence[EncodedExample], ids: Tensor, hidden: Tensor) -> Tensor:
        """Weighted sum of cross-entropies of the targets' tokens; logits are computed for these only."""
        target_tokens = [
            (row, position, weight)
            for row, example in enumerate(batch)
            for position, weight in enumerate(example.weights)
            if weight > 0
        ]
        if not target_tokens:
            # with `touch_all`, every parameter takes part in the loss, also if it adds nothing to it
            untouched = hidden.new_zeros((), dtype=torch.float32)
            return self.causal.lm_head(hidden[:1, :1]).float().sum() * 0.0 if self.touch_all else untouched
        rows, positions, weights = (list(column) for column in zip(*target_tokens, strict=True))
        # a token is predicted from the state of the token before it
        logits = self.causal.lm_head(hidden[rows, [position - 1 for position in positions]]).float()
        losses = F.cross_entropy(logits, ids[rows, positions], reduction="none")
        return (losses * torch.tensor(weights, device=losses.device)).sum()
