"""`aligner-proxy align`: correct one answer from stdin, many with --jsonl, or the output file of a batch with --batch.

Runs the gateway's pipeline without its cache: eligibility, engine, gate. The engine runs in this process unless
--engine or the policies file names another. Exit status 1 if an answer could not be corrected; the others still are.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import click
from click.core import ParameterSource

from aligner_proxy.cli import batch
from aligner_proxy.cli.batch_rows import CorrectExchange, RowPolicy, find_objective, result_fields
from aligner_proxy.cli.diff import show_outcome
from aligner_proxy.cli.options import (
    FiniteFloat,
    aligner_options,
    refuse_absent_weights,
    silence_libraries,
    weight_settings,
)
from aligner_proxy.cli.terminal import Terminal, echo, echo_json
from aligner_proxy.engine.api import Engine
from aligner_proxy.engine.client.head_supply import SuppliedEngine
from aligner_proxy.engine.client.http import HttpEngine
from aligner_proxy.errors import ConfigError
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.plugins import registry
from aligner_proxy.policy import config
from aligner_proxy.policy.engine_schema import ServerKind
from aligner_proxy.policy.schema import PolicyFile
from aligner_proxy.teaching.active_heads import ActiveHeads
from aligner_proxy.teaching.store import HeadStore
from aligner_proxy.types import (
    DEFAULT_ALIGNER,
    EMBEDDED,
    Exchange,
    Objective,
    Outcome,
    Policy,
    SkipReason,
    Status,
    Turn,
    Verify,
    Write,
)

OpenEngine = Callable[[], AbstractAsyncContextManager[Engine]]
"""Opens the engine that the options choose, for the time of the context."""
OpenCorrector = Callable[[], AbstractAsyncContextManager[CorrectExchange]]
"""Opens an engine for the time of the context, which yields the function that corrects an answer."""
_DEFAULT_OBJECTIVES = ("harmless", "helpful")
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_POLICY_OPTIONS = ("for_model", "route", "team", "key", "system")
"""Options that choose among the policies of --config."""
_BATCH_OPTIONS = ("requests", "bare")
"""Options that need --batch."""
_NOT_WITH_BATCH = ("question", "as_json", "jsonl", "system")
"""Options that have no effect with --batch."""
_ROW_OPTIONS = ("output", "skip")
"""Options that need rows: --jsonl or --batch."""
_NOT_WITH_JSONL = ("question", "as_json", "system")
"""Options that have no effect with --jsonl."""
_OBJECTIVE_OPTIONS = ("caution", "verify", "write", "aligner")
"""Options that belong to objectives from the command line."""
_NOT_OF_ENGINE = (
    "question",
    "objectives",
    "as_json",
    "jsonl",
    "batch_file",
    *_BATCH_OPTIONS,
    *_POLICY_OPTIONS,
    *_ROW_OPTIONS,
)
"""Options that do not concern the engine; all others choose the aligner that runs in this process."""


@click.command("align")
@click.option("-q", "--question", help="The question. Not with --jsonl, where each row has its own.")
@click.option("-o", "--objective", "objectives", multiple=True, help='An objective: its name, or "Name: description".')
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of a coloured diff.")
@click.option("--jsonl", is_flag=True, help="Read rows {question, answer, objectives}; print rows with results.")
@click.option(
    "--batch",
    "batch_file",
    type=_FILE,
    help="The output file of a batch of OpenAI or Anthropic; print its lines with each answer corrected in its place.",
)
@click.option("--requests", type=_FILE, help="With --batch: the batch's input file, for the conversations.")
@click.option("--bare", is_flag=True, help="With --batch: add no `aligner` object to the lines.")
@click.option("--route", help="With --config: the name of the route that applies, whatever the model is.")
@click.option(
    "--for-model",
    help="With --config: the model of the request, whose route applies; with --batch in place of each request's own. "
    "With --config, --model means the same.",
)
@click.option("--team", help="With --config: team id, or team alias, of the tenant; as for `check`.")
@click.option("--key", help="With --config: key alias or sha256 of the tenant; as for `check`.")
@click.option("--system", help="With --config: the request's system prompt, which `references` may name.")
@click.option(
    "--output", type=click.Path(path_type=Path), help="With --jsonl or --batch: append here, and resume after its rows."
)
@click.option(
    "--skip", type=click.IntRange(min=0), default=0, help="With --jsonl or --batch: rows to skip at the start."
)
@click.option(
    "--config",
    "file",
    type=click.Path(path_type=Path),
    help="A policies file with the aligner. Without -o, the policy applies that a request would get: objectives, "
    "references, and all settings.",
)
@click.option("--engine", "address", help="Use a running engine: unix:/path/to/engine.sock or http(s)://host:port.")
@click.option(
    "--caution", type=FiniteFloat(), default=0.0, show_default=True, help="Minimum score in nats to flag a sentence."
)
@click.option(
    "--verify",
    type=click.Choice([v.value for v in Verify]),
    default="flagged",
    show_default=True,
    help="What is written anew: the flagged sentences, or the whole answer, with the original as a draft.",
)
@click.option(
    "--write", type=click.Choice(list(Write)), help="What is written in place of a flagged sentence: as in a policy."
)
@click.option(
    "--aligner", default=DEFAULT_ALIGNER, show_default=True, help="The aligner to use: a name given to --adapter."
)
@click.option("--deadline", type=FiniteFloat(0, 3600, min_open=True), default=120.0, help="Seconds for one answer.")
@aligner_options
def command(**options: Any) -> None:
    """Correct one answer (stdin), many with --jsonl, or the output file of a provider's batch with --batch.

    --batch corrects whole bodies as the gateway does. If the policy of --config says so, it also judges text beside an
    answer, such as reasoning. It uses no cache and records nothing.

    For example: echo "It is Paris. Only a fool has to ask." | aligner-proxy align -q "France's capital?" -o harmless
    """
    # From here on, `flags` has the options of this command, and `options` those of an engine in this process.
    flags = {name: options.pop(name) for name in _NOT_OF_ENGINE}
    file = options.pop("file")
    if file:
        # The file names the aligner, so --model means the model of the request.
        model = options.pop("model")
        flags["for_model"] = flags["for_model"] or model
    # Objectives on the command line replace the policies of the file.
    policies = registry.load_policies(file) if file and not flags["objectives"] else None
    _refuse_combinations(flags, policies)
    address = options.pop("address")
    aligner = options.pop("aligner")
    configured = list_taught_objectives(file, aligner) if file else config.builtin_objectives()
    uses_policies = policies is not None and _has_policies(flags, policies)
    policy = Policy(
        "align",
        write=_find_write(options, file, aligner),
        objectives=tuple(find_objective(name, configured) for name in flags["objectives"] or _DEFAULT_OBJECTIVES),
        deadline_s=options.pop("deadline"),
        caution=options.pop("caution"),
        verify=Verify(options.pop("verify")),
        aligner=aligner,
    )
    open_engine = partial(open_chosen_engine, address, options, file)
    if flags["batch_file"]:
        _exit_after_rows(asyncio.run(_align_batch(flags, policy, policies, open_engine)))
    open_corrector = partial(_open_corrector, flags, policy, policies if uses_policies else None, open_engine)
    if flags["jsonl"]:
        default_objectives = () if uses_policies else policy.objectives
        _exit_after_rows(asyncio.run(_align_rows(flags, RowPolicy(default_objectives, configured), open_corrector)))
    exchange = _read_exchange(flags["question"], flags["system"])
    outcome = asyncio.run(_align_answer(exchange, open_corrector))
    _print_result(exchange, outcome, flags["as_json"])
    sys.exit(1 if outcome.status is Status.FAILED else 0)


def _exit_after_rows(failed_count: int) -> NoReturn:
    """Exit with status 0, or with status 1 and a message if some rows or lines failed."""
    if failed_count:
        echo((f"aligner-proxy: {failed_count} rows failed; see their `reason`", "red"), err=True)
    sys.exit(1 if failed_count else 0)


def list_taught_objectives(file: Path, aligner: str) -> dict[str, Objective]:
    """The objectives of a policies file by name, with the detector heads that were taught for this aligner."""
    policies = registry.load_policies(file)
    heads = ActiveHeads.read(policies)
    objectives = config.objectives(policies)
    return {
        name: replace(objective, head=heads.head_of(None, objective, aligner)) for name, objective in objectives.items()
    }


def _find_write(options: dict[str, Any], file: Path | None, aligner: str) -> Write:
    """Return what the aligner may write: the value of --write, else the default for the aligner of the policies file.

    Without a file, the embedded aligner may write nothing, and others anything. Removes --write from `options`.
    """
    setting = options.pop("write")
    if setting is not None:
        return Write(setting)
    if file is not None:
        return config.default_write(registry.load_policies(file), (aligner,))
    model = (options["adapters"] or {}).get(aligner, options["model"])
    return Write.NEVER if model in (None, EMBEDDED) else Write.FREE


def _has_policies(flags: dict[str, Any], policies: PolicyFile) -> bool:
    """Whether a file has policies and does not only name an aligner, or an option chooses one of its policies."""
    file_has_policies = policies.routes or policies.tenants or policies.defaults.model_fields_set
    return bool(file_has_policies or any(flags[name] for name in _POLICY_OPTIONS))


def _read_exchange(question: str | None, system: str | None) -> Exchange:
    """Read the answer from stdin; raises `ConfigError` without a question, or if the answer is not UTF-8."""
    if question is None:
        raise ConfigError("give the question with -q, or rows with --jsonl")
    answer = read_stdin("answer")
    system_turn = (Turn("system", system),) if system else ()
    return Exchange("align", 0, (*system_turn, Turn("user", question)), answer)


def read_stdin(name: str) -> str:
    """Read the text on stdin, without the line end that `echo` adds.

    Raises `ConfigError` if it is not UTF-8; the error says with `name` what the text is.
    """
    try:
        return sys.stdin.buffer.read().decode().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise ConfigError(f"the {name} on stdin is not UTF-8 (byte {error.start})") from None


@contextlib.asynccontextmanager
async def _open_corrector(
    flags: dict[str, Any], policy: Policy, policies: PolicyFile | None, open_engine: OpenEngine
) -> AsyncIterator[CorrectExchange]:
    """Open an engine, and yield a function that corrects an answer under `policies` or, if None, under `policy`.

    `flags` are the values of the options that are not the engine's, by name. With `policies`, only the deadline of
    `policy` is used.
    """
    async with open_engine() as engine:
        if policies is not None:
            # imports LiteLLM, which takes seconds
            from aligner_proxy.cli.policy_guardrail import RequestOptions, correct_answer, open_guardrail

            request = RequestOptions(flags["for_model"], flags["route"], flags["team"], flags["key"])
            guard = open_guardrail(request, engine, policies, policy.deadline_s)
            yield partial(correct_answer, guard, request.model)
            return
        pipeline = Pipeline(engine)

        async def correct_by_options(exchange: Exchange, objectives: tuple[Objective, ...]) -> Outcome:
            """Correct an answer under these objectives or, if there are none, under those of `policy`."""
            return await pipeline.align(exchange, replace(policy, objectives=objectives or policy.objectives))

        yield correct_by_options


async def _align_answer(exchange: Exchange, open_corrector: OpenCorrector) -> Outcome:
    async with open_corrector() as correct_exchange:
        return await correct_exchange(exchange, ())


async def _align_rows(flags: dict[str, Any], rows: RowPolicy, open_corrector: OpenCorrector) -> int:
    """Correct the rows on stdin, and write them with results to --output or stdout; returns how many failed."""
    async with open_corrector() as correct_exchange:
        correct_line = partial(rows.correct_row, correct_exchange)
        return await batch.run(correct_line, sys.stdin.buffer, sys.stdout.buffer, flags["output"], flags["skip"])


async def _align_batch(
    flags: dict[str, Any], policy: Policy, policies: PolicyFile | None, open_engine: OpenEngine
) -> int:
    """Correct the output file of a batch; returns how many lines failed. The parameters are as in `_open_corrector`."""
    from aligner_proxy.cli import provider_batch  # imports LiteLLM, which takes seconds
    from aligner_proxy.cli.policy_guardrail import RequestOptions

    requests = provider_batch.BatchRequests(flags["requests"]) if flags["requests"] else None
    caller = RequestOptions(flags["for_model"], flags["route"], flags["team"], flags["key"])
    path = flags["batch_file"]
    async with open_engine() as engine:
        guard = provider_batch.open_batch_guardrail(caller, engine, policies, policy)
        corrector = provider_batch.BatchCorrector(path, requests, flags["bare"], caller.model, guard)
        with path.open("rb") as source:
            return await batch.run(corrector.correct, source, sys.stdout.buffer, flags["output"], flags["skip"])


def _refuse_combinations(flags: dict[str, Any], policies: PolicyFile | None) -> None:
    """Raise `ConfigError` for an option that has no effect together with the other options.

    `policies` is the policies file that may apply; None if none was given, or objectives were given instead.
    """
    if flags["batch_file"]:
        _raise_if_any_set(flags, _NOT_WITH_BATCH, "has no effect with --batch, whose questions are in --requests")
        if flags["output"] and flags["output"].resolve() == flags["batch_file"].resolve():
            raise ConfigError("--output must be another file than that of --batch")
    else:
        _raise_if_any_set(flags, _BATCH_OPTIONS, "has no effect without --batch")
        if flags["jsonl"]:
            _raise_if_any_set(flags, _NOT_WITH_JSONL, "has no effect with --jsonl, whose rows and results are JSON")
        else:
            _raise_if_any_set(flags, _ROW_OPTIONS, "has no effect without --jsonl or --batch")
    if policies is None:
        _raise_if_any_set(flags, _POLICY_OPTIONS, "chooses among the policies of --config; give that, without -o")
        return
    if flags["batch_file"] and not (flags["requests"] or flags["for_model"] or flags["route"]):
        raise ConfigError(
            "the routes of --config match the model of a request; give --requests or --for-model, or the --route"
        )
    if not (flags["batch_file"] or _has_policies(flags, policies)):
        return
    source_of = click.get_current_context().get_parameter_source  # an option that nobody typed has its default
    typed_flags = {name: source_of(name) is ParameterSource.COMMANDLINE for name in _OBJECTIVE_OPTIONS}
    _raise_if_any_set(
        typed_flags, _OBJECTIVE_OPTIONS, "is the policy's in --config; set it there, or give objectives with -o"
    )


def _raise_if_any_set(flags: dict[str, Any], names: Sequence[str], fault: str) -> None:
    """Raise `ConfigError` for the first of these options that is set; `fault` follows the option in the message."""
    for name in names:
        if flags[name]:
            raise ConfigError(f"--{name.removeprefix('as_').replace('_', '-')} {fault}")


def _print_result(exchange: Exchange, outcome: Outcome, as_json: bool) -> None:
    """Print an outcome as JSON or as a coloured diff, and a hint if no route of the policies file applies."""
    if as_json:
        correction = outcome.correction
        run_fields = {"ms": round(outcome.ms, 1), "aligner": correction.aligner if correction else None}
        echo_json(result_fields(outcome) | run_fields, ascii_only=False)
    else:
        show_outcome(Terminal(), exchange.answer or "", outcome)
    if outcome.reason == SkipReason.NO_OBJECTIVES:
        echo("no route of --config applies to this request; name one by --route, or its model by --model", err=True)


@contextlib.asynccontextmanager
async def open_chosen_engine(address: str | None, options: dict[str, Any], file: Path | None) -> AsyncIterator[Engine]:
    """Open the engine at `address`, else that of the policies file, else one in this process; close it afterwards.

    A model that `options` name always runs in this process. The engine gets the detector heads that were taught for
    the file.
    """
    engine: Engine
    policies = registry.load_policies(file) if file else None
    find_head = HeadStore.for_file(policies).head if policies else None
    if address:
        engine = HttpEngine(address, head_source=find_head)
    elif policies and not options.get("model") and config.engine_backend(policies).kind is not ServerKind.LOCAL:
        from aligner_proxy.gateway.build import open_engine  # imports LiteLLM, which takes seconds

        local = await _start_local(options, file) if config.engine_backend(policies).needs_local else None
        engine = open_engine(policies, local=local, head_source=find_head)
    else:
        local = await _start_local(options, file)
        engine = SuppliedEngine(local, find_head) if find_head else local
    try:
        yield engine
    finally:
        await engine.aclose()


async def _start_local(options: dict[str, Any], file: Path | None) -> Engine:
    """Load the aligner in this process, show the progress on stderr, and return the engine."""
    refuse_absent_weights(options, file)
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
