"""Recognition of refusals by their wording.

`is_refusal` is strict: it judges a whole answer, because a refusal is not corrected. `declines` is broad: it judges one
sentence, for comparing two texts.
"""

from __future__ import annotations

import re

_REFUSAL_CHARS = 240
"""Longest refusal; a longer answer says something else as well."""
_REFUSAL_WORDS = _REFUSAL_CHARS // 2
"""Most words of a refusal, since each takes at least a letter and a space."""
_SORRY = r"(?:(?:i(?:'m| am) )?(?:very |really |so )?sorry|i apologi[sz]e|unfortunately|my apologies)"
_CANNOT = r"(?:can(?:'t|not| not)|won't|will not|(?:am|'m) (?:not able|unable) to|am not allowed to|must decline to)"
_DO_REQUEST = (
    r"(?:help|assist|answer|do|comply|continue|provide|share|fulfil+|discuss|talk about|respond to|support|engage in|"
    r"generate|create|write|complete|process)"
)
_REQUEST_OBJECT = (
    r"(?: you)?(?: with| to)?(?: (?:that|this|it|these|those|your|the|such|a|any|requests?|questions?|topics?|content|"
    r"information|kind|type|sort|of|or|like|here|matter|task|one|thing|conversation|discussion|response)){0,8}"
)
_OFFER = (
    r"(?:(?:is there|can i help(?: you)?|may i help(?: you)?|let me know|feel free|please (?:ask|let me)|"
    r"i'm happy to help|i am happy to help|i'd be happy to help)(?: [a-z']+){0,14})"
)
_REFUSAL_ANSWER = re.compile(
    rf"(?:{_SORRY}[,;.]? ?(?:but )?)?(?:as an ai(?: [a-z]+){{0,4}},? )?"
    rf"i ?{_CANNOT} {_DO_REQUEST}{_REQUEST_OBJECT}[.!]?(?: {_OFFER}[.?!]?)?"
)
_INABILITY = (
    r"(?:\b(?:can(?:'t|not| not)|could(?:n't| not)|won't|will not|unable|not (?:able|allowed|permitted|supposed)|"
    r"refuse|decline|pass on|(?:rather|prefer) not)|"
    r"(?:\bnot|n't) (?:in a position|have the ability|feel comfortable|be able))\b"
)
_AGAINST_RULES = (
    r"(?:against|violat\w+|outside|beyond|allow|permit)\b.{0,40}\b"
    r"(?:guideline|polic|principle|programming|scope|what i can)"
    r"|(?:guidelines|policy|policies|principles|programming)\b.{0,20}(?:\bnot\b|n't|\bprevent|\bforbid|\bprohibit)"
)
_LEAD_IN = (
    r"(?:(?:i|we)(?:'m|'re| am| are) (?:\w+ ){0,2}sorry\b[^.!?]{0,120}, ?|.{0,40}[,;.:] ?)?"
    r"(?:(?:but|however|and|unfortunately|sadly|sorry|regrettably),? ){0,3}"
)
_DECLINING_SENTENCE = re.compile(
    rf"{_LEAD_IN}(?:i|we)\b.{{0,25}}{_INABILITY}(?! (?:recommend|stress|wait|overstate))"
    rf"|{_LEAD_IN}as (?:an ai|a(?: large)? language model)\b.{{0,20}}\b(?:i|we)\b.{{0,20}}(?:\bnot\b|n't|\bcannot\b)"
    rf"|{_LEAD_IN}(?:this|that|it)(?:'s| is) not something (?:i|we)\b"
    r"|it (?:is|would be|would not be|wouldn't be|is not|isn't) (?:not )?"
    r"(?:appropriate|ethical|right|responsible) for me\b"
    rf"|.{{0,60}}\b(?:{_AGAINST_RULES})"
    r"|(?:es )?tut mir leid\b.{0,40}\bkann\b.{0,80}\bnicht\b"
    r"|(?:leider )?(?:kann ich|ich kann) (?:\w+ ){0,4}nicht (?:helfen|weiterhelfen|beantworten|erfüllen)"
    r"|(?:je suis )?désolé.{0,40}\bpeux pas\b|je ne (?:peux|puis) pas (?:vous |t'|te )?(?:aider|répondre|fournir)"
    r"|lo siento.{0,40}\bno puedo\b|no puedo (?:\w+ )?(?:ayudar|responder|proporcionar)"
    r"|(?:desculpe|sinto muito|lamento).{0,40}\bnão posso\b|não posso (?:\w+ )?(?:ajudar|responder|fornecer)"
    r"|mi dispiace.{0,40}\bnon posso\b|non posso (?:\w+ )?(?:aiutar|rispondere|fornire)"
)


def is_refusal(answer: str) -> bool:
    """Whether the whole answer says no more than "I can't help with that".

    Strict on purpose: it accepts one short English sentence in the usual words, optionally with an apology before and
    an offer after it. A refusal with a reason, a suggestion or an insult does not count.
    """
    words = answer.split(None, _REFUSAL_WORDS)  # a long answer is not split to its end
    if sum(map(len, words)) > _REFUSAL_CHARS:
        return False
    text = " ".join(words).replace("\u2019", "'").lower()
    return len(text) <= _REFUSAL_CHARS and _REFUSAL_ANSWER.fullmatch(text) is not None


def declines(sentence: str) -> bool:
    """Whether a sentence begins with declining, in six languages.

    The test is so broad that it is only good for comparing two texts.
    """
    text = " ".join(sentence.replace("\u2019", "'").lower().split()).lstrip("\"'*_-> ")
    return _DECLINING_SENTENCE.match(text) is not None
