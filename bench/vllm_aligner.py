"""The aligner inside vLLM compared with our own engine: `python -m bench.vllm_aligner [--data DATA] [--answers 500]`.

Starts vLLM twice as docs/guides/vllm.md describes (one server scores, one writes), from the environment of
`scripts/peers.sh` with aligner-proxy-vllm in it. It sends the same requests to vLLM and our engine and compares scores
and flags of all answers, and the edits of those with an insult. It also measures sixteen answers at once:
detect-then-edit against rewriting every answer on the same server. Compared answers are stored in OUT, so that the same
command continues after an interruption.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any, Literal

from rich.progress import track

from aligner_proxy import prompts
from aligner_proxy.engine.api import AlignRequest, Engine
from aligner_proxy.engine.client.completions import CompletionsClient
from aligner_proxy.engine.client.completions_aligner import CompletionsAligner
from aligner_proxy.engine.client.edited_engine import EditedEngine
from aligner_proxy.engine.client.vllm_scorer import SCHEME, VllmScorer
from aligner_proxy.engine.loader import EngineSettings, open_aligner, prepare
from aligner_proxy.engine.local import LocalEngine
from aligner_proxy.policy import config
from aligner_proxy.types import Correction, Turn
from bench.peers import vllm_python
from bench.texts import LONG, OBJECTIVES, QUESTIONS, add_insult
from demo.processes import free_port, run_process, wait_for
from models.data.upstream_completions import draw_completions
from models.reporting import output
from models.reporting.statistics import Rate

INSULTS = ("You are a fool.", "Only an idiot would ask this.", "Stop bothering me, you useless clown.")
TOGETHER = 16
SHARES = (0, 1, 2, 4)
"""How many of sixteen concurrent answers have an insult."""
WINDOW = 4096
NEAR = 0.05
"""Largest difference in nats at which two engines' scores count as equal."""
_DEADLINE_S = 3600.0
_PRECISION: Mapping[str, Literal["bf16", "fp32"]] = {"bfloat16": "bf16", "float32": "fp32"}
_OF_A_WRITER = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")


@dataclass(frozen=True, slots=True)
class ComparedAnswer:
    """A question and its answer, with or without an insult."""

    number: int
    question: str
    answer: str
    insulting: bool

    def request(self, *, score_only: bool = False) -> AlignRequest:
        """The request for both engines."""
        return AlignRequest(
            request_id=f"vllm-{self.number}",
            turns=(Turn("user", self.question),),
            answer=self.answer,
            objectives=OBJECTIVES,
            deadline_s=_DEADLINE_S,
            score_only=score_only,
        )


def draw_answers(data: Path | None, count: int, insulting: int) -> Iterator[ComparedAnswer]:
    """Answers of strong upstreams, or our own without `data`; every `insulting`-th has an insult after a sentence."""
    rng = Random(7)
    if data is None:
        pairs = [*QUESTIONS.items(), *((question, answer) for question, answer, *_ in LONG)]
    else:
        pairs = [
            (c.query, c.answer) for c in draw_completions(data, (), count, 7, ("alpaca",)) if len(c.answer) < WINDOW
        ]
        rng.shuffle(pairs)
    for number, (question, answer) in enumerate(islice(pairs, count)):
        has_insult = bool(insulting) and number % insulting == 0
        yield ComparedAnswer(
            number, question, add_numbered_insult(answer, number) if has_insult else answer, has_insult
        )


def add_numbered_insult(answer: str, number: int) -> str:
    """The answer with the insult that belongs to its number."""
    return add_insult(answer, INSULTS[number % len(INSULTS)])


@contextlib.contextmanager
def run_servers(folder: Path, precision: str, *, eager: bool) -> Iterator[tuple[VllmScorer, CompletionsAligner]]:
    """Start both servers with the embedded aligner, with one thread each."""
    manifested, aligner = prepare(EngineSettings(quantization="none", dtype="fp32"), config.home_folder())
    writer = folder / "writer"
    writer.mkdir(exist_ok=True)
    for name in _OF_A_WRITER:
        with contextlib.suppress(FileExistsError):
            (writer / name).symlink_to(aligner / name)
    drafts = {
        "method": "custom_class",
        "model": "aligner_proxy_vllm.edit_proposer.EditProposer",
        "num_speculative_tokens": 16,
    }
    scores = ["--runner", "pooling", "--hf-overrides", '{"architectures": ["AlignerScorer"]}']
    scores += ["--io-processor-plugin", "aligner"]
    writes = ["--no-async-scheduling", "--speculative-config", json.dumps(drafts)]
    env = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1", "VLLM_NO_USAGE_STATS": "1"}
    env |= {"VLLM_USE_V2_MODEL_RUNNER": "0"}
    env.pop("PYTHONPATH", None)
    bases = []
    with contextlib.ExitStack() as stack:
        for name, weights, extra in (("scorer", aligner, scores), ("writer", writer, writes)):
            port = free_port()
            log = folder / f"{name}.log"
            command = ["vllm.entrypoints.openai.api_server", "--model", str(weights), "--dtype", precision]
            command += ["--host", "127.0.0.1", "--port", str(port), "--max-model-len", str(WINDOW), *extra]
            command += ["--enforce-eager"] if eager else []
            child = stack.enter_context(run_process(command, log, env, python=vllm_python()))
            wait_for(f"http://127.0.0.1:{port}/health", child, log, lambda _: None)
            bases.append(f"127.0.0.1:{port}")
        client = CompletionsClient(f"http://{bases[1]}/v1", wait_s=0)
        yield VllmScorer(f"{SCHEME}{bases[0]}"), CompletionsAligner(client, prompts.TEMPLATES[manifested.template])


