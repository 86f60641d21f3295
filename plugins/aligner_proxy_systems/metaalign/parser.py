"""Parser of preference texts: wishes that a rule can check become preferences, and the rest stays as free text. A
refusal is a word such as "no" or "avoid"; its reach is the text after it that it refuses. In all functions, `plain` is
a sentence in lower case with straight apostrophes, as long as the sentence itself.

The parser reads only English. Anything not understood stays in the free text instead of being guessed. A conditional
sentence (if, unless ...) stays there whole. Patterns run sentence by sentence, so that time grows linearly with the
text.
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
_WORD = re.compile(r"[^\W_]+(?:['-][^\W_]+)*")
_MAX_SENTENCE_CHARS = 1_000
"""A longer sentence stays in the free text, to bound the time of the patterns."""
_MAX_BANNED_WORDS = 20
"""Most banned words that are read from one list."""
_MAX_BANNED_CHARS = 40
"""Most characters of a banned word."""
_CHARS_BEFORE_WANTED = 60
"""Characters before a thing in which a verb of wanting is searched, which may have up to 24 characters after it."""

_REACH_CHARS = 200
"""Longest reach of a refusal in characters; it is short so that time stays linear."""


_Span = tuple[int, int]
"""The (start, exclusive end) of a passage in a sentence."""
_NO_SPAN = (0, 0)
"""Stands for a wish that was understood, but whose words stay in the free text, too."""
_Match = tuple[Preference, _Span]
"""A preference, and the passage that states it."""


@dataclass(frozen=True, slots=True)
class RefusalWord:
    """A refusal in a sentence, and where its reach ends; all three are indices in the sentence."""

    start: int
    end: int
    reach_end: int


class _LengthPattern(NamedTuple):
    """A pattern of a bound of length, such as "under 100 words"."""

    pattern: re.Pattern[str]
    is_upper: bool
    """Whether it states an upper bound."""
    step: int = 0
    """What to add to the number in the text: "under 100" means at most 99."""


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
"""The patterns, in the order in which they are tried."""


@dataclass(slots=True)
class ParsedText:
    """The checkable preferences of a text; `words` is the remaining free text, "" if nothing remains."""

    preferences: list[Preference] = field(default_factory=list)
    words: str = ""


def parse(text: str, source: PreferenceSource) -> ParsedText:
    """Parse one text; preferences keep their order, and the last one of a kind counts."""
    preference_by_kind: dict[PreferenceKind, Preference] = {}
    free_texts: list[str] = []
    for sentence in filter(None, map(str.strip, _SENTENCE_END.split(text))):
        plain = sentence.lower().replace("\u2019", "'").replace("\u2018", "'")
        # lower() may change the length; then the spans would not fit the sentence itself
        if len(sentence) > _MAX_SENTENCE_CHARS or len(plain) != len(sentence) or lexicon.CONDITION.search(plain):
            free_texts.append(sentence)
            continue
        understood_spans: list[_Span] = []
        for preference, span in _find_preferences(plain, sentence, source):
            # removed first, so that the later preference also takes the later place in the order
            preference_by_kind.pop(preference.kind, None)
            preference_by_kind[preference.kind] = preference
            understood_spans.append(span)
        free_texts.append(_cut_understood(sentence, understood_spans))
    return ParsedText(list(preference_by_kind.values()), " ".join(free_text for free_text in free_texts if free_text))


def _find_preferences(plain: str, sentence: str, source: PreferenceSource) -> Iterator[_Match]:
    """Yield every preference in a sentence, with the passage that states it."""
    refusals = [
        RefusalWord(match.start(), match.end(), _find_reach_end(plain, match.end()))
        for match in lexicon.NOT.finditer(plain)
    ]
    yield from _find_lengths(plain, refusals, source)
    yield from _find_unwanted(plain, refusals, source)
    yield from _find_later_refusals(plain, source)
    yield from _find_wanted(plain, refusals, source)
    yield from _find_phrases(plain, refusals, source)
    yield from _find_banned_words(plain, sentence, source)
    for match in lexicon.LANGUAGE.finditer(plain):
        if not _is_negated(refusals, match.start()):
            name = match.group("language") or match.group("language2")
            yield Preference(PreferenceKind.LANGUAGE, source, words=lexicon.LANGUAGES[name]), match.span()


def _find_lengths(plain: str, refusals: Sequence[RefusalWord], source: PreferenceSource) -> Iterator[_Match]:
    """Yield bounds of length; later patterns skip a passage that an earlier pattern matched."""
    matched_spans: list[_Span] = []
    for length in _LENGTH_PATTERNS:
        for match in length.pattern.finditer(plain):
            start, end = match.span()
            if any(earlier_start < end and start < earlier_end for earlier_start, earlier_end in matched_spans):
                continue
            matched_spans.append((start, end))
            # "do not write more than 3" is an upper bound of 3, although "more than 3" is a lower bound of 4
            is_negated = length.step != 0 and _is_negated(refusals, start)
            bound = _parse_number(match.groupdict().get("n")) + (0 if is_negated else length.step)
            kind = _choose_bound_kind(match.group("unit"), is_upper=length.is_upper != is_negated)
            # the bound of "under one" is 0, which no answer can meet
            if kind is not None and bound > 0:
                yield Preference(kind, source, bound), (start, end)


def _choose_bound_kind(unit: str, *, is_upper: bool) -> PreferenceKind | None:
    """Return the kind of preference that bounds this unit; None if there is none, as for a minimum of paragraphs."""
    maximum, minimum = next(kinds for name, kinds in lexicon.UNITS.items() if unit.startswith(name))
    return maximum if is_upper else minimum


def _parse_number(numeral: str | None) -> int:
    """Return the number that a numeral states; 1 for None, as in "in a sentence"."""
    if numeral is None:
        return 1
    numeral = numeral.replace(",", "")
    if numeral.isdigit():
        return int(numeral)
    if numeral in lexicon.NUMBERS:
        return lexicon.NUMBERS[numeral]
    # "twenty-five" is 20 + 5
    return sum(lexicon.NUMBERS[part] for part in re.split(r"[- ]", numeral))


def _find_unwanted(plain: str, refusals: Sequence[RefusalWord], source: PreferenceSource) -> Iterator[_Match]:
    """Yield a preference for each thing (lists, emojis ...) that a refusal reaches, in the order of the refusals.

    A thing that several refusals reach is yielded twice: with the first refusal, whose passage is the longest, so that
    all of it is removed from the free text, and with the last, which decides the place among the preferences (`parse`).
    """
    wants_question_at_end = lexicon.QUESTION_LAST.search(plain) is not None
    # (start of the refusal, index of the kind, end of the thing, kind), which is the sorting order
    matches: list[tuple[int, int, int, PreferenceKind]] = []
    for kind_index, (kind, pattern) in enumerate(lexicon.THING.items()):
        # the word "question" may belong to the wish for a question at the end
        if kind is PreferenceKind.NO_QUESTIONS and wants_question_at_end:
            continue
        for thing in pattern.finditer(plain):
            nearby_refusals = _find_nearby(refusals, thing.start())
            reaching = [refusal for refusal in nearby_refusals if thing.end() <= refusal.reach_end]
            for refusal in (*reaching[:1], *reaching[-1:]):
                matches.append((refusal.start, kind_index, thing.end(), kind))
    for start, _, end, kind in sorted(matches, key=itemgetter(0, 1, 2)):
        yield Preference(kind, source), (start, end)


def _find_later_refusals(plain: str, source: PreferenceSource) -> Iterator[_Match]:
    """Yield preferences for things with the refusal after them ("lists are banned") or in their name ("emoji-free")."""
    for kind, pattern in lexicon.THING.items():
        for thing in pattern.finditer(plain):
            refusal = lexicon.BEHIND.match(plain, thing.end())
            if refusal:
                yield Preference(kind, source), (thing.start(), refusal.end())
    for kind, pattern in lexicon.FREE.items():
        for match in pattern.finditer(plain):
            yield Preference(kind, source), match.span()


def _find_reach_end(plain: str, refusal_end: int) -> int:
    """Return where the reach of a refusal ends: at the next word such as "but", after the refusal's own verb."""
    max_end = min(len(plain), refusal_end + _REACH_CHARS)
    own_verb = _OWN_VERB.match(plain, refusal_end, max_end)
    turning_word = lexicon.TURN.search(plain, own_verb.end() if own_verb else refusal_end, max_end)
    return turning_word.start() if turning_word else max_end


