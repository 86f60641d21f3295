"""vLLM's I/O processor of the scoring server: turns `/pooling` requests into prompts and scores into answers."""

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

_PLAN_LIFETIME_S = 600.0
"""Seconds after which plans are deleted, since vLLM does not report requests that were abandoned."""


class ScoringProcessor(IOProcessor[ScoringRequest, dict[str, Any]]):
    """The processor that `--io-processor-plugin aligner` loads."""

    def __init__(self, vllm_config: VllmConfig, renderer: BaseRenderer) -> None:
        super().__init__(vllm_config, renderer)
        model = vllm_config.model_config
        self._scoring = Scoring(Path(model.model), f"vllm, {model.dtype}", model.max_model_len)
        self._plans: OrderedDict[str, tuple[float, ScoringPlan]] = OrderedDict()
        """By request id ("" for none): when the plan was made (by `time.monotonic`), and the plan; oldest first."""
        self._plans_lock = threading.Lock()
        self._latest = threading.local()
        """Its `places` are those of the thread's last plan, until `merge_pooling_params`, which vLLM calls after
        `pre_process` in the same thread."""

    def parse_data(self, data: object) -> ScoringRequest:
        """Parse a request; raises ValueError with the name of the wrong field but never its content."""
        try:
            return ScoringRequest.model_validate(data)
        except ValidationError as error:
            first_fault = error.errors(include_url=False, include_input=False)[0]
            field_path = ".".join(map(str, first_fault["loc"]))
            raise ValueError(f"data.{field_path}: {first_fault['msg']}") from None

    def pre_process(
        self, prompt: ScoringRequest, request_id: str | None = None, **kwargs: Any
    ) -> Sequence[TokensPrompt]:
        """Return the prompts of one request (vLLM calls it `prompt`), and remember its plan."""
        plan = self._scoring.plan(prompt)
        self._remember(request_id or "", plan)
        self._latest.places = plan.places
        return [TokensPrompt(prompt_token_ids=list(ids)) for ids in plan.prompts]

    def merge_pooling_params(self, params: PoolingParams | None = None) -> PoolingParams:
        """Attach the positions for all prompts of the request; `HeadPooler` looks up each prompt's own positions."""
        params = params or PoolingParams(task="plugin")
        places = self._latest.__dict__.pop("places", {})
        params.extra_kwargs = {"aligner": places}
        return params

    def post_process(
        self, model_output: Sequence[PoolingRequestOutput], request_id: str | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Return the answer to one request from the scores of its prompts; deletes the plan of `pre_process`."""
        with self._plans_lock:
            _made_at, plan = self._plans.pop(request_id or "")
        prompt_scores = [output.outputs.data.tolist() for output in model_output]
        return plan.answer(prompt_scores, about=self._scoring.about)  # `about` describes the aligner

    def _remember(self, request_id: str, plan: ScoringPlan) -> None:
        """Store a request's plan by its id, and delete expired plans; raises ValueError if the id is in use."""
        now = time.monotonic()
        with self._plans_lock:
            while self._plans:
                made_at, _ = next(iter(self._plans.values()))
                if made_at >= now - _PLAN_LIFETIME_S:
                    break
                self._plans.popitem(last=False)
            if request_id in self._plans:
                # two concurrent requests with the same id would get each other's verdicts
                raise ValueError("a request of this id is under way; send another X-Request-Id, or none")
            self._plans[request_id] = (now, plan)
