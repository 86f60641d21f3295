"""Fills an engine's KV cache: the real scheduler prefills prompts until all of them are in it at once.

Nothing is decoded, because decoding takes no more memory than prefill.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from aligner_proxy.engine.model.runner import ModelRunner
from aligner_proxy.engine.scheduling.blocks import BLOCK
from aligner_proxy.engine.scheduling.scheduler import Job, Scheduler
from aligner_proxy.engine.scheduling.sequence import Ask, Work
from bench.equality import WORDS


def fill(runner: ModelRunner, sequences: int, tokens: int, on_step: Callable[[int], object] = lambda _: None) -> None:
    """Prefill `sequences` prompts of `tokens` each, then free them; `on_step` gets each step's number of tokens."""
    rng, scheduler = Random(0), Scheduler(runner.pool, budget=runner.step_tokens, most=sequences)

    def work() -> Work:
        yield Ask(rng.choices(WORDS, k=tokens), prompt=True)

    for number in range(sequences):
        job = Job(str(number), work(), lambda _: None)
        job.advance()
        scheduler.add(job)
    while scheduler.waiting or any(job.sequence.remaining for job in scheduler.running):
        feeds = [feed for feed in scheduler.schedule(0.0) if feed.stop > feed.start]
        for feed, chosen_ids in zip(feeds, runner.run(feeds), strict=True):
            # Settled but not advanced to its end, so that a prefilled sequence keeps its blocks while others are
            # prefilled.
            scheduler.record_feed(feed, chosen_ids)
            on_step(feed.stop - feed.start)
    if sum(len(job.sequence.blocks) for job in scheduler.running) < sequences * (tokens // BLOCK):
        raise RuntimeError("not all sequences were in the cache at once")
    for job in list(scheduler.running):
        scheduler.drop(job, None)
