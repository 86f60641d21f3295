"""Rules of the gate: what an edit may not lose, what it may not add, and what form the text must keep.

Lost (code, citations, numbers, addresses, quotations, names, items, lines of speakers):

- An unflagged segment keeps everything, because no change was asked for there.
- A flagged segment that is removed may lose all its facts. It was flagged because an objective asked for a change (an
  insult, an advertisement with a price), and the removal is that change.
- A flagged segment that is *rewritten* keeps all facts except names: new words may change the tone, not the facts.
  Names may be lost, since an objective can ask just that ("never mention competitors").

So a correction can never repair a wrong number. A small aligner is far likelier to break a right one.

Added (a leak, another voice, a refusal, personal data, new facts): only additions to the original count; text that the
upstream wrote is not judged.

Form (not empty, pairs of signs, same languages and scripts, about the same length): the minimum length ignores flagged
segments that were removed. Inserted text is judged alone, so that one foreign sentence in a long answer is noticed.
"""

from __future__ import annotations

import operator
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

from aligner_proxy.gate.closed_text import joins
from aligner_proxy.gate.edits import Candidate, SegmentStatus, has_outline, word_set
from aligner_proxy.prompts import TEMPLATES
from aligner_proxy.text.code_comments import same_code
from aligner_proxy.text.facts import FactReader, code_blocks, code_spans, names, quotations, remove_code_blocks
from aligner_proxy.text.languages import is_foreign, language_signs, odd_letters, passages, scripts, scripts_in_use
from aligner_proxy.text.lengths import LENGTHS, contains_any
from aligner_proxy.text.lists import marks
from aligner_proxy.text.lists.line_signs import marked_lines, remaining_signs, row_signs
from aligner_proxy.text.lists.numbering import Numbering
from aligner_proxy.text.lists.references import has_reference
from aligner_proxy.text.refusals import declines
from aligner_proxy.text.structure import (
    TURN,
    bare_name,
    occurs_in_order,
    one_line,
    speaker_lines,
    speaker_segments,
    speaker_turns,
    split,
)
from aligner_proxy.types import BREVITY_OBJECTIVES, Allowance, GateRule, Objective

