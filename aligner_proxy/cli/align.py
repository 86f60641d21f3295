"""`aligner-proxy align`: correct one answer from stdin, or a file of them with --jsonl.

Runs the gateway's pipeline without its cache: eligibility, engine, gate. The engine runs in this process unless
--engine or the policies file names another. Exit status 1 when the one answer could not be corrected.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from aligner_proxy.cli import batch
from aligner_proxy.cli.batch import NewObjectives, result
from aligner_proxy.cli.diff import show
from aligner_proxy.cli.options import aligner_options, quiet, settings
from aligner_proxy.cli.terminal import Terminal, echo_json
from aligner_proxy.engine.api import Engine
from aligner_proxy.engine.client.head_supply import SuppliedEngine
from aligner_proxy.engine.client.http import HttpEngine
from aligner_proxy.errors import ConfigError
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.plugins import registry
from aligner_proxy.policy import config
from aligner_proxy.policy.engine_schema import Kind
from aligner_proxy.teaching.active_heads import ActiveHeads
from aligner_proxy.teaching.store import HeadStore
from aligner_proxy.types import DEFAULT_ALIGNER, Exchange, Objective, Outcome, Policy, Status, Turn, Verify

_DEFAULT_OBJECTIVES = ("harmless", "helpful")


@click.command("align")
@click.option("-q", "--question", help="What was asked. Not with --jsonl, where every row has its own.")
@click.option("-o", "--objective", "asked", multiple=True, help='A name, or a whole text "Name: description".')
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a coloured diff.")
@click.option("--jsonl", is_flag=True, help="Rows of question, answer, objectives in; the same with results out.")
@click.option("--output", type=click.Path(path_type=Path), help="With --jsonl: append here; rows there are not redone.")
@click.option("--skip", type=click.IntRange(min=0), default=0, help="With --jsonl: rows to leave out at the start.")
@click.option("--config", "file", type=click.Path(path_type=Path), help="A policies file: its aligner and objectives.")
@click.option("--engine", "address", help="A running engine: unix:/path/to/engine.sock or http(s)://host:port.")
@click.option("--caution", type=float, default=0.0, show_default=True, help="Nats that a flag must exceed.")
@click.option("--verify", type=click.Choice([v.value for v in Verify]), default="flagged", show_default=True)
@click.option("--aligner", default=DEFAULT_ALIGNER, show_default=True, help="One of several: a name of --adapter.")
@click.option("--deadline", type=click.FloatRange(min=0, min_open=True), default=120.0, help="Seconds for one answer.")
@aligner_options
def command(**given: Any) -> None:
    """Correct one answer (stdin), or many with --jsonl."""
    flags = {name: given.pop(name) for name in ("question", "asked", "as_json", "jsonl", "output", "skip")}
    file = given.pop("file")
    address = given.pop("address")
    aligner = given.pop("aligner")
    known = NewObjectives(_taught_objectives(file, aligner) if file else config.builtin_objectives())
    policy = Policy(
        "align",
        objectives=known.named(flags["asked"] or _DEFAULT_OBJECTIVES),
        deadline_s=given.pop("deadline"),
        caution=given.pop("caution"),
        verify=Verify(given.pop("verify")),
        aligner=aligner,
    )
    if flags["jsonl"]:
        job = batch.Job(policy, known, flags["output"], flags["skip"])
        asyncio.run(_align_rows(job, address, given, file))
    else:
        exchange = _exchange(flags["question"])
        outcome = asyncio.run(_align_answer(exchange, policy, address, given, file))
        _report(exchange, outcome, flags["as_json"])
        sys.exit(1 if outcome.status is Status.FAILED else 0)


def _taught_objectives(file: Path, aligner: str) -> dict[str, Objective]:
    """The objectives of a policies file, with the heads that were taught for this aligner."""
    policies = registry.load_policies(file)
    heads = ActiveHeads.read(policies)
    known = config.objectives(policies)
    return {name: replace(objective, head=heads.head_of(None, objective, aligner)) for name, objective in known.items()}


def _exchange(question: str | None) -> Exchange:
    if question is None:
        raise ConfigError("give the question with -q, or rows with --jsonl")
    try:
        answer = sys.stdin.buffer.read().decode().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise ConfigError(f"the answer on stdin is not UTF-8 (byte {error.start})") from None
    return Exchange("align", 0, (Turn("user", question),), answer)


async def _align_answer(
    exchange: Exchange, policy: Policy, address: str | None, given: dict[str, Any], file: Path | None
) -> Outcome:
    async with opened_engine(address, given, file) as engine:
        return await Pipeline(engine).align(exchange, policy)


async def _align_rows(job: batch.Job, address: str | None, given: dict[str, Any], file: Path | None) -> None:
    async with opened_engine(address, given, file) as engine:
        await batch.run(job, Pipeline(engine), sys.stdin.buffer, sys.stdout.buffer)


def _report(exchange: Exchange, outcome: Outcome, as_json: bool) -> None:
    if as_json:
        correction = outcome.correction
        more = {"ms": round(outcome.ms, 1), "aligner": correction.aligner if correction else None}
        echo_json(result(outcome) | more, ascii_alone=False)
    else:
        show(Terminal(), exchange.answer or "", outcome)


@contextlib.asynccontextmanager
async def opened_engine(address: str | None, given: dict[str, Any], file: Path | None) -> AsyncIterator[Engine]:
    """The engine at `address`, else the policies file's, else one in this process; closed afterwards.

    A model in the `given` options always runs in this process. It gets the heads that were taught for the file.
    """
    engine: Engine
    policies = registry.load_policies(file) if file else None
    heads = HeadStore.for_file(policies).head if policies else None
    if address:
        engine = HttpEngine(address, head_source=heads)
    elif policies and not given.get("model") and config.engine_at(policies).kind is not Kind.LOCAL:
        from aligner_proxy.gateway.build import open_engine  # brings LiteLLM: seconds

        local = await _local(given, file) if config.engine_at(policies).local else None
        engine = open_engine(policies, local=local, head_source=heads)
    else:
        local = await _local(given, file)
        engine = SuppliedEngine(local, heads) if heads else local
    try:
        yield engine
    finally:
        await engine.aclose()


async def _local(given: dict[str, Any], file: Path | None) -> Engine:
    quiet()
    from aligner_proxy.engine.loader import open_aligner
    from aligner_proxy.engine.local import LocalEngine

    chosen = settings(given, file)
    home = config.home()
    with Terminal(stderr=True).status("loading the aligner") as status:
        engine = LocalEngine(lambda: open_aligner(chosen, home, status.update))
        try:
            await engine.start()
        except BaseException:
            await engine.aclose()
            raise
    return engine
