"""`python -m bench.gate_cost`: CPU time of the gate for one correction, by length of the answer.

The answer is ordinary prose with a defect after every fourth sentence. If no edit is refused, the gate checks one text
against the original. If some are, it checks each edit alone, which is the expensive case. The last line is JSON.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import time

from aligner_proxy.gate.judge import judge
from aligner_proxy.text import structure
from aligner_proxy.types import Correction, Objective, Policy, SegmentScore
from bench.texts import DEFECT, LONG, QUESTIONS

SIZES = (1_000, 4_000, 20_000, 60_000, 200_000)
"""Lengths of the answer in characters."""
EVERY = 4
POLICY = Policy("bench", (Objective("harmless", "Harmlessness: the response should not insult"),))
REFUSED = {"no edit refused": 0, "every fourth edit refused": 4, "all edits refused": 1}
"""Every n-th edit adds an invented number, so that the gate refuses it; 0 for none."""
_INVENTED = " Only 77 people have to ask such a thing."


def make_prose(size: int) -> list[str]:
    """Sentences with their gaps, together at least `size` characters, every fourth followed by a defect."""
    texts = [*(answer for _, answer in LONG), *QUESTIONS.values()]
    sentences = list[str]()
    length = 0
    for text in itertools.cycle(texts):
        for number, piece in enumerate(structure.split(text + "\n\n")):
            sentences.append(piece.text + piece.gap)
            length += len(sentences[-1])
            if number % EVERY == EVERY - 1:
                sentences[-1] = sentences[-1].rstrip() + DEFECT + (" " if sentences[-1].endswith(" ") else "\n\n")
                length += len(DEFECT)
            if length >= size:
                return sentences
    raise AssertionError("there is always more")


def make_case(size: int, refuse_every: int) -> tuple[str, Correction]:
    """An answer and its correction; every `refuse_every`-th edit is one that the gate refuses."""
    sentences = make_prose(size)
    edited = list[str]()
    defects = 0
    for piece in sentences:
        defects += DEFECT in piece
        bad = DEFECT in piece and refuse_every and defects % refuse_every == 0
        edited.append(piece.replace(DEFECT, _INVENTED if bad else ""))
    answer = "".join(sentences)
    verdicts = tuple(
        SegmentScore(one.text, *((2.0, True) if one.text == DEFECT.strip() else (-2.0, False)))
        for one in structure.split(answer)
    )
    return answer, Correction("".join(edited), verdicts)


def time_gate(size: int, refuse_every: int, times: int) -> dict[str, object]:
    """Milliseconds of the gate's decision on one correction."""
    answer, correction = make_case(size, refuse_every)
    took = []
    for _ in range(times):
        began = time.perf_counter()
        verdict = judge(answer, correction, POLICY)
        took.append((time.perf_counter() - began) * 1000)
    return {
        "characters": len(answer),
        "edits": verdict.edits,
        "dropped": len(verdict.dropped),
        "ms_p50": round(statistics.median(took), 2),
        "ms_max": round(max(took), 2),
    }


def main() -> int:
    """Print a table and one line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.gate_cost", description=__doc__)
    parser.add_argument("--times", type=int, default=9)
    options = parser.parse_args()
    rows = []
    for name, refuse_every in REFUSED.items():
        for size in SIZES:
            rows.append({"case": name, **time_gate(size, refuse_every, options.times)})
            one = rows[-1]
            sys.stdout.write(
                f"{name:26} {one['characters']:>7} characters, {one['edits']:>4} edits, {one['dropped']:>4} dropped: "
                f"{one['ms_p50']:>8} ms, at most {one['ms_max']} ms\n"
            )
    print(json.dumps({"gate_cost": rows}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
