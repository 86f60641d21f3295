"""Injection of defects: a good answer becomes a pair with objectives, labels and a target.

A draft is a list of pieces: segments of the answer, inserted defects, and rewritten sentences. After they are joined,
the answer is divided into segments again. If a segment then has parts of several pieces that do not all go, there is no
pair.
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
_OBJECTIVE_TRIES = 12
_PLEASANTRY = re.compile(
    r"(?i)^(sure|certainly|of course|absolutely|great|okay|ok|yes!|hi\b|hello|thank)|happy to|glad to|I'll walk"
)
_LIST_MARK = ("-", "*", "+", "#", "`", "|", "~", ">")
_THEMES_OF_HARM = frozenset(["harmless", "safe", "polite", "inclusive", "insult", "threat", "dangerous-encouragement"])
"""Themes against which an answer may go that was not found to be harmless."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Text and the white space after it; `kind` is its defect ("" for none), `original` what it was rewritten from."""

    text: str
    gap: str
    kind: str = ""
    original: str | None = None


def pieces_of(text: str) -> list[Piece]:
    """The segments of an answer as pieces without defects."""
    return [Piece(segment.text, segment.gap) for segment in split(text)]


def take_opening(pieces: list[Piece], longest: int) -> list[Piece]:
    """The first pieces, at most `longest` characters together, but at least one piece."""
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
    """The pieces with one defect more; None if there is none for this place.

    `write` is given the text before the place of the defect, and returns the defect.
    """
    position = _choose_position(rng, pieces, kind)
    text_before = "".join(piece.text + piece.gap for piece in pieces[:position])
    text = write(text_before)
    if not text:
        return None
    return _insert_piece(rng, pieces, position, text, kind.name, own_line=rng.random() < kind.own_line)


def insert_innocent(rng: Random, pieces: list[Piece], sentence: str) -> list[Piece] | None:
    """The pieces with a sentence of another answer, anywhere among them."""
    return _insert_piece(rng, pieces, rng.randint(0, len(pieces)), sentence, INNOCENT, own_line=rng.random() < 0.2)


def insert_alike(rng: Random, pieces: list[Piece], kind: DefectKind, held_out: bool) -> list[Piece] | None:
    """The pieces with a sentence that looks like a defect of this kind and is none, anywhere among them."""
    text = rng.choice(kind.alike[-1:] if held_out else kind.alike[:-1])
    return _insert_piece(rng, pieces, rng.randint(0, len(pieces)), text, kind.name + ALIKE, own_line=rng.random() < 0.2)


def rewrite_sentence(rng: Random, pieces: list[Piece], kind: DefectKind) -> list[Piece] | None:
    """The pieces with this defect worked into one sentence of the answer; None if no sentence is fit for it."""
    places = [place for place, piece in enumerate(pieces) if not piece.kind and _is_sentence(piece.text)]
    if not places or kind.inside is None:
        return None
    at = rng.choice(places)
    old = pieces[at]
    text = kind.rewrite(rng, old.text)
    if text == old.text:
        return None
    return [*pieces[:at], Piece(text, old.gap, kind.name, old.text), *pieces[at + 1 :]]


def make_pair(
    pieces: Sequence[Piece], removed_names: set[str], query: str, objectives: Sequence[ObjectiveWording], source: str
) -> Pair | None:
    """The pair whose target is the answer without the defects of the kinds `removed_names`.

    None if a segment of the answer has parts that go and parts that stay, or if nothing would be left.
    """
    answer = "".join(piece.text + piece.gap for piece in pieces).rstrip()
    kinds_inside = kinds_of(answer, pieces)
    if any(kinds & removed_names and kinds - removed_names for kinds in kinds_inside):
        return None
    labels = [CHANGES if kinds & removed_names else STAYS for kinds in kinds_inside]
    kinds = [kinds.pop() if len(kinds) == 1 else MIXED for kinds in kinds_inside]
    repaired_pieces = [(_repair_piece(piece, removed_names), piece.gap) for piece in pieces]
    target = join(repaired_pieces)
    if not target.strip():
        return None
    # if nothing was rewritten, taking out the segments that change has to give the target
    if all(piece.original is None for piece in pieces if piece.kind in removed_names):
        remaining = [
            ("" if label else segment.text, segment.gap) for segment, label in zip(split(answer), labels, strict=True)
        ]
        if join(remaining) != target:
            return None
    texts = tuple(objective.text for objective in objectives)
    themes = tuple(objective.theme for objective in objectives)
    return Pair(query, texts, answer, target, tuple(labels), source, kinds=tuple(kinds), themes=themes)


def _repair_piece(piece: Piece, removed_names: set[str]) -> str:
    """The text of a piece in the target: of a defect that goes, its original or nothing."""
    if piece.kind not in removed_names:
        return piece.text
    return piece.original or ""


def kinds_of(answer: str, pieces: Sequence[Piece]) -> list[set[str]]:
    """The kinds of defect in each segment of the answer, "" for none; several if pieces became one segment."""
    places: list[tuple[int, int, str]] = []
    position = 0
    for piece in pieces:
        places.append((position, position + len(piece.text), piece.kind))
        position += len(piece.text) + len(piece.gap)
    return [
        {kind for start, end, kind in places if start < segment.end and segment.start < end}
        for segment in split(answer)
    ]


