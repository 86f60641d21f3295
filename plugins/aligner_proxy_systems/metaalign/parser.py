"""Parser of preference texts: checkable wishes become preferences, and the rest stays as free text.

English only. Anything not understood stays in the free text instead of being guessed. A conditional sentence (if,
unless ...) stays there whole. Patterns run sentence by sentence, so that time grows linearly with the text.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from operator import attrgetter, itemgetter
from typing import NamedTuple

from aligner_proxy_systems.metaalign import lexicon
from aligner_proxy_systems.metaalign.types import Preference, PreferenceKind, PreferenceSource

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|[;\n]+")
_CLAUSE_END = re.compile(r"[,;:]|\.\s|\s(?:and|but)\s")
_WORDS = re.compile(r"[^\W_]+(?:['-][^\W_]+)*")
_LONGEST_SENTENCE = 1_000
"""Characters; a longer sentence stays in the free text, to bound the time of the patterns."""
_MAX_BANNED = 20
"""Banned words that are read from one list."""

_REACH_CHARS = 200
"""Longest reach of a refusal in characters; it is short so that time stays linear."""

_Span = tuple[int, int]
_Match = tuple[Preference, _Span]


@dataclass(frozen=True, slots=True)
class RefusalWord:
    """A word of refusal in a sentence, and where its reach ends."""

    start: int
    end: int
    reach_end: int


class _LengthPattern(NamedTuple):
    """A pattern of a bound of length, such as "under 100 words"."""

    pattern: re.Pattern[str]
    is_upper: bool
    """Whether it states an upper bound."""
    step: int = 0
    """What to add to the number: "under 100" means at most 99."""


_LENGTH_PATTERNS = (
    _LengthPattern(lexicon.MIN_AFTER, is_upper=False),
    _LengthPattern(lexicon.MAX_AFTER, is_upper=True),
    _LengthPattern(lexicon.LEAST, is_upper=False),
    _LengthPattern(lexicon.UNDER, is_upper=True, step=-1),
    _LengthPattern(lexicon.MOST, is_upper=True),
    _LengthPattern(lexicon.OVER, is_upper=False, step=1),
    _LengthPattern(lexicon.LIMIT_OF, is_upper=True),
    _LengthPattern(lexicon.SHORTLY, is_upper=True),
    _LengthPattern(lexicon.HYPHENED, is_upper=True),
    _LengthPattern(lexicon.ONE, is_upper=True),
)
"""In the order in which they are tried."""


@dataclass(slots=True)
class ParsedText:
    """The checkable preferences of a text; `words` is the remaining text, "" without any."""

    preferences: list[Preference] = field(default_factory=list)
    words: str = ""


def parse(text: str, source: PreferenceSource) -> ParsedText:
    """Parse one text; preferences keep their order, and the last one of a kind counts."""
    by_kind: dict[PreferenceKind, Preference] = {}
    rest: list[str] = []
    for sentence in filter(None, map(str.strip, _SENTENCE_END.split(text))):
        plain = sentence.lower().replace("\u2019", "'").replace("\u2018", "'")
        # lower() may change the length; then the spans would not fit the original.
        if len(sentence) > _LONGEST_SENTENCE or len(plain) != len(sentence) or lexicon.CONDITION.search(plain):
            rest.append(sentence)
            continue
        understood_spans: list[_Span] = []
        for preference, span in _find_preferences(plain, sentence, source):
            # Removed first, so that the later one also takes the later place in the order.
            by_kind.pop(preference.kind, None)
            by_kind[preference.kind] = preference
            understood_spans.append(span)
        rest.append(_cut_remainder(sentence, understood_spans))
    return ParsedText(list(by_kind.values()), " ".join(piece for piece in rest if piece))


def _find_preferences(plain: str, sentence: str, source: PreferenceSource) -> Iterator[_Match]:
    """Yield every preference in a sentence, with the span that states it."""
    refusals = [RefusalWord(*word.span(), _find_reach(plain, word.end())) for word in lexicon.NOT.finditer(plain)]
    yield from _find_lengths(plain, refusals, source)
    yield from _find_unwanted(plain, refusals, source)
    yield from _find_later_refusals(plain, source)
    yield from _find_wanted(plain, refusals, source)
    yield from _find_forms(plain, refusals, source)
    yield from _find_banned_words(plain, sentence, source)
    for match in lexicon.LANGUAGE.finditer(plain):
        if not _is_negated(refusals, match.start()):
            name = match.group("language") or match.group("language2")
            yield Preference(PreferenceKind.LANGUAGE, source, words=lexicon.LANGUAGES[name]), match.span()


def _find_lengths(plain: str, refusals: Sequence[RefusalWord], source: PreferenceSource) -> Iterator[_Match]:
    """Yield bounds of length; a passage that one pattern matched is skipped by the later ones."""
    read_spans: list[_Span] = []
    for length in _LENGTH_PATTERNS:
        for match in length.pattern.finditer(plain):
            if any(start < match.end() and match.start() < end for start, end in read_spans):
                continue
            read_spans.append(match.span())
            # "do not write more than 3" is an upper bound of 3, although "more than 3" is a lower bound of 4.
            is_negated = length.step != 0 and _is_negated(refusals, match.start())
            bound = _parse_number(match.groupdict().get("n")) + (0 if is_negated else length.step)
            kind = _choose_bound_kind(match.group("unit"), is_upper=length.is_upper != is_negated)
            # "under one" gives 0.
            if kind is not None and bound > 0:
                yield Preference(kind, source, bound), match.span()


def _choose_bound_kind(unit: str, *, is_upper: bool) -> PreferenceKind | None:
    """The kind of preference that bounds this unit; None if there is none, as for a minimum of paragraphs."""
    maximum, minimum = next(kinds for name, kinds in lexicon.UNITS.items() if unit.startswith(name))
    return maximum if is_upper else minimum


def _parse_number(numeral: str | None) -> int:
    """The number that a numeral states; 1 if there is none ("in a sentence")."""
    if numeral is None:
        return 1
    numeral = numeral.replace(",", "")
    if numeral.isdigit():
        return int(numeral)
    if numeral in lexicon.NUMBERS:
        return lexicon.NUMBERS[numeral]
    return sum(lexicon.NUMBERS[part] for part in re.split(r"[- ]", numeral))


def _find_unwanted(plain: str, refusals: Sequence[RefusalWord], source: PreferenceSource) -> Iterator[_Match]:
    """Yield a preference for each thing that a refusal reaches, in the order of the refusals.

    A thing that several refusals reach is yielded twice: with the first one, whose span is the longest, so that all of
    it is removed from the free text, and with the last one, which decides the place among the preferences (`parse`).
    """
    wants_question_at_end = lexicon.QUESTION_LAST.search(plain) is not None
    # Start, number of the kind, end, kind: in sorting order.
    matches: list[tuple[int, int, int, PreferenceKind]] = []
    for number, (kind, pattern) in enumerate(lexicon.THING.items()):
        # The word "question" then belongs to the wish for one at the end.
        if kind is PreferenceKind.NO_QUESTIONS and wants_question_at_end:
            continue
        for thing in pattern.finditer(plain):
            nearby = _nearby_refusals(refusals, thing.start())
            reaching = [refusal for refusal in nearby if thing.end() <= refusal.reach_end]
            matches += [(refusal.start, number, thing.end(), kind) for refusal in (*reaching[:1], *reaching[-1:])]
    for start, _, end, kind in sorted(matches, key=itemgetter(0, 1, 2)):
        yield Preference(kind, source), (start, end)


def _find_later_refusals(plain: str, source: PreferenceSource) -> Iterator[_Match]:
    """Yield things with the refusal after them ("lists are banned") or in their name ("emoji-free")."""
    for kind, pattern in lexicon.THING.items():
        for match in pattern.finditer(plain):
            if refusal := lexicon.BEHIND.match(plain, match.end()):
                yield Preference(kind, source), (match.start(), refusal.end())
    for kind, pattern in lexicon.FREE.items():
        yield from ((Preference(kind, source), match.span()) for match in pattern.finditer(plain))


def _find_reach(plain: str, start: int) -> int:
    """Where the reach of a refusal ends: at the next turning word, apart from the refusal's own verb."""
    end = min(len(plain), start + _REACH_CHARS)
    own_verb = _OWN_VERB.match(plain, start, end)
    turn = lexicon.TURN.search(plain, own_verb.end() if own_verb else start, end)
    return turn.start() if turn else end


