"""What does a preference text wish for? The checkable part as wishes, the rest in its own words.

English. What is not understood is never guessed at: it stays among the words. A sentence that holds only at times (if,
unless ...) is left there whole. Every pattern is tried sentence by sentence, so time grows linearly with the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from aligner_proxy.preferences import lexicon as say
from aligner_proxy.wishes import Wish, WishKind, WishSource

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|[;\n]+")
_WORDS = re.compile(r"[^\W_]+(?:['-][^\W_]+)*")
_LONGEST_SENTENCE = 1_000
_MOST_BANNED = 20


@dataclass(slots=True)
class Read:
    """What a text wishes for; `words` is what is left of it, "" where nothing is."""

    wishes: list[Wish] = field(default_factory=list)
    words: str = ""


def read(text: str, source: WishSource) -> Read:
    """The wishes of one text, in the order in which they are said; of one kind the last counts."""
    found: dict[WishKind, Wish] = {}
    rest: list[str] = []
    for sentence in filter(None, map(str.strip, _SENTENCE_END.split(text))):
        plain = sentence.lower().replace("\u2019", "'").replace("\u2018", "'")
        if len(sentence) > _LONGEST_SENTENCE or len(plain) != len(sentence) or say.CONDITION.search(plain):
            rest.append(sentence)
            continue
        taken: list[tuple[int, int]] = []
        for wish, span in _wishes(plain, sentence, source):
            found.pop(wish.kind, None)
            found[wish.kind] = wish
            taken.append(span)
        rest.append(_left(sentence, taken))
    return Read(list(found.values()), " ".join(piece for piece in rest if piece))


_Found = tuple[Wish, tuple[int, int]]


def _wishes(plain: str, sentence: str, source: WishSource) -> Iterator[_Found]:
    yield from _lengths(plain, source)
    yield from _unwanted(plain, source)
    yield from _unwanted_behind(plain, source)
    yield from _wanted(plain, source)
    yield from _forms(plain, source)
    yield from _banned(plain, sentence, source)
    for match in say.LANGUAGE.finditer(plain):
        if not _negated(plain, match.start()):
            name = match.group("language") or match.group("language2")
            yield Wish(WishKind.LANGUAGE, source, words=say.LANGUAGES[name]), match.span()


def _lengths(plain: str, source: WishSource) -> Iterator[_Found]:
    """Bounds of length; the first pattern that has a place keeps it."""
    taken: list[tuple[int, int]] = []
    patterns = (
        (say.LEAST_AFTER, False, 0),
        (say.MOST_AFTER, True, 0),
        (say.LEAST, False, 0),
        (say.UNDER, True, -1),
        (say.MOST, True, 0),
        (say.OVER, False, 1),
        (say.LIMIT_OF, True, 0),
        (say.SHORTLY, True, 0),
        (say.HYPHENED, True, 0),
        (say.ONE, True, 0),
    )
    for pattern, most, more in patterns:
        for match in pattern.finditer(plain):
            if any(start < match.end() and match.start() < end for start, end in taken):
                continue
            taken.append(match.span())
            groups = match.groupdict()
            if pattern in (say.UNDER, say.OVER) and _negated(plain, match.start()):  # "never more than": at most
                most, more = not most, 0
            kind = next(kinds for name, kinds in say.UNITS.items() if groups["unit"].startswith(name))[0 if most else 1]
            number = _number(groups.get("n")) + more
            if kind is not None and number > 0:
                yield Wish(kind, source, number), match.span()


def _number(said: str | None) -> int:
    if said is None:
        return 1
    said = said.replace(",", "")
    if said.isdigit():
        return int(said)
    if said in say.NUMBERS:
        return say.NUMBERS[said]
    return sum(say.NUMBERS[part] for part in re.split(r"[- ]", said))


def _unwanted(plain: str, source: WishSource) -> Iterator[_Found]:
    """Things behind a word of refusal, as far as it reaches; and things that something is to be free of."""
    for no in say.NOT.finditer(plain):
        reach = _reach(plain, no.end())
        for kind, pattern in say.THING.items():
            for match in pattern.finditer(plain, no.end(), reach):
                if kind is WishKind.NO_QUESTIONS and say.QUESTION_LAST.search(plain):
                    continue
                yield Wish(kind, source), (no.start(), match.end())


def _unwanted_behind(plain: str, source: WishSource) -> Iterator[_Found]:
    """The same where the refusal stands behind the thing, or is a part of its name."""
    for kind, pattern in say.THING.items():
        for match in pattern.finditer(plain):
            if behind := say.BEHIND.match(plain, match.end()):
                yield Wish(kind, source), (match.start(), behind.end())
    for kind, pattern in say.FREE.items():
        yield from ((Wish(kind, source), match.span()) for match in pattern.finditer(plain))


def _reach(plain: str, start: int) -> int:
    """Up to where a word of refusal holds: the next turn, which may not be its own verb."""
    turn = say.TURN.search(plain, _own_verb(plain, start))
    return turn.start() if turn else len(plain)


def _own_verb(plain: str, start: int) -> int:
    """Behind the verbs that belong to a refusal: "do not ever use any", "never reply with"."""
    match = re.compile(
        r"(?:[ ,]*\b(?:ever|please|use|using|include|write|give|add|put|make|want|like|send|present|answer|"
        r"reply|respond|"
        r"format|need|be|in|with|me|any|of|the|a|an|to|as|it|your|my|or|see|seeing|contain|have|employ|just|"
        r"rely on|resort to|end|finish|close|conclude)\b)*"
    ).match(plain, start)
    return match.end() if match else start


def _negated(plain: str, at: int) -> bool:
    """Whether a word of refusal reaches this place."""
    return any(no.end() <= at < _reach(plain, no.end()) for no in say.NOT.finditer(plain))


def _wanted(plain: str, source: WishSource) -> Iterator[_Found]:
    """Things that are asked for."""
    for kind, other in say.WANTED.items():
        for match in say.THING[kind].finditer(plain):
            before = say.WANTING.search(plain[max(0, match.start() - 60) : match.start()])
            refused = _negated(plain, match.start()) or say.BEHIND.match(plain, match.end())
            if before and not refused and not plain.startswith(("-free", " free"), match.end()):
                yield Wish(other, source), (match.start() - len(before.group()), match.end())


def _forms(plain: str, source: WishSource) -> Iterator[_Found]:
    """What a word or two says by itself."""
    patterns = (
        (say.PROSE, (WishKind.NO_LISTS,)),
        (say.PLAIN, (WishKind.NO_MARKDOWN,)),
        (say.SPELL_OUT, (WishKind.NO_CONTRACTIONS,)),
        (say.UPPER, (WishKind.UPPER_CASE,)),
        (say.LOWER, (WishKind.LOWER_CASE,)),
        (say.QUESTION_LAST, (WishKind.ENDS_WITH_QUESTION,)),
    )
    for pattern, kinds in patterns:
        for match in pattern.finditer(plain):
            if not _negated(plain, match.start()):
                yield from ((Wish(kind, source), match.span()) for kind in kinds)
    for match in say.FORMAL.finditer(plain):
        if not _negated(plain, match.start()):  # the word stays: an aligner can do more for it than rules
            yield from ((Wish(kind, source), (0, 0)) for kind in (WishKind.NO_CONTRACTIONS, WishKind.NO_EMOJI))


def _banned(plain: str, sentence: str, source: WishSource) -> Iterator[_Found]:
    for match in say.BANNED.finditer(plain):
        listed = next(name for name in ("rest", "rest2", "rest3", "rest4", "rest5") if match.group(name))
        start, end = match.span(listed)
        quoted = say.QUOTES.findall(sentence[start:end])
        words = quoted or [word.strip(" '\"") for word in re.split(r",| or | and |\bnor\b", sentence[start:end])]
        words = [word.strip() for word in words if 0 < len(word.strip()) <= 40][:_MOST_BANNED]
        if words:
            yield Wish(WishKind.BANNED_WORDS, source, words=tuple(words)), match.span()


def _left(sentence: str, taken: list[tuple[int, int]]) -> str:
    """What was not understood, clause by clause; clauses of nothing but small words go."""
    kept, at = "", 0
    for start, end in sorted(span for span in taken if span[1]):
        kept += sentence[at : max(at, start)] + ("," if start > at else "")
        at = max(at, end)
    kept += sentence[at:]
    clauses = re.split(r"[,;:]|\.\s|\s(?:and|but)\s", kept)
    telling = [clause.strip(" .;,!-") for clause in clauses if _tells(clause)]
    if not taken:
        return sentence if telling else ""
    return ", ".join(telling)


def _tells(clause: str) -> bool:
    return any(word not in say.FILLER for word in _WORDS.findall(clause.lower().replace("\u2019", "'")))