Rule = Callable[[Candidate], bool]
"""Returns whether a candidate breaks the rule."""
KEEPS = frozenset(
    {
        GateRule.LOST_CODE,
        GateRule.LOST_CITATION,
        GateRule.LOST_NUMBER,
        GateRule.LOST_ADDRESS,
        GateRule.LOST_QUOTE,
        GateRule.LOST_NAME,
    }
)
"""Rules about facts that must be present somewhere in the delivered text."""
# Words that ask for brevity, unless negated directly before.
_BREVITY_WORDS = re.compile(
    r"(?<!not )(?<!not be )(?<!avoid )\b(?:brief|concise|short|shorter|succinct|terse|compact|to the point|few words)\b"
    r"|\b(?:repetiti|redundan)\w*",
    re.I,
)
# A word that forbids or removes, and up to 60 characters of the same clause before the thing itself.
_REMOVAL = (
    r"(?:\b(?:no|not|never|without|avoid\w*|omit\w*|remov\w*|free of|leav\w+ out|instead of|rid of|drop)|n't)"
    r"\b[^.;:!?]{0,60}?\b"
)
_CONTACT_WORDS = r"e-?mails?|addresses|(?:tele)?phones?|contact details|personal (?:data|details|information)"
# Narrow on purpose: an objective about "contempt for people" does not ask to remove names.
_PEOPLE_WORDS = r"(?:private|named|real|(?:mention|nam)\w*(?: of)?) (?:persons?|people)"
# What an objective may forbid, by the rule that would protect it.
_FORBIDDEN_THINGS = {
    GateRule.LOST_CODE: r"code|snippets?",
    GateRule.LOST_CITATION: r"citations?|footnotes?|references|sources",
    GateRule.LOST_NUMBER: (
        rf"numbers|figures|digits|prices?|discounts?|statistics|dates|percentages|dos(?:es?|ages?|ing)|{_CONTACT_WORDS}"
    ),
    GateRule.LOST_ADDRESS: rf"links?|urls?|web ?sites?|{_CONTACT_WORDS}",
    GateRule.LOST_QUOTE: r"quot(?:es?|ed|ing|ations?)",
    GateRule.LOST_NAME: (
        rf"(?<!in the )names?|{_PEOPLE_WORDS}|competitors?|brands?|compan(?:y|ies)|products?|trademarks?"
    ),
    GateRule.LOST_ITEM: r"lists?|bullets?|bullet points?|enumerations?|numbered",
    GateRule.LOST_TURN: r"dialogues?|interviews?|transcripts?|screenplays?",
}
_LANGUAGE_NAMES = (
    r"english|german|french|spanish|portuguese|italian|dutch|swedish|danish|norwegian|finnish|polish|czech|romanian|"
    r"turkish|hungarian|greek|russian|ukrainian|arabic|hebrew|hindi|chinese|japanese|korean|vietnamese|indonesian|thai"
)
# An objective that asks for an answer in a certain language.
_LANGUAGE_REQUEST = rf"\b(?:in|into|to) (?:{_LANGUAGE_NAMES})\b|\bin the (?:\w+'s )?language of\b|\btranslat\w+"
# Maximum length: twice the original plus 200 characters.
MAX_GROWTH = 2.0
SLACK_CHARS = 200
# Minimum length: half of the text that was not removed, or a fifth if an objective asks for brevity.
MIN_SHARE = 0.5
MIN_SHARE_BRIEF = 0.2
_QUESTION_NAMES = frozenset(map(str.lower, marks.QUESTION_NAMES))
_ANSWER_NAMES = frozenset({"a", "answer", "antwort", "r", "r\u00e9ponse", "respuesta", "risposta"})
"""What stands before the questions and answers of an FAQ, in lower case; these are no speakers."""
_WORD = re.compile(r"\w+")
_MIN_SENTENCE_WORDS = 3
"""Fewest words of a sentence that must not be repeated; shorter ones such as "Thank you" may be."""
_FENCE = re.compile(r"^[ \t]*(?:```|~~~)", re.MULTILINE)
"""A line that opens or closes a code block."""
in_one_line = "{} {}".format
"""Joins two texts without line breaks, with a space."""
joins(in_one_line)(one_line)
joins(operator.add, by_line=True)(speaker_lines)
# Field names as the templates write them.
_FIELD_NAME = re.compile(
    r"\|\s*(?:Context|Query|Question|Answer|Edit)\s*:|##\s*(?:Question|Answer|Correction)\s*:", re.IGNORECASE
)
_DISTINCT_CHARS = 20
"""Fewest characters of a template's or objective's sentence that counts as leaked; shorter ones occur by chance."""
# The wording of objectives that waives each rule.
_WAIVING_WORDS = {
    **{rule: re.compile(rf"{_REMOVAL}(?:{thing})\b", re.I) for rule, thing in _FORBIDDEN_THINGS.items()},
    GateRule.LANGUAGE: re.compile(_LANGUAGE_REQUEST, re.I),
    GateRule.SCRIPT: re.compile(_LANGUAGE_REQUEST, re.I),
    GateRule.NEW_REFUSAL: re.compile(r"(?<!not )(?<!never )(?<!avoid )\b(?:refuse|decline|turn down)\b", re.I),
}


def waived_rules(objectives: Sequence[Objective]) -> frozenset[GateRule]:
    """Rules that do not apply because an objective asks for what they forbid ("no numbers" waives `lost_number`)."""
    # only the operator's objectives have no allowance; a client could write "no numbers" to get around a rule
    texts = [objective.text for objective in objectives if objective.allowance is None]
    waived = {rule for rule, pattern in _WAIVING_WORDS.items() if any(map(pattern.search, texts))}
    return frozenset(waived.union(*(allowance.rules for allowance in _list_allowances(objectives))))