def read_results(path: Path) -> list[dict[str, Any]]:
    """The results that an earlier run stored."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


async def compare_answers(
    cases: Sequence[ComparedAnswer],
    ours: Engine,
    scorer: Engine,
    editor: Engine,
    rows: list[dict[str, Any]],
    path: Path,
) -> None:
    """Append to `rows` and the file `path` each answer's scores from both engines, and whether the edits agree.

    Edits are compared only for answers with an insult.
    """
    measured_numbers = {row["number"] for row in rows}
    with path.open("a") as file:
        for one in track([one for one in cases if one.number not in measured_numbers], "answers"):
            request = one.request(score_only=True)
            own = await ours.align(request)
            other = await scorer.align(request)
            pairs = list(zip(own.segments, other.segments, strict=True))
            row: dict[str, Any] = {
                "number": one.number,
                "scores": [(a.score, b.score) for a, b in pairs],
                "flags": [(a.flagged, b.flagged) for a, b in pairs],
            }
            if one.insulting and any(a.flagged for a, _ in pairs):
                first = await ours.align(one.request())
                second = await editor.align(one.request())
                row["edits_agree"] = first.text == second.text
            rows.append(row)
            file.write(json.dumps(row) + "\n")
            file.flush()


async def measure_throughput(
    sets: Sequence[Sequence[ComparedAnswer]], detecting: Engine, whole: Engine
) -> tuple[list[float], list[float]]:
    """Answers per second with a whole set at once, by detect-then-edit and by rewriting everything, in turns."""
    both_speeds: tuple[list[float], list[float]] = ([], [])
    for cases in sets:
        for engine, speeds in zip((detecting, whole), both_speeds, strict=True):
            began = time.perf_counter()
            done: list[Correction] = await asyncio.gather(*(engine.align(one.request()) for one in cases))
            speeds.append(len(done) / (time.perf_counter() - began))
    return both_speeds


def format_report(rows: Sequence[Mapping[str, Any]], speeds: Mapping[int, tuple[list[float], list[float]]]) -> str:
    """The report in Markdown."""
    apart = [abs(a - b) for row in rows for a, b in row["scores"] if a is not None and b is not None]
    flags = [a == b for row in rows for a, b in row["flags"]]
    edits = [row["edits_agree"] for row in rows if "edits_agree" in row]
    lines: list[tuple[object, ...]] = [
        ("segments whose scores differ by at most 0.05 nats", Rate.from_outcomes(d <= NEAR for d in apart)),
        ("difference in nats: mean, largest", f"{statistics.fmean(apart):.4f}, {max(apart):.4f}"),
        ("segments with the same flag", Rate.from_outcomes(flags)),
        ("edits that agree", Rate.from_outcomes(edits)),
    ]
    for share, (detecting, whole) in speeds.items():
        ratios = [a / b for a, b in zip(detecting, whole, strict=True)]
        lines.append(
            (
                f"{TOGETHER} at once, {share} with an insult: answers a second, detect-then-edit; anew; ratios",
                f"{statistics.median(detecting):.2f}; {statistics.median(whole):.2f}; "
                + ", ".join(f"{ratio:.1f}" for ratio in ratios),
            )
        )
    return f"{len(rows)} answers.\n\n{output.table(('what', 'figure'), lines)}"


async def measure_all(options: argparse.Namespace) -> str:
    """Run all measurements and return the report."""
    options.out.mkdir(parents=True, exist_ok=True)
    settings = EngineSettings(quantization="none", dtype=_PRECISION[options.precision], threads=1)
    with run_servers(options.out, options.precision, eager=not options.compiled) as (scorer, writer):
        editor = EditedEngine(scorer, writer)
        ours = LocalEngine(lambda: open_aligner(settings, config.home_folder()))
        try:
            await ours.start()
            cases = list(draw_answers(options.data, options.answers, options.insulting))
            path = options.out / f"answers-{options.precision}.jsonl"
            rows = read_results(path)
            await compare_answers(cases, ours, scorer, editor, rows, path)
            speeds = {}
            plain = list(draw_answers(options.data, options.answers, 0))
            for share in SHARES if options.rounds else ():
                sets = [insert_insults(plain[n * TOGETHER : (n + 1) * TOGETHER], share) for n in range(options.rounds)]
                speeds[share] = await measure_throughput(sets, editor, writer)
        finally:
            await ours.aclose()
            await editor.aclose()
    return format_report(rows, speeds)


def insert_insults(some: Sequence[ComparedAnswer], share: int) -> list[ComparedAnswer]:
    """The same answers, the first `share` of them with an insult."""
    return [
        ComparedAnswer(
            one.number,
            one.question,
            add_numbered_insult(one.answer, one.number) if n < share else one.answer,
            n < share,
        )
        for n, one in enumerate(some)
    ]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with the research data; without it our few own answers")
    parser.add_argument("--answers", type=int, default=500)
    parser.add_argument("--insulting", type=int, default=2, help="every so-manieth answer gets an insult")
    parser.add_argument("--rounds", type=int, default=2, help="of sixteen answers at once, for each share")
    parser.add_argument("--precision", choices=sorted(_PRECISION), default="float32")
    parser.add_argument("--compiled", action="store_true", help="let vLLM compile the model")
    parser.add_argument("--out", type=Path, default=Path(".build/vllm"))
    print(asyncio.run(measure_all(parser.parse_args())))


if __name__ == "__main__":
    main()
