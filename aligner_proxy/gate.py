"""Does a correction do harm? If so it is thrown away and the original stands, with the reason named here.

Facts are numbers, addresses (web and mail), code blocks and names. What may go, and why:

- A segment that was not flagged keeps all its facts: nobody asked for a change there.
- A segment that was flagged and is gone takes its facts with it. The detector flagged it because an objective asked for
  a change (an insult, an advertisement with a price), and removing it is the change.
- A segment that was flagged and is *rewritten* keeps its numbers, addresses and code: new words may change the tone,
  not the facts. Names may go, since an objective can ask just that ("never mention competitors").
- Without a detector's word (a model without a head) every fact stays, except those of a removed turn that the upstream
  invented for the user or for itself.
- A number or address that the original did not have is an invented fact, wherever it appears.

So a correction can never repair a wrong number: a small aligner is far likelier to spoil a right one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from enum import StrEnum

from aligner_proxy.facts import FactReader, addresses, code, names, numbers
from aligner_proxy.fate import Fate, Part, follow
from aligner_proxy.prompts import TEMPLATES
from aligner_proxy.types import Correction, Objective

MAX_GROWTH, SLACK_CHARS = 2.0, 200
"""Upper band: twice the original and 200 characters."""
MIN_SHARE, MIN_SHARE_CONCISE = 0.5, 0.2
"""Lower band: half of what was to stay (removed flagged segments do not count), a fifth where brevity is asked for."""
_SHORTENING = frozenset({"concise", "non-repetitive"})
_TURN = re.compile(r"^[ \t>*#]*(?:Human|User|Assistant|System)[ \t]*\**[ \t]*:", re.MULTILINE | re.IGNORECASE)
_MARK = re.compile(
    r"\|\s*(?:Context|Query|Question|Answer|Edit)\s*:|##\s*(?:Question|Answer|Correction)\s*:", re.IGNORECASE
)
_TELLING_CHARS = 20


class GateReason(StrEnum):
    """Why a correction was not delivered; appears in headers and metrics as gate_<reason>."""

    EMPTY = "empty"
    LEAK = "template_leak"
    INVENTED_TURN = "invented_turn"
    LOST_CODE = "lost_code"
    LOST_NUMBER = "lost_number"
    LOST_ADDRESS = "lost_address"
    LOST_NAME = "lost_name"
    INVENTED_FACT = "invented_fact"
    TOO_SHORT = "too_short"
    TOO_LONG = "too_long"


def check(original: str, correction: Correction, objectives: Sequence[Objective]) -> GateReason | None:
    """The first objection to delivering `correction` in place of `original`, or None."""
    edited = correction.text
    if not edited.strip():
        return GateReason.EMPTY
    if _leaks(original, edited, objectives):
        return GateReason.LEAK
    if len(_TURN.findall(edited)) > len(_TURN.findall(original)):
        return GateReason.INVENTED_TURN
    parts = follow(original, correction, _first_turn(original))
    return _lost(parts, edited) or _invented(original, edited) or _band(original, edited, parts, objectives)


def _leaks(original: str, edited: str, objectives: Sequence[Objective]) -> bool:
    if len(_MARK.findall(edited)) > len(_MARK.findall(original)):
        return True
    before, after = _flat(original), _flat(edited)
    told = [_flat(o.text) for o in objectives if len(o.text) >= _TELLING_CHARS]
    return any(text in after and text not in before for text in (*_TELLING, *told))


def _flat(text: str) -> str:
    return " ".join(text.lower().split())


def _template_sentences() -> tuple[str, ...]:
    """The fixed sentences of every template, long enough that no answer holds them by chance."""
    forms = [form for t in TEMPLATES.values() for form in (t.better, t.equal) if form is not None]
    pieces = {piece.strip().lower() for form in forms for piece in re.split(r"\{\w+\}|[.,|:\n]|##", form)}
    return tuple(sorted(piece for piece in pieces if len(piece) >= _TELLING_CHARS))


_TELLING = _template_sentences()


def _first_turn(original: str) -> int:
    """Where the upstream began to speak for others; what stands there may be removed with its facts.

    A text that begins with a turn is a dialogue that somebody asked for, as far as form can tell: nothing is invented.
    """
    match = _TURN.search(original)
    return match.start() if match and original[: match.start()].strip() else len(original)


def _lost(parts: Sequence[Part], edited: str) -> GateReason | None:
    """A fact of what had to stay that is not in `edited`."""
    stays = [part for part in parts if part.fate is not Fate.REMOVED]
    if any(block not in edited for part in stays for block in code(part.text)):
        return GateReason.LOST_CODE
    if _of(numbers, stays) - numbers(edited):
        return GateReason.LOST_NUMBER
    if _of(addresses, stays) - addresses(edited):
        return GateReason.LOST_ADDRESS
    words = set(re.findall(r"\w+", edited.casefold()))
    lost = _of(names, (part for part in stays if part.fate is Fate.STAYS)) - words
    return GateReason.LOST_NAME if lost else None


def _of(facts: FactReader, parts: Iterable[Part]) -> set[str]:
    return {fact for part in parts for fact in facts(part.text)}


def _invented(original: str, edited: str) -> GateReason | None:
    new = (numbers(edited) - numbers(original)) | (addresses(edited) - addresses(original))
    return GateReason.INVENTED_FACT if new else None


def _band(original: str, edited: str, parts: Sequence[Part], objectives: Sequence[Objective]) -> GateReason | None:
    shortening = any(objective.name in _SHORTENING for objective in objectives)
    due = sum(len(part.text) for part in parts if part.fate is not Fate.REMOVED)
    if len(edited) < due * (MIN_SHARE_CONCISE if shortening else MIN_SHARE):
        return GateReason.TOO_SHORT
    return GateReason.TOO_LONG if len(edited) > len(original) * MAX_GROWTH + SLACK_CHARS else None
