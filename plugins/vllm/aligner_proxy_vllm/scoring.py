"""The part of scoring that needs no vLLM: builds prompts from a request, and verdicts from the scores of the prompts.

The prompts are made by the same code as in our own engine. A long answer is divided into parts with a prompt for each.
"""

from __future__ import annotations

import json
from base64 import b64decode
from binascii import Error as NotBase64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import torch
from pydantic import Field, TypeAdapter
from tokenizers import Tokenizer

from aligner_proxy import prompts
from aligner_proxy.engine import wire
from aligner_proxy.engine.api import AlignerInfo, AlignRequest, AlignResponse, StrictModel
from aligner_proxy.engine.decoding.parts import Division
from aligner_proxy.engine.decoding.piece_scorer import PromptedPassage, ScoredPieces, make_verdicts
from aligner_proxy.engine.decoding.prompt_fit import PromptFrame, make_frame
from aligner_proxy.engine.loader import describe
from aligner_proxy.engine.model.detector import DetectorHead
from aligner_proxy.engine.model.taught import LoadedHead, LoadedHeads, select_heads
from aligner_proxy.engine.model.tokenizer import PromptTokenizer
from aligner_proxy.engine.taught_head import TaughtHead, unpack
from aligner_proxy.engine.weights import manifest, sources
from aligner_proxy.engine.weights.store import STORED, Prepared
from aligner_proxy.errors import CorrectionError, HeadRefused, MalformedHead
from aligner_proxy.text import structure
from aligner_proxy.types import Correction

_INFO = TypeAdapter(AlignerInfo)
_PREPARED = TypeAdapter(Prepared)


class ScoringRequest(StrictModel):
    """The field `data` of a request to `/pooling`; without `align` the request asks which aligner this is."""

    align: AlignRequest | None = None
    heads: dict[str, str] = Field(default_factory=dict)
    """Taught heads sent with the request, as base64, by content hash."""


@dataclass(frozen=True, slots=True)
class ScoringPlan:
    """The plan for one request: prompts for the model, positions for the head, and the data for the answer."""

    prompts: tuple[tuple[int, ...], ...]
    """Token ids of each prompt; one prompt for each part of the answer."""
    places: Mapping[str, Any]
    """Input for `HeadPooler`, in plain lists and numbers because it crosses processes; {} if nothing is scored.

    "objectives" are the request's, "heads" the bytes of each one's taught head (b"" for none). "parts" has, by
    `prompt_key`, the (start, stop) tokens of "segments" and "objectives", and "behind": whether the last segment stands
    for the end of the answer."""
    request: AlignRequest | None = None
    """The request for verdicts; None if nothing is scored."""
    division: Division | None = None
    """The answer's segments, and the parts in which they are scored; None if nothing is scored."""
    error: CorrectionError | None = None
    """Why nothing is scored; sent with status 200, because vLLM can only report its own errors."""

    def answer(self, scores: Sequence[Sequence[Sequence[float]]], about: AlignerInfo) -> dict[str, Any]:
        """Return the answer to the request, as JSON, from each prompt's scores [segments of the part, objectives].

        The answer has the verdicts and all scores, or the error, or, if nothing was to be scored, the description
        `about`.
        """
        if self.error is not None:
            return {"error": wire.make_error_body(self.error).model_dump(mode="json")}
        if self.request is None or self.division is None:
            return {"about": json.loads(_INFO.dump_json(about))}
        segment_rows: list[Sequence[float]] = []
        for part, rows in zip(self.division.parts, scores, strict=True):
            # a part begins with segments of the previous part as context, which have their scores already
            segment_rows += list(rows)[part.first_own - part.first :]
        # each segment's highest score and the index of its objective, the first one of equal scores
        scored_pieces = ScoredPieces([(max(row), list(row).index(max(row))) for row in segment_rows])
        segments = make_verdicts(self.division, scored_pieces, self.request.caution)
        correction = Correction(
            self.request.answer,
            segments=segments,
            prompt_tokens=sum(map(len, self.prompts)),
            aligner=about.content_hash,
        )
        return {
            "response": AlignResponse.from_correction(correction).model_dump(mode="json"),
            "scores": [list(row) for row in segment_rows],
        }