_OWN_VERB = re.compile(
    r"(?:[ ,]*\b(?:ever|please|use|using|include|write|give|add|put|make|want|like|send|present|answer|"
    r"reply|respond|"
    r"format|need|be|in|with|me|any|of|the|a|an|to|as|it|your|my|or|see|seeing|contain|have|employ|just|"
    r"rely on|resort to|end|finish|close|conclude)\b)*"
)
"""Verbs that belong to the refusal itself: "do not ever use any", "never reply with"."""


def _is_negated(refusals: Sequence[RefusalWord], position: int) -> bool:
    """Whether a refusal reaches this position in the sentence."""
    return any(position < refusal.reach_end for refusal in _find_nearby(refusals, position))


def _find_nearby(refusals: Sequence[RefusalWord], position: int) -> Sequence[RefusalWord]:
    """Return the refusals before this position that are close enough to reach it."""
    stop = bisect_right(refusals, position, key=attrgetter("end"))
    first = bisect_left(refusals, position - _REACH_CHARS, hi=stop, key=attrgetter("end"))
    return refusals[first:stop]


def _find_wanted(plain: str, refusals: Sequence[RefusalWord], source: PreferenceSource) -> Iterator[_Match]:
    """Yield a preference for each thing (lists, emojis) that the text asks for."""
    for unwanted_kind, wanted_kind in lexicon.WANTED.items():
        for thing in lexicon.THING[unwanted_kind].finditer(plain):
            text_before = plain[max(0, thing.start() - _CHARS_BEFORE_WANTED) : thing.start()]
            verb = lexicon.WANTING.search(text_before)
            is_refused = _is_negated(refusals, thing.start()) or lexicon.BEHIND.match(plain, thing.end())
            # "emoji-free" is a refusal, see `_find_later_refusals`
            if verb and not is_refused and not plain.startswith(("-free", " free"), thing.end()):
                yield Preference(wanted_kind, source), (thing.start() - len(verb.group()), thing.end())


