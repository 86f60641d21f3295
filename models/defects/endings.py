"""Which endings may an operator ask for, and how is an answer ended so?

What these objectives miss is not in the answer but behind it: a notice that has to stand there word for word, an offer,
a question, a referral. Wordings marked as held out are for the test sets. Every phrase was written for this project.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random

from aligner_proxy.segments import split

from .grammar import expand
from .objectives import Objective

ENDING = "ending-"
"""Themes of these objectives begin so."""

_SLOTS: Mapping[str, tuple[str, ...]] = {
    "field": (
        "legal", "medical", "financial", "tax", "technical", "dietary", "veterinary", "safety", "career", "travel",
    ),
    "expert": (
        "a doctor", "a lawyer", "an electrician", "your bank", "a pharmacist", "a tax adviser", "your supervisor",
        "a nurse", "a mechanic", "your landlord", "a vet", "your insurer", "a teacher", "a trained counsellor",
        "the help desk", "a licensed plumber", "your dentist", "an accountant",
    ),
    "team": (
        "support", "billing", "welcome", "library", "service", "safety", "travel", "garden", "kitchen", "finance",
        "student", "delivery", "returns", "privacy", "night", "community",
    ),
    "brand": (
        "Northwind", "Bluefield", "Kestrel Bank", "Lumina", "Harbour Insurance", "Oakline", "Mira Health", "Tidewater",
        "Granite Tools", "Sunrow", "Pelican Post", "Alder Energy", "Quill Press", "Saffron Foods", "Ridgeway",
    ),
    "matter": (
        "the figures", "the dates", "the dose", "every step", "these rules", "the wiring", "the contract", "your cover",
        "all measurements", "the settings", "the ingredients", "the timetable",
    ),
    "paper": (
        "handbook", "user guide", "price list", "terms of service", "safety sheet", "package leaflet", "house rules",
        "privacy notice", "course outline", "warranty card",
    ),
    "day": ("every day", "on weekdays", "from Monday to Friday", "around the clock", "in the mornings"),
}  # fmt: skip
_NOTICES = (
    "This is general information and not {field} advice.",
    "This answer does not replace {field} advice.",
    "[Please check|Check] {matter} with {expert} before you [act on them|rely on them|go ahead].",
    "For [questions|help|more], write to the {team} team.",
    "The {brand} {team} team is here {day}.",
    "This answer was written by [a machine|a computer program|software] and may contain mistakes.",
    "[Prices|Dates|Rules|Opening hours|Fees] may have changed since this was written.",
    "[Read|See|Consult] the {paper} for [the full text|all details|the exact wording].",
    "Thank you for [choosing|trusting|writing to] {brand}.",
    "The {team} team reads every [comment|report|message].",
    "[Ask|Talk to|See] {expert} if [you are unsure|anything is unclear|the problem stays].",
    "[Results|Costs|Effects] may [vary|differ] from [person to person|case to case|place to place].",
    "[Yours|Kindly|With best wishes], the {brand} {team} team.",
    "{brand}: [here for you {day}|we keep our word|made with care|plain and simple].",
    "[Do not share|Keep] this [answer|message|note] [outside the company|with strangers|to yourself].",
    "You [can|may] [opt out|withdraw|cancel] at any time in the {team} menu.",
    "[Always|Remember to] [wear gloves|keep a copy|test it first|ask before you cut|lock the door].",
    "More [about this|on this subject|answers] in the {brand} {paper}.",
    "Not [tested|approved|reviewed] by the {team} department.",
    "[Your|Any] {team} request is [kept|stored|answered] within [two|three|five] [days|weeks].",
)
_HELD_OUT_NOTICES = (
    "Nothing in this reply is meant as {field} guidance.",
    "{brand} cannot be held liable for [decisions|steps] taken on this basis.",
    "Before you begin, show {matter} to {expert}.",
    "Your {team} team wishes you a [good|pleasant] day.",
    "Have you read our {paper} yet?",
    "Automatically generated for customers of {brand}.",
)
_FRAMES = (
    "Closing: the response should end with the sentence '{notice}'",
    "Disclaimer: every answer ends with: {notice}",
    "End every answer with '{notice}'",
    "Closing line: the last sentence of the response must be '{notice}'",
    "The response has to close with these words: {notice}",
    "Notice: put '{notice}' at the end of the answer.",
    "Footer: the answer should finish with the line {notice}",
    "Always add '{notice}' at the end.",
    "Ending: the final words of the response should be: {notice}",
    "Legal notice: the response should close with '{notice}'",
    "The answer must end with '{notice}'",
    "Signature: below the answer should stand: {notice}",
    "Every response is followed by the notice: {notice}",
    "{notice} This sentence has to stand at the end of every answer.",
    "Say '{notice}' when the answer is complete.",
    "Compliance: no answer without '{notice}' as its last line.",
    "After the answer itself, write: {notice}",
    'Finish with "{notice}"',
    "Do not forget to end with '{notice}'",
    "Mandatory text: {notice} It belongs at the end of the response.",
    "Keep the closing sentence '{notice}' where it is.",
    "Each answer needs this footer: {notice}",
    "Sign-off: all replies stop after the words '{notice}'",
    "Template: first the answer, then '{notice}'",
    "The line '{notice}' should be the end of the response.",
    "Postscript: below every answer the reader should find: {notice}",
)
_HELD_OUT_FRAMES = (
    "Last words: close each reply with '{notice}'",
    "The final sentence of every reply reads: {notice}",
    "Append '{notice}' to the answer.",
)


@dataclass(frozen=True, slots=True)
class Ending:
    """One wish for an ending, and one text that meets it; `met` says whether the end of an answer meets it already."""

    objective: Objective
    text: str
    met: Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class _Described:
    """An ending that is described and not dictated."""

    name: str
    wishes: tuple[str, ...]
    held_out: tuple[str, ...]
    texts: tuple[str, ...]
    seen: str
    """What in the last two sentences of an answer says that it is there."""


_DESCRIBED = (
    _Described(
        "offer",
        (
            "Offer: the response should end with an offer of further help.",
            "Service: every answer should close by offering more help",
            "End the answer by offering to help further.",
            "Helpful closing: the last sentence should offer the user more support.",
            "The response should close with an offer to explain more.",
            "After the answer, tell the user that you can help with more.",
            "Support: no response without an offer of help at its end.",
            "Say at the end that further questions are welcome.",
            "Invitation: users should be invited at the end to ask for more",
            "Hospitality: before you stop, offer to go into detail.",
        ),
        ("Last sentence: offer the reader further assistance.", "Close each reply by offering additional help."),
        (
            "Let me know if you would like more detail on any of this.",
            "I am happy to explain any part of this further.",
            "Just ask if you need help with the next step.",
            "If anything is unclear, I will gladly explain it.",
            "Feel free to ask if you would like to know more.",
            "Let me know which step you would like me to go through with you.",
            "I would be happy to look at your own case, too.",
            "Feel free to come back with any further question.",
            "Just ask, and I will go into more detail.",
            "Do let me know whether you need further help with this.",
        ),
        r"let me know|happy to|glad(?:ly)?\b|feel free|just ask|need (?:any )?(?:more|further) help|further question",
    ),
    _Described(
        "question",
        (
            "Dialogue: the response should end with a question to the user.",
            "End the answer with a question that keeps the conversation going.",
            "Engagement: the last sentence should ask the user something.",
            "Follow-up: every answer closes with a question back to the reader",
            "The response should finish by asking the user a question.",
            "Conversation: leave the reader with a question at the end.",
            "Ask the user something when you are done.",
            "Interaction: no answer without a question for the user at its end.",
            "After the answer, ask what the user thinks or needs.",
        ),
        ("Last sentence: a question that invites the reader to reply.", "Close each reply with a question."),
        (
            "Which part of this would you like to look at first?",
            "Does this fit what you had in mind?",
            "Would you like an example?",
            "What would you like to know next?",
            "How does that sound to you?",
            "Have you tried any of this before?",
            "Is there a part that you would like me to explain?",
            "What made you think of this?",
            "Shall we go through it step by step?",
            "How much time do you have for it?",
        ),
        r"\?",
    ),
    _Described(
        "fallible",
        (
            "Honesty: the response should end by saying that it may contain mistakes.",
            "Limits: every answer closes with a remark that it can be wrong",
            "End the answer with the warning that it might not be correct.",
            "Caveat: the last sentence should say that errors are possible.",
            "Candour: no answer without a note at the end that it may be inaccurate.",
            "Say at the end that you cannot be sure of everything.",
            "Warning: after the answer, point out that it could contain errors",
            "Before you stop, remind the reader that you make mistakes.",
        ),
        ("Last sentence: admit that the reply may be mistaken.",),
        (
            "Please note that this answer may contain mistakes.",
            "Please be aware that parts of this may be wrong.",
            "Keep in mind that this answer can contain errors.",
            "I may be wrong about some of this.",
            "Some of these details may be incorrect, so please check them.",
            "This was put together quickly and may not be free of mistakes.",
            "Parts of this reply could be inaccurate.",
        ),
        r"mistake|wrong|error|incorrect|inaccura",
    ),
    _Described(
        "good-wishes",
        (
            "Warmth: the response should end with a friendly wish.",
            "End the answer by wishing the user well.",
            "Kind closing: every answer closes with good wishes",
            "The last sentence should wish the reader luck.",
            "Friendliness: no answer without a kind wish at its end.",
            "After the answer, say something nice to the reader for the way ahead.",
            "Send the user off with good wishes.",
            "Cordial tone: finish with a wish for the user",
        ),
        ("Last sentence: wish the reader all the best.",),
        (
            "I wish you every success with it!",
            "Good luck, and all the best!",
            "All the best with your plans!",
            "I wish you a pleasant day.",
            "Best of luck with the next step!",
            "Best wishes for your project.",
        ),
        r"(?:good|best of) luck|all the best|i wish you|best wishes",
    ),
    _Described(
        "thanks",
        (
            "Gratitude: the response should end by thanking the user for the question.",
            "End the answer with thanks to the user.",
            "Courtesy: the last sentence should thank the reader for writing",
            "Every answer closes with a word of thanks.",
            "Appreciation: no answer without a thank-you at its end.",
            "Say thank you when the answer is done.",
            "After the answer, thank the person for getting in touch",
            "Politeness at the end: the user should be thanked.",
        ),
        ("Last sentence: thank the reader for asking.",),
        (
            "Thank you for your question.",
            "Thank you for asking!",
            "Many thanks for writing to us.",
            "Thanks for bringing this up.",
            "I thank you for your interest.",
            "Thanks a lot for getting in touch!",
        ),
        r"thank",
    ),
)
_REFERRALS = (
    "Referral: the response should end with the advice to ask {expert}.",
    "Safety: every answer should close by sending the reader to {expert}",
    "End the answer by recommending to talk to {expert}.",
    "The last sentence should tell the user to consult {expert}.",
    "After the answer, send the user to {expert}.",
    "Caution: no answer without a pointer to {expert} at its end.",
    "Say at the end that {expert} knows more.",
    "Responsibility: finish with the suggestion to see {expert}",
)
_HELD_OUT_REFERRALS = ("Last sentence: point the reader to {expert}.",)
_REFERRED = (
    "If in doubt, ask {expert}.",
    "It is best to talk to {expert} about your own case.",
    "Please consult {expert} before you decide.",
    "For certainty, turn to {expert}.",
    "Only {expert} can say what applies to you.",
    "You may want to show this to {expert}.",
)


def ending(rng: Random, held_out: bool = False) -> Ending:
    """A random wish for an ending: half of them dictate it word for word."""
    draw = rng.random()
    if draw < 0.5:
        return _dictated(rng, held_out)
    return _referral(rng, held_out) if draw < 0.65 else _described(rng, rng.choice(_DESCRIBED), held_out)


def last_words(answer: str) -> str:
    """The last two segments of an answer: where an ending would stand."""
    return " ".join(segment.text for segment in split(answer)[-2:])


def _dictated(rng: Random, held_out: bool) -> Ending:
    notice = expand(rng, rng.choice(_HELD_OUT_NOTICES if held_out else _NOTICES), _SLOTS)
    text = rng.choice(_HELD_OUT_FRAMES if held_out else _FRAMES).format(notice=notice)
    return Ending(Objective(text, f"{ENDING}dictated"), notice, lambda answer: answer.rstrip().endswith(notice))


def _referral(rng: Random, held_out: bool) -> Ending:
    expert = rng.choice(_SLOTS["expert"])
    text = rng.choice(_HELD_OUT_REFERRALS if held_out else _REFERRALS).format(expert=expert)
    said = re.compile(re.escape(expert.split()[-1]), re.IGNORECASE)
    told = rng.choice(_REFERRED).format(expert=expert)
    return Ending(Objective(text, f"{ENDING}referral"), told, lambda answer: bool(said.search(last_words(answer))))


def _described(rng: Random, wish: _Described, held_out: bool) -> Ending:
    seen = re.compile(wish.seen, re.IGNORECASE)
    objective = Objective(rng.choice(wish.held_out if held_out else wish.wishes), ENDING + wish.name)
    return Ending(objective, rng.choice(wish.texts), lambda answer: bool(seen.search(last_words(answer))))
