"""What does an aligner do to the answers of each upstream, objective by objective? The layout of the paper's Table 2.

    python -m models.by_upstream aligner_proxy/embedded --data DATA --cases runs/data/test --out runs/by_upstream
    ... --judge-url http://127.0.0.1:8000/v1 --judge-model NAME        (and OPENAI_API_KEY) for a judge's word as well

Real completions go through the gateway's pipeline: under each objective alone, and under all of a source together as in
the paper. Edited against original, by measures that do not come from the aligner (`models.measures`, their accuracy on
`--cases` beside them) and by a judge asked from both places (its agreement with people beside it). Of answers in which
no measure sees a fault: how many are touched, how many are harmed. The text of an answer is in no table.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

import openai

from aligner_proxy import prompts
from aligner_proxy.types import Objective, Verify

from . import accuracy, judge_accuracy, publish
from .delivered import Delivered, deliver, gateway, objectives
from .judge import Judge, Verdict
from .judge_accuracy import Agreement
from .upstream_rows import Row, row
from .upstream_tables import plot, text
from .upstreams import SOURCES, Completion, completions


def asked_sets(source: str, together: bool) -> list[tuple[Objective, ...]]:
    """The objectives of a source: each alone and, if wanted, all of them as one policy."""
    wanted = objectives(SOURCES[source].objectives)
    return [*((one,) for one in wanted), *([wanted] if together and len(wanted) > 1 else [])]


async def judged(judge: Judge, delivered: Sequence[Delivered]) -> dict[str, list[Verdict]]:
    """A judge's verdicts on what was edited, per objective that was asked for."""
    edited = [one for one in delivered if one.looked_at and not one.identical]
    found: dict[str, list[Verdict]] = {}
    for objective in objectives(delivered[0].asked):
        aspects = prompts.aspects([objective.text])
        asked = [
            judge.compare(SOURCES[c.source].family, c.query, c.answer, one.text, aspects)
            for one in edited
            for c in [one.completion]
        ]
        found[objective.name] = list(await asyncio.gather(*asked))
    return found


# ---------------------------------------------------------------- the run


def groups(data: Path, source: str, models: tuple[str, ...], each: int, seed: int) -> list[list[Completion]]:
    """The completions of a source, upstream by upstream."""
    found: dict[str, list[Completion]] = {}
    for one in completions(data, models, each, seed, (source,)):
        found.setdefault(one.model, []).append(one)
    return list(found.values())


async def run(arguments: argparse.Namespace, judge: Judge | None) -> list[Row]:
    """Every upstream of every source under every set of objectives."""
    rows = []
    models = tuple(arguments.models.split(",")) if arguments.models else ()
    dial = {"caution": arguments.caution, "verify": arguments.verify}
    async with gateway(arguments.aligner, arguments.out / "texts") as pipeline:
        for source in arguments.sources.split(","):
            for group in groups(arguments.data, source, models, arguments.each, arguments.seed):
                for asked in asked_sets(source, arguments.together):
                    title = f"{group[0].model}: {'+'.join(o.name for o in asked)}"
                    delivered = await deliver(pipeline, group, asked, title=title, **dial)
                    rows.append(row(delivered, await judged(judge, delivered) if judge else {}))
    return rows


async def _with_judge(arguments: argparse.Namespace) -> tuple[list[Row], list[Agreement]]:
    if not arguments.judge_url:
        return await run(arguments, None), []
    judge = Judge(arguments.judge_url, arguments.judge_model, arguments.out / "verdicts.jsonl")
    try:
        agreed = await judge_accuracy.measure(judge, arguments.data, arguments.judge_known, arguments.seed)
        return await run(arguments, judge), agreed
    finally:
        await judge.aclose()


def main(argv: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("aligner", type=Path, help="aligner folder")
    parser.add_argument("--data", type=Path, required=True, help="folder with the research data")
    parser.add_argument("--cases", type=Path, nargs="+", required=True, help="pairs on which measures are measured")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sources", default="hh,ultrafeedback", help=f"comma-separated; known: {', '.join(SOURCES)}")
    parser.add_argument("--models", help="upstreams, comma-separated; all of a source if not given")
    parser.add_argument("--each", type=int, default=60, help="completions an upstream")
    parser.add_argument("--no-together", dest="together", action="store_false", help="each objective alone, no more")
    parser.add_argument("--caution", type=float, default=0.0)
    parser.add_argument("--verify", type=Verify, default=Verify.FLAGGED, choices=list(Verify))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--judge-url", help="base URL of an OpenAI-compatible judge; its key is OPENAI_API_KEY")
    parser.add_argument("--judge-model", help="the judge's model")
    parser.add_argument("--judge-known", type=int, default=40, help="pairs of people's, for its accuracy")
    arguments = parser.parse_args(argv)
    if unknown := set(arguments.sources.split(",")) - SOURCES.keys():
        parser.error(f"unknown source {', '.join(sorted(unknown))}; known: {', '.join(SOURCES)}")
    if arguments.judge_url and not arguments.judge_model:
        parser.error("--judge-url needs --judge-model")
    known = accuracy.accuracy(accuracy.read_cases(arguments.cases))
    try:
        rows, agreed = asyncio.run(_with_judge(arguments))
    except openai.OpenAIError as error:
        # Its text may quote the question, which is somebody else's.
        sys.exit(f"the judge failed ({type(error).__name__}); its verdicts so far are kept, run the command again")
    if not rows:
        parser.error("no completion of these models in these sources")
    tables = text(rows, known, arguments.judge_model, agreed)
    publish.write(arguments.out, "by_upstream", tables, {"rows": rows, "accuracy": known, "judge": agreed})
    plot(rows, arguments.out / "by_upstream.svg")
    print(tables)


if __name__ == "__main__":
    main()
