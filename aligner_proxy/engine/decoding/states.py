"""Hidden states of texts, which plugins request from the engine, for example to choose objectives for a prompt. The
model's thread reads each text once, separately. This takes the time of a step, and no blocks of the KV cache.
"""

from __future__ import annotations

from aligner_proxy.engine.api import StatesRequest
from aligner_proxy.engine.decoding.aligner import Aligner
from aligner_proxy.engine.scheduling.sequence import TokenSequence, Work
from aligner_proxy.errors import StatesUnavailable

_MAX_CHARS = 16_000
"""Characters of the longest text that is read whole; of a longer text, half as many are read at either end."""


def read_states(aligner: Aligner, request: StatesRequest, sequence: TokenSequence) -> Work:
    """Return the rows of the texts (encoder.py); raises `StatesUnavailable` for unknown layers."""
    yield from ()  # a generator like other work, but it needs no step
    runner = aligner.runner
    unknown_layers = [layer for layer in request.layers if layer >= runner.layers]
    if unknown_layers:
        raise StatesUnavailable(
            f"{aligner.info.model} has the layers 0 to {runner.layers - 1}; layer {unknown_layers[0]} was asked for"
        )
    half = _MAX_CHARS // 2
    texts = [text if len(text) <= _MAX_CHARS else text[:half] + text[-half:] for text in request.texts]
    token_ids = [runner.tokenizer.encode_prompt(text).ids for text in texts]
    return runner.encode(token_ids, request.layers, aligner.adapter).tolist()