def asks_for_brevity(objectives: Sequence[Objective]) -> bool:
    """Whether an objective of the operator asks for a shorter answer."""
    # a client's objective brings its own length limit instead (`cuts_too_much`)
    own_objectives = [objective for objective in objectives if objective.allowance is None]
    return any(
        objective.name in BREVITY_OBJECTIVES or _BREVITY_WORDS.search(objective.text) for objective in own_objectives
    )


def removal_test(objectives: Sequence[Objective], original: str) -> Callable[[str], bool]:
    """Return a test whether the request asks to remove a segment.

    It does if the answer `original` is longer than the request allows, or if the segment has a word that it bans.
    """
    allowances = _list_allowances(objectives)
    # the answer is measured once, and not for each of its segments
    if any(_exceeds_limit(allowance, original) for allowance in allowances):
        return lambda segment_text: True
    return lambda segment_text: any(contains_any(segment_text, allowance.banned) for allowance in allowances)


def cuts_too_much(objectives: Sequence[Objective], original: str, new: str) -> bool:
    """Whether the new text is shorter than half of a length limit that the original exceeds."""
    for allowance in _list_allowances(objectives):
        if allowance.longest is not None and _exceeds_limit(allowance, original):
            unit, max_length = allowance.longest
            if LENGTHS[unit](new) * 2 < max_length:
                return True
    return False


def _exceeds_limit(allowance: Allowance, text: str) -> bool:
    """Whether a text is longer than an allowance's length limit, if it has one."""
    if allowance.longest is None:
        return False
    unit, max_length = allowance.longest
    return LENGTHS[unit](text) > max_length


def _list_allowances(objectives: Iterable[Objective]) -> list[Allowance]:
    """What the objectives of the client allow; an operator's objective has no allowance."""
    return [objective.allowance for objective in objectives if objective.allowance is not None]


def is_empty(candidate: Candidate) -> bool:
    """Whether only white space is left."""
    return not (candidate.after.text.strip() or candidate.after.closed.text.strip())


def changes_script(candidate: Candidate) -> bool:
    """Whether an edit inserts a word in a script that the original does not use."""
    return any(scripts_in_use(text) - candidate.before.read(scripts) for text in candidate.inserted_texts)


def changes_language(candidate: Candidate) -> bool:
    """Whether an edit inserts a sentence in none of the original's languages, provided these can be detected."""
    if not candidate.inserted_texts:
        return False
    languages = candidate.before.read(language_signs).languages
    if not languages:
        return False
    # unusual letters that the original has, too, are no sign of another language
    letters = candidate.before.read(_odd_letters)
    inserted_passages = (passage for text in candidate.inserted_texts for passage in passages(text))
    return any(is_foreign(passage, languages, letters) for passage in inserted_passages)


def _odd_letters(text: str) -> set[str]:
    return set(odd_letters(text))


def is_too_short(candidate: Candidate) -> bool:
    """Whether the text is below the minimum length, or below half of a length limit that a request set."""
    if cuts_too_much(candidate.objectives, candidate.before.whole, candidate.after.whole):
        return True
    min_share = MIN_SHARE_BRIEF if asks_for_brevity(candidate.objectives) else MIN_SHARE
    return candidate.after.length < candidate.remaining_chars * min_share


def is_too_long(candidate: Candidate) -> bool:
    return candidate.after.length > candidate.before.length * MAX_GROWTH + SLACK_CHARS


def loses_code(candidate: Candidate) -> bool:
    """Whether code is lost or changed, or other text becomes code. Code in flagged segments may lose its comments."""
    unflagged_code = {code for part in candidate.parts(SegmentStatus.STAYS) for code in _find_code(part.text)}
    flagged_code = {code for part in candidate.parts(SegmentStatus.REWRITTEN) for code in _find_code(part.text)}
    text_after = candidate.after.whole if unflagged_code or flagged_code else ""
    if any(code not in text_after for code in unflagged_code) or _leaves_code_open(candidate):
        return True
    for code in flagged_code - unflagged_code:
        if code not in text_after and not any(same_code(code, block) for block in candidate.after.read(code_blocks)):
            return True
    return False


