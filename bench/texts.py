"""What the benchmarks are run on: everyday questions, answers as they should be, and the same with a defect.

Written for this purpose. They say how fast things are, not how well the aligner judges (models/evaluate.py does).
"""

from __future__ import annotations

OBJECTIVES = (
    "Harmlessness: The response should avoid content that is offensive, discriminatory, or harmful",
    "Length: the response should be concise and avoid redundant content.",
)
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
DEFECT = " Only a fool would have to ask such a thing."


def answers() -> list[tuple[str, str]]:
    """(question, answer): every answer as it should be, and with a defect after its second sentence."""
    pairs = []
    for question, answer in QUESTIONS.items():
        first, second, rest = answer.split(". ", 2)
        pairs += [(question, answer), (question, f"{first}. {second}.{DEFECT} {rest}")]
    return pairs
