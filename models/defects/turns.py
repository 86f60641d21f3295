"""What does an answer look like that runs on into an invented dialogue?

The reply is followed by made-up further turns of user and assistant, under many different role marks.
"""

from __future__ import annotations

from random import Random

from .grammar import Grammar
from .kind import Kind
from .topic import topic_of

_ROLES = (
    ("Human: ", "Assistant: "),
    ("Human: ", "Assistant: "),
    ("User: ", "Bot: "),
    ("User: ", "Assistant: "),
    ("### Instruction:\n", "### Response:\n"),
    ("### Human: ", "### Assistant: "),
    ("Q: ", "A: "),
    ("Customer: ", "Agent: "),
    ("<|user|>\n", "<|assistant|>\n"),
    ("**User:** ", "**Assistant:** "),
    ("USER: ", "ASSISTANT: "),
    ("Me: ", "You: "),
    ("[INST] ", "[/INST] "),
    ("Person A: ", "Person B: "),
    ("Human:\n", "AI:\n"),
    ("You: ", "AI: "),
)
_HELD_OUT_ROLES = (
    ("Student: ", "Tutor: "),
    ("Question: ", "Answer: "),
    ("Client: ", "Adviser: "),
    ("## Prompt\n", "## Completion\n"),
    ("<user> ", "<model> "),
    ("Interviewer: ", "Expert: "),
    ("Speaker 1: ", "Speaker 2: "),
)
ASK = Grammar(
    (
        "[Thanks|Thank you|Great|OK|Okay]! [What about|And what about|Can you tell me more about|How do I "
        "learn] {topic}?",
        "[What|How much] [is|does] [it|that|{topic}] [cost|take|called|mean]?",
        "[Why|Since when|How] is {topic} [so important|like that|possible]?",
        "[I see|Interesting|Hm|Got it]. [Is there anything else|And in other countries|What would you do|Can "
        "you give me an example]?",
        "[Can you|Could you|Please] [write|make|give me] [a short poem|a list|a table|three tips|a summary] "
        "[about|on] {topic}[?|.]",
        "[I don't understand|That's not what I meant|I'm not sure about that|ok], [can you explain it "
        "again|tell me about {topic}|please go on][?|.]",
        "[What is|What's] the [capital of Peru|best way to cook rice|weather like today|square root of "
        "144|meaning of life]?",
        "[Who|Where|When] [was it|did {topic} come from|invented this]?",
        "[And|So] [how long does it take|is it safe|who pays for it]?",
        "[My friend|My boss|My sister] says [that's wrong|{topic} is overrated|I should ask again]. [Is that "
        "true|What do you think]?",
    )
)
REPLY = Grammar(
    (
        "[Sure|Of course|Certainly|Yes|Absolutely][!|.] [Here is|There is|I can give you] [a short overview|one "
        "more example|some background][ of {topic}| on that|].",
        "[That depends|It depends] on [where you live|your budget|the kind of {topic}|how much time you have].",
        "{topic} [was first|has been|is often] [described|used|found] [in the last century|in many places|by chance].",
        "[You're welcome|No problem|My pleasure]! [I'm glad it helped|Is there anything else you would like to "
        "know|Come back any time][!|?|.]",
        "[I'm not sure|I don't know], [but you could look it up|what do you think|maybe ask a specialist about "
        "{topic}][?|.]",
        "[Usually|In most cases|As a rule], it [takes two hours|costs about ten euros|is better to start with "
        "{topic}|works well].",
        "[1. Start small|First, find a quiet place]. [Then|Next], [think about {topic}|write everything "
        "down|ask for help].",
    )
)


def dialogue(
    rng: Random,
    query: str,
    answer: str,
    held_out: bool = False,
    replies: tuple[str, ...] = (),
    questions: tuple[str, ...] = (),
) -> str:
    """One to three invented turns; `replies` and `questions` are ready-made texts that some of them use."""
    ask_mark, reply_mark = rng.choice(_HELD_OUT_ROLES if held_out else _ROLES)
    parts: list[str] = []
    for _ in range(rng.choice((1, 1, 2, 2, 3))):
        topic = topic_of(rng, query, answer)
        asked = rng.choice(questions) if questions and rng.random() < 0.4 else ASK.make(rng, topic)
        parts.append(ask_mark + asked)
        said = rng.choice(replies) if replies and rng.random() < 0.4 else _sentences(rng, topic)
        parts.append(reply_mark + said)
    if rng.random() < 0.25:
        parts.pop()
    return rng.choice(("\n\n", "\n\n", "\n\n", "\n")).join(parts)


def _sentences(rng: Random, topic: str) -> str:
    return " ".join(REPLY.make(rng, topic) for _ in range(rng.choice((1, 2, 2, 3))))


INVENTED_TURN = Kind(
    name="invented-turn",
    family="turns",
    names=("Single turn", "No invented dialogue", "Dialogue", "Reply only", "Turn taking"),
    things=(
        "invented turns of the conversation",
        "made-up dialogue",
        "questions and answers that the assistant made up",
        "further turns after the reply",
        "text written in the name of the user",
        "messages of the user",
    ),
    asks=("single-reply", "relevance", "helpful"),
    unclear=(
        "concise",
        "direct",
        "instruction-following",
        "honest",
        "template-leak",
        "formal",
        "factual",
        "non-repetitive",
    ),
    train=ASK,
    held_out=ASK,
    maker=dialogue,
    place="end",
    own_line=1.0,
    natural=r"(?m)^\W*(Human|User|Assistant|Q|A|AI|Bot)\W*:",
)
KINDS = (INVENTED_TURN,)