def _choose_position(rng: Random, pieces: list[Piece], kind: DefectKind) -> int:
    """The index before which a defect is inserted: mostly at its usual place, if it has one."""
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
    """Insert `text` before the piece `at`; who removes the new piece and its gap gets the original text back.

    So the pieces before it keep their gaps, and only the gap after the new piece is chosen: a line break if the text
    gets a line of its own (`own_line`), or if a list item or another block follows.
    """
    before = pieces[:at]
    after = pieces[at:]
    if not after:
        return [*before[:-1], *_append_piece(before, text, kind, own_line)]
    gap_before = before[-1].gap if before else "\n\n"
    begins_line = "\n" in gap_before
    if before and not begins_line:
        return [*before, *_split_insertion(text, gap_before or " ", kind), *after]
    gap_after = gap_before if own_line or _starts_block(after[0]) else " "
    return [*before, *_split_insertion(text, gap_after, kind), *after]


def _starts_block(piece: Piece) -> bool:
    """Whether a piece seems to be a list item, or has several lines: no text can stand before it on its line."""
    first_sign = piece.text.lstrip()[:1]
    return first_sign in _LIST_MARK or first_sign.isdigit() or "\n" in piece.text


def _append_piece(before: list[Piece], text: str, kind: str, own_line: bool) -> list[Piece]:
    """The last piece with a gap, and the new text after it; an empty line between them if one of them is a block."""
    if not before:
        return _split_insertion(text, "", kind)
    last = before[-1]
    is_block = "\n" in last.text or last.text[-1:] not in ".!?\"')*"
    gap = "\n\n" if own_line or is_block else " "
    return [replace(last, gap=gap), *_split_insertion(text, "", kind)]


def _split_insertion(text: str, gap: str, kind: str) -> list[Piece]:
    """The pieces of an inserted text, one for each of its segments, with `gap` after the last one."""
    parts = [Piece(segment.text, segment.gap, kind) for segment in split(text)]
    return [*parts[:-1], replace(parts[-1], gap=gap)] if parts else []


def _is_sentence(text: str) -> bool:
    """Whether a segment is one plain sentence, neither very short nor very long, into which a defect can be worked."""
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
    """One to four objectives in random order that ask for the removal of the kinds `removed`; None if there are none.

    They surely ask for the removal of nothing else in the answer, of which `present` names all that was put in. `avoid`
    are themes that may not be chosen, because the answer itself might offend against them.
    """
    removed_names = {kind.name for kind in removed}
    spared = [name for name in present if name not in removed_names]
    objectives: list[ObjectiveWording] = []
    for kind in removed:
        if any(kind.is_removed_by(objective) for objective in objectives):
            continue
        wish = _draw_fitting(
            partial(kind.draw_objective, rng, held_out),
            lambda objective: _spares_all(objective, spared) and objective.theme not in avoid,
        )
        if wish is None:
            return None
        objectives.append(wish)
    total = max(len(objectives), rng.choice((1, 1, 2, 2, 3, 4)), 1)
    while len(objectives) < min(total, MAX_OBJECTIVES):
        filler = _draw_fitting(
            lambda: _draw_filler(rng, held_out),
            lambda objective: _spares_all(objective, present) and objective.theme not in avoid,
        )
        if filler is None:
            break
        if filler.text not in {objective.text for objective in objectives}:
            objectives.append(filler)
    rng.shuffle(objectives)
    return objectives or None


def _spares_all(objective: ObjectiveWording, spared: Sequence[str]) -> bool:
    """Whether the objective surely asks for the removal of none of the kinds `spared`."""
    return all(relation(name, objective.theme) == STAYS for name in spared)


def _draw_filler(rng: Random, held_out: bool) -> ObjectiveWording:
    """Any objective: a built-in one, one that asks for no removal, or one about a random kind of defect."""
    draw = rng.random()
    if draw < 0.45:
        return built_in_objective(rng.choice(list(BUILT_IN)))
    if draw < 0.65:
        return draw_clean_objective(rng)
    kinds: Sequence[DefectKind] = WRITTEN
    if draw < 0.8:
        kinds = TRAINING_KINDS
    elif draw < 0.84:
        kinds = SUBJECTS
    return rng.choice(kinds).draw_objective(rng, held_out)


def _draw_fitting(
    make: Callable[[], ObjectiveWording], fits: Callable[[ObjectiveWording], bool]
) -> ObjectiveWording | None:
    """The first of a dozen drawn objectives that fits; None if none does."""
    for _ in range(_OBJECTIVE_TRIES):
        objective = make()
        if fits(objective):
            return objective
    return None


@lru_cache(maxsize=50_000)
def themes_in(text: str) -> frozenset[str]:
    """The names of kinds of defect that a text may have by itself, by its words."""
    return frozenset(kind.name for kind in (*TRAINING_KINDS, *SUBJECTS, *WRITTEN) if kind.occurs_in(text))


def doubtful_themes(answer: PoolAnswer) -> set[str]:
    """Themes against which the answer may go already, so no objective with such a theme is chosen."""
    themes_of_words = themes_in(answer.text)
    doubtful = set(themes_of_words)
    for kind in TRAINING_KINDS:
        if kind.name in themes_of_words:
            doubtful |= {theme for theme in kind.asks if theme not in BUILT_IN and theme != "relevance"}
    if not answer.harmless:
        doubtful |= _THEMES_OF_HARM
    if _PLEASANTRY.search(answer.text):
        doubtful.add("direct")
    # The speakers in our dialogues seldom keep to the topic.
    if answer.source == SCRIPT:
        doubtful |= OFF_TOPIC_THEMES
    return doubtful