def _find_code(text: str) -> set[str]:
    """The code blocks of a text, and the code inside its sentences."""
    return code_blocks(text) | code_spans(text)


def _leaves_code_open(candidate: Candidate) -> bool:
    """Whether the edits leave an odd number of code fences, so that text after the last would be shown as code."""
    # if the original has an odd number, too, the edits are not to blame
    return candidate.after.read(_count_fences) % 2 == 1 and candidate.before.read(_count_fences) % 2 == 0


@joins(operator.add, by_line=True)
def _count_fences(text: str) -> int:
    return len(_FENCE.findall(text))


def forbid_loss(read_facts: FactReader) -> Rule:
    """Return a rule that a candidate breaks if it loses a fact of a text that had to stay."""
    return lambda candidate: bool(candidate.lost_facts(read_facts))


def forbid_addition(*readers: FactReader) -> Rule:
    """Return a rule that a candidate breaks if it has a new fact."""
    return lambda candidate: any(candidate.added_facts(read_facts) for read_facts in readers)


def forbid_increase(count: Callable[[str], int]) -> Rule:
    """Return a rule that a candidate breaks if an edit's text has a higher `count` than the text that it replaces."""
    return lambda candidate: candidate.has_more(count)


def loses_quote(candidate: Candidate) -> bool:
    """Whether the words of a quotation are lost; lost quotation marks alone do not count."""
    return any(quotation not in candidate.after.read(one_line) for quotation in candidate.lost_facts(quotations))


def loses_name(candidate: Candidate) -> bool:
    """Whether a name in unflagged text is lost; a change of case does not count.

    A sentence flagged as a repetition must also stay if it has a name or number of its own, or is a line of a refrain.
    """
    # None if no sentence was flagged for an objective about brevity
    if candidate.brevity_flags is not None:
        changed_parts = candidate.parts(SegmentStatus.REMOVED, SegmentStatus.REWRITTEN)
        if any(candidate.brevity_flags.is_wrongly_flagged(part.index) for part in changed_parts):
            return True
    # rewritten segments may lose names (module docstring)
    required_names = {name for part in candidate.parts(SegmentStatus.STAYS) for name in names(part.text)}
    if not required_names:
        return False
    return not required_names.issubset(candidate.after.read(word_set))


def loses_item(candidate: Candidate) -> bool:
    """Whether an item that stays lost its marker, a row lost a cell, or text still refers to a removed item."""
    if not candidate.before.read(has_outline):
        return False
    # the edits may add items and rows, but those of the original must remain in their order
    if not all(occurs_in_order(required_signs, new_signs) for required_signs, new_signs in pair_signs(candidate)):
        return True
    if not (candidate.removed_segments or candidate.closed.removed) or not candidate.after.read(has_reference):
        return False
    return _refers_to_removed(candidate)


def pair_signs(candidate: Candidate) -> Iterator[tuple[list[str], list[str]]]:
    """Yield (signs that have to stay, signs with the edits applied), first of items, then of rows (line_signs.py).

    Only the open rest is read, because the closed text has the same signs before and after its edits. The first signs
    are those of the segments as the upstream wrote them. The undisguised text would be cut into other segments where a
    code block is prose and has lost its fences.
    """
    removed = candidate.removed_segments
    new_pieces = split(candidate.after.text)
    yield remaining_signs(marked_lines(candidate.pieces), removed), remaining_signs(marked_lines(new_pieces))
    old_rows = row_signs(candidate.pieces, in_table=candidate.before.closed.ends_in_table)
    new_rows = row_signs(new_pieces, in_table=candidate.after.closed.ends_in_table)
    yield remaining_signs(old_rows, removed), remaining_signs(new_rows)


def _refers_to_removed(candidate: Candidate) -> bool:
    """Whether a reference that stays means a removed item."""
    numbering = Numbering()
    closed = candidate.closed
    removed = closed.removed | {len(closed.pieces) + index for index in candidate.removed_segments}
    numbering.renumber([*closed.pieces, *candidate.pieces], removed, candidate.after.whole)
    return numbering.dangling > 0


