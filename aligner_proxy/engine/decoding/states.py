"""Hidden states of texts, which plugins ask the engine for: objectives are chosen by those of a prompt.

Each text is read once, by itself, in the model's thread: it takes a step's time and no blocks of the KV cache.
"""

from __future__ import annotations

from aligner_proxy.engine.api import StatesRequest
from aligner_proxy.engine.decoding.correct import Aligner
from aligner_proxy.engine.scheduling.sequence import Sequence, Work
from aligner_proxy.errors import StatesUnavailable

_MOST_CHARS = 16_000
"""Of a longer text the middle is not even tokenised."""


def states(aligner: Aligner, request: StatesRequest, sequence: Sequence) -> Work:
    """Rows [texts, layers * hidden] in the order of the texts. Raises `StatesUnavailable` for layers that are none."""
    yield from ()  # a work like others, which asks for no step
    runner = aligner.runner
    beyond = [layer for layer in request.layers if layer >= runner.layers]
    if beyond:
        raise StatesUnavailable(
            f"{aligner.info.model} has the layers 0 to {runner.layers - 1}; layer {beyond[0]} was asked for"
        )
    tokens = [runner.tokenizer.prompt(_cut(text)).ids for text in request.texts]
    return runner.encode(tokens, request.layers, aligner.adapter).tolist()


def _cut(text: str) -> str:
    half = _MOST_CHARS // 2
    return text if len(text) <= _MOST_CHARS else text[:half] + text[-half:]
