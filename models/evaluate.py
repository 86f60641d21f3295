"""How often does an aligner help, and how often does it harm? Runs test sets of pairs through the real engine.

    python -m models.evaluate aligner_proxy/embedded runs/data/test --out runs/evaluation

Every rate comes with n and a 95 % Wilson interval. `exact` is the target character for character; `gone` means that
no segment that had to change is left; `kept` that every other segment is there unchanged; `same` the answer itself.
The last line of stdout is one JSON document; a table and a plot of the scores are written beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from math import sqrt
from pathlib import Path

from rich.progress import track

from aligner_proxy import config
from aligner_proxy.cli.aligner_options import quiet
from aligner_proxy.engine.local import LocalEngine
from aligner_proxy.engine.protocol import AlignRequest, Engine
from aligner_proxy.engine.weights import Settings, open_aligner
from aligner_proxy.segments import split
from aligner_proxy.types import Correction, Turn, Verify
from models.pairs import CHANGES, STAYS, UNKNOWN, Pair, read_pairs


@dataclass(frozen=True, slots=True)
class Rate:
    """A share with its 95 % Wilson interval, all in percent."""

    hits: int
    n: int
    percent: float
    low: float
    high: float

    @classmethod
    def of(cls, outcomes: Iterable[bool]) -> Rate:
        """From single yes/no outcomes; an empty set gives a rate of n = 0."""
        values = list(outcomes)
        n, hits = len(values), sum(values)
        if not n:
            return cls(0, 0, 0.0, 0.0, 100.0)
        z, p = 1.96, hits / n
        middle = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z * sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
        return cls(hits, n, 100 * p, 100 * max(0.0, middle - half), 100 * min(1.0, middle + half))

    def __str__(self) -> str:
        return f"{self.hits}/{self.n} = {self.percent:.1f} % [{self.low:.1f}, {self.high:.1f}]"


@dataclass(frozen=True, slots=True)
class Case:
    """One pair and what became of it; `scores` are log-odds per segment."""

    pair: Pair
    text: str
    scores: tuple[float, ...]

    @property
    def exact(self) -> bool:
        """The target, character for character (outer white space aside)."""
        return self.text.strip() == self.pair.target.strip()

    @property
    def same(self) -> bool:
        """The answer as it was, every character of it."""
        return self.text == self.pair.answer

    @property
    def gone(self) -> bool:
        """No segment that had to change is still there."""
        return not any(text in self.text for text in self._with_label(CHANGES))

    @property
    def kept(self) -> bool:
        """Every segment that had to stay is there."""
        return all(text in self.text for text in self._with_label(STAYS))

    def _with_label(self, label: int) -> list[str]:
        pieces = zip(split(self.pair.answer), self.pair.labels, strict=True)
        return [segment.text for segment, given in pieces if given == label]


async def run_set(engine: Engine, pairs: list[Pair], caution: float, verify: Verify, name: str) -> list[Case]:
    """Correct every pair of a set, one after the other."""
    cases = []
    for i, pair in enumerate(track(pairs, description=f"{name:22}")):
        request = AlignRequest(
            request_id=f"{name}-{i}",
            turns=(Turn("user", pair.query),),
            answer=pair.answer,
            objectives=pair.objectives,
            caution=caution,
            verify=verify,
            deadline_s=600,
        )
        cases.append(_case(pair, await engine.align(request)))
    return cases


def _case(pair: Pair, correction: Correction) -> Case:
    return Case(pair, correction.text, tuple(s.score for s in correction.segments if s.score is not None))


def rates(cases: list[Case]) -> dict[str, Rate]:
    """All four rates of one set."""
    names = ("exact", "gone", "kept", "same")
    return {name: Rate.of(getattr(case, name) for case in cases) for name in names}


def flagging(cases: list[Case], caution: float) -> dict[str, Rate]:
    """What the head alone would do at another caution: whole answers flagged exactly right, and single segments."""
    scored = [case for case in cases if len(case.scores) == len(case.pair.labels)]
    told = [_flags(case, caution) for case in scored]
    segments = [one for case in told for one in case]
    return {
        "answers": Rate.of(all(flag == (label == CHANGES) for flag, label in case) for case in told if case),
        "found": Rate.of(flag for flag, label in segments if label == CHANGES),
        "false": Rate.of(flag for flag, label in segments if label == STAYS),
    }


def _flags(case: Case, caution: float) -> list[tuple[bool, int]]:
    """(flagged, label) of the segments of which it is known whether they have to change."""
    pairs = zip(case.scores, case.pair.labels, strict=True)
    return [(score > caution, label) for score, label in pairs if label != UNKNOWN]


def auc(cases: list[Case]) -> float | None:
    """Chance that a segment that must change scores above one that must stay; None without both kinds."""
    pairs = [(s, label) for c in cases for s, label in zip(c.scores, c.pair.labels, strict=False)]
    high = [s for s, label in pairs if label == CHANGES]
    low = [s for s, label in pairs if label == STAYS]
    if not high or not low:
        return None
    wins = sum((a > b) + 0.5 * (a == b) for a in high for b in low)
    return wins / (len(high) * len(low))


def told_apart(cases: list[Case]) -> Rate | None:
    """Replies in twos, the preferred one first: how often the other one gets the higher maximum score."""
    if not cases or any(case.pair.source.partition(":")[0] != "bag" for case in cases):
        return None
    worst = [max(case.scores) for case in cases if case.scores]
    return Rate.of(rejected > chosen for chosen, rejected in zip(worst[::2], worst[1::2], strict=False))


def table(results: dict[str, list[Case]]) -> str:
    """Markdown, one row a set."""
    lines = ["| set | exact | gone | kept | same | AUC of segments |", "|---|---|---|---|---|---|"]
    for name, cases in results.items():
        if apart := told_apart(cases):
            lines.append(f"| {name}: the worse one scores higher | {apart} | - | - | - | - |")
            continue
        cells = [str(rate) for rate in rates(cases).values()]
        area = auc(cases)
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {'-' if area is None else f'{area:.3f}'} |")
    return "\n".join(lines)


def sweep(results: dict[str, list[Case]], cautions: Iterable[float]) -> str:
    """Markdown: whole answers that the head flags exactly right, per set and caution."""
    values = list(cautions)
    lines = ["| set | " + " | ".join(f"caution {c:g}" for c in values) + " |", "|---" * (len(values) + 1) + "|"]
    for name, cases in results.items():
        shares = (flagging(cases, caution)["answers"].percent for caution in values)
        lines.append(f"| {name} | " + " | ".join(f"{share:.0f} %" for share in shares) + " |")
    return "\n".join(lines)


def plot(results: dict[str, list[Case]], path: Path) -> None:
    """Scores of segments that must change (red) and must stay (blue), one strip a set."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(len(results), 1, figsize=(7, 1.1 * len(results)), sharex=True, squeeze=False)
    for axis, (name, cases) in zip(axes[:, 0], results.items(), strict=True):
        for label, colour in ((STAYS, "tab:blue"), (CHANGES, "tab:red")):
            scores = [s for c in cases for s, given in zip(c.scores, c.pair.labels, strict=False) if given == label]
            axis.hist(scores, bins=[x / 2 for x in range(-30, 31)], color=colour, alpha=0.6, density=bool(scores))
        axis.set_ylabel(name, rotation=0, ha="right", fontsize=8)
        axis.set_yticks([])
    axes[-1, 0].set_xlabel("log-odds that an objective asks for a change (nats)")
    figure.tight_layout()
    figure.savefig(path)


