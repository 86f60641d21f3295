"""In which words do people say checkable preferences? Our own wordings, on three sides.

`{n}` is a bound and `{word}` a word to be avoided. `TRAIN` is what patterns and data sets are made from. `DEV` was
written when `preferences/lexicon.py` was done, measured once, and then used to mend it. `TEST` was written after that
and changes nothing any more: its figures are those of docs/experiments.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

from aligner_proxy.wishes import WishKind

Side = Literal["train", "dev", "test"]
Wordings = Mapping[WishKind, tuple[str, ...]]

TRAIN: Wordings = MappingProxyType(
    {
        WishKind.MAX_WORDS: (
            "At most {n} words.",
            "Keep it under {n} words.",
            "No more than {n} words, please.",
            "Word limit: {n}.",
            "Answer in {n} words or fewer.",
        ),
        WishKind.MAX_SENTENCES: (
            "In {n} sentences.",
            "At most {n} sentences.",
            "Keep the answer to {n} sentences.",
            "No more than {n} sentences.",
        ),
        WishKind.NO_LISTS: (
            "No lists.",
            "Do not use bullet points.",
            "Write in prose.",
            "Avoid bulleted or numbered lists.",
            "I hate lists.",
        ),
        WishKind.NO_EMOJI: ("No emoji.", "Do not use emojis.", "Leave out the smileys.", "I can't stand emoji."),
        WishKind.NO_EXCLAMATION: (
            "No exclamation marks.",
            "Never use exclamation points.",
            "Avoid exclamation marks, they tire me.",
        ),
        WishKind.NO_MARKDOWN: (
            "No markdown.",
            "Plain text only.",
            "Do not use any formatting.",
            "Write without markdown.",
        ),
        WishKind.NO_CONTRACTIONS: (
            "No contractions.",
            "Avoid contractions.",
            "Write formally, without contractions.",
            "Do not contract verbs: no contractions at all.",
        ),
        WishKind.UPPER_CASE: ("All caps.", "Answer in capital letters.", "Write everything in upper case."),
        WishKind.LOWER_CASE: ("All lowercase.", "No capital letters.", "Write in lower case."),
        WishKind.ENDS_WITH_QUESTION: (
            "End with a question.",
            "Finish by asking a question.",
            "Close with one question to me.",
        ),
        WishKind.NO_QUESTIONS: ("No questions.", "Do not ask me any questions."),
        WishKind.BANNED_WORDS: ('Never use the word "{word}".', 'Avoid the word "{word}".', 'Do not say "{word}".'),
    }
)

DEV: Wordings = MappingProxyType(
    {
        WishKind.MAX_WORDS: (
            "Please be done within {n} words.",
            "I'd like replies capped at {n} words.",
            "Don't go over {n} words with me.",
            "{n} words max.",
            "My screen reader is slow, so never exceed {n} words.",
            "Can you squeeze your answer into {n} words?",
            "I only read the first {n} words of anything.",
            "Shorter than {n} words or I will not read it.",
            "Stick to a maximum of {n} words.",
        ),
        WishKind.MAX_SENTENCES: (
            "Give me {n} sentences, not more.",
            "Sum it up in {n} sentences at most.",
            "Limit yourself to {n} sentences.",
            "I want max {n} sentences.",
            "Never write more than {n} sentences.",
            "{n} sentences is all I have time for.",
        ),
        WishKind.NO_LISTS: (
            "Please don't break things up into bullets.",
            "I prefer flowing paragraphs to bullet points.",
            "Skip the bulleted lists and just talk to me.",
            "Your replies get read aloud, so there must not be any bullets in them.",
            "Numbered lists drive me mad, stop using them.",
            "Everything as running text, no itemized stuff.",
            "Nothing listy: no bullets, no numbering.",
            "Steer clear of enumerations.",
            "I would rather have sentences than a list.",
        ),
        WishKind.NO_EMOJI: (
            "Kindly refrain from emojis.",
            "Emoji-free please.",
            "I find emoticons childish, so don't use them.",
            "Zero smileys in the answer.",
            "Our terminal can't display emoji, so leave them out.",
            "Don't decorate your text with emojis or the like.",
            "Go easy on me: not a single emoji.",
        ),
        WishKind.NO_EXCLAMATION: (
            "Please don't end sentences with exclamation marks.",
            "I get nervous from exclamation points, so drop them.",
            "Keep your tone flat and exclamation-free.",
            "Not one exclamation mark, thanks.",
            "Write calmly; exclamation marks are banned.",
            "Omit exclamations.",
        ),
        WishKind.NO_MARKDOWN: (
            "Our ticket system shows raw text, so don't format anything with markdown.",
            "Unformatted text please.",
            "Strip out all markdown.",
            "Never send markdown syntax.",
            "I paste this into a plain-text field, so no asterisks or other markup.",
            "Skip the fancy formatting.",
        ),
        WishKind.NO_CONTRACTIONS: (
            "Please spell out all contractions.",
            "Use a formal register.",
            'Write "do not" instead of "don\'t"; contractions confuse my students.',
            "Don't use contracted forms.",
            "I am learning English and contractions are hard for me, please leave them out.",
            "Your tone must be formal.",
            "Contraction-free, please.",
        ),
        WishKind.UPPER_CASE: (
            "I need the whole answer in uppercase.",
            "Only capitals, please, my eyes are weak.",
            "Type in ALL CAPS.",
        ),
        WishKind.LOWER_CASE: (
            "i like my text lowercase only",
            "Everything lower-case, like a text message.",
            "Don't use any capitals.",
            "Never capitalize anything.",
        ),
        WishKind.ENDS_WITH_QUESTION: (
            "Always conclude by asking me a question.",
            "The last sentence should be a question.",
            "Wrap up with a question so that I keep thinking.",
            "Put a question at the very end.",
        ),
        WishKind.NO_QUESTIONS: (
            "Please don't respond with questions.",
            "Avoid asking questions back.",
            "No rhetorical questions.",
        ),
        WishKind.BANNED_WORDS: (
            "Please avoid using the word '{word}'.",
            'The word "{word}" must not appear.',
            "Banned words: {word}.",
            "I never want to read the word {word} again.",
            'Don\'t write "{word}" anywhere.',
        ),
    }
)

TEST: Wordings = MappingProxyType(
    {
        WishKind.MAX_WORDS: (
            "Don't write more than {n} words.",
            "Length: {n} words or less.",
            "I lose focus after {n} words, so stay below {n} words.",
            "Aim for fewer than {n} words.",
            "Fit it into {n} words.",
            "Your budget is {n} words.",
            "Answers must not be longer than {n} words.",
        ),
        WishKind.MAX_SENTENCES: (
            "Tell me in {n} sentences.",
            "A maximum of {n} sentences will do.",
            "Nothing beyond {n} sentences.",
            "Use {n} sentences or fewer.",
            "You get {n} sentences.",
        ),
        WishKind.NO_LISTS: (
            "Without bullets, if you please.",
            "Kindly avoid listing things point by point.",
            "Bullet points are forbidden.",
            "Give me prose rather than bullet lists.",
            "I read on a phone where lists look awful, so please no lists.",
            "Don't number your points.",
            "Paragraphs only.",
            "You shouldn't use numbered lists.",
        ),
        WishKind.NO_EMOJI: (
            "Emojis make me cringe; leave them out.",
            "Without any emoji.",
            "This goes into a legal letter, so absolutely no emojis.",
            "Do me a favour and skip the emoticons.",
            "Emoji are not allowed here.",
            "Words only, no smiley faces.",
        ),
        WishKind.NO_EXCLAMATION: (
            "Please write without exclamation marks.",
            "Exclamation points feel like shouting to me, so avoid them.",
            "Don't use a single exclamation mark.",
            "No shouting and no exclamation points.",
            "I can do without exclamation marks.",
        ),
        WishKind.NO_MARKDOWN: (
            "The output goes to an SMS, so no markdown at all.",
            "Avoid markdown formatting.",
            "Raw text only, please.",
            "Markdown is not allowed.",
            "Please do not apply any text formatting.",
        ),
        WishKind.NO_CONTRACTIONS: (
            "Do not use any contractions.",
            "Write in a formal style.",
            "Contractions are out.",
            "I want formal language.",
            "Stay away from contractions.",
            "Always write verbs in full.",
        ),
        WishKind.UPPER_CASE: (
            "Capital letters only.",
            "Respond entirely in uppercase.",
            "Shout: everything in capitals.",
        ),
        WishKind.LOWER_CASE: (
            "please answer all in lowercase",
            "Stick to lower case throughout.",
            "Without capitals, please.",
        ),
        WishKind.ENDS_WITH_QUESTION: (
            "Your final sentence must be a question.",
            "Finish every answer with a question for me.",
            "Leave me with a question at the end.",
            "Close by asking me a question.",
        ),
        WishKind.NO_QUESTIONS: (
            "Do not end by asking questions, and ask none before.",
            "Never ask questions.",
            "I don't want any question marks in the answer.",
        ),
        WishKind.BANNED_WORDS: (
            'Keep the word "{word}" out of it.',
            "Do not mention the word '{word}'.",
            "Forbidden words: {word}.",
            "You must never say '{word}'.",
            'Refrain from using the word "{word}".',
        ),
    }
)

WORDED: Mapping[Side, tuple[str, ...]] = MappingProxyType(
    {
        "train": (
            "Be kind.",
            "Explain it to a child.",
            "Use simple words.",
            "Sound like a friend.",
            "Be precise about what you do not know.",
            "Give an example.",
            "Mention risks first.",
            "Avoid jargon.",
        ),
        "dev": (
            "I run marathons and like dry humour.",
            "Write like a patient teacher.",
            "My dog died, so please be gentle.",
            "Assume I know chemistry.",
            "I am making a list of films for my nephew.",
            "Use metaphors from sailing.",
            "I work in the capital and have little time.",
            "I love questions of ethics.",
            "Be as exact as a lawyer would be.",
            "I collect words from old dialects.",
            "Speak to me as to an equal.",
            "My sentence structure is bad because I am dyslexic, be patient.",
            "I format hard disks for a living.",
            "Explain like I am five.",
            "Be upbeat.",
            "Two of my three sisters study law.",
        ),
        "test": (
            "I manage a hotel and like short answers.",
            "Explain things step by step.",
            "Take the role of a museum guide.",
            "My boss lists every mistake I make, so reassure me.",
            "I am a nurse on night shifts.",
            "Point out where experts disagree.",
            "Write as if I were ten.",
            "I have read ten books on the subject.",
            "Use British spelling.",
            "Cite numbers where you can.",
            "I ask many questions because I am curious.",
            "Quote a proverb.",
            "My handwriting is in capitals.",
            "Sound enthusiastic!",
            "I mark essays for a living.",
            "Be frank with me.",
        ),
    }
)
"""In words alone: no rule says whether they are met, and none should be read out of them."""


def of(side: Side) -> Wordings:
    """The wordings of one side."""
    return {"train": TRAIN, "dev": DEV, "test": TEST}[side]
