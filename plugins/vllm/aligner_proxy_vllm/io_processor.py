"""vLLM's way in and out of the scoring server: requests to `/pooling` become prompts, what the head said an answer."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from vllm.config import VllmConfig
from vllm.inputs import TokensPrompt
from vllm.outputs import PoolingRequestOutput
from vllm.plugins.io_processors.interface import IOProcessor
from vllm.pooling_params import PoolingParams
from vllm.renderers import BaseRenderer

from aligner_proxy_vllm.scoring import Scoring, ScoringPlan, ScoringRequest

_KEPT_S = 600.0
"""A plan whose request was given up is forgotten after this; vLLM does not say when that happens."""


class ScoringProcessor(IOProcessor[ScoringRequest, dict[str, Any]]):
    """Loaded with `--io-processor-plugin aligner`."""

    def __init__(self, vllm_config: VllmConfig, renderer: BaseRenderer) -> None:
        super().__init__(vllm_config, renderer)
        model = vllm_config.model_config
        self._scoring = Scoring(Path(model.model), f"vllm, {model.dtype}", model.max_model_len)
        self._plans: OrderedDict[str, tuple[float, ScoringPlan]] = OrderedDict()
        self._lock = threading.Lock()
        self._now = threading.local()
        """The plan just made: vLLM asks for its parameters right behind it, in the same thread."""

    def parse_data(self, data: object) -> ScoringRequest:
        """Raises ValueError with the name of the field that is wrong, never with what stands in it."""
        try:
            return ScoringRequest.model_validate(data)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            raise ValueError(f"data.{'.'.join(map(str, first['loc']))}: {first['msg']}") from None

    def pre_process(
        self, prompt: ScoringRequest, request_id: str | None = None, **kwargs: Any
    ) -> Sequence[TokensPrompt]:
        """The prompts of one request."""
        plan = self._scoring.plan(prompt)
        self._remember(request_id or "", plan)
        self._now.places = plan.places
        return [TokensPrompt(prompt_token_ids=list(ids)) for ids in plan.prompts]

    def merge_pooling_params(self, params: PoolingParams | None = None) -> PoolingParams:
        """The places of all prompts of the request, of which each finds its own."""
        params = params or PoolingParams(task="plugin")
        params.extra_kwargs = {"aligner": self._now.__dict__.pop("places", {})}
        return params

    def post_process(
        self, model_output: Sequence[PoolingRequestOutput], request_id: str | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """The answer of one request."""
        with self._lock:
            _, plan = self._plans.pop(request_id or "")
        return plan.answer([output.outputs.data.tolist() for output in model_output], self._scoring.about)

    def _remember(self, name: str, plan: ScoringPlan) -> None:
        now = time.monotonic()
        with self._lock:
            while self._plans and next(iter(self._plans.values()))[0] < now - _KEPT_S:
                self._plans.popitem(last=False)
            if name in self._plans:
                # Two requests that call themselves the same must not get each other's verdicts.
                raise ValueError("a request of this id is under way; send another X-Request-Id, or none")
            self._plans[name] = (now, plan)
