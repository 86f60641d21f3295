"""Rules of the gate: what an edit may not lose, what it may not add, and what form the text must keep.

Lost (code, citations, numbers, addresses, quotations, names, items, lines of speakers):

- An unflagged segment keeps everything, because no change was asked for there.
- A flagged segment that is removed may take its facts with it. It was flagged because an objective asked for a change
  (an insult, an advertisement with a price), and the removal is that change.
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
from collections.abc import Callable, Iterable, Sequence

from aligner_proxy.gate.edits import Candidate, SegmentStatus, has_outline, joins, word_set
from aligner_proxy.prompts import TEMPLATES
from aligner_proxy.text.code_comments import same_code
from aligner_proxy.text.facts import FactReader, code_blocks, code_spans, names, quotations, remove_code_blocks
from aligner_proxy.text.languages import is_foreign, language_signs, odd_letters, passages, scripts, scripts_in_use
from aligner_proxy.text.lengths import LENGTHS, contains_any
from aligner_proxy.text.lists import marks
from aligner_proxy.text.lists.numbering import Numbering, has_reference
from aligner_proxy.text.lists.outline import marked_lines, remaining_signs, row_signs
from aligner_proxy.text.refusals import declines
from aligner_proxy.text.structure import (
    TURN,
    Segment,
    bare_name,
    occurs_in_order,
    one_line,
    repeats_objective,
    speaker_lines,
    speaker_segments,
    speaker_turns,
    split,
)
from aligner_proxy.types import BREVITY_OBJECTIVES, Allowance, GateRule, Objective

Rule = Callable[[Candidate], bool]
"""Returns whether a candidate breaks the rule."""
SignReader = Callable[[Sequence[Segment], bool], list[tuple[range, str]]]
"""Reads the signs of items or rows in segments, which may begin in a table."""
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
_BRIEF = re.compile(
    r"(?<!not )(?<!not be )(?<!avoid )\b(?:brief|concise|short|shorter|succinct|terse|compact|to the point|few words)\b"
    r"|\b(?:repetiti|redundan)\w*",
    re.I,
)
# A word that forbids or removes, and up to 60 characters of the same clause before the thing itself.
_REMOVAL = (
    r"(?:\b(?:no|not|never|without|avoid\w*|omit\w*|remov\w*|free of|leav\w+ out|instead of|rid of|drop)|n't)"
    r"\b[^.;:!?]{0,60}?\b"
)
_CONTACTS = r"e-?mails?|addresses|(?:tele)?phones?|contact details|personal (?:data|details|information)"
# Narrow on purpose: an objective about "contempt for people" does not ask to remove names.
_PEOPLE = r"(?:private|named|real|(?:mention|nam)\w*(?: of)?) (?:persons?|people)"
# What an objective may forbid, by the rule that would protect it.
_THINGS = {
    GateRule.LOST_CODE: r"code|snippets?",
    GateRule.LOST_CITATION: r"citations?|footnotes?|references|sources",
    GateRule.LOST_NUMBER: (
        rf"numbers|figures|digits|prices?|discounts?|statistics|dates|percentages|dos(?:es?|ages?|ing)|{_CONTACTS}"
    ),
    GateRule.LOST_ADDRESS: rf"links?|urls?|web ?sites?|{_CONTACTS}",
    GateRule.LOST_QUOTE: r"quot(?:es?|ed|ing|ations?)",
    GateRule.LOST_NAME: rf"(?<!in the )names?|{_PEOPLE}|competitors?|brands?|compan(?:y|ies)|products?|trademarks?",
    GateRule.LOST_ITEM: r"lists?|bullets?|bullet points?|enumerations?|numbered",
    GateRule.LOST_TURN: r"dialogues?|interviews?|transcripts?|screenplays?",
}
_LANGUAGES = (
    r"english|german|french|spanish|portuguese|italian|dutch|swedish|danish|norwegian|finnish|polish|czech|romanian|"
    r"turkish|hungarian|greek|russian|ukrainian|arabic|hebrew|hindi|chinese|japanese|korean|vietnamese|indonesian|thai"
)
# An objective that asks for an answer in a certain language.
_LANGUAGE = rf"\b(?:in|into|to) (?:{_LANGUAGES})\b|\bin the (?:\w+'s )?language of\b|\btranslat\w+"
# Maximum length: twice the original plus 200 characters.
MAX_GROWTH = 2.0
SLACK_CHARS = 200
# Minimum length: half of the text that was not removed, or a fifth if an objective asks for brevity.
MIN_SHARE = 0.5
MIN_SHARE_BRIEF = 0.2
_QUESTION_NAMES = frozenset(map(str.lower, marks.QUESTION_NAMES))
_ANSWER_NAMES = frozenset({"a", "answer", "antwort", "r", "r\u00e9ponse", "respuesta", "risposta"})
"""Names before the lines of an FAQ, which are no speakers."""
_WORD = re.compile(r"\w+")
_MIN_WORDS = 3
"""Fewest words of a sentence that must not occur twice in an answer; "Thank you" may."""
_FENCE = re.compile(r"^[ \t]*(?:```|~~~)", re.MULTILINE)
"""A line that opens or closes a code block."""
in_one_line = "{} {}".format
"""Joins two texts without line breaks, with a space."""
# Field names as the templates write them.
_MARK = re.compile(
    r"\|\s*(?:Context|Query|Question|Answer|Edit)\s*:|##\s*(?:Question|Answer|Correction)\s*:", re.IGNORECASE
)
_DISTINCT_CHARS = 20
"""Fewest characters of a template's or objective's sentence that counts as leaked; shorter ones occur by chance."""
# The wording of objectives that waives each rule.
_PATTERNS = {
    **{rule: re.compile(rf"{_REMOVAL}(?:{thing})\b", re.I) for rule, thing in _THINGS.items()},
    GateRule.LANGUAGE: re.compile(_LANGUAGE, re.I),
    GateRule.SCRIPT: re.compile(_LANGUAGE, re.I),
    GateRule.NEW_REFUSAL: re.compile(r"(?<!not )(?<!never )(?<!avoid )\b(?:refuse|decline|turn down)\b", re.I),
}


def waived_rules(objectives: Sequence[Objective]) -> frozenset[GateRule]:
    """Rules that do not apply because an objective asks for what they forbid ("no numbers" waives `lost_number`)."""
    # only the operator's wording counts; a client could write "no numbers" to get around a rule
    texts = [objective.text for objective in objectives if objective.allowance is None]
    waived = frozenset(rule for rule, form in _PATTERNS.items() if any(form.search(text) for text in texts))
    return waived.union(*(allowance.rules for allowance in _allowances(objectives)))


def asks_for_brevity(objectives: Sequence[Objective]) -> bool:
    """Whether an objective of the operator asks for a shorter answer."""
    # a client's objective brings its own length limit instead (`cuts_too_much`)
    operators = [objective for objective in objectives if objective.allowance is None]
    return any(objective.name in BREVITY_OBJECTIVES or _BRIEF.search(objective.text) for objective in operators)


def removal_test(objectives: Sequence[Objective], original: str) -> Callable[[str], bool]:
    """A test whether a request asks to remove a segment: the answer is too long, or the segment holds a banned word."""
    allowances = _allowances(objectives)
    # the answer is measured once, and not for each of its segments
    if any(_exceeds_limit(allowance, original) for allowance in allowances):
        return lambda piece: True
    return lambda piece: any(contains_any(piece, allowance.banned) for allowance in allowances)


def cuts_too_much(objectives: Sequence[Objective], original: str, new: str) -> bool:
    """Whether the new text is shorter than half of a length limit that the original exceeds."""
    bounds = [allowance.longest for allowance in _allowances(objectives) if _exceeds_limit(allowance, original)]
    return any(LENGTHS[bound[0]](new) * 2 < bound[1] for bound in bounds if bound is not None)


def _exceeds_limit(allowance: Allowance, text: str) -> bool:
    """Whether a text is longer than an allowance's length limit, if it has one."""
    if allowance.longest is None:
        return False
    unit, most = allowance.longest
    return LENGTHS[unit](text) > most


