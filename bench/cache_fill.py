"""How full can an engine's cache get? Prompts are read by its own scheduler until all of them are in it at once.

Nothing is decoded: decoding takes no more memory than reading.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from aligner_proxy.engine.model.runner import ModelRunner
from aligner_proxy.engine.scheduling.blocks import BLOCK
from aligner_proxy.engine.scheduling.scheduler import Job, Scheduler
from aligner_proxy.engine.scheduling.sequence import Ask, Work
from bench.equality import WORDS


def fill(runner: ModelRunner, sequences: int, tokens: int, told: Callable[[int], object] = lambda _: None) -> None:
    """Read so many prompts of `tokens` each; `told` how many tokens a step has read. What they took is given back."""
    rng, scheduler = Random(0), Scheduler(runner.pool, budget=runner.step_tokens, most=sequences)

    def work() -> Work:
        yield Ask(rng.choices(WORDS, k=tokens), prompt=True)

    for number in range(sequences):
        job = Job(str(number), work(), lambda _: None)
        job.advance()
        scheduler.add(job)
    while scheduler.waiting or any(job.sequence.remaining for job in scheduler.running):
        feeds = [feed for feed in scheduler.schedule(0.0) if feed.stop > feed.start]
        for feed, chosen in zip(feeds, runner.run(feeds), strict=True):
            # Settled, but not advanced to its end: who has been read keeps his blocks while the others are read.
            scheduler.settle(feed, chosen)
            told(feed.stop - feed.start)
    if sum(len(job.sequence.blocks) for job in scheduler.running) < sequences * (tokens // BLOCK):
        raise RuntimeError("not all sequences were in the cache at once")
    for job in list(scheduler.running):
        scheduler.drop(job, None)