def loses_turn(candidate: Candidate) -> bool:
    """Whether a speaker loses lines in an answer that is a dialogue, or a sentence that looks like an invented turn.

    This applies to flagged lines, too. To a detector a line of a requested dialogue looks like an invented turn, and
    the next line answers it. So a sentence of a turn stays if it was flagged for an objective that invented turns
    violate ("helpful"). For other objectives a line may be rewritten, and lose a sentence if the name before it stays.
    A whole turn may be removed only if each of its sentences is clearly harmful, or a question together with its
    answer.
    """
    lines_before = candidate.before.read(speaker_lines)
    # a quick test first: in a dialogue somebody speaks at least twice
    if max(lines_before.values(), default=0) < 2:
        return False
    spoken_lines = speaker_turns(candidate.before.whole)
    if spoken_lines and _changes_turn_like_sentence(candidate, spoken_lines):
        return True
    lost_lines = spoken_lines - candidate.after.read(speaker_lines)
    if lost_lines:
        lost_lines = lost_lines - _count_closed_losses(candidate) - _count_harmful_turns(candidate)
    return bool(lost_lines) and not _are_questions_with_answers(lost_lines)


def _changes_turn_like_sentence(candidate: Candidate, speakers: Collection[str]) -> bool:
    """Whether an edit changes only sentences of a turn that were flagged for an objective that invented turns violate.

    The turns of others than `speakers` may indeed be invented. An edit of other flagged sentences, too, such as an
    insult beside them, is no such edit.
    """
    if not candidate.turn_flags:
        return False
    turns = _find_turns(candidate)
    spoken = {index for name, segments in turns if name in speakers for index in segments}
    if candidate.before.closed.text:
        # the open rest of a growing answer may begin within a turn
        spoken.update(range(turns[0][1].start if turns else len(candidate.pieces)))
    for change in candidate.changes:
        changed = {part.index for part in change.parts if part.effect is not SegmentStatus.STAYS}
        if changed and changed.issubset(candidate.turn_flags) and not changed.isdisjoint(spoken):
            return True
    return False


def _are_questions_with_answers(lost_lines: Counter[str]) -> bool:
    """Whether the lost lines are as many questions ("Q:") as answers ("A:"), and no other lines."""
    question_count = sum(count for name, count in lost_lines.items() if name in _QUESTION_NAMES)
    answer_count = sum(count for name, count in lost_lines.items() if name in _ANSWER_NAMES)
    return question_count == answer_count and question_count + answer_count == lost_lines.total()


def _count_closed_losses(candidate: Candidate) -> Counter[str]:
    """Number of lines that each speaker lost in the closed beginning, by edits that were judged before."""
    lines_before = candidate.before.closed.read(speaker_lines) or Counter[str]()
    lines_after = candidate.after.closed.read(speaker_lines) or Counter[str]()
    return lines_before - lines_after


def _count_harmful_turns(candidate: Candidate) -> Counter[str]:
    """Number of turns of each speaker that are removed as a whole and of which each sentence is clearly harmful."""
    removed_harm = candidate.removed_segments.intersection(candidate.clear_harm)
    if not removed_harm:
        return Counter()
    turns = _find_turns(candidate)
    return Counter(name for name, segments in turns if removed_harm.issuperset(segments))


def _find_turns(candidate: Candidate) -> list[tuple[str, range]]:
    """The turns in the open rest of the original: (name of the speaker, indexes of the turn's segments)."""
    return speaker_segments(candidate.pieces, begins_line=not candidate.before.closed.line)


def tears_pair(candidate: Candidate) -> bool:
    """Whether an edit has half a pair of signs that the original does not have."""
    return any(edit in candidate.torn for edit in candidate.edits)