def _find_phrases(plain: str, refusals: Sequence[RefusalWord], source: PreferenceSource) -> Iterator[_Match]:
    """Yield the preferences that fixed words or phrases express."""
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
            # "formal" also stays in the free text, because an aligner can do more for it than rules
            yield Preference(PreferenceKind.NO_CONTRACTIONS, source), _NO_SPAN
            yield Preference(PreferenceKind.NO_EMOJI, source), _NO_SPAN


def _find_banned_words(plain: str, sentence: str, source: PreferenceSource) -> Iterator[_Match]:
    """Yield a preference for each list of banned words, whether the words are quoted or not."""
    for match in lexicon.BANNED.finditer(plain):
        # the group that holds the list, in the alternative of the pattern that matched
        list_group = next(name for name in ("rest", "rest2", "rest3", "rest4", "rest5") if match.group(name))
        start, end = match.span(list_group)
        # taken from the sentence itself, so that the words keep their case
        list_text = sentence[start:end]
        words = lexicon.QUOTES.findall(list_text)
        if not words:
            words = [word.strip(" '\"") for word in re.split(r",| or | and |\bnor\b", list_text)]
        stripped_words = [word.strip() for word in words]
        banned_words = [word for word in stripped_words if 0 < len(word) <= _MAX_BANNED_CHARS][:_MAX_BANNED_WORDS]
        if banned_words:
            preference = Preference(PreferenceKind.BANNED_WORDS, source, words=tuple(banned_words))
            yield preference, match.span()


def _cut_understood(sentence: str, understood_spans: list[_Span]) -> str:
    """Return the clauses of a sentence that were not understood, joined by commas.

    Clauses with only function words are dropped. A sentence of which nothing was understood keeps its punctuation.
    """
    if not understood_spans:
        clauses = _CLAUSE_END.split(sentence)
        return sentence if any(_has_content(clause) for clause in clauses) else ""
    remainder = ""
    position = 0
    # spans may overlap
    for start, end in sorted(span for span in understood_spans if span != _NO_SPAN):
        if start > position:
            # a comma in place of the span keeps the clauses around it apart
            remainder += sentence[position:start] + ","
        position = max(position, end)
    remainder += sentence[position:]
    clauses = _CLAUSE_END.split(remainder)
    return ", ".join(clause.strip(" .;,!-") for clause in clauses if _has_content(clause))


def _has_content(clause: str) -> bool:
    """Whether a clause has any word besides function words."""
    words = _WORD.findall(clause.lower().replace("\u2019", "'"))
    return any(word not in lexicon.FILLER for word in words)
