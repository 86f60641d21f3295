"""Does the text say something now that nobody said? A leak, another voice, a refusal, data of a person, new facts.

Only what is more than in the original counts: what the upstream wrote is the upstream's business.
"""

from __future__ import annotations

import re

from aligner_proxy.dictated import is_repeated
from aligner_proxy.facts import addresses, numbers, quotations
from aligner_proxy.gate.candidate import Candidate
from aligner_proxy.gate.lost import one_line
from aligner_proxy.gate.personal import personal_data
from aligner_proxy.prompts import TEMPLATES
from aligner_proxy.refusals import declines
from aligner_proxy.segments import split

TURN = re.compile(r"^[ \t>*#]*(?:Human|User|Assistant|System)[ \t]*\**[ \t]*:", re.MULTILINE | re.IGNORECASE)
_MARK = re.compile(
    r"\|\s*(?:Context|Query|Question|Answer|Edit)\s*:|##\s*(?:Question|Answer|Correction)\s*:", re.IGNORECASE
)
_TELLING_CHARS = 20


def template_leak(candidate: Candidate) -> bool:
    """A mark or sentence of a template, the text of an objective, or what it says to do written out as a sentence."""
    if candidate.more(_marks) or candidate.repeats(is_repeated):
        return True
    before, after = candidate.before, candidate.after
    told = (_flat(o.text) for o in candidate.objectives if len(o.text) >= _TELLING_CHARS)
    return any(text in after.of(_flat) and text not in before.of(_flat) for text in (*_TELLING, *told))


def _marks(text: str) -> int:
    return len(_MARK.findall(text))


def _flat(text: str) -> str:
    return " ".join(text.lower().split())


def _template_sentences() -> tuple[str, ...]:
    """The fixed sentences of every template, long enough that no answer holds them by chance."""
    forms = [form for t in TEMPLATES.values() for form in (t.better, t.equal) if form is not None]
    pieces = {piece.strip().lower() for form in forms for piece in re.split(r"\{\w+\}|[.,|:\n]|##", form)}
    return tuple(sorted(piece for piece in pieces if len(piece) >= _TELLING_CHARS))


_TELLING = _template_sentences()


def invented_turn(candidate: Candidate) -> bool:
    """More lines that begin with somebody's name and a colon."""
    return candidate.more(_turns)


def _turns(text: str) -> int:
    return len(TURN.findall(text))


def new_refusal(candidate: Candidate) -> bool:
    """More sentences that decline."""
    return candidate.more(_refusals)


def _refusals(text: str) -> int:
    return sum(declines(piece.text) for piece in split(text))


def new_personal_data(candidate: Candidate) -> bool:
    """A way to reach a person that the original did not give."""
    return bool(candidate.added(personal_data))


def invented_fact(candidate: Candidate) -> bool:
    """A number or an address from nowhere."""
    return bool(candidate.added(numbers) or candidate.added(addresses))


def invented_quote(candidate: Candidate) -> bool:
    """Words in quotation marks that the original does not have, not even without the marks."""
    said = (words for text in candidate.new for words in quotations(text))
    return any(words not in candidate.before.of(one_line) for words in said)