def repeats_sentence(candidate: Candidate) -> bool:
    """Whether an edit inserts a sentence that occurs in the new text more often than in the original.

    If a sentence that the upstream repeated is replaced, the new sentence may be repeated as often.
    """
    new_sentences = {sentence for text in candidate.inserted_texts for sentence in _count_sentences(text)}
    if not new_sentences:
        return False
    counts_before = candidate.before.read(_count_sentences)
    counts_after = candidate.after.read(_count_sentences)
    replaced_counts: list[int] = []  # how often the upstream wrote each of the replaced sentences
    for edit in candidate.edits:
        replaced_text = candidate.before.text[edit.start : edit.end]
        replaced_counts += [counts_before[sentence] for sentence in _count_sentences(replaced_text)]
    max_count = max(replaced_counts, default=1)
    return any(counts_after[sentence] > max(max_count, counts_before[sentence]) for sentence in new_sentences)


@joins(operator.add)
def _count_sentences(text: str) -> Counter[str]:
    """How often each sentence of at least `_MIN_SENTENCE_WORDS` words occurs, without regard to case and signs."""
    sentences = (" ".join(_WORD.findall(segment.text.casefold())) for segment in split(text))
    return Counter(sentence for sentence in sentences if sentence.count(" ") >= _MIN_SENTENCE_WORDS - 1)


def leaves_bare_speaker(candidate: Candidate) -> bool:
    """Whether an edit leaves the name of a speaker alone in a line."""
    # all edits count: `inserted_texts` lacks names that stay of removed segments
    if not any(_count_bare_names(edit.text) for edit in candidate.edits):
        return False
    return bool(candidate.after.read(_count_bare_names) - candidate.before.read(_count_bare_names))


@joins(operator.add, by_line=True)
def _count_bare_names(text: str) -> Counter[str]:
    """How often each name stands alone in a line, with a colon, and without words in the line below."""
    # in code, a line with a colon may begin a class or a block
    lines = remove_code_blocks(text).splitlines()
    names_alone = Counter[str]()
    for line, next_line in zip(lines, [*lines[1:], ""], strict=False):
        name = bare_name(line) if not next_line.strip() or speaker_lines(next_line) else None
        if name:
            names_alone[name] += 1
    return names_alone


def leaks_template(candidate: Candidate) -> bool:
    """Whether an edit inserts a field name or sentence of a template, or the text or a sentence of an objective."""
    if candidate.has_more(_count_field_names) or candidate.repeats_objective:
        return True
    objective_texts = (objective.text for objective in candidate.objectives)
    long_texts = (_normalise(text) for text in objective_texts if len(text) >= _DISTINCT_CHARS)
    for sentence in (*_TEMPLATE_SENTENCES, *long_texts):
        if sentence in candidate.after.read(_normalise) and sentence not in candidate.before.read(_normalise):
            return True
    return False


@joins(in_one_line)
def _normalise(text: str) -> str:
    return one_line(text.lower())


def _count_field_names(text: str) -> int:
    return len(_FIELD_NAME.findall(text))


def _list_template_sentences() -> tuple[str, ...]:
    """The fixed sentences of every template, in lower case, that are long enough not to occur by chance."""
    prompts = [prompt for template in TEMPLATES.values() for prompt in (template.better, template.equal)]
    sentences: set[str] = set()
    for prompt in prompts:
        # cut at placeholders, marks and the signs of fields
        sentences.update(re.split(r"\{\w+\}|[.,|:\n]|##", prompt) if prompt is not None else ())
    normalised = {sentence.strip().lower() for sentence in sentences}
    return tuple(sorted(sentence for sentence in normalised if len(sentence) >= _DISTINCT_CHARS))


_TEMPLATE_SENTENCES = _list_template_sentences()


@joins(by_line=True)
def has_turn(text: str) -> bool:
    return TURN.search(text) is not None


def count_turn_starts(text: str) -> int:
    return len(TURN.findall(text))


def count_refusals(text: str) -> int:
    """Number of sentences that decline."""
    return sum(declines(segment.text) for segment in split(text))


def invents_quote(candidate: Candidate) -> bool:
    """Whether an edit inserts a quotation whose words do not occur in the original, even without quotation marks."""
    quoted = (quotation for text in candidate.inserted_texts for quotation in quotations(text))
    return any(quotation not in candidate.before.read(one_line) for quotation in quoted)
