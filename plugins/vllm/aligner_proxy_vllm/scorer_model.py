"""vLLM's scoring model: the aligner's base model with the detector head as its pooler.

vLLM's interface for drafting heads (EAGLE-3) provides the hidden states of chosen layers, also from compiled models.
These are concatenated into one wide state for each token. If a prompt is read in chunks, vLLM stores the states until
the prompt is complete.
"""

from __future__ import annotations

from collections.abc import Iterable, Set
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from vllm.config import VllmConfig
from vllm.model_executor.layers.pooler import Pooler, PoolingParamsUpdate
from vllm.model_executor.layers.pooler.tokwise.methods import AllPool
from vllm.model_executor.models.llama import LlamaForCausalLM
from vllm.tasks import PoolingTask
from vllm.v1.pool.metadata import PoolingMetadata

from aligner_proxy.engine.model.detector import DetectorHead
from aligner_proxy.engine.model.taught import LoadedHeads, TaughtColumns, select_heads
from aligner_proxy.engine.scheduling.sequence import Spans
from aligner_proxy.engine.taught_head import TaughtHead
from aligner_proxy.engine.weights import manifest
from aligner_proxy_vllm.scoring import prompt_key, shipped_heads


class HeadPooler(Pooler):
    """Computes the scores of a prompt's segments [segments, objectives] from states [tokens, (layers + 1) * hidden]."""

    def __init__(self, folder: Path, hidden_size: int, device: torch.device) -> None:
        super().__init__()
        head = DetectorHead.load(folder / manifest.HEAD).to(device).float()
        # The head, and the pooler that gathers the states of a prompt that vLLM reads in chunks. In a tuple, so that
        # the head is no submodule: its weights come from another file, and their dtype must not change.
        self._head_and_pooler = (head, AllPool())
        self._hidden_size = hidden_size
        self._device = device
        self._shipped_heads = shipped_heads(folder, device)
        """The aligner's own taught heads, by objective."""

    @property
    def layers(self) -> list[int]:
        """The layers whose outputs the head reads, in ascending order."""
        head, _ = self._head_and_pooler
        numbers: list[int] = head.layers.tolist()
        return numbers

    @property
    def weight_names(self) -> frozenset[str]:
        """The names of the head's weights in their file."""
        head, _ = self._head_and_pooler
        return frozenset(head.state_dict())

    def get_supported_tasks(self) -> Set[PoolingTask]:
        """Only this package's own processor may request scores."""
        return {"plugin"}

    def get_pooling_updates(self, task: PoolingTask) -> PoolingParamsUpdate:
        """Ask vLLM for the token ids, since they identify a prompt."""
        return PoolingParamsUpdate(requires_token_ids=True)

    @torch.inference_mode()
    def forward(self, hidden_states: Tensor, pooling_metadata: PoolingMetadata) -> list[Tensor | None]:
        """Return the scores of each prompt of the batch; None for prompts that are not complete yet."""
        _, gather_states = self._head_and_pooler
        prompt_states = gather_states(hidden_states, pooling_metadata)
        prompt_ids = pooling_metadata.get_prompt_token_ids_cpu()
        scores: list[Tensor | None] = []
        for states, ids, params in zip(prompt_states, prompt_ids, pooling_metadata.pooling_params, strict=True):
            places = (params.extra_kwargs or {}).get("aligner") or {}
            scores.append(None if states is None else self._judge(states, ids, places))
        return scores

    def _judge(self, states: Tensor, ids: Tensor, places: dict[str, Any]) -> Tensor:
        """Return the scores of one prompt with the token ids `ids`; empty if `places` has no spans for it.

        `places` are those of a `ScoringPlan`: under "parts" they have, by `prompt_key`, the spans of a prompt, the
        (start, stop) tokens of its objectives and segments.
        """
        prompt_spans = places.get("parts", {}).get(prompt_key(ids.numpy()))
        if prompt_spans is None:
            return torch.zeros(0)  # the placeholder token of a request without prompts, or vLLM's own warm-up
        spans = Spans(
            tuple(range(start, stop) for start, stop in prompt_spans["objectives"]),
            tuple(range(start, stop) for start, stop in prompt_spans["segments"]),
            has_end=prompt_spans["behind"],  # whether the last segment stands for the end of the answer
        )
        head, _ = self._head_and_pooler
        layer_states = states.view(len(states), -1, self._hidden_size)
        return head.judge(layer_states, spans, self._select_taught_heads(places)).float().cpu()

    def _select_taught_heads(self, places: dict[str, Any]) -> TaughtColumns | None:
        """The taught heads for a request's objectives, sent ones before the aligner's own; None if there are none."""
        sent_heads: list[bytes] = places["heads"]
        if not self._shipped_heads and not any(sent_heads):
            return None
        loaded_heads = LoadedHeads(self._device)
        heads = [TaughtHead.from_bytes(data) if data else None for data in sent_heads]
        names = [loaded_heads.put(head) if head else "" for head in heads]
        aligner = next((head.aligner for head in heads if head), "")
        columns = select_heads(loaded_heads, self._shipped_heads, aligner, places["objectives"], names)
        return TaughtColumns(columns) if columns else None


class AlignerScorer(LlamaForCausalLM):
    """A scoring model on a base of the Llama family (Llama, Vicuna, TinyLlama, SmolLM2); one pipeline stage only."""

    is_pooling_model: ClassVar[Literal[True]] = True

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        model = vllm_config.model_config
        device = torch.device(vllm_config.device_config.device or "cpu")
        self.pooler = HeadPooler(Path(model.model), model.hf_config.hidden_size, device)
        # the head's layer n is the layer's output, and so vLLM's n + 1, the input of the next layer
        self.model._set_aux_hidden_state_layers(tuple(layer + 1 for layer in self.pooler.layers))

    def forward(
        self,
        input_ids: Tensor | None,
        positions: Tensor,
        intermediate_tensors: Any = None,
        inputs_embeds: Tensor | None = None,
    ) -> Tensor:
        """Return the hidden states of the head's layers and those after the final norm, concatenated for each token."""
        final_states, layer_states = self.model(input_ids, positions, intermediate_tensors, inputs_embeds)
        return torch.cat([*layer_states, final_states], dim=-1)

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        """Load the base's weights without the head's, because vLLM reads all weights files in the folder."""
        head_names = self.pooler.weight_names
        return super().load_weights((name, weight) for name, weight in weights if name not in head_names)
