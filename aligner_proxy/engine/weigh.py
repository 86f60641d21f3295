"""What does each objective weigh for one prompt? The engine's answer, where its aligner has a net for that.

The prompt is read once, by itself, in the model's thread: it takes a step's time and no blocks of the cache.
"""

from __future__ import annotations

from functools import partial

from aligner_proxy.engine.correct import Aligner
from aligner_proxy.engine.protocol import WeighRequest
from aligner_proxy.engine.sequence import Sequence, Work
from aligner_proxy.errors import CannotWeigh

_MOST_CHARS = 16_000
"""Of a longer prompt the middle is not even tokenised."""


def weigh(aligner: Aligner, request: WeighRequest, sequence: Sequence) -> Work:
    """One weight for each objective, in their order; they sum to 1. Raises `CannotWeigh`."""
    yield from ()  # a work like others, which asks for no step
    weigher, runner = aligner.weigher, aligner.runner
    if weigher is None:
        raise CannotWeigh(f"the aligner {aligner.info.model} has no net that weighs objectives")
    text, half = asked(request), _MOST_CHARS // 2
    text = text if len(text) <= _MOST_CHARS else text[:half] + text[-half:]
    encode = partial(runner.encode, layers=weigher.layers, adapter=aligner.adapter)
    return weigher.weights(text, request.objectives, lambda told: runner.tokenizer.prompt(told).ids, encode)


def asked(request: WeighRequest) -> str:
    """What the user wants: the last of his turns."""
    said = [turn.content for turn in request.turns if turn.role == "user" and turn.content.strip()]
    if not said:
        raise CannotWeigh("there is no turn of a user that says what is wanted")
    return said[-1]
