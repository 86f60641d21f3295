"""Injection of defects: a good answer becomes a pair with objectives, labels and a target.

A draft is a list of pieces; a piece is a segment that was there, an inserted one, or a rewritten one. The answer is cut
again after it has been put together: where the cut does not agree with the pieces there is no pair.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from random import Random

from aligner_proxy.text.structure import join, split
from models.defects import SUBJECTS, TRAINING_KINDS, WRITTEN, DefectKind, ObjectiveWording
from models.defects.objectives import BUILT_IN, built_in_objective, draw_clean_objective

from .answers import SCRIPT, PoolAnswer
from .labels import ALIKE, INNOCENT, MIXED, OFF_TOPIC_THEMES, relation
from .pairs import CHANGES, STAYS, Pair

MAX_OBJECTIVES = 4
_PLEASANTRY = re.compile(
    r"(?i)^(sure|certainly|of course|absolutely|great|okay|ok|yes!|hi\b|hello|thank)|happy to|glad to|I'll walk"
)
_LIST_MARK = ("-", "*", "+", "#", "`", "|", "~", ">")


@dataclass(frozen=True, slots=True)
class Piece:
    """Text and the white space after it; `kind` is what is wrong with it, `original` what it was rewritten from."""

    text: str
    gap: str
    kind: str = ""
    original: str | None = None


def pieces_of(text: str) -> list[Piece]:
    """The answer as it is."""
    return [Piece(segment.text, segment.gap) for segment in split(text)]


def take_opening(pieces: list[Piece], longest: int) -> list[Piece]:
    """The first pieces, as many as `longest` characters hold, and always one."""
    first_pieces: list[Piece] = []
    length = 0
    for piece in pieces:
        length += len(piece.text)
        if first_pieces and length > longest:
            break
        first_pieces.append(piece)
    return first_pieces


def insert_defect(
    rng: Random, pieces: list[Piece], kind: DefectKind, write: Callable[[str], str]
) -> list[Piece] | None:
    """The pieces with one defect more; `write` gets the text before the place and returns the defect."""
    at = _choose_position(rng, pieces, kind)
    before = "".join(p.text + p.gap for p in pieces[:at])
    text = write(before)
    if not text:
        return None
    return _insert_piece(rng, pieces, at, text, kind.name, own_line=rng.random() < kind.own_line)


def insert_innocent(rng: Random, pieces: list[Piece], sentence: str) -> list[Piece] | None:
    """The pieces with a sentence of another answer between them."""
    return _insert_piece(rng, pieces, rng.randint(0, len(pieces)), sentence, INNOCENT, own_line=rng.random() < 0.2)


def insert_alike(rng: Random, pieces: list[Piece], kind: DefectKind, held_out: bool) -> list[Piece] | None:
    """The pieces with a sentence that looks like one of this kind and is none."""
    text = rng.choice(kind.alike[-1:] if held_out else kind.alike[:-1])
    return _insert_piece(rng, pieces, rng.randint(0, len(pieces)), text, kind.name + ALIKE, own_line=rng.random() < 0.2)


def rewrite_sentence(rng: Random, pieces: list[Piece], kind: DefectKind) -> list[Piece] | None:
    """The pieces with one of the sentences that were there turned into one with this defect."""
    spots = [i for i, p in enumerate(pieces) if not p.kind and _is_sentence(p.text)]
    if not spots or kind.inside is None:
        return None
    at = rng.choice(spots)
    old = pieces[at]
    text = kind.rewrite(rng, old.text)
    if text == old.text:
        return None
    return [*pieces[:at], Piece(text, old.gap, kind.name, old.text), *pieces[at + 1 :]]


def make_pair(
    pieces: Sequence[Piece], removed_names: set[str], query: str, objectives: Sequence[ObjectiveWording], source: str
) -> Pair | None:
    """The pair in which pieces of kinds in `removed_names` are repaired; None where segments and pieces disagree."""
    answer = "".join(p.text + p.gap for p in pieces).rstrip()
    kinds_inside = kinds_of(answer, pieces)
    if any(inside & removed_names and inside - removed_names for inside in kinds_inside):
        return None
    labels = [CHANGES if inside & removed_names else STAYS for inside in kinds_inside]
    kinds = [inside.pop() if len(inside) == 1 else MIXED for inside in kinds_inside]
    repaired_pieces = [(_repair_piece(p, removed_names), p.gap) for p in pieces]
    target = join(repaired_pieces)
    if not target.strip():
        return None
    if all(p.original is None for p in pieces if p.kind in removed_names):
        remaining = [("" if label else s.text, s.gap) for s, label in zip(split(answer), labels, strict=True)]
        if join(remaining) != target:
            return None
    texts = tuple(o.text for o in objectives)
    themes = tuple(o.theme for o in objectives)
    return Pair(query, texts, answer, target, tuple(labels), source, kinds=tuple(kinds), themes=themes)


def _repair_piece(piece: Piece, removed_names: set[str]) -> str:
    if piece.kind not in removed_names:
        return piece.text
    return piece.original or ""


def kinds_of(answer: str, pieces: Sequence[Piece]) -> list[set[str]]:
    """What is wrong with each segment, "" for nothing; more than one where pieces were joined to one segment."""
    marks: list[tuple[int, int, str]] = []
    at = 0
    for piece in pieces:
        marks.append((at, at + len(piece.text), piece.kind))
        at += len(piece.text) + len(piece.gap)
    return [
        {kind for start, end, kind in marks if start < segment.end and segment.start < end} for segment in split(answer)
    ]


def _choose_position(rng: Random, pieces: list[Piece], kind: DefectKind) -> int:
    if kind.name == "repetition":
        return rng.randint(1, len(pieces)) if pieces else 0
    if kind.place == "start" and rng.random() < 0.8:
        return 0
    if kind.place == "end" and rng.random() < (0.7 if kind.family != "turns" else 1.0):
        return len(pieces)
    return rng.randint(0, len(pieces))


def _insert_piece(
    rng: Random, pieces: list[Piece], at: int, text: str, kind: str, own_line: bool
) -> list[Piece] | None:
    """Insert so that taking the new piece and its gap away gives back exactly what was there."""
    before = pieces[:at]
    after = pieces[at:]
    if not after:
        return [*before[:-1], *_append_piece(before, text, kind, own_line)]
    gap = before[-1].gap if before else "\n\n"
    breaks = "\n" in gap
    starts_block = (
        after[0].text.lstrip()[:1] in _LIST_MARK or after[0].text.lstrip()[:1].isdigit() or "\n" in after[0].text
    )
    if before and not breaks:
        return [*before, *_split_insertion(text, gap if gap else " ", kind), *after]
    if own_line or starts_block:
        return [*before, *_split_insertion(text, gap if breaks else "\n\n", kind), *after]
    return [*before, *_split_insertion(text, " ", kind), *after]


def _append_piece(before: list[Piece], text: str, kind: str, own_line: bool) -> list[Piece]:
    if not before:
        return _split_insertion(text, "", kind)
    last = before[-1]
    block = "\n" in last.text or last.text[-1:] not in ".!?\"')*"
    gap = "\n\n" if own_line or block else " "
    return [replace(last, gap=gap), *_split_insertion(text, "", kind)]


def _split_insertion(text: str, gap: str, kind: str) -> list[Piece]:
    """An insertion may be several segments; each is a piece of its own."""
    parts = [Piece(s.text, s.gap, kind) for s in split(text)]
    return [*parts[:-1], replace(parts[-1], gap=gap)] if parts else []


def _is_sentence(text: str) -> bool:
    return (
        25 <= len(text) <= 260
        and text[0].isupper()
        and text[-1] in ".!"
        and "\n" not in text
        and "**" not in text
        and len(split(text)) == 1
    )


def choose_objectives(
    rng: Random, present: Sequence[str], removed: Sequence[DefectKind], avoid: set[str], held_out: bool = False
) -> list[ObjectiveWording] | None:
    """One to four objectives in random order that ask for `removed` and, without doubt, for nothing else present.

    `present` names everything that was put in; `avoid` are themes that may not be chosen, because the answer itself
    might offend against them.
    """
    removed_names = {kind.name for kind in removed}
    spared = [name for name in present if name not in removed_names]
    objectives: list[ObjectiveWording] = []
    for kind in removed:
        if any(kind.is_removed_by(o) for o in objectives):
            continue
        wish = _draw_fitting(
            partial(kind.draw_objective, rng, held_out), lambda o: _spares_all(o, spared) and o.theme not in avoid
        )
        if wish is None:
            return None
        objectives.append(wish)
    total = max(len(objectives), rng.choice((1, 1, 2, 2, 3, 4)), 1)
    while len(objectives) < min(total, MAX_OBJECTIVES):
        filler = _draw_fitting(
            lambda: _draw_filler(rng, held_out), lambda o: _spares_all(o, present) and o.theme not in avoid
        )
        if filler is None:
            break
        if filler.text not in {o.text for o in objectives}:
            objectives.append(filler)
    rng.shuffle(objectives)
    return objectives or None


def _spares_all(objective: ObjectiveWording, spared: Sequence[str]) -> bool:
    """Whether it is beyond doubt that the objective asks for nothing of the kinds that stay."""
    return all(relation(name, objective.theme) == STAYS for name in spared)


def _draw_filler(rng: Random, held_out: bool) -> ObjectiveWording:
    draw = rng.random()
    if draw < 0.45:
        return built_in_objective(rng.choice(list(BUILT_IN)))
    if draw < 0.65:
        return draw_clean_objective(rng)
    return rng.choice(TRAINING_KINDS if draw < 0.8 else SUBJECTS if draw < 0.84 else WRITTEN).draw_objective(
        rng, held_out
    )


def _draw_fitting(
    make: Callable[[], ObjectiveWording], fits: Callable[[ObjectiveWording], bool]
) -> ObjectiveWording | None:
    for _ in range(12):
        objective = make()
        if fits(objective):
            return objective
    return None


@lru_cache(maxsize=50_000)
def themes_in(text: str) -> frozenset[str]:
    """Kinds of defect, as themes, that a text may hold without having been damaged."""
    return frozenset(kind.name for kind in (*TRAINING_KINDS, *SUBJECTS, *WRITTEN) if kind.occurs_in(text))


def doubtful_themes(answer: PoolAnswer) -> set[str]:
    """Themes of defects that the answer may hold already, so that they are not asked for."""
    themes = themes_in(answer.text)
    loose = {
        theme
        for kind in TRAINING_KINDS
        if kind.name in themes
        for theme in kind.asks
        if theme not in BUILT_IN and theme != "relevance"
    }
    unsafe = (
        set()
        if answer.harmless
        else {"harmless", "safe", "polite", "inclusive", "insult", "threat", "dangerous-encouragement"}
    )
    chatty = {"direct"} if _PLEASANTRY.search(answer.text) else set()
    # What speakers of ours say to each other is seldom to the point.
    rambling = OFF_TOPIC_THEMES if answer.source == SCRIPT else frozenset()
    return themes | loose | unsafe | chatty | rambling
