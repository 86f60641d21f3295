"""A loaded aligner, and how it reads a request: in prompts, each of which shows an answer, or a part of it, in a frame.
A taught head was fitted to the examples of one objective, which it scores in place of the aligner's own head.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from aligner_proxy import prompts
from aligner_proxy.engine.api import AlignerInfo, AlignRequest
from aligner_proxy.engine.decoding.parts import Division
from aligner_proxy.engine.decoding.prompt_fit import PromptFrame, make_frame
from aligner_proxy.engine.model.runner import ModelRunner
from aligner_proxy.engine.model.taught import TaughtColumns, select_heads
from aligner_proxy.engine.taught_head import TaughtHead
from aligner_proxy.errors import HeadRefused, UnknownJudge
from aligner_proxy.text import structure

if TYPE_CHECKING:
    from aligner_proxy.engine.model.token_classifier import TokenClassifier


@dataclass(frozen=True, slots=True)
class Aligner:
    """A loaded aligner: the model, its description, and the number of its adapter in the runner."""

    runner: ModelRunner
    info: AlignerInfo
    adapter: int = 0
    others: Mapping[str, Aligner] = field(default_factory=dict)
    """Further aligners on the same runner, by the names that requests use."""
    judges: Mapping[str, TokenClassifier] = field(default_factory=dict)
    """Token classifiers beside the aligner, by the names that policies use."""

    def find_judge(self, name: str) -> TokenClassifier:
        """Return the judge of this name, which is a token classifier; raises `UnknownJudge`."""
        if name not in self.judges:
            raise UnknownJudge(f"this engine has no judge {name!r}; it has: {', '.join(self.judges) or 'none'}")
        return self.judges[name]

    def find_aligner(self, name: str) -> Aligner:
        """Return the aligner that requests call `name`; raises `UnknownAligner`."""
        self.info.find_aligner(name)  # raises if no aligner has this name
        return self.others.get(name, self)

    def find_taught_heads(self, request: AlignRequest) -> TaughtColumns | None:
        """Return the taught heads of a request, None if there are none; raises `UnknownHead`, `HeadRefused`."""
        own_heads = self.runner.heads[self.adapter]
        # taught heads read the rows of the detector head, so an aligner without this head has none
        if own_heads.detector is None or not (own_heads.taught_heads or any(request.heads)):
            return None
        loaded_heads = self.runner.loaded_heads
        aligner = self.info.content_hash
        heads = select_heads(loaded_heads, own_heads.taught_heads, aligner, request.objectives, request.heads)
        return TaughtColumns(heads) if heads else None

    def store_head(self, head: TaughtHead) -> str:
        """Store a taught head, and return the hash by which requests to its aligner name it.

        Raises `HeadRefused` if this engine does not serve the aligner, or if the head does not fit its rows.
        """
        aligners_by_hash = {aligner.info.content_hash: aligner for aligner in (*self.others.values(), self)}
        head_aligner = aligners_by_hash.get(head.aligner)
        if head_aligner is None:
            names = ", ".join(content_hash[:12] for content_hash in aligners_by_hash)
            raise HeadRefused(
                f"the taught head is for aligner {head.aligner[:12] or 'unnamed'}, but this engine serves {names}; "
                "teach the objective again"
            )
        detector = self.runner.heads[head_aligner.adapter].detector
        width = detector.row_width if detector else 0
        if head.width != width:
            raise HeadRefused(
                f"the taught head has {head.width} numbers, but rows of aligner {head.aligner[:12]} have {width}; "
                "teach the objective again"
            )
        return self.runner.loaded_heads.put(head)


def build_frame(aligner: Aligner, request: AlignRequest) -> PromptFrame:
    """Return the frame of a request's prompts; raises `AnswerTooLong`, `UnknownHead` and `HeadRefused`."""
    taught_heads = aligner.find_taught_heads(request)
    frame = make_frame(
        request, prompts.find_template(aligner.info.template), aligner.runner.tokenizer, aligner.info.window
    )
    return replace(frame, taught_heads=taught_heads) if taught_heads else frame


def scores_segments(aligner: Aligner, frame: PromptFrame) -> bool:
    """Whether segments can be scored, which takes a detector head and a prompt that names objectives."""
    return aligner.info.has_head and frame.template.names_objectives and bool(frame.objectives)


def judges_end(aligner: Aligner, frame: PromptFrame, request: AlignRequest) -> bool:
    """Whether the head also judges the end of the answer, where text that an objective demands may be missing."""
    return aligner.info.ends and request.open_ended and scores_segments(aligner, frame)


def divide_answer(aligner: Aligner, frame: PromptFrame, request: AlignRequest) -> Division:
    """Divide a complete answer into parts; if its end is judged, an empty last segment stands for the end."""
    division = frame.divide(structure.split(request.answer))
    if judges_end(aligner, frame, request):
        division.add_end()
    return division
