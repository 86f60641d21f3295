"""Requests to the scoring server, planned and answered without vLLM: a transformers model stands where vLLM's would."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path

import numpy as np
import pytest
import torch
from aligner_proxy_vllm.scoring import Scoring, ScoringPlan, ScoringRequest, prompt_key
from aligner_proxy.engine.api import AlignRequest
from aligner_proxy.engine.loader import Settings, open_aligner
from aligner_proxy.engine.local import LocalEngine
from aligner_proxy.engine.model.detector import DetectorHead
from aligner_proxy.engine.scheduling.sequence import Spans
from aligner_proxy.engine.taught_head import TaughtHead
from aligner_proxy.engine.weights import manifest

from tests.support import tiny

LONG = " ".join(f"Sentence number {i} is about the harbour and its ferries." for i in range(60))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tiny.save(tmp_path_factory.mktemp("tiny"))
    torch.manual_seed(1)
    head = DetectorHead(64, (0, 1), 16)
    head.ends.fill_(True)
    head.save(made / manifest.HEAD)
    return made
