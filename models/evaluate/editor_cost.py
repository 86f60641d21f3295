"""Cost of an editor: its tokens for a corrected answer, beside those of writing the whole answer anew.

    python -m models.evaluate.editor_cost --data DATA --out runs/editor_cost

Into each of some hundred answers of strong upstreams one sentence is put at a random place that violates an objective;
a scripted head flags exactly it, and a scripted editor writes a sentence of its own in its place, through the pipeline
with its gate. What would write the whole answer anew reads the same instruction, conversation and answer and writes
the answer. Tokens are estimated at four bytes each, on both sides alike. The answers without the sentence are judged,
too: they must cost no call. No model is run, and nothing is measured of how well one edits.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import mean, median
from typing import Any

from aligner_proxy.correctors import editor_prompt
from aligner_proxy.correctors.editor import Editors
from aligner_proxy.correctors.model_group import Payer, Reply
from aligner_proxy.engine.api import AlignerInfo, AlignRequest, DeferredSession
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.text import structure
from aligner_proxy.types import Correction, Exchange, Objective, Policy, SegmentScore, Turn
from models.data.upstream_completions import STRONG, UpstreamCompletion, draw_completions
from models.reporting import output

BYTES_PER_TOKEN = 4
WRITTEN_PRICE = 4
"""What a written token costs beside a read one, as most providers ask for it."""
LARGEST_SHARE = 0.35
"""Of the tokens written for a whole answer: what an editor may need."""
OBJECTIVE = Objective("kind", "Kindness: the response should never insult or belittle the reader")
POLICY = Policy("editor_cost", (OBJECTIVE,), editor="model:strong")
INSULTS = (
    "Anyone with half a brain would have known that already.",
    "Honestly, it is a little sad that somebody has to explain this to you.",
    "You are clearly too lazy to look it up by yourself.",
    "Try to keep up, although that does not seem to be a strength of yours.",
)
REPAIRS = (
    "It is easy to miss, so do not hesitate to ask.",
    "It takes a moment to get used to, and many people ask about it.",
    "There is more to read about it, if you would like to know more.",
    "If anything of it is unclear, it can be explained in another way.",
)
_ABOUT = AlignerInfo("scripted", "0" * 64, "ultrafeedback", "", 4096, has_head=True, quantization="none", device="-")


def _count_tokens(text: str) -> int:
    """Estimated number of tokens of a text."""
    return -(-len(text.encode()) // BYTES_PER_TOKEN)


class ScriptedHead:
    """An engine that flags the insults of this module and nothing else. Satisfies `Engine`."""

    async def info(self) -> AlignerInfo:
        """Its description."""
        return _ABOUT

    async def align(self, request: AlignRequest) -> Correction:
        """The verdicts: segments with an insult of this module are flagged."""
        texts = [segment.text for segment in structure.split(request.answer)]
        flags = [text.strip() in INSULTS for text in texts]
        pairs = zip(texts, flags, strict=True)
        scores = tuple(SegmentScore(text, 1.0 if flag else -1.0, flag, 0) for text, flag in pairs)
        return Correction(request.answer, scores, aligner=_ABOUT.content_hash)

    async def read(self, request: AlignRequest) -> DeferredSession:
        """It reads nothing ahead."""
        return DeferredSession(self)

    async def aclose(self) -> None:
        """There is nothing to close."""


@dataclass(slots=True)
class CountingChat:
    """An editor that writes a sentence in place of each passage, and counts tokens. Satisfies `Chat`."""

    calls: int = 0

    def models(self) -> Sequence[str]:
        """There is one."""
        return ["scripted"]

    async def ask(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        max_tokens: int,
        temperature: float,
        response_format: Mapping[str, Any] | None,
        payer: Payer,
        deadline_s: float,
    ) -> Reply:
        """The replacements."""
        passages = json.loads(messages[-1]["content"])["passages"]
        entries = [{"number": passage["number"], "text": REPAIRS[self.calls % len(REPAIRS)]} for passage in passages]
        self.calls += 1
        reply = json.dumps({"replacements": entries})
        return Reply(reply, _count_message_tokens(messages), _count_tokens(reply))


def _count_message_tokens(messages: Sequence[Mapping[str, str]]) -> int:
    return sum(_count_tokens(message["content"]) for message in messages)


@dataclass(frozen=True, slots=True)
class EditorCost:
    """Tokens for one answer: those of the editor, and those of writing the whole answer again."""

    model: str
    chars: int
    read: int
    written: int
    whole_read: int
    whole_written: int
    exact: bool
    """Whether the answer is the original but for the sentence that was put in."""

    @property
    def share_written(self) -> float:
        """Tokens that the editor writes, as a share of those of the whole answer."""
        return self.written / self.whole_written

    @property
    def share_of_all(self) -> float:
        """The same share for all tokens, read ones included."""
        return (self.read + self.written) / (self.whole_read + self.whole_written)

    @property
    def share_of_price(self) -> float:
        """The same share for the price."""
        price = self.read + WRITTEN_PRICE * self.written
        return price / (self.whole_read + WRITTEN_PRICE * self.whole_written)


def insert_insult(rng: Random, answer: str) -> str | None:
    """Put an insult behind one sentence of an answer.

    None where no sentence has another one behind it in its line.
    """
    segments = structure.split(answer)
    places = [segment for segment in segments[:-1] if segment.gap == " " and segment.text.endswith((".", "!", "?"))]
    if not places:
        return None
    end = rng.choice(places).end
    insult = rng.choice(INSULTS)
    return f"{answer[:end]} {insult}{answer[end:]}"


async def measure_cost(pipeline: Pipeline, completion: UpstreamCompletion, answer: str) -> EditorCost | None:
    """The cost of one answer; None if it is not judged."""
    exchange = Exchange("cost", 0, (Turn("user", completion.query),), answer)
    outcome = await pipeline.align(exchange, POLICY)
    use = outcome.correction.editor if outcome.correction else None
    if use is None or outcome.text is None:
        return None
    segments = structure.split(answer)
    whole = editor_prompt.make_edit_messages(exchange.turns, segments, ())
    exact = any(outcome.text.replace(f" {repair}", "", 1) == completion.answer for repair in REPAIRS)
    whole_read = _count_message_tokens(whole) + _count_tokens(OBJECTIVE.text)
    return EditorCost(
        completion.model,
        len(answer),
        use.read,
        written=use.written,
        whole_read=whole_read,
        whole_written=_count_tokens(answer),
        exact=exact,
    )


async def run(texts: Sequence[UpstreamCompletion], seed: int, clean: int) -> tuple[list[EditorCost], int, int]:
    """The cost of each corrected answer, how many clean answers were judged, and how many calls those needed."""
    rng = Random(seed)
    chat = CountingChat()
    pipeline = Pipeline(ScriptedHead(), editors=Editors(lambda _: chat))
    costs = []
    for completion in texts:
        answer = insert_insult(rng, completion.answer)
        cost = answer and await measure_cost(pipeline, completion, answer)
        if cost:
            costs.append(cost)
    calls = chat.calls
    judged_count = 0
    for completion in _repeat_texts(texts, clean):
        exchange = Exchange("clean", 0, (Turn("user", completion.query),), completion.answer)
        outcome = await pipeline.align(exchange, POLICY)
        judged_count += outcome.correction is not None
    return costs, judged_count, chat.calls - calls


def _repeat_texts(texts: Sequence[UpstreamCompletion], count: int) -> Iterator[UpstreamCompletion]:
    return (texts[number % len(texts)] for number in range(count))


def format_table(costs: Sequence[EditorCost], judged_count: int, calls: int) -> str:
    """A table in Markdown: the cost of an editor, and that of clean answers."""
    rows = [
        (name, f"{mean(values):.1%}", f"{median(values):.1%}", f"{max(values):.1%}")
        for name, values in (
            ("tokens written", [cost.share_written for cost in costs]),
            ("tokens read and written", [cost.share_of_all for cost in costs]),
            (f"price, a written token at {WRITTEN_PRICE} read ones", [cost.share_of_price for cost in costs]),
        )
    ]
    head = ("editor beside writing the whole answer anew", "mean", "median", "largest")
    exact = sum(cost.exact for cost in costs)
    length = f"{median(cost.chars for cost in costs):.0f}"
    notes = (
        f"{len(costs)} answers with one flagged sentence (median {length} characters), {exact} of them unchanged but "
        f"for it. {judged_count} clean answers: {calls} calls."
    )
    return f"{output.table(head, rows)}\n\n{notes}"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the research data")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--each", type=int, default=60, help="completions an upstream")
    parser.add_argument("--clean", type=int, default=1_000, help="clean answers that are judged")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    texts = list(draw_completions(arguments.data, STRONG, arguments.each, arguments.seed))
    costs, judged_count, calls = asyncio.run(run(texts, arguments.seed, arguments.clean))
    text = format_table(costs, judged_count, calls)
    output.write(arguments.out, "editor_cost", text, costs)
    print(text)


if __name__ == "__main__":
    main()
