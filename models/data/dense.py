"""Short answers in which nearly every sentence is for or against some objective.

A realistic answer has one or two defects in four hundred tokens, so only one label in twenty teaches anything. Here a
few sentences of a good answer are mixed with defects of many kinds, whether an objective asks for their removal or not,
and with sentences that only look like defects. There are several objectives, and each sentence has a label for each of
them. Such answers teach nothing of how high scores are in ordinary answers, so a stage on realistic answers has to
follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

from aligner_proxy.text.structure import join, split
from models.defects import SUBJECTS, TRAINING_KINDS, WRITTEN, DefectKind, ObjectiveWording
from models.defects.grammar import capitalise
from models.defects.more import LOOKS
from models.defects.objectives import (
    BUILT_IN,
    FRAMES,
    SHARED,
    built_in_objective,
    draw_clean_objective,
    draw_shared_objective,
)
from models.defects.turns import INVENTED_TURN

from .answers import PoolAnswer
from .inject import Piece, doubtful_themes, kinds_of, pieces_of, rewrite_sentence, themes_in
from .labels import ALIKE, AND, INNOCENT, MIXED, joint_relation, relation
from .pairs import CHANGES, STAYS, Pair

OLDER = tuple(kind for kind in TRAINING_KINDS if kind is not INVENTED_TURN and kind.name != "repetition")
"""Kinds made by grammars whose defects can stand anywhere. A repetition needs the sentence that it repeats, and an
invented turn stands at the end."""
_GROUPS = (WRITTEN, SUBJECTS, OLDER)
_WEIGHTS = (0.4, 0.15, 0.45)
"""How often a kind is drawn from each of the groups."""
_ASKED_BY = {theme: tuple(k for k in (*OLDER, *WRITTEN) if theme in k.asks) for theme in (*BUILT_IN, *SHARED)}
"""By theme, the kinds of defect that an objective of this theme asks to remove."""
_INSIDE = tuple(kind for kind in OLDER if kind.inside is not None)
"""Kinds that can be worked into a sentence of the answer."""
OBJECTIVES = (2, 3, 3, 4, 4, 5, 5)
OWN_PIECES = (2, 3, 4, 5, 6)
STRANGERS = (1, 2, 3, 4)
"""Numbers to draw from: of objectives, of the answer's own sentences, of defects that no objective was drawn for."""
LONGEST_PIECE = 240
"""Characters of the longest sentence of the answer that is used."""
_ONE_KIND, _TWO_KINDS, _BUILT_IN, _SHARED = 0.7, 0.78, 0.89, 0.95
"""Where the sorts of objectives end on a scale from 0 to 1 (`_draw_wish`); the rest asks for no removal."""
_LIST_MARKS = tuple("-*+#`|~>0123456789")


@dataclass(frozen=True, slots=True)
class Wish:
    """One objective, and the kinds of defect from which sentences that go against it are made."""

    objective: ObjectiveWording
    kinds: tuple[DefectKind, ...]


def make_dense_pair(rng: Random, answer: PoolAnswer, strays: Sequence[str]) -> Pair | None:
    """One such answer, with a label of each segment for every objective; None if it cannot be made.

    `strays` are sentences of other answers. It cannot be made if no objective is left, or nothing has to change.
    """
    wishes = _draw_wishes(rng, doubtful_themes(answer))
    if not wishes:
        return None
    objectives = [wish.objective for wish in wishes]
    themes = tuple(objective.theme for objective in objectives)
    short_pieces = [piece for piece in pieces_of(answer.text) if len(piece.text) <= LONGEST_PIECE]
    own_pieces = [_maybe_rewrite(rng, piece) for piece in short_pieces[: rng.choice(OWN_PIECES)]]
    added_pieces = [Piece(text, " ", kind) for kind, text in _draw_sentences(rng, wishes, answer, strays)]
    pieces = [piece for piece in _scatter_pieces(rng, own_pieces, added_pieces) if _is_beyond_doubt(piece, themes)]
    return _label_pieces(pieces, answer.query, objectives) if pieces else None


# ---------------------------------------------------------------- what is asked


