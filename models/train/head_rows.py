"""Rows that the detector head reads of many answers, kept on disk: what a head alone is trained on and measured by.

The model below stays as it is, so a second head reads nothing again. Rows are kept in chunks, named by the tokens and
segments that they are of: a run that stopped goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from aligner_proxy.engine.loader import EngineSettings, prepare
from aligner_proxy.engine.model.detector import DetectorHead, Taps, find_spans
from aligner_proxy.engine.scheduling.sequence import Spans
from aligner_proxy.engine.weights.manifest import HEAD
from aligner_proxy.prompts import find_template, render
from aligner_proxy.text.structure import split
from models.data.inject import themes_in
from models.data.labels import relation_in_text
from models.data.pairs import STAYS, Pair
from models.train.asked import LabelledCase

from .features import relations
from .segment_states import SharedBeginning

_CHUNK = 64
_BATCH_TOKENS = 4096
_LONGEST_PROMPT = 1400


@dataclass(frozen=True, slots=True)
class HeadRows:
    """Of each case the rows of its segments and of its objectives, as `DetectorHead.read` gives them, in fp16.

    `first[i]` is where case i begins among the segments, `begins[i]` where it does among the objectives (one more than
    cases each).
    """

    cases: tuple[LabelledCase, ...]
    segments: Tensor
    objectives: Tensor
    first: tuple[int, ...]
    begins: tuple[int, ...]

    def __len__(self) -> int:
        """Cases."""
        return len(self.cases)

    def case_rows(self, number: int) -> tuple[Tensor, Tensor]:
        """(segments, objectives) of one case."""
        return (
            self.segments[self.first[number] : self.first[number + 1]],
            self.objectives[self.begins[number] : self.begins[number + 1]],
        )

    def select_cases(self, predicate: Callable[[LabelledCase], bool]) -> HeadRows:
        """The cases for which `predicate` is true."""
        return self.pick_cases(number for number, case in enumerate(self.cases) if predicate(case))

    def select_source(self, source: str) -> HeadRows:
        """The cases of one source."""
        return self.select_cases(lambda case: case.source == source)

    def pick_cases(self, numbers: Iterable[int]) -> HeadRows:
        """These cases."""
        places = list(numbers)
        parts = [self.case_rows(number) for number in places]
        return _make_rows([self.cases[number] for number in places], parts, self.segments, self.objectives)

    def column(self, objective: str) -> HeadRows:
        """The cases that have this objective, under it alone."""
        numbers = [number for number, case in enumerate(self.cases) if objective in case.objectives]
        places = [self.cases[number].objectives.index(objective) for number in numbers]
        cases = [
            replace(
                self.cases[number],
                objectives=(objective,),
                labels=tuple((labels[at],) for labels in self.cases[number].labels),
                whole=(self.cases[number].whole[at],),
            )
            for number, at in zip(numbers, places, strict=True)
        ]
        parts = [self.case_rows(number) for number in numbers]
        own = [(part[0], part[1][at : at + 1]) for part, at in zip(parts, places, strict=True)]
        return _make_rows(cases, own, self.segments, self.objectives)

    @torch.inference_mode()
    def scores(self, head: Callable[[Tensor, Tensor], Tensor]) -> list[Tensor]:
        """Log-odds [segments, objectives] of each case."""
        # Of many cases the objectives are one and the same rows: those are scored together.
        alike: dict[bytes, list[int]] = {}
        for number in range(len(self)):
            alike.setdefault(self.case_rows(number)[1].numpy().tobytes(), []).append(number)
        case_scores: dict[int, Tensor] = {}
        for numbers in alike.values():
            for start in range(0, len(numbers), _CHUNK):
                some = numbers[start : start + _CHUNK]
                segments = [self.case_rows(number)[0] for number in some]
                scores = head(torch.cat(segments).float(), self.case_rows(some[0])[1].float())
                case_scores |= dict(zip(some, scores.split([len(part) for part in segments]), strict=True))
        return [case_scores[number] for number in range(len(self))]


def join_rows(parts: Sequence[HeadRows]) -> HeadRows:
    """Several sets as one."""
    cases = [case for part in parts for case in part.cases]
    return _make_rows(
        cases, [part.case_rows(n) for part in parts for n in range(len(part))], parts[0].segments, parts[0].objectives
    )


def _make_rows(cases: Sequence[LabelledCase], parts: Sequence[tuple[Tensor, Tensor]], *like: Tensor) -> HeadRows:
    segments = [part[0] for part in parts]
    objectives = [part[1] for part in parts]
    return HeadRows(
        tuple(cases),
        torch.cat([like[0][:0], *segments]),
        torch.cat([like[1][:0], *objectives]),
        (0, *np.cumsum([len(part) for part in segments]).tolist()),
        (0, *np.cumsum([len(part) for part in objectives]).tolist()),
    )


def make_pair_case(pair: Pair, number: int) -> LabelledCase:
    """A pair of the generators, or of a test set."""
    return LabelledCase(
        f"pair-{number}",
        pair.source,
        pair.query,
        pair.answer,
        pair.objectives,
        relations(pair),
        (False,) * len(pair.objectives),
    )


def relabel_for_theme(rows: HeadRows, pairs: Mapping[str, Pair], like: HeadRows, theme: str) -> HeadRows:
    """Pairs, by id, under one objective of this theme that was asked for elsewhere: in `like`, alone.

    Its rows are those of prompts that `like` has; what goes against it follows from the kinds of the segments.
    """
    numbers = [number for number, case in enumerate(rows.cases) if pairs[case.id].kinds]
    cases = []
    parts = []
    for place, number in enumerate(numbers):
        pair = pairs[rows.cases[number].id]
        texts = [segment.text for segment in split(pair.answer)]
        # What a good answer says in its own words is fine.
        labels = [
            relation_in_text(kind, theme, themes_in(text)) if kind else STAYS
            for kind, text in zip(pair.kinds, texts, strict=True)
        ]
        source = place % len(like)
        own = like.cases[source].objectives
        cases.append(
            replace(rows.cases[number], objectives=own, labels=tuple((one,) for one in labels), whole=(False,))
        )
        parts.append((rows.case_rows(number)[0], like.case_rows(source)[1]))
    return _make_rows(cases, parts, rows.segments, rows.objectives)


def open_row_reader(folder: Path, home: Path) -> HeadRowReader:
    """The aligner with the weights that are served by default, and the layers that its head reads."""
    _, weights = prepare(EngineSettings(model=str(folder)), home)
    layers = DetectorHead.load(folder / HEAD).layers.tolist()
    # without such instructions bf16 products take many times as long as fp32 ones
    dtype = torch.bfloat16 if torch.cpu.get_capabilities().get("avx512_bf16") else torch.float32
    model = AutoModelForCausalLM.from_pretrained(str(weights), local_files_only=True).dequantize().to(dtype)
    tokenizer = AutoTokenizer.from_pretrained(str(weights), local_files_only=True)
    return HeadRowReader(model, tokenizer, layers)


class HeadRowReader:
    """Reads answers through a frozen model, for its head."""

    def __init__(self, model: Any, tokenizer: Any, layers: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._layers = tuple(layers)
        self._reader = SharedBeginning(model, Taps(model.model, self._layers))

    def read(self, cases: Sequence[LabelledCase], folder: Path) -> HeadRows:
        """Rows of all cases that fit into a prompt, from `folder` where they are there already."""
        prompts = [self._prompt(case) for case in cases]
        fitting = [number for number, (ids, _) in enumerate(prompts) if len(ids) <= _LONGEST_PROMPT]
        # Prompts of one company begin alike, and what begins alike is read once.
        order = sorted(fitting, key=lambda number: (cases[number].objectives, len(prompts[number][0])))
        parts: dict[int, tuple[Tensor, Tensor]] = {}
        for start in range(0, len(order), _CHUNK):
            chunk = order[start : start + _CHUNK]
            path = folder / f"{_name_chunk([prompts[number] for number in chunk], self._layers)}.npz"
            if not path.exists():
                folder.mkdir(parents=True, exist_ok=True)
                self._write(path, [prompts[number] for number in chunk])
            parts |= dict(zip(chunk, _load_rows(path, [prompts[number][1] for number in chunk]), strict=True))
            print(f"{folder.name}: {min(start + _CHUNK, len(order))} of {len(order)}", flush=True)
        nothing = torch.zeros(0, dtype=torch.float16)
        like = next(iter(parts.values()), (nothing, nothing))
        return _make_rows([cases[n] for n in sorted(parts)], [parts[n] for n in sorted(parts)], *like)

    def _prompt(self, case: LabelledCase) -> tuple[list[int], Spans]:
        prompt = render(find_template("ultrafeedback"), case.query, case.answer, case.objectives)
        coded = self._tokenizer(
            prompt.text, return_offsets_mapping=True, split_special_tokens=True, add_special_tokens=True
        )
        return coded["input_ids"], find_spans(prompt, split(case.answer), coded["offset_mapping"])

    def _write(self, path: Path, prompts: Sequence[tuple[list[int], Spans]]) -> None:
        read: list[tuple[Tensor, Tensor]] = []
        batch: list[tuple[list[int], Spans]] = []
        for prompt in [*prompts, None]:
            if batch and (prompt is None or (len(batch) + 1) * len(prompt[0]) > _BATCH_TOKENS):
                states = self._reader.states([ids for ids, _ in batch])
                read += [DetectorHead.read(states[row], where) for row, (_, where) in enumerate(batch)]
                batch = []
            if prompt is not None:
                batch.append(prompt)
        draft = path.with_suffix(".part")
        with draft.open("wb") as file:
            np.savez(
                file,
                segments=torch.cat([segments for segments, _ in read]).half().numpy(),
                objectives=torch.cat([objectives for _, objectives in read]).half().numpy(),
            )
        draft.replace(path)


def _name_chunk(prompts: Sequence[tuple[list[int], Spans]], layers: Sequence[int]) -> str:
    """A name by the tokens and by where segments and objectives are, which a newer splitter may see elsewhere."""
    places = [[[span.start, span.stop] for span in (*where.segments, *where.objectives)] for _, where in prompts]
    tokens = [ids for ids, _ in prompts]
    return hashlib.sha256(json.dumps([tokens, places, list(layers)]).encode()).hexdigest()[:20]


def _load_rows(path: Path, where: Sequence[Spans]) -> list[tuple[Tensor, Tensor]]:
    with np.load(path) as stored:
        segments = torch.from_numpy(stored["segments"]).split([len(one.segments) for one in where])
        objectives = torch.from_numpy(stored["objectives"]).split([len(one.objectives) for one in where])
    return list(zip(segments, objectives, strict=True))
