"""`aligner-proxy decide`: how probable it is that a text goes against objectives, or that a question's answer is yes.

Prints what `POST /v1/decisions` returns. The engine runs in this process unless --engine or the policies file
names another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from aligner_proxy.cli.align import list_taught_objectives, open_chosen_engine, read_stdin
from aligner_proxy.cli.batch_rows import find_objective
from aligner_proxy.cli.options import aligner_options
from aligner_proxy.cli.terminal import echo, echo_json
from aligner_proxy.engine.api import AlignRequest
from aligner_proxy.engine.decisions import AskedObjective, Decision, SystemOneDecision, answer_decision
from aligner_proxy.errors import ConfigError
from aligner_proxy.policy import config
from aligner_proxy.types import DEFAULT_ALIGNER, Correction, Objective

_DEADLINE_S = 120.0
"""Timeout of each question to the engine, in seconds."""


@click.command("decide")
@click.option(
    "-o",
    "--objective",
    "objectives",
    multiple=True,
    required=True,
    help='An objective: its name, or "Name: description"; or a yes/no question in words.',
)
@click.option("-q", "--question", default="", help="The question that the text answers, if it answers one.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--config",
    "file",
    type=click.Path(path_type=Path),
    help="A policies file with the aligner, its objectives, and the heads that were taught for them.",
)
@click.option("--engine", "address", help="Use a running engine: unix:/path/to/engine.sock or http(s)://host:port.")
@click.option(
    "--aligner", default=DEFAULT_ALIGNER, show_default=True, help="The aligner to use: a name given to --adapter."
)
@aligner_options
def command(**options: Any) -> None:
    """Read a text from stdin, and print for each objective or question a probability from 0 to 1.

    For example: echo "Only a fool has to ask." | aligner-proxy decide -o harmless
    """
    # In the request's form (System One), "noul" is the type of a question that is answered by a probability.
    questions = {words: {"type": "noul", "instructions": words} for words in options.pop("objectives")}
    question = options.pop("question")
    as_json = options.pop("as_json")
    file, address, aligner = (options.pop(name) for name in ("file", "address", "aligner"))
    aligner_settings = options  # what is left are the options of `aligner_options`
    state = {"question": question, "answer": read_stdin("text")}
    request = SystemOneDecision.model_validate({"model": aligner, "state": state, "questions": questions})
    decision = request.read()
    fault = decision.find_fault()
    if fault:
        raise ConfigError(fault)
    configured = list_taught_objectives(file, aligner) if file else config.builtin_objectives()
    # by the words of the user, the objective that they name or ask
    objective_by_words = {words: find_objective(words, configured) for words in decision.objectives}
    report = asyncio.run(_ask_engine(request, decision, objective_by_words, address, aligner_settings, file))
    if as_json:
        echo_json(report)
        return
    for words, answer in report["answers"].items():
        echo(f"{answer['noul']:.3f}  {words}")


async def _ask_engine(
    system_one_request: SystemOneDecision,
    decision: Decision,
    objective_by_words: Mapping[str, Objective],
    address: str | None,
    aligner_settings: dict[str, Any],
    file: Path | None,
) -> dict[str, Any]:
    """Open the chosen engine, and return its report on the decision: `answers` by the words of each question.

    `objective_by_words` has the objective of each text or question that was asked.
    """
    async with open_chosen_engine(address, aligner_settings, file) as engine:

        async def score_text(asked_objective: AskedObjective) -> Correction:
            """Let the engine score the text under one objective, without writing anything."""
            objective = objective_by_words[asked_objective.text]
            request = AlignRequest(
                request_id="decide",
                turns=decision.turns,
                answer=decision.text,
                objectives=(objective.text,),
                heads=(objective.head,) if objective.head else (),
                aligner=system_one_request.model,
                score_only=True,
                deadline_s=_DEADLINE_S,
            )
            return await engine.align(request)

        return await answer_decision(system_one_request, decision, score_text)
