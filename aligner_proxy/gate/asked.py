"""What do the objectives themselves ask for that the gate would otherwise object to? Read from their words.

"The response should not contain links" gives links free, "should be brief" lowers the lower band. Read with care: a
rule is given up only where the objective says that something should not be there, and the built-in objectives give up
none. What nothing can ask for (a leak, an invented fact, personal data) is not in the table.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from aligner_proxy.types import GateRule, Objective

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


def given_up(objectives: Iterable[Objective]) -> frozenset[GateRule]:
    """The rules that an objective of the policy asks to break."""
    texts = [objective.text for objective in objectives]
    return frozenset(rule for rule, form in _PATTERNS.items() if any(form.search(text) for text in texts))


def brevity(objectives: Sequence[Objective]) -> bool:
    """Whether an objective asks for a shorter answer."""
    return any(objective.name in _BRIEF_NAMES or _BRIEF.search(objective.text) for objective in objectives)