def _draw_wishes(rng: Random, avoid: set[str]) -> list[Wish]:
    """Different objectives without the themes in `avoid`, which the answer itself might offend against."""
    wishes: dict[str, Wish] = {}
    for _ in range(rng.choice(OBJECTIVES)):
        wish = _draw_wish(rng)
        if not avoid & set(wish.objective.theme.split(AND)):
            wishes.setdefault(wish.objective.text, wish)
    return list(wishes.values())


def _draw_wish(rng: Random) -> Wish:
    """A random wish: mostly about one kind of defect, else about two, a broad one, or one that asks for no removal."""
    draw = rng.random()
    if draw < _ONE_KIND:
        kind = _draw_kind(rng)
        return Wish(vary_objective(rng, _word_objective(rng, kind)), (kind,))
    if draw < _TWO_KINDS:
        kind = _draw_kind(rng)
        other_kind = _draw_kind(rng)
        if kind is not other_kind:
            return Wish(
                join_objectives(rng, _word_objective(rng, kind), _word_objective(rng, other_kind)), (kind, other_kind)
            )
    if draw < _SHARED:
        broad = (
            built_in_objective(rng.choice(list(BUILT_IN)))
            if draw < _BUILT_IN
            else draw_shared_objective(rng, rng.choice(list(SHARED)))
        )
        kinds = _ASKED_BY[broad.theme]
        return Wish(broad, tuple(rng.sample(kinds, k=min(len(kinds), 2))))
    return Wish(draw_clean_objective(rng), ())


def _draw_kind(rng: Random) -> DefectKind:
    return rng.choice(rng.choices(_GROUPS, _WEIGHTS)[0])


def _word_objective(rng: Random, kind: DefectKind) -> ObjectiveWording:
    """An objective that asks for the removal of this kind.

    A written kind has objectives of its own; sometimes it gets one from a frame: "Rule: no unasked advice".
    """
    if kind.texts and rng.random() < 0.3:
        thing = kind.name.replace("-", " ")
        text = rng.choice(FRAMES).format(name=rng.choice(("Content", "Tone", "Rule", f"No {thing}")), thing=thing)
        return ObjectiveWording(capitalise(text), kind.name)
    return kind.draw_objective(rng)


def vary_objective(rng: Random, objective: ObjectiveWording) -> ObjectiveWording:
    """The objective, sometimes without its name or its full stop: "Tone: be kind." -> "Be kind"."""
    text = objective.text
    if objective.theme in BUILT_IN:
        return objective
    name, mark, rest = text.partition(": ")
    if mark and len(name) < 40 and rng.random() < 0.2:
        text = capitalise(rest)
    if rng.random() < 0.15:
        text = text.rstrip(".")
    return ObjectiveWording(text, objective.theme)


def join_objectives(rng: Random, one: ObjectiveWording, other: ObjectiveWording) -> ObjectiveWording:
    """Two objectives as one; a sentence that goes against either of them goes against it."""
    pair = [one.text.rstrip("."), other.text]
    return ObjectiveWording(rng.choice((". ", "; also: ", ". And: ")).join(pair), one.theme + AND + other.theme)


# ---------------------------------------------------------------- what is said


def _draw_sentences(
    rng: Random, wishes: Sequence[Wish], answer: PoolAnswer, strays: Sequence[str]
) -> list[tuple[str, str]]:
    """All sentences to mix into the answer, each as (kind of defect, text)."""
    sentences: list[tuple[str, str]] = []
    for wish in wishes:
        for kind in wish.kinds:
            sentences += [_make_offence(rng, kind, answer) for _ in range(rng.choice((1, 1, 1, 2)))]
            sentences += _draw_lookalikes(rng, kind, 0.6)
    for _ in range(rng.choice(STRANGERS)):
        kind = _draw_stranger(rng, wishes)
        sentences.append(_make_offence(rng, kind, answer))
        sentences += _draw_lookalikes(rng, kind, 0.25)
    sentences += [(INNOCENT, rng.choice(strays)) for _ in range(rng.choice((0, 1, 1, 2)))]
    return [(kind, text) for kind, text in sentences if text]


def _make_offence(rng: Random, kind: DefectKind, answer: PoolAnswer) -> tuple[str, str]:
    return kind.name, kind.make(rng, answer.query, answer.text, held_out=False)


