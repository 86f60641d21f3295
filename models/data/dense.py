"""Short answers in which nearly every sentence is for or against some objective.

An answer of natural density holds one or two defects in four hundred tokens, so that one label in twenty teaches
anything. Here a few sentences of a good answer stand among offending ones of many kinds, asked for or not, and their
look-alikes, under several objectives; each sentence is judged by each of them. Levels are not to be learned from this:
a stage on answers as they are has to follow.
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

# Those that are understood by themselves: a repetition needs what it repeats, an invented turn its place at the end.
OLDER = tuple(kind for kind in TRAINING_KINDS if kind is not INVENTED_TURN and kind.name != "repetition")
_GROUPS = (WRITTEN, SUBJECTS, OLDER)
_WEIGHTS = (0.4, 0.15, 0.45)
_ASKED_BY = {theme: tuple(k for k in (*OLDER, *WRITTEN) if theme in k.asks) for theme in (*BUILT_IN, *SHARED)}
_INSIDE = tuple(kind for kind in OLDER if kind.inside is not None)
OBJECTIVES = (2, 3, 3, 4, 4, 5, 5)
OWN_PIECES = (2, 3, 4, 5, 6)
STRANGERS = (1, 2, 3, 4)
LONGEST_PIECE = 240
_LIST_MARKS = tuple("-*+#`|~>0123456789")


@dataclass(frozen=True, slots=True)
class Wish:
    """One objective, and the kinds of defect of which its sentences are taken."""

    objective: ObjectiveWording
    kinds: tuple[DefectKind, ...]


def make_dense_pair(rng: Random, answer: PoolAnswer, strays: Sequence[str]) -> Pair | None:
    """One such answer, with its segments labelled for every objective; None where the cut does not agree."""
    wishes = _draw_wishes(rng, doubtful_themes(answer))
    if not wishes:
        return None
    objectives = [wish.objective for wish in wishes]
    themes = tuple(objective.theme for objective in objectives)
    own = [p for p in pieces_of(answer.text) if len(p.text) <= LONGEST_PIECE][: rng.choice(OWN_PIECES)]
    own = [_maybe_rewrite(rng, piece) for piece in own]
    added = [Piece(text, " ", kind) for kind, text in _draw_sentences(rng, wishes, answer, strays)]
    pieces = [p for p in _scatter_pieces(rng, own, added) if _is_beyond_doubt(p, themes)]
    return _label_pieces(pieces, answer.query, objectives) if pieces else None


# ---------------------------------------------------------------- what is asked


def _draw_wishes(rng: Random, avoid: set[str]) -> list[Wish]:
    """Different objectives, none of which the answer itself might offend against."""
    wishes: dict[str, Wish] = {}
    for _ in range(rng.choice(OBJECTIVES)):
        wish = _draw_wish(rng)
        if not avoid & set(wish.objective.theme.split(AND)):
            wishes.setdefault(wish.objective.text, wish)
    return list(wishes.values())


def _draw_wish(rng: Random) -> Wish:
    draw = rng.random()
    if draw < 0.7:
        kind = _draw_kind(rng)
        return Wish(vary_objective(rng, _word_objective(rng, kind)), (kind,))
    if draw < 0.78:
        one = _draw_kind(rng)
        other = _draw_kind(rng)
        if one is not other:
            return Wish(join_objectives(rng, _word_objective(rng, one), _word_objective(rng, other)), (one, other))
    if draw < 0.95:
        broad = (
            built_in_objective(rng.choice(list(BUILT_IN)))
            if draw < 0.89
            else draw_shared_objective(rng, rng.choice(list(SHARED)))
        )
        kinds = _ASKED_BY[broad.theme]
        return Wish(broad, tuple(rng.sample(kinds, k=min(len(kinds), 2))))
    return Wish(draw_clean_objective(rng), ())


def _draw_kind(rng: Random) -> DefectKind:
    return rng.choice(rng.choices(_GROUPS, _WEIGHTS)[0])


def _word_objective(rng: Random, kind: DefectKind) -> ObjectiveWording:
    """A wording for this kind; those that are written out are now and then named in the frames of the others."""
    if kind.texts and rng.random() < 0.3:
        thing = kind.name.replace("-", " ")
        text = rng.choice(FRAMES).format(name=rng.choice(("Content", "Tone", "Rule", f"No {thing}")), thing=thing)
        return ObjectiveWording(capitalise(text), kind.name)
    return kind.draw_objective(rng)


def vary_objective(rng: Random, objective: ObjectiveWording) -> ObjectiveWording:
    """The same wish a little differently: without its name, without its full stop, or as it is."""
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
    """Two wishes as one objective; a sentence goes against it that goes against either."""
    pair = [one.text.rstrip("."), other.text]
    return ObjectiveWording(rng.choice((". ", "; also: ", ". And: ")).join(pair), one.theme + AND + other.theme)


# ---------------------------------------------------------------- what is said


def _draw_sentences(
    rng: Random, wishes: Sequence[Wish], answer: PoolAnswer, strays: Sequence[str]
) -> list[tuple[str, str]]:
    """(kind, text) of everything that is put in."""
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
    return kind.name, kind.make(rng, answer.query, answer.text, False)


def _draw_lookalikes(rng: Random, kind: DefectKind, share: float) -> list[tuple[str, str]]:
    lookalikes = kind.alike[:-1] or LOOKS.get(kind.name, ())
    return [(kind.name + ALIKE, rng.choice(lookalikes))] if lookalikes and rng.random() < share else []


def _draw_stranger(rng: Random, wishes: Sequence[Wish]) -> DefectKind:
    """A kind that may not be asked for; half of them from the area of one that is."""
    wished_kinds = [kind for wish in wishes for kind in wish.kinds]
    if wished_kinds and rng.random() < 0.5:
        near = rng.choice(wished_kinds)
        group = [k for k in (WRITTEN if near.area else OLDER) if (k.area == near.area if near.area else True)]
        return rng.choice(group)
    return _draw_kind(rng)


def _maybe_rewrite(rng: Random, piece: Piece) -> Piece:
    """A sentence of the answer itself, sometimes with a defect worked into it."""
    if rng.random() > 0.12:
        return piece
    new_pieces = rewrite_sentence(rng, [piece], rng.choice(_INSIDE))
    return new_pieces[0] if new_pieces else piece


def _scatter_pieces(rng: Random, own: Sequence[Piece], added: list[Piece]) -> list[Piece]:
    """The answer's own sentences in their order, the others anywhere between."""
    rng.shuffle(added)
    places = sorted(rng.randint(0, len(own)) for _ in added)
    pieces: list[Piece] = []
    for i in range(len(own) + 1):
        pieces += [piece for at, piece in zip(places, added, strict=True) if at == i]
        pieces += own[i : i + 1]
    return [replace(p, gap=_choose_gap(rng, p, after)) for p, after in zip(pieces, [*pieces[1:], None], strict=True)]


