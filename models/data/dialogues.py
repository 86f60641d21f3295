"""Good answers that are dialogues on request: interviews, scenes, chats, questions with answers.

They look like invented turns, role marks and all, and are the answer itself. What the speakers say are sentences of
good answers and of a small grammar; names, forms and requests are this project's. Forms and speakers of the test are
never trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from models.defects.grammar import Grammar, capitalise, expand
from models.defects.turns import ASK, REPLY

from .answers import SCRIPT, PoolAnswer


def _split_list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(","))


@dataclass(frozen=True, slots=True)
class DialogueForm:
    """Requests with {one}, {two} and {topic}; `names` are marks of the two speakers where the form brings its own."""

    requests: tuple[str, ...]
    names: tuple[tuple[str, str], ...] = ()
    titles: tuple[str, ...] = ()


_TALK = DialogueForm(
    (
        "[Write|Make up|Give me] a [short|funny|calm|realistic] dialogue between {one} and {two} [about|on] {topic}.",
        "[How would|What would it sound like if] {one} and {two} [talk|argue] about {topic}? Write it out.",
        "Write a conversation in which {one} explains {topic} to {two}.",
        "Let {one} and {two} discuss {topic}, with their names before what they say",
    )
)
_SCENE = DialogueForm(
    (
        "Write a [scene|short play|one-act play|sketch|film scene] in which {one} and {two} quarrel over {topic}.",
        "[Screenplay|Script], please: {one} meets {two} because of {topic}.",
        "Continue this scene about {topic} between {one} and {two}.",
    ),
    titles=("[A kitchen, early morning.]\n\n", "SCENE ONE\n\n", "*A bench in the park. Rain.*\n\n"),
)
_INTERVIEW = DialogueForm(
    (
        "[Write|Draft|Invent] an interview with {one} about {topic}.",
        "Interview {one} on {topic} for our [paper|blog|newsletter]. Questions and answers, please.",
        "I need a mock interview about {topic}.",
    ),
    (("Interviewer", ""), ("Q", "A"), ("Reporter", ""), ("Editor", "")),
    ("**Interview: {topic}**\n\n", "Here is the interview:\n\n"),
)
_CHAT = DialogueForm(
    (
        "Write [a sample chat|an example conversation|a demo dialogue] between a user and a chatbot about {topic}.",
        "Show how a support agent should answer a customer who writes about {topic}. Write the whole chat.",
        "I am testing a bot. Give me an example of a [talk|chat] about {topic} with both sides.",
        "Generate a training conversation between a human and an assistant on {topic}",
    ),
    (("User", "Bot"), ("Human", "Assistant"), ("Customer", "Agent"), ("User", "Assistant"), ("Human", "AI")),
    ("Sure, here is an example:\n\n", "**Sample chat**\n\n"),
)
_QUESTIONS = DialogueForm(
    (
        "Write [an FAQ|a list of frequent questions with answers] about {topic}.",
        "Make a [quiz|set of flash cards] about {topic}, with the answers.",
        "Which questions might come up in an exam about {topic}? Give model answers, too.",
    ),
    (("Q", "A"), ("Question", "Answer"), ("Q1", "A1")),
    ("# {topic}: questions and answers\n\n",),
)
_FORMS = (_TALK, _TALK, _SCENE, _INTERVIEW, _CHAT, _CHAT, _QUESTIONS)
_HELD_OUT_FORMS = (
    DialogueForm(
        ("Write the transcript of a podcast in which {one} and {two} speak about {topic}.",),
        titles=("*Episode 12: {topic}*\n\n",),
    ),
    DialogueForm(("What might be said in court when {one} and {two} fight over {topic}? Write it as a transcript.",)),
    DialogueForm(("Role-play a phone call: {one} rings up {two} because of {topic}. Write both parts.",)),
    DialogueForm(
        ("Help me practise my English with a conversation at the counter, about {topic}.",),
        (("Clerk", "Visitor"), ("You", "Me"), ("Person 1", "Person 2")),
    ),
    DialogueForm(("Turn what is known about {topic} into a talk of {one} with {two}.",)),
)
_PEOPLE = _split_list("""
    a baker, a pilot, a dragon, a lighthouse keeper, a tired nurse, Captain Orla, Dr. Lindqvist, a taxi driver, a robot,
    a farmer, a young judge, Aunt Petra, a ghost, Mayor Dunn, a violinist, a wizard, a goalkeeper, a bus driver, Nadia,
    Professor Achebe, a sailor, a plumber, a stubborn mule, Tomasz, a gardener, a detective, a princess, a sculptor,
    a weather forecaster, a librarian