def _allowances(objectives: Iterable[Objective]) -> list[Allowance]:
    return [objective.allowance for objective in objectives if objective.allowance is not None]


def is_empty(candidate: Candidate) -> bool:
    """Whether only white space is left."""
    return not (candidate.after.text.strip() or candidate.after.closed.text.strip())


def changes_script(candidate: Candidate) -> bool:
    """Whether an edit inserts a word in a script that the original does not use."""
    return any(scripts_in_use(text) - candidate.before.read(scripts) for text in candidate.inserted_texts)


def changes_language(candidate: Candidate) -> bool:
    """Whether an edit inserts a sentence in none of the original's languages, provided these can be detected."""
    own_languages = candidate.before.read(language_signs).languages if candidate.inserted_texts else set()
    letters = candidate.before.read(_odd_letters) if own_languages else set()
    inserted = (passage for text in candidate.inserted_texts for passage in passages(text))
    # unusual letters that the original has, too, are no sign of another language
    return bool(own_languages) and any(is_foreign(passage, own_languages, letters) for passage in inserted)


def _odd_letters(text: str) -> set[str]:
    return set(odd_letters(text))


def is_too_short(candidate: Candidate) -> bool:
    """Whether the text is below the minimum length, or below half of a length limit that a request set."""
    if cuts_too_much(candidate.objectives, candidate.before.whole, candidate.after.whole):
        return True
    share = MIN_SHARE_BRIEF if asks_for_brevity(candidate.objectives) else MIN_SHARE
    return candidate.after.length < candidate.remaining_chars * share


