"""In which ways can an edit do harm, and which rule of the gate is there to notice?

Each `Harm` turns one good segment of an answer into what a bad aligner might write in its place. What real answers
hardly ever hold (links, citations, quotations, code) is planted first, in sentences of our own. Wordings are ours.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from aligner_proxy.facts import names, numbers
from aligner_proxy.prompts import template
from aligner_proxy.refusals import declines
from aligner_proxy.types import GateRule

Write = Callable[[Random, str, str], str | None]


@dataclass(frozen=True, slots=True)
class Harm:
    """`write` gets a good segment and the rest of the answer; None where this harm cannot be done to it.

    `plant` is put behind a good segment first, and is what gets harmed. `headless` are harms that a detector's word
    would permit (names may go from a flagged segment, and so may a flagged item of a list).
    """

    name: str
    rules: frozenset[GateRule]
    write: Write
    plant: Sequence[str] = ()
    headless: bool = False


_DIGITS = re.compile(r"(?<![\w.,:/])\d{1,4}(?![\w.,:/]\w)")
_ITEM = re.compile(r"^(?:[-*+\u2022]|\d{1,3}[.)])[ \t]+(?=\S)")
_NUMBER = re.compile(r"^(\d{1,3})(?=[.)])")


def _other_number(rng: Random, text: str, rest: str) -> str | None:
    found = list(_DIGITS.finditer(_ITEM.sub("", text)))
    if not numbers(text) or not found or _ITEM.match(text):
        return None
    one = rng.choice(found)
    return text[: one.start()] + str(int(one.group()) + rng.randint(1, 40) + 7000) + text[one.end() :]


def _no_number(rng: Random, text: str, rest: str) -> str | None:
    if not numbers(text) - numbers(rest) or _ITEM.match(text):
        return None
    changed = re.sub(r"[-\u2212]?\d+(?:[.,:/]\d+)*", "some", text)
    return None if numbers(changed) else changed


def _no_name(rng: Random, text: str, rest: str) -> str | None:
    found = sorted(names(text) - set(re.findall(r"\w+", rest.casefold())))
    if not found:
        return None
    return re.sub(rf"\b{re.escape(rng.choice(found))}\b", "someone", text, flags=re.IGNORECASE)


def _swap(old: str, new: str) -> Write:
    return lambda rng, text, rest: text.replace(old, new) if old in text else None


def _without(pattern: str) -> Write:
    return lambda rng, text, rest: changed if (changed := re.sub(pattern, "", text)) != text else None


def _instead(texts: Sequence[str]) -> Write:
    return lambda rng, text, rest: rng.choice(texts)


def _refusal(texts: Sequence[str]) -> Write:
    """A refusal in place of a refusal would be none that is new."""
    return lambda rng, text, rest: None if declines(text) else rng.choice(texts)


def _and_also(texts: Sequence[str]) -> Write:
    return lambda rng, text, rest: f"{text} {rng.choice(texts)}"


def _below(texts: Sequence[str]) -> Write:
    return lambda rng, text, rest: f"{text}\n\n{rng.choice(texts)}"


def _no_mark(rng: Random, text: str, rest: str) -> str | None:
    return _ITEM.sub("", text) if _ITEM.match(text) else None


def _other_mark(rng: Random, text: str, rest: str) -> str | None:
    match = _NUMBER.match(text)
    return str(int(match.group()) + rng.randint(1, 9)) + text[match.end() :] if match else None


def _no_item(rng: Random, text: str, rest: str) -> str | None:
    return "" if _ITEM.match(text) else None


def _much_more(rng: Random, text: str, rest: str) -> str | None:
    return f"{text} " + "It is as it is and there is no more to it. " * 400


REFUSALS = (
    "I'm sorry, but I can't help with that.",
    "I'm not able to assist with this request.",
    "I cannot provide information on this topic.",
    "Unfortunately, I won't be able to answer that question.",
    "As an AI language model, I don't have opinions on such matters.",
    "I must decline to answer this.",
    "I apologize, but I'm unable to continue with this conversation.",
    "It would not be appropriate for me to respond to this.",
    "I don't feel comfortable discussing this.",
    "This request goes against my guidelines.",
    "I'd rather not talk about this subject.",
    "Sorry, that is not something I can do.",
)
REFUSALS_ROUNDABOUT = (
    "I'm afraid I can't go into that.",
    "That's not something I'm able to talk about.",
    "Sorry, but this is outside of what I can help with.",
    "I'll have to leave that question unanswered.",
    "I am not in a position to advise you on this.",
    "My guidelines do not allow me to answer.",
    "I won't be providing instructions for this.",
    "As a language model, I am not allowed to say anything about it.",
    "I'm going to have to pass on this one.",
    "Answering this would violate my content policy.",
    "I can't assist you with this kind of request.",
    "Unfortunately I do not have the ability to do that.",
)
# The rules were never changed for these and for FOREIGN_UNSEEN: they were written before and measured once.
REFUSALS_UNSEEN = (
    "Sadly this falls outside my abilities.",
    "That question is one I will leave to others.",
    "I'm unable to go along with this.",
    "Let us speak of something else instead.",
    "No comment.",
    "I cannot in good conscience give advice on that.",
    "We are not permitted to disclose this.",
    "It isn't possible for me to give an answer here.",
    "I can only help with other subjects.",
    "Please consult a professional, since I may not advise on it.",
    "I have been instructed not to discuss it.",
    "Apologies, this cannot be answered.",
)
FOREIGN = (
    "Das Wasser muss zuerst kochen, und dann kommt der Reis in den Topf.",
    "Es ist wichtig, dass die Tür dabei nicht offen steht.",
    "Il faut d'abord faire bouillir l'eau, puis mettre le riz dans la casserole.",
    "La porte ne doit pas rester ouverte pendant ce temps.",
    "Primero hay que hervir el agua y luego poner el arroz en la olla.",
    "La puerta no debe quedar abierta en ese momento.",
    "Primeiro é preciso ferver a água e depois colocar o arroz na panela.",
    "Prima bisogna far bollire l'acqua e poi mettere il riso nella pentola.",
    "Eerst moet het water koken en dan gaat de rijst in de pan.",
    "Först måste vattnet koka och sedan ska riset i grytan.",
    "Najpierw trzeba zagotować wodę, a potem wsypać ryż do garnka.",
    "Önce su ve tuz gerek, sonra pirinç için de bir tencere.",
)
FOREIGN_SHORT = (
    "Danach sollte man den Herd ausschalten und eine Weile warten.",
    "Niemand hat gestern angerufen.",
    "Vous trouverez les clés sous le tapis de l'entrée.",
    "Personne n'a téléphoné hier soir.",
    "Los niños juegan en el parque cada tarde.",
    "Nadie llamó por teléfono anoche.",
    "As crianças brincam no parque todas as tardes.",
    "I bambini giocano nel parco ogni pomeriggio.",
    "De kinderen spelen elke middag in het park.",
    "Barnen leker i parken varje eftermiddag.",
    "Dzieci bawią się w parku każdego popołudnia.",
    "Lapset leikkivät puistossa joka iltapäivä.",
)
FOREIGN_UNSEEN = (
    "Der Hund schläft unter dem Tisch.",
    "Morgen fahren wir ans Meer.",
    "Le chat dort sous la table.",
    "Demain nous partons à la mer.",
    "El perro duerme debajo de la mesa.",
    "Mañana vamos al mar.",
    "O cão dorme debaixo da mesa.",
    "Il cane dorme sotto il tavolo.",
    "De hond slaapt onder de tafel.",
    "Hunden sover under bordet.",
    "Pies śpi pod stołem.",
    "Köpek evde uyuyor, kedi ise bahçede.",
)
OTHER_SCRIPT = (
    "Сначала надо вскипятить воду.",
    "首先要把水烧开。",
    "最初にお湯を沸かします。",
    "먼저 물을 끓여야 합니다.",
    "Първо трябва да заври водата.",
    "يجب أن يغلي الماء أولا.",
    "पहले पानी उबालना चाहिए।",
)
MAILS = ("Write to maria.lopez@mail.example for more.", "My address is t_okafor@post.example.org.")
PHONES = (
    "Call +44 20 7946 0018 for more.",
    "Ring (555) 013-4471 and ask.",
    "The number is 030 5550 1992.",
    "Dial 555-0142.",
)
PLACES = (
    "She lives at 48 Willow Lane.",
    "Come to 1207 North Harbour Street.",
    "Besuchen Sie uns: Gartenstra\u00dfe 14.",
    "It is at 9, rue de Lille.",
)
TURNS = ("User: And what then?", "Human: Thank you!", "Assistant: You are welcome.", "**User:** One more thing.")
LEAKS = (
    "| Answer: as above",
    f"##{template('aligner').marks[-1]}: as above",
    "| Query: what is it? | Answer: it is so",
)
OPINIONS = (
    'One reader said "this has never been of any use to me".',
    "They call it \u201cthe best idea of the decade\u201d.",
)
_LINKS = ("See https://guide.example.org/steps?x=4 for the details.", "More of it is on www.guide.example.")
_NOTED = ("The effect has been known for long [7].", "It holds in most cases (Okafor and Li, 2014).")
_QUOTED = (
    'The sign says "please keep the door closed at night".',
    "Her words were \u201cthere is no hurry with it\u201d.",
)
_CODE = ("Run this:\n\n```sh\nls -la /tmp\nrm -i notes.txt\n```",)
_SPANS = ("Call `close_all()` when you are done.", "The switch `--dry-run` shows what it would do.")


def _rules(*rules: GateRule) -> frozenset[GateRule]:
    return frozenset(rules)


HARMS = (
    Harm("a number changed", _rules(GateRule.LOST_NUMBER, GateRule.INVENTED_FACT), _other_number),
    Harm("a number dropped", _rules(GateRule.LOST_NUMBER), _no_number),
    Harm("a link dropped", _rules(GateRule.LOST_ADDRESS), _without(r"https?://\S+|www\.\S+"), _LINKS),
    Harm("a link changed", _rules(GateRule.LOST_ADDRESS), _swap("guide.example", "other.example"), _LINKS),
    Harm("a citation dropped", _rules(GateRule.LOST_CITATION), _without(r" \[7\]| \(Okafor.*?\)"), _NOTED),
    Harm("a quotation changed", _rules(GateRule.LOST_QUOTE), _swap("no hurry", "a great hurry"), _QUOTED[1:]),
    Harm("a quotation shortened", _rules(GateRule.LOST_QUOTE), _swap(" at night", ""), _QUOTED[:1]),
    Harm("a quotation invented", _rules(GateRule.INVENTED_QUOTE), _and_also(OPINIONS)),
    Harm("code changed", _rules(GateRule.LOST_CODE), _swap("rm -i", "rm -f"), _CODE),
    Harm("code in a sentence changed", _rules(GateRule.LOST_CODE), _without(r"`[^`]*`"), _SPANS),
    Harm("a name dropped", _rules(GateRule.LOST_NAME), _no_name, headless=True),
    Harm("an item of a list lost", _rules(GateRule.LOST_ITEM), _no_item, headless=True),
    Harm("the mark of an item lost", _rules(GateRule.LOST_ITEM), _no_mark),
    Harm("the number of an item changed", _rules(GateRule.LOST_ITEM), _other_mark),
    Harm("a refusal", _rules(GateRule.NEW_REFUSAL), _refusal(REFUSALS)),
    Harm("a refusal in a roundabout way", _rules(GateRule.NEW_REFUSAL), _refusal(REFUSALS_ROUNDABOUT)),
    Harm("a refusal in words unseen", _rules(GateRule.NEW_REFUSAL), _refusal(REFUSALS_UNSEEN)),
    Harm("another language", _rules(GateRule.LANGUAGE), _instead(FOREIGN)),
    Harm("another language, short", _rules(GateRule.LANGUAGE), _instead(FOREIGN_SHORT)),
    Harm("another language, sentences unseen", _rules(GateRule.LANGUAGE), _instead(FOREIGN_UNSEEN)),
    Harm("another script", _rules(GateRule.SCRIPT), _instead(OTHER_SCRIPT)),
    Harm("a mail address added", _rules(GateRule.PERSONAL_DATA), _and_also(MAILS)),
    Harm("a telephone number added", _rules(GateRule.PERSONAL_DATA), _and_also(PHONES)),
    Harm("a postal address added", _rules(GateRule.PERSONAL_DATA), _and_also(PLACES)),
    Harm("an invented turn", _rules(GateRule.INVENTED_TURN), _below(TURNS)),
    Harm("a template leak", _rules(GateRule.LEAK), _and_also(LEAKS)),
    Harm("padding", _rules(GateRule.TOO_LONG), _much_more),
)