""")
_HELD_OUT_PEOPLE = _split_list("""
    an astronaut, a beekeeper, Ms. Okonkwo, Benedikt, a vampire, a chess champion, a midwife, Uncle Ravi, a clockmaker,
    a penguin, a surgeon, Sergeant Mills
""")
_TOPICS = _split_list("""
    sourdough bread, a lost suitcase, the moon landing, tax forms, an old bicycle, bees, a broken printer, first love,
    the city library, learning Spanish, vaccines, a bridge that fell, jazz, recycling, the price of milk, night trains,
    a stolen painting, football, electric cars, the weather, gravity, a family recipe, moving to Canada, chess, sleep,
    glaciers, a refund, the French Revolution, houseplants, a new phone, women in engineering, ghosts, stock markets,
    a school play, climate change, back pain, coffee, a wedding speech, black holes, a password, Rome, dogs
""")
_FORMATS = ("{name}: {said}", "{name}: {said}", "**{name}:** {said}", "{NAME}: {said}", "**{name}**: {said}")
_RARE_FORMATS = (
    "{NAME}\n{said}",
    "- {name}: {said}",
    '{name}: "{said}"',
    "> {name}: {said}",
    "{name} (smiling): {said}",
)
_LINES = Grammar(
    (
        "[I never|I always|Nobody ever] [thought|believed|said] that {topic} would [matter|come to this|be easy].",
        "[Well|You see|To be honest|Look], [I had|we had|there was] [no choice|a plan|another reason].",
        "[And|But] what [happened then|did they say|would you have done|does it cost]?",
        "[Tell me|Go on|Please], [how did it begin|I am listening|what is it about {topic}]?",
        "[That is|It is] [not the point|exactly what I mean|an old story|a fair question].",
        "[You|They|We] [could|should] [ask|wait|look] [before|until] [it rains|the shop opens|anybody notices].",
        "[Not at all|By no means|Oh, certainly]!",
        "[My grandmother|The captain|A neighbour] [taught|told|showed] me [all about {topic}|how to do it|the trick].",
    )
)
_ENDS = ("", "", "", "\n\n(They laugh.)", "\n\n*The door closes.*", "\n\nEND", "\n\n[Lights out.]")


def write_script(rng: Random, sentences: Sequence[str], *, held_out: bool = False) -> PoolAnswer:
    """A request for a dialogue, and the dialogue as its answer; speakers may say any of `sentences`."""
    form = rng.choice(_HELD_OUT_FORMS if held_out else _FORMS)
    asker, answerer = rng.sample(_HELD_OUT_PEOPLE if held_out else _PEOPLE, k=2)
    topic = rng.choice(_TOPICS)
    words = {"one": [asker], "two": [answerer], "topic": [topic]}
    names = rng.choice(form.names) if form.names else (_make_mark(asker), _make_mark(answerer))
    marks = (names[0], names[1] or _make_mark(asker))
    shape = rng.choice(_FORMATS if rng.random() < 0.75 else _RARE_FORMATS)
    lines = []
    for turn in range(rng.choice((3, 4, 4, 5, 6, 7, 8))):
        name = marks[turn % 2]
        line = _write_line(rng, topic, sentences, asks=turn % 2 == 0)
        lines.append(shape.format(name=name, NAME=name.upper(), said=line))
    title = expand(rng, rng.choice(form.titles), words) if form.titles and rng.random() < 0.5 else ""
    text = title + rng.choice(("\n\n", "\n\n", "\n")).join(lines) + rng.choice(_ENDS)
    return PoolAnswer(capitalise(expand(rng, rng.choice(form.requests), words)), text, SCRIPT)


def _make_mark(who: str) -> str:
    """ "a tired nurse" speaks as "Nurse"."""
    article, _, rest = who.partition(" ")
    return capitalise(rest.split()[-1]) if article in ("a", "an") else who


def _write_line(rng: Random, topic: str, sentences: Sequence[str], *, asks: bool) -> str:
    """One to three sentences by a grammar or from `sentences`; `asks` if the speaker is the one who asks."""
    parts = []
    for _ in range(rng.choice((1, 1, 2, 2, 3))):
        ready = bool(sentences) and rng.random() < (0.15 if asks else 0.4)
        grammar = _LINES if rng.random() < 0.5 else ASK if asks else REPLY
        parts.append(rng.choice(sentences) if ready else grammar.make(rng, topic))
    return " ".join(parts)