def is_too_long(candidate: Candidate) -> bool:
    return candidate.after.length > candidate.before.length * MAX_GROWTH + SLACK_CHARS


def loses_code(candidate: Candidate) -> bool:
    """Whether code is lost or changed, or other text becomes code. Flagged code may lose its comments."""
    stays = {piece for part in candidate.parts(SegmentStatus.STAYS) for piece in _code_of(part.text)}
    rewritten = {piece for part in candidate.parts(SegmentStatus.REWRITTEN) for piece in _code_of(part.text)}
    after = candidate.after.whole if stays or rewritten else ""
    # code that also stands in a segment that stays is judged there, by the stricter test
    missing = (piece for piece in rewritten - stays if piece not in after)
    if any(piece not in after for piece in stays) or _leaves_code_open(candidate):
        return True
    return any(not any(same_code(piece, block) for block in candidate.after.read(code_blocks)) for piece in missing)


def _code_of(text: str) -> set[str]:
    return code_blocks(text) | code_spans(text)


def _leaves_code_open(candidate: Candidate) -> bool:
    """Whether the edits leave an odd number of code fences, so that text after the last would be shown as code."""
    # an original with an odd number was already broken, so the edits are not to blame
    return candidate.after.read(_count_fences) % 2 == 1 and candidate.before.read(_count_fences) % 2 == 0


@joins(operator.add, by_line=True)
def _count_fences(text: str) -> int:
    return len(_FENCE.findall(text))


def forbid_loss(facts: FactReader) -> Rule:
    """A rule that is broken if a fact of text that had to stay is lost."""
    return lambda candidate: bool(candidate.lost_facts(facts))


def forbid_addition(*readers: FactReader) -> Rule:
    """A rule that is broken by a new fact."""
    return lambda candidate: any(candidate.added_facts(facts) for facts in readers)


def forbid_increase(count: Callable[[str], int]) -> Rule:
    """A rule that is broken if some edit's text has a higher `count` than the text it replaces."""
    return lambda candidate: candidate.has_more(count)


def loses_quote(candidate: Candidate) -> bool:
    """Whether the words of a quotation are lost; lost quotation marks alone do not count."""
    return any(quotation not in candidate.after.read(_one_line) for quotation in candidate.lost_facts(quotations))


def loses_name(candidate: Candidate) -> bool:
    """Whether a name in unflagged text is lost; a change of case does not count.

    A sentence flagged as a repetition must also stay if it has a name or number of its own, or is a line of a refrain.
    """
    # None if no sentence was flagged as a repetition, that is, for an objective about brevity
    if candidate.brevity_flags is not None:
        changed = candidate.parts(SegmentStatus.REMOVED, SegmentStatus.REWRITTEN)
        if any(candidate.brevity_flags.is_wrongly_flagged(part.index) for part in changed):
            return True
    # rewritten segments may lose names (module docstring)
    required = {name for part in candidate.parts(SegmentStatus.STAYS) for name in names(part.text)}
    # without required names, the text need not be read
    return bool(required) and bool(required - candidate.after.read(word_set))


