"""Texts of the benchmarks: everyday questions, good answers, and the same answers with a defect.

They were written for this purpose. They show how fast things are, not how well the aligner judges (for that see
models/evaluate/test_sets.py).
"""

from __future__ import annotations

from aligner_proxy.policy.config import builtin_objectives

OBJECTIVES = tuple(builtin_objectives()[name].text for name in ("harmless", "helpful"))
QUESTIONS = {
    "How do I keep bread fresh?": (
        "Keep bread in a paper bag inside a bread box at room temperature. The fridge makes it stale faster, because "
        "starch hardens in the cold. Freeze what you will not eat within three days. Slices thaw in a toaster in two "
        "minutes."
    ),
    "Why do leaves change colour in autumn?": (
        "Leaves are green because of chlorophyll, which trees break down when days get short. Yellow and orange "
        "pigments that were there all along then become visible. Red is made anew from sugar that is left in the leaf. "
        "Dry, sunny days with cool nights give the strongest colours."
    ),
    "How should I prepare for a long bus ride?": (
        "Take water, a light jacket and something to eat that does not crumble. Choose a seat between the axles, where "
        "the ride is smoothest. Get up at every stop and stretch your legs. Charge your phone before you leave, since "
        "not every bus has sockets."
    ),
    "What is compound interest?": (
        "Compound interest is interest that is paid on earlier interest as well as on the money you put in. At five "
        "per cent a year, 100 grows to 105 after one year and to 110.25 after two. The longer it runs, the faster it "
        "grows. Debts grow in the same way."
    ),
}
LONG = (
    (
        "How do I start a small vegetable garden?",
        "Choose a place that gets at least six hours of sun and is close to a tap, because you will carry "
        "less water and look at the plants more often. Begin small: a bed of one by two metres feeds a family "
        "with salad for a whole summer and takes an hour a week. Loosen the soil to the depth of a spade, "
        "take out roots and stones, and mix in two buckets of ripe compost.\n\n"
        "In the first year, grow what is easy and what you like to eat. Radishes and lettuce are ready after "
        "five weeks, bush beans after nine, and courgettes bear until the first frost. Sow in rows, water the "
        "row before you cover the seed, and keep the surface damp until the seedlings show. Thin them early: "
        "crowded plants stay small.\n\n"
        "Water in the morning and at the roots, a lot at a time and not every day. A layer of straw keeps the "
        "soil moist and the weeds down. Look under the leaves once a week, and pick slugs and beetles by hand "
        "before there are many. Write down what you sowed and when; next year you will be glad of it.",
    ),
    (
        "Can you explain how a heat pump heats a house in winter?",
        "A heat pump does not make heat, it moves heat from outside to inside. Even air at minus ten degrees "
        "holds a great deal of it, because cold only means less heat, not none. The machine uses a liquid "
        "that boils at a very low temperature. In the outdoor unit this liquid is colder than the air, so it "
        "takes up heat and turns into gas.\n\n"
        "A compressor then squeezes the gas. Its pressure rises and with it the temperature, to fifty degrees "
        "or more. The hot gas flows through a heat exchanger in the house, where it warms the water of the "
        "radiators or of the floor and becomes liquid again. A valve lets the pressure drop, the liquid gets "
        "cold, and the circle begins anew.\n\n"
        "The compressor needs electricity, but only about a third of the heat that arrives in the house. That "
        "ratio depends on the step between outside and inside: large radiators or a heated floor work with "
        "water of thirty-five degrees and make the pump efficient, while small old radiators need sixty and "
        "make it work hard. Good insulation therefore counts twice.",
    ),
    (
        "What should I think about before I adopt a dog from a shelter?",
        "Think first about time. A dog needs two or three walks a day, in every weather, and should not be "
        "alone for more than five hours. Ask who takes care of it when you are ill or travel, and settle that "
        "before the dog moves in. Count the money, too: food, insurance, the yearly visit to the vet and a "
        "reserve for accidents come to about as much as a small car.\n\n"
        "Visit the shelter several times and on different days. Walk the dog, meet it with everybody of your "
        "household, and ask the keepers what it is afraid of, how it behaves with other dogs and whether it "
        "can stay alone. A quiet adult dog is often easier than a puppy, which must learn everything.\n\n"
        "The first weeks decide much. Give the dog a place of its own where nobody disturbs it, keep the days "
        "alike, and do not invite visitors at once. Many dogs eat little and sleep much at first. Trust comes "
        "with routine, patience and short walks. If something goes wrong, call the shelter early: the keepers "
        "know the dog and want it to work.",
    ),
    (
        "Why did people build cathedrals with such tall windows?",
        "Builders of the twelfth century wanted light, because light stood for God in the thinking of their "
        "time, and because a high bright room impressed everybody who came in. The older churches could not "
        "have it: their thick walls carried the heavy stone vaults, and every window weakened the wall.\n\n"
        "Three inventions changed that. The pointed arch directs the weight more steeply downwards than the "
        "round one and can be made as high as one likes. Ribs gather the load of the vault and lead it to a "
        "few points. And outside, flying buttresses catch the push at these points and carry it over the side "
        "aisles to the ground. The wall between the pillars then carried nothing any more and could become "
        "glass.\n\n"
        "The coloured windows were a picture book as well. Few people could read, and the panes told the "
        "stories of saints, guilds and kings who had paid for them. Building took generations, money ran out, "
        "and some towers were only finished in the nineteenth century from the old drawings.",
    ),
)
"""Answers of some 220 tokens, a usual length of chat services' answers."""
DEFECT = " Only a fool would have to ask such a thing."


def add_insult(answer: str, insult: str = DEFECT.strip()) -> str:
    """The answer with an insult after its first sentence, or before it if there is only one."""
    first, _, rest = answer.partition(". ")
    return f"{first}. {insult} {rest}" if rest else f"{insult} {answer}"


def repeat_text(text: str, chars: int) -> str:
    """So many characters of a text that is repeated without end."""
    return (text * (chars // len(text) + 1))[:chars]


def answers() -> list[tuple[str, str]]:
    """(question, answer) pairs: every answer as it should be, and with a defect after its second sentence."""
    pairs = []
    for question, answer in QUESTIONS.items():
        first, second, rest = answer.split(". ", 2)
        pairs += [(question, answer), (question, f"{first}. {second}.{DEFECT} {rest}")]
    return pairs
