"""Rows that the detector head reads of many answers, stored on disk, to train and measure heads alone.

The model below the head does not change, so for a second head no answer is read again. Rows are stored in chunks, which
are named by a hash of their tokens and segments. So a run that was stopped goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from aligner_proxy.engine.loader import EngineSettings, prepare
from aligner_proxy.engine.model.detector import DetectorHead, Taps, find_spans, read_rows
from aligner_proxy.engine.scheduling.sequence import Spans
from aligner_proxy.engine.weights.manifest import HEAD
from aligner_proxy.prompts import find_template, render
from aligner_proxy.text.structure import split
from models.data.inject import themes_in
from models.data.labels import relation_in_text
from models.data.pairs import STAYS, Pair
from models.train.labelled_cases import LabelledCase

from .batches import group_by_length
from .features import relations
from .segment_states import BATCH_TOKENS, SharedBeginning

_CHUNK = 64
"""Cases whose rows are in one file."""
_LONGEST_PROMPT = 1400
"""Tokens of the longest prompt that is read."""


class CaseRows(NamedTuple):
    """The rows of one case in fp16: [segments, width], [objectives, width], and of its question [1, width]."""

    segments: Tensor
    objectives: Tensor
    question: Tensor


_TokenisedPrompt = tuple[list[int], Spans]
"""The token ids of a prompt, and its spans."""


@dataclass(frozen=True, slots=True)
class HeadRows:
    """The rows of the segments, objectives and questions of many cases, as the detector head reads them, in fp16.

    Case i has the segments `segment_starts[i]` to `segment_starts[i + 1]`, and likewise the objectives: two cases with
    2 and 3 segments have the starts (0, 2, 5).
    """

    cases: tuple[LabelledCase, ...]
    segments: Tensor
    objectives: Tensor
    questions: Tensor
    segment_starts: tuple[int, ...]
    objective_starts: tuple[int, ...]

    def __len__(self) -> int:
        """The number of cases."""
        return len(self.cases)

    def case_rows(self, number: int) -> CaseRows:
        """The rows of one case."""
        return CaseRows(
            self.segments[self.segment_starts[number] : self.segment_starts[number + 1]],
            self.objectives[self.objective_starts[number] : self.objective_starts[number + 1]],
            self.questions[number : number + 1],
        )

    def select_cases(self, predicate: Callable[[LabelledCase], bool]) -> HeadRows:
        """The cases for which `predicate` is true."""
        return self.pick_cases(number for number, case in enumerate(self.cases) if predicate(case))

    def select_source(self, source: str) -> HeadRows:
        """The cases of one source."""
        return self.select_cases(lambda case: case.source == source)

    def pick_cases(self, numbers: Iterable[int]) -> HeadRows:
        """The cases with these numbers."""
        places = list(numbers)
        parts = [self.case_rows(number) for number in places]
        return self.with_cases([self.cases[number] for number in places], parts)

    def column(self, objective: str) -> HeadRows:
        """The cases that have this objective in their prompt, each with the labels of this objective only."""
        numbers = [number for number, case in enumerate(self.cases) if objective in case.objectives]
        places = [self.cases[number].objectives.index(objective) for number in numbers]
        cases = [
            replace(
                self.cases[number],
                objectives=(objective,),
                labels=tuple((labels[place],) for labels in self.cases[number].labels),
                whole=(self.cases[number].whole[place],),
            )
            for number, place in zip(numbers, places, strict=True)
        ]
        parts = [self.case_rows(number) for number in numbers]
        own_rows = [
            part._replace(objectives=part.objectives[place : place + 1])
            for part, place in zip(parts, places, strict=True)
        ]
        return self.with_cases(cases, own_rows)

    def with_cases(self, cases: Sequence[LabelledCase], parts: Sequence[CaseRows]) -> HeadRows:
        """These cases with their rows; if there are none, with rows of the same widths."""
        return _make_rows(cases, parts, CaseRows(self.segments, self.objectives, self.questions))

    @torch.inference_mode()
    def scores(self, head: Callable[[Tensor, Tensor], Tensor]) -> list[Tensor]:
        """Log-odds [segments, objectives] of each case."""
        # Cases whose objectives have the same rows are scored together.
        numbers_by_objectives: dict[bytes, list[int]] = {}
        for number in range(len(self)):
            key = self.case_rows(number).objectives.numpy().tobytes()
            numbers_by_objectives.setdefault(key, []).append(number)
        case_scores: dict[int, Tensor] = {}
        for numbers in numbers_by_objectives.values():
            for start in range(0, len(numbers), _CHUNK):
                chunk = numbers[start : start + _CHUNK]
                segments = [self.case_rows(number).segments for number in chunk]
                scores = head(torch.cat(segments).float(), self.case_rows(chunk[0]).objectives.float())
                case_scores |= dict(zip(chunk, scores.split([len(part) for part in segments]), strict=True))
        return [case_scores[number] for number in range(len(self))]


def join_rows(parts: Sequence[HeadRows]) -> HeadRows:
    """Several sets as one; the first one says which rows segments and objectives have if no set has a case."""
    cases = [case for part in parts for case in part.cases]
    return parts[0].with_cases(cases, [part.case_rows(n) for part in parts for n in range(len(part))])


def _make_rows(cases: Sequence[LabelledCase], parts: Sequence[CaseRows], like: CaseRows) -> HeadRows:
    """The rows of these cases, one after the other; `like` are rows of the same widths, in case there are none."""
    segments = [part.segments for part in parts]
    objectives = [part.objectives for part in parts]
    return HeadRows(
        tuple(cases),
        torch.cat([like.segments[:0], *segments]),
        torch.cat([like.objectives[:0], *objectives]),
        torch.cat([like.question[:0], *[part.question for part in parts]]),
        (0, *np.cumsum([len(part) for part in segments]).tolist()),
        (0, *np.cumsum([len(part) for part in objectives]).tolist()),
    )


def make_pair_case(pair: Pair, number: int) -> LabelledCase:
    """The case of a pair that comes from the generators or a test set; `number` makes its id."""
    return LabelledCase(
        f"pair-{number}",
        pair.source,
        pair.query,
        answer=pair.answer,
        objectives=pair.objectives,
        labels=relations(pair),
        whole=(False,) * len(pair.objectives),
    )


def relabel_for_theme(rows: HeadRows, pairs: Mapping[str, Pair], like: HeadRows, theme: str) -> HeadRows:
    """The cases of `rows` under one objective of the theme `theme`, in place of their own objectives.

    The objective and its rows are those of the cases in `like`, in turn, which have one objective each. The labels
    follow from the kinds of the segments, which `pairs` have by the ids of the cases.
    """
    numbers = [number for number, case in enumerate(rows.cases) if pairs[case.id].kinds]
    cases = []
    parts = []
    for place, number in enumerate(numbers):
        pair = pairs[rows.cases[number].id]
        texts = [segment.text for segment in split(pair.answer)]
        # a segment without a defect stays
        labels = [
            relation_in_text(kind, theme, themes_in(text)) if kind else STAYS
            for kind, text in zip(pair.kinds, texts, strict=True)
        ]
        like_number = place % len(like)
        new_objectives = like.cases[like_number].objectives
        cases.append(
            replace(
                rows.cases[number],
                objectives=new_objectives,
                labels=tuple((label,) for label in labels),
                whole=(False,),
            )
        )
        parts.append(rows.case_rows(number)._replace(objectives=like.case_rows(like_number).objectives))
    return rows.with_cases(cases, parts)


def open_row_reader(folder: Path, home: Path) -> HeadRowReader:
    """A reader of rows by the aligner in `folder`, with the weights that are served by default."""
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
        """The rows of all cases whose prompt is not too long; from `folder`, if they are stored there already."""
        prompts = [self._encode_prompt(case) for case in cases]
        fitting = [number for number, (ids, _) in enumerate(prompts) if len(ids) <= _LONGEST_PROMPT]
        # Prompts with the same objectives begin with the same tokens, which are then read once.
        order = sorted(fitting, key=lambda number: (cases[number].objectives, len(prompts[number][0])))
        parts: dict[int, CaseRows] = {}
        for start in range(0, len(order), _CHUNK):
            chunk = order[start : start + _CHUNK]
            path = folder / f"{_name_chunk([prompts[number] for number in chunk], self._layers)}.npz"
            if not path.exists():
                folder.mkdir(parents=True, exist_ok=True)
                self._write(path, [prompts[number] for number in chunk])
            parts |= dict(zip(chunk, _load_rows(path, [prompts[number][1] for number in chunk]), strict=True))
            print(f"{folder.name}: {min(start + _CHUNK, len(order))} of {len(order)}", flush=True)
        nothing = torch.zeros(0, dtype=torch.float16)
        like = next(iter(parts.values()), CaseRows(nothing, nothing, nothing))
        return _make_rows([cases[n] for n in sorted(parts)], [parts[n] for n in sorted(parts)], like)

    def _encode_prompt(self, case: LabelledCase) -> _TokenisedPrompt:
        """The tokens of a case's prompt, and where its segments and objectives are among them."""
        prompt = render(find_template("ultrafeedback"), case.query, case.answer, case.objectives)
        coded = self._tokenizer(
            prompt.text, return_offsets_mapping=True, split_special_tokens=True, add_special_tokens=True
        )
        return coded["input_ids"], find_spans(prompt, split(case.answer), coded["offset_mapping"])

    def _write(self, path: Path, prompts: Sequence[_TokenisedPrompt]) -> None:
        """Read these prompts batch by batch, and write their rows to `path`."""
        read: dict[int, CaseRows] = {}
        for batch in group_by_length([len(ids) for ids, _ in prompts], BATCH_TOKENS):
            states = self._reader.states([prompts[number][0] for number in batch])
            read |= {number: _read_case(states[row], prompts[number][1]) for row, number in enumerate(batch)}
        parts = [read[number] for number in range(len(prompts))]
        draft = path.with_suffix(".part")
        with draft.open("wb") as file:
            np.savez(
                file,
                segments=torch.cat([part.segments for part in parts]).half().numpy(),
                objectives=torch.cat([part.objectives for part in parts]).half().numpy(),
                questions=torch.cat([part.question for part in parts]).half().numpy(),
            )
        draft.replace(path)