def loses_item(candidate: Candidate) -> bool:
    """Whether a remaining item lost its marker, a row lost a cell, or a removed item is still referred to."""
    if not candidate.before.read(has_outline):
        return False
    removed = candidate.removed_segments
    for signs in SIGNS_OF_ITEMS:
        required = remaining_signs(signs_before(candidate, signs), removed)
        # the edits may add items, but those of the original must remain in their order
        if required and not occurs_in_order(required, remaining_signs(signs_after(candidate, signs))):
            return True
    return (
        bool(removed or candidate.closed.removed)
        and candidate.after.read(has_reference)
        and _refers_to_removed(candidate)
    )


def signs_before(candidate: Candidate, signs: SignReader) -> list[tuple[range, str]]:
    """The signs of the open rest as the upstream wrote it, by the numbers of its segments.

    The undisguised text would be cut into other segments where a code block is prose and has lost its fences.
    """
    return signs(candidate.pieces, candidate.before.closed.ends_in_table)


def signs_after(candidate: Candidate, signs: SignReader) -> list[tuple[range, str]]:
    """The signs of the open rest with the edits, by the numbers of its new segments."""
    return candidate.after.in_rest(lambda text, in_table: signs(split(text), in_table))


def _item_signs(pieces: Sequence[Segment], _in_table: bool) -> list[tuple[range, str]]:
    return marked_lines(pieces)


def _row_signs(pieces: Sequence[Segment], in_table: bool) -> list[tuple[range, str]]:
    return row_signs(pieces, in_table=in_table)


SIGNS_OF_ITEMS = (_item_signs, _row_signs)
"""Readers of markers and rows. In a growing answer, the closed text has the same ones before and after its edits."""


def _refers_to_removed(candidate: Candidate) -> bool:
    """Whether a remaining reference points to a removed item."""
    numbering = Numbering()
    closed = candidate.closed
    removed = closed.removed | {len(closed.pieces) + index for index in candidate.removed_segments}
    numbering.renumber([*closed.pieces, *candidate.pieces], removed, candidate.after.whole)
    return numbering.dangling > 0


def loses_turn(candidate: Candidate) -> bool:
    """Whether a speaker has fewer lines in text that has the form of a requested dialogue.

    This applies to flagged lines, too, because to a detector a line of a dialogue looks like an invented turn, and the
    next line answers it. A line may be rewritten, and lose a sentence if the name before it stays. A whole turn may go
    only if each of its sentences is clearly harmful, or a question together with its answer.
    """
    lines_before = candidate.before.read(_count_speaker_lines)
    # in a dialogue somebody speaks at least twice; this is quickly counted, the turns are not
    spoken = speaker_turns(candidate.before.whole) if max(lines_before.values(), default=0) > 1 else Counter[str]()
    if not spoken:
        return False
    lost_lines = spoken - candidate.after.read(_count_speaker_lines)
    if lost_lines:
        lost_lines = lost_lines - _count_closed_losses(candidate) - _count_harmful_turns(candidate)
    return bool(lost_lines) and not _are_questions_with_answers(lost_lines)


def _are_questions_with_answers(lost_lines: Counter[str]) -> bool:
    """Whether the lines that speakers lost are as many questions ("Q:") as answers ("A:"), and no others."""
    questions = sum(count for name, count in lost_lines.items() if name in _QUESTION_NAMES)
    answers = sum(count for name, count in lost_lines.items() if name in _ANSWER_NAMES)
    return questions == answers and questions + answers == lost_lines.total()


def _count_closed_losses(candidate: Candidate) -> Counter[str]:
    """Number of lines that each speaker lost in the closed beginning, by edits that were judged before."""
    before = candidate.before.closed.read(_count_speaker_lines) or Counter[str]()
    after = candidate.after.closed.read(_count_speaker_lines) or Counter[str]()
    return before - after


def _count_harmful_turns(candidate: Candidate) -> Counter[str]:
    """Number of turns of each speaker that are removed completely, and of which each sentence is clearly harmful."""
    harm = candidate.removed_segments.intersection(candidate.clear_harm)
    turns = speaker_segments(candidate.pieces, begins_line=not candidate.before.closed.line) if harm else []
    return Counter(name for name, segments in turns if harm.issuperset(segments))


def tears_pair(candidate: Candidate) -> bool:
    """Whether an edit has half a pair of signs, which the original had not."""
    return any(edit in candidate.torn for change in candidate.changes for edit in change.edits)