_OWN_VERB = re.compile(
    r"(?:[ ,]*\b(?:ever|please|use|using|include|write|give|add|put|make|want|like|send|present|answer|"
    r"reply|respond|"
    r"format|need|be|in|with|me|any|of|the|a|an|to|as|it|your|my|or|see|seeing|contain|have|employ|just|"
    r"rely on|resort to|end|finish|close|conclude)\b)*"
)
"""Verbs that belong to the refusal itself: "do not ever use any", "never reply with"."""


def _is_negated(refusals: Sequence[RefusalWord], position: int) -> bool:
    return any(position < refusal.reach_end for refusal in _nearby_refusals(refusals, position))


def _nearby_refusals(refusals: Sequence[RefusalWord], position: int) -> Sequence[RefusalWord]:
    """The refusals before this position that are close enough to reach it."""
    stop = bisect_right(refusals, position, key=attrgetter("end"))
    return refusals[bisect_left(refusals, position - _REACH_CHARS, hi=stop, key=attrgetter("end")) : stop]


def _find_wanted(plain: str, refusals: Sequence[RefusalWord], source: PreferenceSource) -> Iterator[_Match]:
    """Yield things that the text asks for."""
    for kind, opposite in lexicon.WANTED.items():
        for match in lexicon.THING[kind].finditer(plain):
            # 60 characters hold a verb of wanting and the up to 24 characters between it and the thing.
            before = lexicon.WANTING.search(plain[max(0, match.start() - 60) : match.start()])
            is_refused = _is_negated(refusals, match.start()) or lexicon.BEHIND.match(plain, match.end())
            # "emoji-free" is a refusal, see `_find_later_refusals`.
            if before and not is_refused and not plain.startswith(("-free", " free"), match.end()):
                yield Preference(opposite, source), (match.start() - len(before.group()), match.end())


