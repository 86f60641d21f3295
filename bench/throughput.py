"""Corrections a second of one engine, one at a time, beside what transformers does with the same weights and prompts.

The peers write the whole answer: `generate` token by token, and `generate` with prompt lookup, the drafting that comes
with transformers. `verify: always` is our drafting for a whole answer; `verify: flagged` writes flagged segments only.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from aligner_proxy import config, prompts
from aligner_proxy.engine.correct import Aligner
from aligner_proxy.engine.fit import fit
from aligner_proxy.engine.loop import alone
from aligner_proxy.engine.protocol import AlignRequest
from aligner_proxy.engine.weights import Settings, open_aligner, prepare
from aligner_proxy.types import Turn, Verify
from bench.texts import OBJECTIVES, answers

_ROOM = 48
_LOOKUP_TOKENS = 10


@dataclass(frozen=True, slots=True)
class Row:
    """One way of doing it. `forwards` counts passes through the model for one correction."""

    name: str
    per_second: float
    ms: float
    forwards: float | None


def requests(verify: Verify) -> list[AlignRequest]:
    """The benchmark's answers as requests."""
    pairs = enumerate(answers())
    return [
        AlignRequest(
            request_id=str(n), turns=(Turn("user", q),), answer=a, objectives=OBJECTIVES, verify=verify, deadline_s=600
        )
        for n, (q, a) in pairs
    ]


def measure(name: str, work: Callable[[AlignRequest], int | None], asked: list[AlignRequest], rounds: int) -> Row:
    """Seconds for all requests, `rounds` times, after one that warms up."""
    work(asked[0])
    began = time.perf_counter()
    forwards = [work(request) for _ in range(rounds) for request in asked]
    per = (time.perf_counter() - began) / len(forwards)
    known = [count for count in forwards if count is not None]
    return Row(name, round(1 / per, 3), round(per * 1000, 1), round(sum(known) / len(known), 1) if known else None)


def run(model: str, rounds: int) -> dict[str, Any]:
    """All rows, and on what they were measured. Raises `WeightsError` when the aligner is not here."""
    settings = Settings(model=model)
    aligner = open_aligner(settings, config.home())
    rows = [
        measure(f"aligner-proxy, verify: {verify}", lambda r: _ours(aligner, r), requests(verify), rounds)
        for verify in (Verify.FLAGGED, Verify.ALWAYS)
    ]
    peer = _peer(settings)
    for name, options in (("transformers generate", {}), ("with prompt lookup", _lookup())):
        rows.append(measure(name, lambda r, o=options: _theirs(aligner, peer, r, o), requests(Verify.ALWAYS), rounds))
    about = asdict(aligner.info)
    return {"aligner": about, "n": rounds * len(answers()), "threads": torch.get_num_threads(), "rows": _plain(rows)}


def _plain(rows: list[Row]) -> list[dict[str, Any]]:
    return [asdict(row) for row in rows]


def _lookup() -> dict[str, Any]:
    return {"prompt_lookup_num_tokens": _LOOKUP_TOKENS}


def _ours(aligner: Aligner, request: AlignRequest) -> int:
    return alone(aligner, request).counts.forwards


def _peer(settings: Settings) -> Any:
    _, folder = prepare(settings, config.home())
    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    return AutoModelForCausalLM.from_pretrained(str(folder), device_map=device, dtype=torch.bfloat16)


def _theirs(aligner: Aligner, peer: Any, request: AlignRequest, options: dict[str, Any]) -> None:
    """The same prompt, greedily to its end."""
    family = prompts.template(aligner.info.template)
    fitted = fit(request, family, aligner.runner.tokenizer, aligner.info.window)
    ids = torch.tensor([fitted.ids], device=peer.device)
    room = len(fitted.answer) + _ROOM
    with torch.no_grad():
        peer.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=room, do_sample=False, **options
        )
