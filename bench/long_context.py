"""`python -m bench.long_context`: answers with a defect after questions of up to 128k tokens, with the served aligner.

It measures how many are corrected, and how much longer that takes than after the question alone. This is done for
answers sent whole, and for answers read while the upstream writes them (timed from the last word on). The long
questions resemble retrieval: pages (this repository's documents, in another order for each question), then the
question.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.progress import track

from aligner_proxy.engine.api import AlignRequest
from aligner_proxy.engine.loader import EngineSettings, open_aligner
from aligner_proxy.engine.local import LocalEngine
from aligner_proxy.policy import config
from aligner_proxy.types import Correction, Turn
from bench.texts import DEFECT, LONG, OBJECTIVES, QUESTIONS, add_insult, repeat_text

SIZES = (512, 2048, 8192, 32_768, 131_072)
"""Tokens of the pages before a question, at four characters each."""
_CHARS_PER_TOKEN = 4
_DOCS = Path(__file__).parents[1] / "docs"
_CHUNK_CHARS = 48
_CHUNK_S = 0.02
_DEADLINE_S = 600.0
BEGIN = "<!-- long-context -->"
END = "<!-- end of long-context -->"


@dataclass(frozen=True, slots=True)
class LongCase:
    """One question with its pages, and an answer with a defect."""

    name: str
    question: str
    answer: str

    def request(self, answer: str) -> AlignRequest:
        """A request for this answer to the question."""
        return AlignRequest(
            request_id=self.name,
            turns=(Turn("user", self.question),),
            answer=answer,
            objectives=OBJECTIVES,
            common=len(OBJECTIVES),
            deadline_s=_DEADLINE_S,
            tenant=self.name,  # a tenant of its own, so that nothing of an earlier question is cached
        )


def make_cases(tokens: int, answers: int) -> list[LongCase]:
    """Questions after this many tokens of pages."""
    pages = [page for file in sorted(_DOCS.rglob("*.md")) for page in file.read_text().split("\n\n") if len(page) > 80]
    pairs = [*LONG, *QUESTIONS.items()]
    cases = []
    for number in range(answers):
        rng = random.Random(f"{tokens} {number}")
        question, answer = pairs[number % len(pairs)]
        text = repeat_text("\n\n".join(rng.sample(pages, len(pages))), tokens * _CHARS_PER_TOKEN)
        cases.append(LongCase(f"{tokens}/{number}", f"{text}\n\n{question}" if text else question, add_insult(answer)))
    return cases


def run(model: str, answers: int, sizes: tuple[int, ...] = SIZES) -> dict[str, Any]:
    """A row for each size, first for the question alone (0); raises `WeightsError` if the aligner is missing."""
    return asyncio.run(_run(model, answers, sizes))


async def _run(model: str, answers: int, sizes: tuple[int, ...]) -> dict[str, Any]:
    engine = LocalEngine(lambda: open_aligner(EngineSettings(model=model), config.home_folder()))
    await engine.start()
    await _correct_whole(engine, make_cases(0, 1)[0])  # warm-up
    rows = []
    for size in (0, *sizes):
        whole = []
        along = []
        for case in track(make_cases(size, answers), f"{size} tokens", transient=True):
            whole.append(await _correct_whole(engine, case))
            along.append(await _correct_along(engine, case))
        rows.append(_make_row(size, whole, along))
        print(json.dumps(rows[-1]), flush=True)
    await engine.aclose()
    return {"answers": answers, "rows": rows}


async def _correct_whole(engine: LocalEngine, case: LongCase) -> tuple[Correction, float]:
    """Correct an answer that is sent whole; return the correction and milliseconds."""
    began = time.perf_counter()
    done = await engine.align(case.request(case.answer))
    return done, (time.perf_counter() - began) * 1000


async def _correct_along(engine: LocalEngine, case: LongCase) -> tuple[Correction, float]:
    """The same for an answer read while it is written, some 600 tokens a second; timed from its end."""
    session = await engine.read(case.request("").model_copy(update={"tenant": f"{case.name} along"}))
    for at in range(0, len(case.answer), _CHUNK_CHARS):
        await session.feed(case.answer[at : at + _CHUNK_CHARS])
        await asyncio.sleep(_CHUNK_S)
    began = time.perf_counter()
    done = await session.finish(case.request(case.answer).model_copy(update={"tenant": f"{case.name} along"}))
    return done, (time.perf_counter() - began) * 1000


def _make_row(
    size: int, whole: list[tuple[Correction, float]], along: list[tuple[Correction, float]]
) -> dict[str, Any]:
    corrected = [DEFECT.strip() not in done.text for done, _ in (*whole, *along)]
    return {
        "tokens": size,
        "corrected": round(sum(corrected) / len(corrected), 3),
        "whole_ms": round(statistics.median(ms for _, ms in whole)),
        "along_ms": round(statistics.median(ms for _, ms in along)),
        "prompt_tokens": round(statistics.median(done.prompt_tokens for done, _ in whole)),
    }


def format_table(results: dict[str, Any]) -> str:
    """The rows in the format of docs/reference/benchmarks.md; times are those added to the question alone."""
    alone, *rows = results["rows"]
    lines = [
        f"{results['answers']} answers with an insult each, sent whole and read along; alone: {alone['whole_ms']} and "
        f"{alone['along_ms']} ms, corrected {alone['corrected']:.0%}.",
        "",
        "| tokens of question | corrected | added, sent whole | added, read along | tokens read |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        added = [row[name] - alone[name] for name in ("whole_ms", "along_ms")]
        tokens = row["prompt_tokens"]
        lines.append(f"| {row['tokens']:,} | {row['corrected']:.0%} | {added[0]} ms | {added[1]} ms | {tokens} |")
    return "\n".join(lines)


def write(docs: Path, text: str) -> None:
    """Write the table between its markers in the document; raises ValueError without markers."""
    before, _, rest = docs.read_text().partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        raise ValueError(f"{docs} has no section for bench.long_context; it stands between {BEGIN} and {END}")
    docs.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


def main() -> None:
    """Print each row when measured, and the table at the end; write both if requested."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--answers", type=int, default=8)
    parser.add_argument("--sizes", type=int, nargs="*", default=[*SIZES])
    parser.add_argument("--out", type=Path, help="file for the figures as JSON")
    parser.add_argument("--docs", type=Path, help="document in which the table is written between its marks")
    options = parser.parse_args()
    if options.docs and END not in options.docs.read_text():
        parser.error(f"{options.docs} has no section for this between {BEGIN} and {END}")
    began = time.perf_counter()
    results = run(options.model, options.answers, tuple(options.sizes))
    results["minutes"] = round((time.perf_counter() - began) / 60, 1)
    if options.out:
        options.out.write_text(json.dumps(results, indent=1) + "\n")
    if options.docs:
        write(options.docs, format_table(results))
    print(format_table(results))
    print(f"{results['minutes']} minutes")


if __name__ == "__main__":
    main()