def _draw_lookalikes(rng: Random, kind: DefectKind, share: float) -> list[tuple[str, str]]:
    """With probability `share`, one sentence that only looks like this kind, as (kind, text)."""
    lookalikes = kind.alike[:-1] or LOOKS.get(kind.name, ())
    return [(kind.name + ALIKE, rng.choice(lookalikes))] if lookalikes and rng.random() < share else []


def _draw_stranger(rng: Random, wishes: Sequence[Wish]) -> DefectKind:
    """A kind that perhaps no wish asks for; half of the time from the same area as a kind that is asked for."""
    wished_kinds = [kind for wish in wishes for kind in wish.kinds]
    if wished_kinds and rng.random() < 0.5:
        # only written kinds have areas; all others count as one
        area = rng.choice(wished_kinds).area
        candidates = [kind for kind in WRITTEN if kind.area == area] if area else OLDER
        return rng.choice(candidates)
    return _draw_kind(rng)


def _maybe_rewrite(rng: Random, piece: Piece) -> Piece:
    """A sentence of the answer, sometimes with a defect worked into it."""
    if rng.random() > 0.12:
        return piece
    new_pieces = rewrite_sentence(rng, [piece], rng.choice(_INSIDE))
    return new_pieces[0] if new_pieces else piece


def _scatter_pieces(rng: Random, own: Sequence[Piece], added: list[Piece]) -> list[Piece]:
    """The answer's own sentences in their order, with the added ones anywhere before, between and after them."""
    rng.shuffle(added)
    places = sorted(rng.randint(0, len(own)) for _ in added)
    pieces: list[Piece] = []
    for number in range(len(own) + 1):
        pieces += [piece for place, piece in zip(places, added, strict=True) if place == number]
        pieces += own[number : number + 1]
    return [
        replace(piece, gap=_choose_gap(rng, piece, next_piece))
        for piece, next_piece in zip(pieces, [*pieces[1:], None], strict=True)
    ]


def _choose_gap(rng: Random, piece: Piece, next_piece: Piece | None) -> str:
    """The white space after a piece: an empty line beside list items and blocks, else mostly a space."""
    if next_piece is None:
        return ""
    has_list_mark = any(neighbour.text.lstrip()[:1] in _LIST_MARKS for neighbour in (piece, next_piece))
    is_block = has_list_mark or "\n" in piece.text or piece.text[-1:] not in ".!?\"')"
    return "\n\n" if is_block or rng.random() < 0.08 else " "


# ---------------------------------------------------------------- what is known


def _is_beyond_doubt(piece: Piece, themes: Sequence[str]) -> bool:
    """Whether the labels of a sentence are certain.

    They are not, if the sentence has words of another theme under which its label would be that it stays.
    """
    single_themes = {wish for theme in themes for wish in theme.split(AND)}
    doubts = themes_in(piece.text) & single_themes - {piece.kind, piece.kind.removesuffix(ALIKE)}
    return not any(relation(piece.kind, theme) == STAYS for theme in doubts)


def _label_pieces(pieces: Sequence[Piece], query: str, objectives: Sequence[ObjectiveWording]) -> Pair | None:
    """The pair of these pieces under these objectives; None if nothing has to change, or nothing would be left."""
    answer = "".join(piece.text + piece.gap for piece in pieces).rstrip()
    kinds = [kinds_inside.pop() if len(kinds_inside) == 1 else MIXED for kinds_inside in kinds_of(answer, pieces)]
    themes = tuple(objective.theme for objective in objectives)
    labels = tuple(joint_relation(kind, themes) for kind in kinds)
    if CHANGES not in labels:
        return None
    original_of = {piece.text: piece.original for piece in pieces if piece.original is not None}
    repaired = [
        (original_of.get(segment.text, "") if label == CHANGES else segment.text, segment.gap)
        for segment, label in zip(split(answer), labels, strict=True)
    ]
    target = join(repaired)
    if not target.strip():
        return None
    texts = tuple(objective.text for objective in objectives)
    return Pair(query, texts, answer, target, labels, "dense", kinds=tuple(kinds), themes=themes)