def _find_forms(plain: str, refusals: Sequence[RefusalWord], source: PreferenceSource) -> Iterator[_Match]:
    """Yield preferences that a fixed word or phrase expresses."""
    patterns = (
        (lexicon.PROSE, PreferenceKind.NO_LISTS),
        (lexicon.PLAIN, PreferenceKind.NO_MARKDOWN),
        (lexicon.SPELL_OUT, PreferenceKind.NO_CONTRACTIONS),
        (lexicon.UPPER, PreferenceKind.UPPER_CASE),
        (lexicon.LOWER, PreferenceKind.LOWER_CASE),
        (lexicon.QUESTION_LAST, PreferenceKind.ENDS_WITH_QUESTION),
    )
    for pattern, kind in patterns:
        for match in pattern.finditer(plain):
            if not _is_negated(refusals, match.start()):
                yield Preference(kind, source), match.span()
    for match in lexicon.FORMAL.finditer(plain):
        if not _is_negated(refusals, match.start()):
            # "formal" also stays in the free text, because an aligner can do more for it than rules.
            for kind in (PreferenceKind.NO_CONTRACTIONS, PreferenceKind.NO_EMOJI):
                yield Preference(kind, source), (0, 0)


def _find_banned_words(plain: str, sentence: str, source: PreferenceSource) -> Iterator[_Match]:
    """Yield lists of banned words, whether quoted or not."""
    for match in lexicon.BANNED.finditer(plain):
        group = next(name for name in ("rest", "rest2", "rest3", "rest4", "rest5") if match.group(name))
        start, end = match.span(group)
        # Taken from the sentence itself, so that the words keep their case.
        quoted = lexicon.QUOTES.findall(sentence[start:end])
        words = quoted or [word.strip(" '\"") for word in re.split(r",| or | and |\bnor\b", sentence[start:end])]
        words = [word.strip() for word in words if 0 < len(word.strip()) <= 40][:_MAX_BANNED]
        if words:
            yield Preference(PreferenceKind.BANNED_WORDS, source, words=tuple(words)), match.span()


def _cut_remainder(sentence: str, understood: list[_Span]) -> str:
    """The free text that was not understood, clause by clause; clauses with only function words are dropped."""
    remainder = ""
    position = 0
    # Spans may overlap; one that ends at 0 marks nothing as understood ("formal").
    for start, end in sorted(span for span in understood if span[1]):
        remainder += sentence[position : max(position, start)] + ("," if start > position else "")
        position = max(position, end)
    remainder += sentence[position:]
    clauses = _CLAUSE_END.split(remainder)
    clauses_with_content = [clause.strip(" .;,!-") for clause in clauses if _has_content(clause)]
    # Nothing was cut out, so the sentence keeps its own punctuation.
    if not understood:
        return sentence if clauses_with_content else ""
    return ", ".join(clauses_with_content)


def _has_content(clause: str) -> bool:
    """Whether a clause has any word besides function words."""
    return any(word not in lexicon.FILLER for word in _WORDS.findall(clause.lower().replace("\u2019", "'")))
