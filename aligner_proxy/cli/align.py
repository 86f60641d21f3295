"""`aligner-proxy align`: correct one answer from stdin, or many answers with --jsonl.

Runs the gateway's pipeline without its cache: eligibility, engine, gate. The engine runs in this process unless
--engine or the policies file names another. Exit status 1 if a single answer could not be corrected.
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
from aligner_proxy.cli.batch import ObjectiveNames, result_fields
from aligner_proxy.cli.diff import show_outcome
from aligner_proxy.cli.options import aligner_options, silence_libraries, weight_settings
from aligner_proxy.cli.terminal import Terminal, echo_json
from aligner_proxy.engine.api import Engine
from aligner_proxy.engine.client.head_supply import SuppliedEngine
from aligner_proxy.engine.client.http import HttpEngine
from aligner_proxy.errors import ConfigError
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.plugins import registry
from aligner_proxy.policy import config
from aligner_proxy.policy.engine_schema import ServerKind
from aligner_proxy.teaching.active_heads import ActiveHeads
from aligner_proxy.teaching.store import HeadStore
from aligner_proxy.types import DEFAULT_ALIGNER, Exchange, Objective, Outcome, Policy, Status, Turn, Verify

_DEFAULT_OBJECTIVES = ("harmless", "helpful")


@click.command("align")
@click.option("-q", "--question", help="The question. Not with --jsonl, where each row has its own.")
@click.option("-o", "--objective", "objectives", multiple=True, help='An objective: its name, or "Name: description".')
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a coloured diff.")
@click.option("--jsonl", is_flag=True, help="Read rows {question, answer, objectives}; print rows with results.")
@click.option(
    "--output", type=click.Path(path_type=Path), help="With --jsonl: append to this file, and resume after its rows."
)
@click.option("--skip", type=click.IntRange(min=0), default=0, help="With --jsonl: rows to skip at the start.")
@click.option(
    "--config", "file", type=click.Path(path_type=Path), help="A policies file with the aligner and objectives."
)
@click.option("--engine", "address", help="Use a running engine: unix:/path/to/engine.sock or http(s)://host:port.")
@click.option("--caution", type=float, default=0.0, show_default=True, help="Minimum score in nats to flag a sentence.")
@click.option("--verify", type=click.Choice([v.value for v in Verify]), default="flagged", show_default=True)
@click.option(
    "--aligner", default=DEFAULT_ALIGNER, show_default=True, help="The aligner to use: a name given to --adapter."
)
@click.option("--deadline", type=click.FloatRange(min=0, min_open=True), default=120.0, help="Seconds for one answer.")
@aligner_options
def command(**options: Any) -> None:
    """Correct one answer (stdin), or many with --jsonl."""
    flags = {name: options.pop(name) for name in ("question", "objectives", "as_json", "jsonl", "output", "skip")}
    file = options.pop("file")
    address = options.pop("address")
    aligner = options.pop("aligner")
    names = ObjectiveNames(_taught_objectives(file, aligner) if file else config.builtin_objectives())
    policy = Policy(
        "align",
        objectives=names.resolve(flags["objectives"] or _DEFAULT_OBJECTIVES),
        deadline_s=options.pop("deadline"),
        caution=options.pop("caution"),
        verify=Verify(options.pop("verify")),
        aligner=aligner,
    )
    if flags["jsonl"]:
        job = batch.BatchJob(policy, names, flags["output"], flags["skip"])
        asyncio.run(_align_rows(job, address, options, file))
    else:
        exchange = _read_exchange(flags["question"])
        outcome = asyncio.run(_align_answer(exchange, policy, address, options, file))
        _print_result(exchange, outcome, flags["as_json"])
        sys.exit(1 if outcome.status is Status.FAILED else 0)


def _taught_objectives(file: Path, aligner: str) -> dict[str, Objective]:
    """The objectives of a policies file by name, with the heads that were taught for this aligner."""
    policies = registry.load_policies(file)
    heads = ActiveHeads.read(policies)
    objectives = config.objectives(policies)
    return {
        name: replace(objective, head=heads.head_of(None, objective, aligner)) for name, objective in objectives.items()
    }


def _read_exchange(question: str | None) -> Exchange:
    """Read the answer from stdin; raises `ConfigError` without a question, or if the answer is not UTF-8."""
    if question is None:
        raise ConfigError("give the question with -q, or rows with --jsonl")
    try:
        # The line end that `echo` or an editor adds is no part of the answer.
        answer = sys.stdin.buffer.read().decode().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise ConfigError(f"the answer on stdin is not UTF-8 (byte {error.start})") from None
    return Exchange("align", 0, (Turn("user", question),), answer)


async def _align_answer(
    exchange: Exchange, policy: Policy, address: str | None, options: dict[str, Any], file: Path | None
) -> Outcome:
    async with open_chosen_engine(address, options, file) as engine:
        return await Pipeline(engine).align(exchange, policy)


async def _align_rows(job: batch.BatchJob, address: str | None, options: dict[str, Any], file: Path | None) -> None:
    async with open_chosen_engine(address, options, file) as engine:
        await batch.run(job, Pipeline(engine), sys.stdin.buffer, sys.stdout.buffer)


def _print_result(exchange: Exchange, outcome: Outcome, as_json: bool) -> None:
    if as_json:
        correction = outcome.correction
        more = {"ms": round(outcome.ms, 1), "aligner": correction.aligner if correction else None}
        echo_json(result_fields(outcome) | more, ascii_alone=False)
    else:
        show_outcome(Terminal(), exchange.answer or "", outcome)


@contextlib.asynccontextmanager
async def open_chosen_engine(address: str | None, options: dict[str, Any], file: Path | None) -> AsyncIterator[Engine]:
    """Open the engine at `address`, else the policies file's, else one in this process; close it afterwards.

    A model given in `options` always runs in this process. The engine gets the heads that were taught for the file.
    """
    engine: Engine
    policies = registry.load_policies(file) if file else None
    heads = HeadStore.for_file(policies).head if policies else None
    if address:
        engine = HttpEngine(address, head_source=heads)
    elif policies and not options.get("model") and config.engine_backend(policies).kind is not ServerKind.LOCAL:
        from aligner_proxy.gateway.build import open_engine  # imports LiteLLM, which takes seconds

        local = await _start_local(options, file) if config.engine_backend(policies).local else None
        engine = open_engine(policies, local=local, head_source=heads)
    else:
        local = await _start_local(options, file)
        engine = SuppliedEngine(local, heads) if heads else local
    try:
        yield engine
    finally:
        await engine.aclose()


async def _start_local(options: dict[str, Any], file: Path | None) -> Engine:
    """Load the aligner in this process, and show the progress on stderr."""
    silence_libraries()
    from aligner_proxy.engine.loader import open_aligner
    from aligner_proxy.engine.local import LocalEngine

    weights = weight_settings(options, file)
    home = config.home_folder()
    with Terminal(stderr=True).status("loading the aligner") as status:
        engine = LocalEngine(lambda: open_aligner(weights, home, status.update))
        try:
            await engine.start()
        except BaseException:
            await engine.aclose()
            raise
    return engine
