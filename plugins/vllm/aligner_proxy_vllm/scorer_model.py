"""vLLM's scoring model: the aligner's base model with the detector head as its pooler.

vLLM's interface for drafting heads (EAGLE-3) provides the layers' states, also from compiled models. They are
concatenated into one wide state. vLLM stores these states until a prompt that is read in chunks is complete.
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
    """Computes log-odds [segments, objectives] for every prompt from states [tokens, (layers + 1) * hidden]."""

    def __init__(self, folder: Path, hidden_size: int, device: torch.device) -> None:
        super().__init__()
        # In a tuple, so that it is no submodule: its weights come from another file, and their dtype must not change.
        # The head, and the pooler that gathers the states of a prompt that vLLM reads in chunks.
        self._parts = (DetectorHead.load(folder / manifest.HEAD).to(device).float(), AllPool())
        self._hidden = hidden_size
        self._device = device
        self._shipped = shipped_heads(folder, device)
        """The aligner's own taught heads, by objective."""

    @property
    def layers(self) -> list[int]:
        """The layers whose outputs the head reads, in ascending order."""
        numbers: list[int] = self._parts[0].layers.tolist()
        return numbers

    @property
    def names(self) -> frozenset[str]:
        """The names of the head's weights in their file."""
        return frozenset(self._parts[0].state_dict())

    def get_supported_tasks(self) -> Set[PoolingTask]:
        """Only this package's own processor may request scores."""
        return {"plugin"}

    def get_pooling_updates(self, task: PoolingTask) -> PoolingParamsUpdate:
        """Ask vLLM for the token ids, since they identify the prompt."""
        return PoolingParamsUpdate(requires_token_ids=True)

    @torch.inference_mode()
    def forward(self, hidden_states: Tensor, pooling_metadata: PoolingMetadata) -> list[Tensor | None]:
        """Return scores for each prompt; None for prompts that are not complete yet."""
        _, gathering = self._parts
        whole = gathering(hidden_states, pooling_metadata)
        ids = pooling_metadata.get_prompt_token_ids_cpu()
        arguments = [params.extra_kwargs or {} for params in pooling_metadata.pooling_params]
        return [
            None if states is None else self._judge(states, prompt, about.get("aligner") or {})
            for states, prompt, about in zip(whole, ids, arguments, strict=True)
        ]

    def _judge(self, states: Tensor, ids: Tensor, about: dict[str, Any]) -> Tensor:
        """Return the scores of one prompt; empty if the request has no positions for it.

        `about` are the places of a `ScoringPlan`.
        """
        places = about.get("parts", {}).get(prompt_key(ids.numpy()))
        if places is None:
            return torch.zeros(0)  # the placeholder token of a request without prompts, or vLLM's own warm-up
        where = Spans(
            tuple(range(*place) for place in places["objectives"]),
            tuple(range(*place) for place in places["segments"]),
            places["behind"],
        )
        head, _ = self._parts
        scores = head.judge(states.view(len(states), -1, self._hidden), where, self._taught_columns(about))
        return scores.float().cpu()

    def _taught_columns(self, about: dict[str, Any]) -> TaughtColumns | None:
        """The taught heads for a request, those sent with it before the aligner's own; None without any."""
        sent_heads: list[bytes] = about["heads"]
        if not self._shipped and not any(sent_heads):
            return None
        loaded_heads = LoadedHeads(self._device)
        heads = [TaughtHead.from_bytes(data) if data else None for data in sent_heads]
        names = [loaded_heads.put(head) if head else "" for head in heads]
        aligner = next((head.aligner for head in heads if head), "")
        columns = select_heads(loaded_heads, self._shipped, aligner, about["objectives"], names)
        return TaughtColumns(columns) if columns else None


class AlignerScorer(LlamaForCausalLM):
    """A scoring model on a base of the Llama family (Llama, Vicuna, TinyLlama, SmolLM2); one pipeline stage only."""

    is_pooling_model: ClassVar[Literal[True]] = True

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)
        model = vllm_config.model_config
        device = torch.device(vllm_config.device_config.device or "cpu")
        self.pooler = HeadPooler(Path(model.model), model.hf_config.hidden_size, device)
        # vLLM numbers a layer's input, the head numbers its output.
        self.model._set_aux_hidden_state_layers(tuple(layer + 1 for layer in self.pooler.layers))

    def forward(
        self,
        input_ids: Tensor | None,
        positions: Tensor,
        intermediate_tensors: Any = None,
        inputs_embeds: Tensor | None = None,
    ) -> Tensor:
        """Return the states of the head's layers and after the final norm, concatenated."""
        final, layers = self.model(input_ids, positions, intermediate_tensors, inputs_embeds)
        return torch.cat([*layers, final], dim=-1)

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        """Load the base's weights; skips the head's, because vLLM reads every weights file in the folder."""
        of_head = self.pooler.names
        return super().load_weights((name, weight) for name, weight in weights if name not in of_head)