def _choose_gap(rng: Random, piece: Piece, next_piece: Piece | None) -> str:
    if next_piece is None:
        return ""
    marked = any(p.text.lstrip()[:1] in _LIST_MARKS for p in (piece, next_piece))
    block = marked or "\n" in piece.text or piece.text[-1:] not in ".!?\"')"
    return "\n\n" if block or rng.random() < 0.08 else " "


# ---------------------------------------------------------------- what is known


def _is_beyond_doubt(piece: Piece, themes: Sequence[str]) -> bool:
    """Whether nothing in the sentence speaks of an objective that is said not to mind it."""
    single = {one for theme in themes for one in theme.split(AND)}
    doubts = themes_in(piece.text) & single - {piece.kind, piece.kind.removesuffix(ALIKE)}
    return not any(relation(piece.kind, theme) == STAYS for theme in doubts)


def _label_pieces(pieces: Sequence[Piece], query: str, objectives: Sequence[ObjectiveWording]) -> Pair | None:
    answer = "".join(p.text + p.gap for p in pieces).rstrip()
    kinds = [inside.pop() if len(inside) == 1 else MIXED for inside in kinds_of(answer, pieces)]
    themes = tuple(o.theme for o in objectives)
    labels = tuple(joint_relation(kind, themes) for kind in kinds)
    if CHANGES not in labels:
        return None
    before = {p.text: p.original for p in pieces if p.original is not None}
    repaired = [
        (before.get(s.text, "") if label == CHANGES else s.text, s.gap)
        for s, label in zip(split(answer), labels, strict=True)
    ]
    target = join(repaired)
    if not target.strip():
        return None
    texts = tuple(o.text for o in objectives)
    return Pair(query, texts, answer, target, labels, "dense", kinds=tuple(kinds), themes=themes)
