"""What do the objectives themselves ask for that the gate would otherwise object to? Read from their words.

"The response should not contain links" gives links free, "should be brief" lowers the lower band. Read with care: a
rule is given up only where the objective says that something should not be there, and the built-in objectives give up
none. What nothing can ask for (a leak, an invented fact, personal data) is not in the table.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from aligner_proxy.lengths import LENGTHS, contains_any
from aligner_proxy.types import Allowance, GateRule, Objective

_BRIEF_NAMES = frozenset({"concise", "non-repetitive"})
_BRIEF = re.compile(
    r"(?<!not )(?<!not be )(?<!avoid )\b(?:brief|concise|short|shorter|succinct|terse|compact|to the point|few words)\b"
    r"|\b(?:repetiti|redundan)\w*",
    re.I,
)
_REMOVAL = (
    r"(?:\b(?:no|not|never|without|avoid\w*|omit\w*|remov\w*|free of|leav\w+ out|instead of|rid of|drop)|n't)"
    r"\b[^.;:!?]{0,60}?\b"
)
_CONTACTS = r"e-?mails?|addresses|(?:tele)?phones?|contact details|personal (?:data|details|information)"
# "Contempt for people" is not about naming them.
_PEOPLE = r"(?:private|named|real|(?:mention|nam)\w*(?: of)?) (?:persons?|people)"
_THINGS = {
    GateRule.LOST_CODE: r"code|snippets?",
    GateRule.LOST_CITATION: r"citations?|footnotes?|references|sources",
    GateRule.LOST_NUMBER: rf"numbers|figures|digits|prices?|statistics|dates|percentages|{_CONTACTS}",
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
_LANGUAGE = rf"\b(?:in|into|to) (?:{_LANGUAGES})\b|\bin the (?:\w+'s )?language of\b|\btranslat\w+"
_PATTERNS = {
    **{rule: re.compile(rf"{_REMOVAL}(?:{thing})\b", re.I) for rule, thing in _THINGS.items()},
    GateRule.LANGUAGE: re.compile(_LANGUAGE, re.I),
    GateRule.SCRIPT: re.compile(_LANGUAGE, re.I),
    GateRule.NEW_REFUSAL: re.compile(r"(?<!not )(?<!never )(?<!avoid )\b(?:refuse|decline|turn down)\b", re.I),
}


def given_up(objectives: Sequence[Objective]) -> frozenset[GateRule]:
    """The rules that an objective of the policy asks to break."""
    texts = [objective.text for objective in objectives if objective.allowance is None]
    found = frozenset(rule for rule, form in _PATTERNS.items() if any(form.search(text) for text in texts))
    return found.union(*(allowance.rules for allowance in _allowances(objectives)))


def brevity(objectives: Sequence[Objective]) -> bool:
    """Whether an objective asks for a shorter answer."""
    own = [objective for objective in objectives if objective.allowance is None]
    return any(objective.name in _BRIEF_NAMES or _BRIEF.search(objective.text) for objective in own)


def may_go(objectives: Sequence[Objective], original: str, piece: str) -> bool:
    """Whether a request asks for this segment to go: the answer is too long for it, or it holds a banned word."""
    return any(
        _too_long(allowance, original) or contains_any(piece, allowance.banned) for allowance in _allowances(objectives)
    )


def overcut(objectives: Sequence[Objective], original: str, new: str) -> bool:
    """Whether more than half of what a bound of length leaves room for is gone, too: nobody asked for that."""
    bounds = [allowance.longest for allowance in _allowances(objectives) if _too_long(allowance, original)]
    return any(LENGTHS[bound[0]](new) * 2 < bound[1] for bound in bounds if bound is not None)


def _too_long(allowance: Allowance, text: str) -> bool:
    if allowance.longest is None:
        return False
    unit, most = allowance.longest
    return LENGTHS[unit](text) > most


def _allowances(objectives: Iterable[Objective]) -> list[Allowance]:
    return [objective.allowance for objective in objectives if objective.allowance is not None]
