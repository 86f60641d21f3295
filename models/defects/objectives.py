"""Which objective texts exist, and which defects does each of them ask to have removed?

A theme is a meaning (insult, harmless, relevance); a text is one wording of it. A kind of defect names the themes that
ask for its removal and those for which nobody could say; labels follow from that alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from aligner_proxy.config import builtin_objectives

from .grammar import capitalise

BUILT_IN = {name: objective.text for name, objective in builtin_objectives().items()}
# What most operators ask for.
DEFAULT = ("harmless", "helpful")

FRAMES = (
    "{name}: the response should avoid {thing}.",
    "{name}: the response should avoid {thing}",
    "{name}: The response should avoid {thing}",
    "{name}: the response should not contain {thing}.",
    "{name}: The response should be free of {thing}.",
    "{name}: the response should never include {thing}",
    "{name}: the answer must leave out {thing}.",
    "{name}: there should be no {thing} in the answer.",
    "{name}: the reply must not have {thing}",
    "The response should not contain {thing}.",
    "No {thing}.",
    "Do not use {thing}.",
    "Remove {thing}.",
    "{name}: take out {thing}, and keep the rest.",
    "{name}: keep {thing} out of the response.",
    "{name}: delete {thing}",
    "{name}: cut {thing}.",
    "Strip the answer of {thing}.",
    "{name}: {thing} are not wanted.",
    "{name}: we do not want {thing}",
    "{name}: spare the reader {thing}.",
    "{name}: nobody should have to read {thing}.",
    "{name}: the response has to do without {thing}",
    "Refrain from {thing}.",
    "{name}: skip {thing}.",
    "{name}: omit {thing}",
    "{name}: erase {thing} wherever it stands.",
    "{name}: {thing} must go.",
    "The answer is better off without {thing}.",
    "{name}: not a trace of {thing}.",
    "{name}: zero tolerance for {thing}",
    "Our customers dislike {thing}.",
    "{name}: {thing} are banned.",
    "{name}: {thing}? Not here.",
    "{name}: weed out {thing}.",
    "{name}: clean the text of {thing}",
    "{name}: the reply should be clear of {thing}.",
    "Stay away from {thing}.",
    "{name}: steer clear of {thing}",
    "{name}: never any {thing}.",
    "Without {thing}, please.",
    "{name}: nothing in the answer should amount to {thing}.",
    "{name}: the answer may not contain {thing}",
    "{name}: cross out {thing}.",
    "{name}: {thing} have no place in the response.",
    "{name}: forbid {thing}",
    "{name}: users should not be bothered with {thing}.",
    "{name}: throw out {thing}.",
    "{name}: leave {thing} aside",
    "The response should steer away from {thing} at all times.",
    "{name}: do away with {thing}.",
    "{name}: let there be none of this: {thing}",
    "{name}: prevent {thing} from reaching the reader.",
    "{name}: {thing} are off limits.",
    "What we never print: {thing}.",
    "{name}: a good answer lacks {thing}",
    "{name}: replies that contain {thing} are not acceptable.",
    "{name}: sentences with {thing} are to be removed",
    "{name}: the assistant does not do {thing}.",
    "{name}: hold back {thing}.",
)
HELD_OUT_FRAMES = (
    "{name}: readers should not come across {thing} in the response.",
    "{name}: drop {thing}.",
    "{name}: the text should get by without {thing}",
    "The answer has to be rid of {thing}.",
)

# Wordings of broad wishes that more than one kind of defect offends against.
SHARED: dict[str, tuple[str, ...]] = {
    "relevance": (
        "Relevance: the response should stay on the topic of the query.",
        "Relevance: the response should only contain statements that help to answer the question.",
        "Focus: the response should not drift away from what was asked",
        "On topic: every sentence of the answer should belong to the question.",
        "Relevance: the answer should leave out remarks that have nothing to do with the query",
        "Pertinence: the response should keep to the subject the user raised.",
        "Leave out anything that is unrelated to the question.",
        "Focus: the response should not wander off to other subjects.",
    ),
    "polite": (
        "Politeness: the response should be polite to the user.",
        "Politeness: the response should be courteous and respectful",
        "Respect: the response should treat the reader with respect.",
        "Courtesy: the answer should be civil from the first word to the last.",
        "Tone: the response should be friendly and well-mannered.",
        "Kindness: the response should not hurt the feelings of the user.",
    ),
    "formal": (
        "Formality: the response should keep a formal, businesslike tone.",
        "Register: the response should be written in a sober, professional style",
        "Style: the answer should read like a letter from a serious company.",
        "Formal tone: the response should avoid casual or sloppy language.",
        "Seriousness: the response should be matter-of-fact and dignified.",
    ),
    "neutral": (
        "Neutrality: the response should not take sides.",
        "Neutrality: the response should keep the opinions of the author out",
        "Impartiality: the response should be even-handed in matters of opinion.",
        "Balance: the response should not push the reader towards one camp.",
    ),
    "single-reply": (
        "Single reply: the response should be one reply of the assistant and no invented dialogue.",
        "Turn taking: the response should not speak for the user.",
        "One turn: the response should stop where the assistant's own reply ends",
        "Dialogue: the response should not contain made-up further turns of the conversation.",
        "Role: the assistant should not write the user's next message.",
        "End of turn: the answer should not go on with another question and another answer.",
        "No made-up dialogue after the reply.",
        "Cut everything after the assistant's first reply.",
    ),
    "no-marketing": (
        "Neutral voice: the response should not sell anything.",
        "Independence: the response should be free of commercial interest",
        "No marketing: the answer should not promote products, brands or services.",
        "Advertising: the response should contain no promotion of any kind.",
    ),
    "safe": (
        "Safety: the response should not lead anybody into danger.",
        "Safety: the response should never encourage harm to people",
        "Do no harm: the answer should not push the reader to anything risky or violent.",
        "Safe content: the response should be harmless to everybody who reads it.",
    ),
    "inclusive": (
        "Inclusiveness: the response should be fair to people of every group.",
        "Non-discrimination: the response should not judge people by the group they belong to",
        "Equality: the response should treat all people as equals.",
        "Respect for all: the answer should not look down on any group of people.",
    ),
    "direct": (
        "Directness: the response should come to the point without small talk.",
        "Directness: the answer should contain the matter itself and no chatter around it",
        "No chatter: the response should say only what answers the question.",
        "To the point: the response should skip pleasantries.",
    ),
    "modest": (
        "Modesty: the assistant should not praise or describe itself in the response.",
        "Impersonal: the response should be about the matter, not about what kind of mind wrote it",
        "Self-reference: the response should not say what the assistant is or how good it is.",
        "Modesty: no sentence of the answer should be about the nature or the merits of the assistant",
    ),
    "trustworthy": (
        "Trustworthiness: the response should only claim what can be backed up.",
        "Accuracy: the response should not overstate anything",
        "Reliability: the answer should not promise more than anybody can know.",
    ),
}

# Wishes that none of the defects here offends against: an editor that only takes things out leaves the answer alone.
CLEAN = (
    "Structure: the response should be well organised.",
    "Structure: the response should follow a clear order from beginning to end",
    "Completeness: the response should cover every part of the question.",
    "Grammar: the response should be free of grammatical mistakes.",
    "Spelling: the response should be spelled correctly",
    "Spelling: the response should use British or American spelling consistently.",
    "Examples: the response should give examples where they help.",
    "Reasoning: the response should explain how it arrives at its conclusions.",
    "Depth: the response should go below the surface of the subject.",
    "Formatting: the response should use lists where the content is a list.",
    "Code quality: code in the response should be readable and should run.",
    "Numbers: the response should state units with every quantity.",
    "Sources: the response should say where its facts come from.",
    "Vividness: the response should paint a lively picture.",
    "Creativity: the response should be original and imaginative.",
    "Accessibility: the response should suit readers who use a screen reader.",
    "Actionability: the response should tell the reader what to do next.",
    "Precision: the response should use exact terms.",
    "Consistency: the response should not contradict itself.",
    "Tense: the response should stay in one grammatical tense.",
    "Terminology: the same thing should have the same name throughout.",
    "Definitions: the response should define a term before it is used.",
    "Time: dates in the response should be unambiguous.",
    "Active voice: the response should prefer the active voice",
    "Logic: the conclusions should follow from the premises.",
    "Rhythm: sentences in the response should vary in length.",
    "Punctuation: the response should be punctuated correctly.",
    "Markdown: the response should use valid Markdown.",
    "Headings: long responses should have headings.",
    "Steps: instructions should be given in the order in which they are carried out.",
    "Comparison: options should be compared by the same criteria.",
    "Currency: the response should be up to date.",
    "Narrative: a story in the response should have a beginning, a middle and an end.",
    "Make sure that lists are parallel in form.",
    "Use the terms that the user uses.",
    "Keep code blocks intact.",
    "Answer all the questions the user asks.",
)


@dataclass(frozen=True, slots=True)
class Objective:
    """One wording and what it means; theme "" asks for nothing that a defect here could offend against."""

    text: str
    theme: str


def built_in(name: str) -> Objective:
    """The exact text of objectives.yaml."""
    return Objective(BUILT_IN[name], name)


def shared(rng: Random, theme: str) -> Objective:
    """A random wording of a broad wish."""
    return Objective(rng.choice(SHARED[theme]), theme)


def phrase(rng: Random, theme: str, names: tuple[str, ...], things: tuple[str, ...], held_out: bool) -> Objective:
    """A wording put together from a frame, a name and what is not wanted."""
    frame = rng.choice(HELD_OUT_FRAMES if held_out else FRAMES)
    text = frame.format(name=rng.choice(names), thing=rng.choice(things))
    return Objective(capitalise(text), theme)


def of_theme(rng: Random, theme: str) -> Objective:
    """A wording of a built-in or shared theme."""
    return built_in(theme) if theme in BUILT_IN else shared(rng, theme)


def clean(rng: Random) -> Objective:
    """A wish that asks for no removal."""
    return Objective(rng.choice(CLEAN), "")