class Scoring:
    """Makes plans for the aligner in a folder that `aligner-proxy` prepared or exported.

    `device` is shown in the aligner's description; `window`, in tokens, is vLLM's limit. `template` is only needed for
    an exported model that does not name its own.
    """

    def __init__(
        self, folder: Path, device: str = "vllm", window: int | None = None, template: str | None = None
    ) -> None:
        """Raises `WeightsError`, OSError, KeyError or ValueError if the folder does not contain an aligner."""
        prepared = _describe_aligner(folder, template)
        self._head = DetectorHead.load(folder / manifest.HEAD)
        """Only its sizes are used here; the model worker scores with a copy of its own."""
        self._family = prompts.find_template(prepared.template)
        self._shipped_heads = shipped_heads(folder, torch.device("cpu"))
        """The aligner's own taught heads, by objective."""
        config = json.loads((folder / manifest.MODEL_CONFIG).read_text())
        eos_id = config["eos_token_id"]  # one id, or a list of several
        eos_ids = frozenset(eos_id if isinstance(eos_id, list) else [eos_id])
        self._tokenizer = PromptTokenizer(Tokenizer.from_file(str(folder / "tokenizer.json")), eos_ids)
        self.about = AlignerInfo(
            model=prepared.model,
            content_hash=prepared.content_hash,
            template=self._family.name,
            template_hash=self._family.hash,
            window=min(prepared.window, config["max_position_embeddings"], window or prepared.window),
            has_head=True,
            quantization=prepared.quantization,
            device=device,
            ends=bool(self._head.ends),
            taught=tuple(self._shipped_heads),
            languages=tuple(prepared.languages),
        )
        """The aligner's description."""

    def plan(self, scoring_request: ScoringRequest) -> ScoringPlan:
        """Return the plan for a request; if nothing can be scored, its prompt is one token, as vLLM needs a prompt."""
        placeholder = (tuple(self._tokenizer.encode_prompt("a").ids[:1]),)
        request = scoring_request.align
        if request is None or not request.answer.strip():
            return ScoringPlan(placeholder, places={})
        try:
            self.about.find_aligner(request.aligner)
            heads = self._read_heads(scoring_request, request)
            frame = make_frame(request, self._family, self._tokenizer, self.about.window)
            division = frame.divide(structure.split(request.answer))
        except CorrectionError as error:
            return ScoringPlan(placeholder, places={}, error=error)
        if self.about.ends and request.open_ended:
            division.add_end()
        return self._plan_parts(request, frame, division, heads)

    def _plan_parts(
        self, request: AlignRequest, frame: PromptFrame, division: Division, heads: Mapping[str, bytes]
    ) -> ScoringPlan:
        """Return the plan of a valid request: the prompts of all parts, and the positions that the head needs.

        `heads` are the bytes of the request's taught heads, by content hash.
        """
        part_prompts: list[tuple[int, ...]] = []
        parts: dict[str, Any] = {}
        for part in division.parts:
            passage = division.make_passage(part)
            prompt = frame.fit_prompt(passage.undisguised)
            prompted = PromptedPassage(part, passage.pieces, passage.text, passage.undisguised, prompt)
            spans = prompted.find_spans(passage.pieces)
            # what follows the last segment changes no score, so it is left out
            ids = tuple(prompt.ids[: spans.segments[-1].stop])
            part_prompts.append(ids)
            parts[prompt_key(ids)] = {
                "segments": [[tokens.start, tokens.stop] for tokens in spans.segments],
                "objectives": [[tokens.start, tokens.stop] for tokens in spans.objectives],
                "behind": spans.has_end,
            }
        places = {
            "parts": parts,
            "objectives": list(request.objectives),
            "heads": [heads.get(name, b"") for name in request.heads],
        }
        return ScoringPlan(tuple(part_prompts), places, request, division)

    def _read_heads(self, scoring_request: ScoringRequest, request: AlignRequest) -> dict[str, bytes]:
        """Return the request's taught heads as bytes, by content hash.

        Raises `HeadRefused` and `UnknownHead`. Heads are checked here, so that the model's worker never gets bad ones.
        """
        loaded_heads = LoadedHeads(torch.device("cpu"))
        head_bytes: dict[str, bytes] = {}
        for name, encoded_head in scoring_request.heads.items():
            try:
                data = b64decode(encoded_head, validate=True)
                head = TaughtHead.from_bytes(data)
            except (NotBase64, MalformedHead) as error:
                raise HeadRefused(f"taught head {name[:8]}: {error}") from None
            if head.width != self._head.row_width:
                raise HeadRefused(f"taught head {name[:8]} has {head.width} numbers, rows have {self._head.row_width}")
            head_bytes[loaded_heads.put(head)] = data
        # only for its errors: a head is unknown, or of another objective or aligner
        select_heads(loaded_heads, self._shipped_heads, self.about.content_hash, request.objectives, request.heads)
        return head_bytes


def _describe_aligner(folder: Path, template: str | None) -> Prepared:
    """Describe the aligner in a folder as our own engine does; the folder has a prepared or an exported aligner."""
    if (folder / STORED).exists():
        return _PREPARED.validate_json((folder / STORED).read_bytes())
    return describe(sources.resolve(folder, template), "none")


def shipped_heads(folder: Path, device: torch.device) -> dict[str, LoadedHead]:
    """The taught heads in an aligner's folder, by objective."""
    path = folder / manifest.TAUGHT
    heads = unpack(path.read_bytes()) if path.exists() else ()
    return {head.objective: LoadedHead.from_head(head, device) for head in heads}


def prompt_key(ids: Sequence[int] | np.ndarray) -> str:
    """Key by which the head finds the positions of its prompt; prompts with the same tokens have the same positions."""
    return f"{len(ids)}-{crc32(np.asarray(ids, dtype=np.int64).tobytes()):08x}"
