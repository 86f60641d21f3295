"""Delivery in this process: completions of real upstreams through the gateway's pipeline, gate included.

Corrections are kept in a folder of the run, by the gateway's own cache: a run that broke off, or that is asked again
for other columns, computes only what is new; the gate judges anew each time. That folder holds texts of others and is
hidden from git.
"""

from __future__ import annotations

import argparse
import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.progress import track

from aligner_proxy.cli.options import silence_libraries
from aligner_proxy.engine.api import Engine
from aligner_proxy.engine.loader import EngineSettings, open_aligner
from aligner_proxy.engine.local import LocalEngine
from aligner_proxy.errors import ConfigError
from aligner_proxy.pipeline.cache import CorrectionCache
from aligner_proxy.pipeline.growing_answer import GrowingAnswer
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.plugins.extensions import NO_EXTENSIONS, Extensions
from aligner_proxy.policy import config
from aligner_proxy.types import (
    SAFETY_OBJECTIVES,
    Exchange,
    IfNothingRemains,
    Objective,
    Outcome,
    Policy,
    Status,
    Turn,
    Verify,
)
from models.data.upstream_completions import UpstreamCompletion

_YEAR_S = 365 * 86_400.0
_MAX_MB = 4096


def command_line(description: str | None) -> argparse.ArgumentParser:
    """A command line with the options of all scripts that send answers through the gateway."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("aligner", type=Path, help="aligner folder")
    parser.add_argument("--data", type=Path, required=True, help="folder with the research data")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    return parser


@dataclass(frozen=True, slots=True)
class DeliveredCompletion:
    """One completion, and what the gateway delivered for it under objectives, given by name."""

    completion: UpstreamCompletion
    objective_names: tuple[str, ...]
    outcome: Outcome

    @property
    def text(self) -> str:
        """The text that the client gets."""
        return self.outcome.text or ""

    @property
    def identical(self) -> bool:
        """Whether the text was delivered unchanged."""
        return self.text == self.completion.answer

    @property
    def is_judged(self) -> bool:
        """Whether the aligner judged it: it was not skipped, and the correction did not fail."""
        return self.outcome.status not in (Status.SKIPPED, Status.FAILED)


@asynccontextmanager
async def open_gateway(
    aligner: Path, cache_folder: Path | None = None, extensions: Extensions = NO_EXTENSIONS
) -> AsyncIterator[Pipeline]:
    """The pipeline over an aligner folder; with `cache_folder` it stores its corrections there."""
    silence_libraries()
    engine = LocalEngine(lambda: open_aligner(EngineSettings(aligner), config.home_folder()))
    try:
        await engine.start()
        async with open_caching_pipeline(engine, cache_folder, extensions) as pipeline:
            yield pipeline
    finally:
        await engine.aclose()


@asynccontextmanager
async def open_caching_pipeline(
    engine: Engine, cache_folder: Path | None, extensions: Extensions = NO_EXTENSIONS
) -> AsyncIterator[Pipeline]:
    """A pipeline that corrects with this engine, and keeps its corrections in `cache_folder`; None keeps none."""
    if cache_folder is None:
        yield Pipeline(engine, extensions=extensions)
        return
    cache = CorrectionCache(_make_hidden_folder(cache_folder), _YEAR_S, _MAX_MB)
    try:
        yield Pipeline(engine, cache, extensions=extensions)
    finally:
        await cache.aclose()


def _make_hidden_folder(folder: Path) -> Path:
    """The folder, with a .gitignore of its own, so that git does not see its files."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".gitignore").write_text("*\n")
    return folder


def find_objectives(names: Sequence[str]) -> tuple[Objective, ...]:
    """The built-in objectives of these names."""
    builtins = config.builtin_objectives()
    if unknown_names := [name for name in names if name not in builtins]:
        raise ConfigError(f"unknown objective {unknown_names[0]!r}; known: {', '.join(builtins)}")
    return tuple(builtins[name] for name in names)


def make_policy(name: str, wishes: Sequence[Objective], **settings: Any) -> Policy:
    """The policy that a route with these objectives has by default, with a long deadline.

    If nothing of an answer remains, it declines the answer if that was harmful, and else delivers the original.
    """
    policy = Policy(name, tuple(wishes), deadline_s=600, **settings)
    if SAFETY_OBJECTIVES.isdisjoint(objective.name for objective in wishes):
        return policy
    return replace(policy, if_nothing_remains=IfNothingRemains.DECLINE, declines_harm_alone=True, decline_within=0.0)


async def stream_answer(pipeline: Pipeline, exchange: Exchange, policy: Policy) -> Outcome:
    """Send an answer word by word through the pipeline."""
    changed = asyncio.Event()
    growing = GrowingAnswer(pipeline, policy, lambda: replace(exchange, answer=None), changed.set)
    for word in re.findall(r"\S+\s*|\s+", exchange.answer or ""):
        await growing.feed(word)
    await growing.end()
    while not growing.done:
        changed.clear()
        await changed.wait()
    outcome = growing.outcome()
    stopped = growing.stopped
    await growing.aclose()
    return outcome if stopped is None else replace(outcome, status=stopped.status, reason=stopped.reason)


async def deliver(
    pipeline: Pipeline,
    completions: Sequence[UpstreamCompletion],
    wishes: Sequence[Objective],
    *,
    caution: float = 0.0,
    verify: Verify = Verify.FLAGGED,
    title: str = "completions",
) -> list[DeliveredCompletion]:
    """Send every completion through the pipeline under the objectives `wishes`, one after the other."""
    policy = make_policy(title, wishes, caution=caution, verify=verify)
    names = tuple(objective.name for objective in wishes)
    deliveries = []
    for i, completion in enumerate(track(completions, description=f"{title:24}")):
        exchange = Exchange(f"{title}-{i}", 0, (Turn("user", completion.query),), completion.answer)
        deliveries.append(DeliveredCompletion(completion, names, await pipeline.align(exchange, policy)))
    return deliveries