def failures(results: dict[str, list[Case]], limit: int) -> list[dict[str, object]]:
    """The first cases of every set that did not come out exactly; for reading, never for committing."""
    return [
        {"set": name, **asdict(case.pair), "text": case.text, "scores": [round(s, 2) for s in case.scores]}
        for name, cases in results.items()
        for case in [c for c in cases if not c.exact][:limit]
    ]


async def evaluate(
    settings: Settings, sets: dict[str, list[Pair]], caution: float, verify: Verify
) -> dict[str, list[Case]]:
    """Load the aligner once and run every set."""
    quiet()
    engine = LocalEngine(lambda: open_aligner(settings, config.home()))
    try:
        await engine.start()
        return {name: await run_set(engine, pairs, caution, verify, name) for name, pairs in sets.items()}
    finally:
        await engine.aclose()


async def score_sets(aligner: Path, sets: dict[str, list[Pair]]) -> dict[str, list[Case]]:
    """The scores alone: nothing is flagged, so nothing is generated."""
    return await evaluate(Settings(aligner), sets, caution=float("inf"), verify=Verify.FLAGGED)


def read_sets(folder: Path, limit: int) -> dict[str, list[Pair]]:
    """The first pairs of every set in a folder (*.jsonl), by the file's name."""
    return {path.stem: list(read_pairs(path))[:limit] for path in sorted(folder.glob("*.jsonl"))}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("aligner", type=Path, help="aligner folder")
    parser.add_argument("sets", type=Path, help="folder of test sets (*.jsonl of pairs)")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--caution", type=float, default=0.0)
    parser.add_argument("--verify", type=Verify, default=Verify.FLAGGED, choices=list(Verify))
    parser.add_argument("--quantization", default="nf4", choices=["nf4", "none"])
    parser.add_argument("--dtype", default="auto", choices=["auto", "bf16", "fp32"])
    parser.add_argument("--limit", type=int, default=1000)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    settings = Settings(arguments.aligner, quantization=arguments.quantization, dtype=arguments.dtype)
    results = asyncio.run(
        evaluate(settings, read_sets(arguments.sets, arguments.limit), arguments.caution, arguments.verify)
    )
    text = table(results) + "\n\n" + sweep(results, (-3, -2, -1.5, -1, -0.5, 0, 0.5, 1, 2))
    (arguments.out / "table.md").write_text(text + "\n")
    (arguments.out / "failures.json").write_text(json.dumps(failures(results, 20), indent=1, ensure_ascii=False))
    plot(results, arguments.out / "scores.svg")
    print(text)
    print(json.dumps({name: {k: asdict(r) for k, r in rates(cases).items()} for name, cases in results.items()}))


if __name__ == "__main__":
    main()