def _name_chunk(prompts: Sequence[_TokenisedPrompt], layers: Sequence[int]) -> str:
    """A hash of the prompts' tokens and spans: another version may split the same answer into other segments."""
    places = [
        [[span.start, span.stop] for span in (*spans.segments, *spans.objectives, *_list_question(spans))]
        for _, spans in prompts
    ]
    tokens = [ids for ids, _ in prompts]
    return hashlib.sha256(json.dumps([tokens, places, list(layers)]).encode()).hexdigest()[:20]


def _load_rows(path: Path, spans: Sequence[Spans]) -> list[CaseRows]:
    """The stored rows of a chunk, divided by the spans of its prompts."""
    with np.load(path) as stored:
        segments = torch.from_numpy(stored["segments"]).split([len(spans_of_case.segments) for spans_of_case in spans])
        objectives = torch.from_numpy(stored["objectives"]).split(
            [len(spans_of_case.objectives) for spans_of_case in spans]
        )
        questions = torch.from_numpy(stored["questions"]).split(1)
    return list(map(CaseRows, segments, objectives, questions))


def _read_case(states: Tensor, spans: Spans) -> CaseRows:
    """The rows of a case with these states [tokens, layers + 1, hidden]; a question without text has zeros."""
    segments, objectives = DetectorHead.read(states, spans)
    question = read_rows(states, _list_question(spans)) if spans.question else torch.zeros_like(segments[:1])
    return CaseRows(segments, objectives, question)


def _list_question(spans: Spans) -> list[range]:
    """The tokens of the question, if there is one."""
    return [spans.question] if spans.question else []