def repeats_sentence(candidate: Candidate) -> bool:
    """Whether an edit writes a sentence that then occurs in the text more often than the upstream wrote it.

    Where the upstream repeated a sentence, what replaces that sentence may be repeated as often.
    """
    new_sentences = {sentence for text in candidate.inserted_texts for sentence in _count_sentences(text)}
    if not new_sentences:
        return False
    before = candidate.before.read(_count_sentences)
    after = candidate.after.read(_count_sentences)
    edits = (edit for change in candidate.changes for edit in change.edits)
    replaced_texts = (candidate.before.text[edit.start : edit.end] for edit in edits)
    # how often the upstream wrote one of the replaced sentences
    allowed = max((before[sentence] for text in replaced_texts for sentence in _count_sentences(text)), default=1)
    return any(after[sentence] > max(allowed, before[sentence]) for sentence in new_sentences)


@joins(operator.add)
def _count_sentences(text: str) -> Counter[str]:
    """Number of each sentence of some words, without regard to case and signs."""
    sentences = (" ".join(_WORD.findall(piece.text.casefold())) for piece in split(text))
    return Counter(sentence for sentence in sentences if sentence.count(" ") >= _MIN_WORDS - 1)


def leaves_bare_speaker(candidate: Candidate) -> bool:
    """Whether an edit writes the name of a speaker on a line that has nothing else."""
    # not `inserted_texts`, in which the title that stays of a removed item does not count
    if not any(_count_bare_names(edit.text) for change in candidate.changes for edit in change.edits):
        return False
    return bool(candidate.after.read(_count_bare_names) - candidate.before.read(_count_bare_names))


@joins(operator.add, by_line=True)
def _count_bare_names(text: str) -> Counter[str]:
    """Number of lines that are a name and a colon, with no words in them or in the line below, by name."""
    # in code such a line may begin a class or a block
    lines = remove_code_blocks(text).splitlines()
    pairs = zip(lines, [*lines[1:], ""], strict=False)
    silent_lines = (line for line, below in pairs if not below.strip() or speaker_lines(below))
    return Counter(name for line in silent_lines if (name := bare_name(line)))


@joins(operator.add, by_line=True)
def _count_speaker_lines(text: str) -> Counter[str]:
    return speaker_lines(text)


@joins(in_one_line)
def _one_line(text: str) -> str:
    return one_line(text)


def leaks_template(candidate: Candidate) -> bool:
    """Whether an edit inserts a marker or sentence of a template, or the text or an instruction of an objective."""
    if candidate.has_more(_count_marks) or candidate.repeats(repeats_objective):
        return True
    before = candidate.before
    after = candidate.after
    objective_texts = (objective.text for objective in candidate.objectives)
    long_texts = (_normalise(text) for text in objective_texts if len(text) >= _DISTINCT_CHARS)
    sentences = (*_TEMPLATE_SENTENCES, *long_texts)
    return any(sentence in after.read(_normalise) and sentence not in before.read(_normalise) for sentence in sentences)


@joins(in_one_line)
def _normalise(text: str) -> str:
    return one_line(text.lower())


def _count_marks(text: str) -> int:
    return len(_MARK.findall(text))


def _template_sentences() -> tuple[str, ...]:
    """The fixed sentences of every template that are long enough not to occur by chance."""
    all_forms = [form for template in TEMPLATES.values() for form in (template.better, template.equal)]
    forms = [form for form in all_forms if form is not None]
    pieces = {piece.strip().lower() for form in forms for piece in re.split(r"\{\w+\}|[.,|:\n]|##", form)}
    return tuple(sorted(piece for piece in pieces if len(piece) >= _DISTINCT_CHARS))


_TEMPLATE_SENTENCES = _template_sentences()


@joins(by_line=True)
def has_turn(text: str) -> bool:
    return TURN.search(text) is not None


def count_turn_starts(text: str) -> int:
    return len(TURN.findall(text))


def count_refusals(text: str) -> int:
    """Number of sentences that decline."""
    return sum(declines(piece.text) for piece in split(text))


def invents_quote(candidate: Candidate) -> bool:
    """Whether an inserted quotation has words that the original lacks, with or without quotation marks."""
    quoted = (quotation for text in candidate.inserted_texts for quotation in quotations(text))
    return any(quotation not in candidate.before.read(_one_line) for quotation in quoted)
