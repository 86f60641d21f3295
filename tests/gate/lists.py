"""Lists with a defect, in many forms, and what a careful editor leaves of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from aligner_proxy.gate.judge import Verdict, judge
from aligner_proxy.text.structure import join, split
from aligner_proxy.types import Policy
from tests.gate.cases import POLITE, correction

RUDE = ("idiot", "oaf", "moron", "fool", "dimwit")


@dataclass(frozen=True, slots=True)
class Case:
    """An answer in which what names a rude word is flagged; `expected` is what should go out."""

    form: str
    defect: str
    answer: str
    expected: str


def judged(answer: str) -> Verdict:
    """The gate's verdict where an engine removes just the segments with a rude word."""
    pieces = split(answer)
    flagged = [i for i, piece in enumerate(pieces) if any(word in piece.text.lower() for word in RUDE)]
    edited = join([("" if i in flagged else piece.text, piece.gap) for i, piece in enumerate(pieces)])
    return judge(answer, correction(answer, edited, flagged), Policy("p", POLITE))


def _letter(number: int) -> str:
    return chr(ord("a") + number - 1)


_ROMAN = ("", "i", "ii", "iii", "iv", "v", "vi")
FORMS: dict[str, Callable[[int], str]] = {
    "1.": lambda n: f"{n}. ",
    "1)": lambda n: f"{n}) ",
    "(1)": lambda n: f"({n}) ",
    "a.": lambda n: f"{_letter(n)}. ",
    "a)": lambda n: f"{_letter(n)}) ",
    "(a)": lambda n: f"({_letter(n)}) ",
    "A.": lambda n: f"{_letter(n).upper()}. ",
    "i.": lambda n: f"{_ROMAN[n]}. ",
    "ii)": lambda n: f"{_ROMAN[n]}) ",
    "II.": lambda n: f"{_ROMAN[n].upper()}. ",
    "-": lambda _: "- ",
    "*": lambda _: "* ",
    "\u2022": lambda _: "\u2022 ",
    "1. bold": lambda n: f"**{n}.** ",
    "Step 1:": lambda n: f"Step {n}: ",
    "Step 1 bold": lambda n: f"**Step {n}:** ",
    "\u2460": lambda n: f"{chr(0x245F + n)} ",
    "1 in a box": lambda n: f"{n}\ufe0f\u20e3 ",
    "quoted": lambda n: f"> {n}. ",
    "indented": lambda n: f"   {n}. ",
    "1.1": lambda n: f"2.{n} ",
    "Tip #1": lambda n: f"Tip #{n}: ",
    "1 -": lambda n: f"{n} - ",
    "Schritt 1:": lambda n: f"Schritt {n}: ",
}
_DEFECTS: dict[str, tuple[Sequence[str], Sequence[str]]] = {
    "an item of its own": (
        ("Soak the beans overnight.", "You are a hopeless idiot.", "Drain them.", "Simmer them until soft."),
        ("Soak the beans overnight.", "Drain them.", "Simmer them until soft."),
    ),
    "the first item": (
        ("Listen, you oaf!", "Measure the window twice.", "Cut the cloth."),
        ("Measure the window twice.", "Cut the cloth."),
    ),
    "the last item": (
        ("Check the oil.", "Check the tyres.", "Only a moron would forget that."),
        ("Check the oil.", "Check the tyres."),
    ),
    "first sentence": (
        ("Sand the board.", "You fool! Wipe the dust off.", "Apply the varnish."),
        ("Sand the board.", "Wipe the dust off.", "Apply the varnish."),
    ),
    "inner sentence": (
        ("Open the file.", "Select a column. Even a dimwit finds it. Press sort.", "Save it."),
        ("Open the file.", "Select a column. Press sort.", "Save it."),
    ),
    "last sentence": (
        ("Book a table.", "Tell them the number of guests. Not that you can count, you idiot.", "Be on time."),
        ("Book a table.", "Tell them the number of guests.", "Be on time."),
    ),
}


def _of_form(mark: Callable[[int], str], items: Sequence[str], gap: str) -> str:
    rows = gap.join(mark(n) + item for n, item in enumerate(items, 1))
    return f"Here is what to do.\n\n{rows}\n\nThat is all there is to it."


def of_forms() -> Iterator[Case]:
    """Every defect in every form, close together and with empty lines between."""
    for form, mark in FORMS.items():
        for gap in ("\n", "\n\n"):
            for defect, (items, left) in _DEFECTS.items():
                yield Case(form, defect, _of_form(mark, items, gap), _of_form(mark, left, gap))


def special() -> Iterator[Case]:
    """References, counts, nested lists, tables, headings, sections, greetings: each written by hand."""
    for name, answer, expected in _SPECIAL:
        yield Case(name, "by hand", answer, expected)


_SPECIAL = (
    (
        "a reference behind the list",
        "1. Melt the butter.\n2. You fool.\n3. Add the flour.\n4. Stir.\n\nIf it is lumpy, go back to step 3.",
        "1. Melt the butter.\n2. Add the flour.\n3. Stir.\n\nIf it is lumpy, go back to step 2.",
    ),
    (
        "a reference before the list",
        "Step 3 matters most: see there.\n\n1. You oaf.\n2. Load the film.\n3. Wind it.",
        "Step 2 matters most: see there.\n\n1. Load the film.\n2. Wind it.",
    ),
    (
        "a reference inside the list",
        "1. Cast on.\n2. Knit a row.\n3. You dimwit!\n4. Repeat steps 1 and 2.\n5. Bind off as in step 4.",
        "1. Cast on.\n2. Knit a row.\n3. Repeat steps 1 and 2.\n4. Bind off as in step 3.",
    ),
    (
        "a range",
        "1. Warm up.\n2. Lift.\n3. Listen, moron.\n4. Rest.\n5. Stretch.\n\nDo steps 1-5 daily; points 4 to 5 twice.",
        "1. Warm up.\n2. Lift.\n3. Rest.\n4. Stretch.\n\nDo steps 1-4 daily; points 3 to 4 twice.",
    ),
    (
        "a reference to a letter",
        "a) By train.\nb) You idiot.\nc) By boat.\n\nOption c) is slower.",
        "a) By train.\nb) By boat.\n\nOption b) is slower.",
    ),
    (
        "an ordinal",
        "1. You fool.\n2. Wash it.\n3. Dry it.\n\nThe third step takes an hour.",
        "1. Wash it.\n2. Dry it.\n\nThe second step takes an hour.",
    ),
    (
        "a reference to what goes",
        "1. Peel them.\n2. You idiot.\n3. Slice them.\n\nDo not forget step 2.",
        "1. Peel them.\n2. You idiot.\n3. Slice them.\n\nDo not forget step 2.",
    ),
    (
        "no reference",
        "1. You fool.\n2. Heat the oven to 180.\n3. Bake for 3 hours at step-by-step heat.\n\nTurn to page 3.",
        "1. Heat the oven to 180.\n2. Bake for 3 hours at step-by-step heat.\n\nTurn to page 3.",
    ),
    (
        "two lists",
        "Inside:\n1. Sweep.\n2. You oaf.\n3. Mop.\n\nOutside:\n1. Rake.\n2. Water.\n3. Mow, see step 2.",
        "Inside:\n1. Sweep.\n2. Mop.\n\nOutside:\n1. Rake.\n2. Water.\n3. Mow, see step 2.",
    ),
    (
        "a count in words",
        "Here are four tips:\n- Sleep.\n- You idiot.\n- Walk.\n- Drink water.",
        "Here are three tips:\n- Sleep.\n- Walk.\n- Drink water.",
    ),
    (
        "a count in digits in a heading",
        "## 3 reasons to plant a hedge\n1. Birds.\n2. Shade.\n3. You moron.",
        "## 2 reasons to plant a hedge\n1. Birds.\n2. Shade.",
    ),
    (
        "a number that is no count",
        "Beat the 3 eggs as follows:\n1. Crack them.\n2. You fool.\n3. Whisk.",
        "Beat the 3 eggs as follows:\n1. Crack them.\n2. Whisk.",
    ),
    (
        "nested bullets under a number",
        "1. Pack:\n   - a towel\n   - You idiot.\n   - soap\n2. Leave.",
        "1. Pack:\n   - a towel\n   - soap\n2. Leave.",
    ),
    (
        "a nested list that goes",
        "1. Pack.\n2. Remember:\n   - You oaf.\n   - You fool.\n3. Leave.",
        "1. Pack.\n2. Leave.",
    ),
    (
        "an item with all that is below it",
        "1. Pack.\n2. You dimwit:\n   a) You oaf.\n   b) You fool.\n3. Leave.\n   a) Lock up.",
        "1. Pack.\n2. Leave.\n   a) Lock up.",
    ),
    (
        "an item of which only what is below it stays",
        "1. Pack.\n2. Listen, moron:\n   - Take a coat.\n   - Take gloves.\n3. Leave.",
        "1. Pack.\n- Take a coat.\n- Take gloves.\n2. Leave.",
    ),
    (
        "items of which only what is below them stays",
        "Wait for 4 minutes.\n\nV. Get lost, fool.\n   (a) You are such an oaf.\n      (a) You oaf. Cut it in 2 parts.",
        "Wait for 4 minutes.\n\n(a)\n   (a) Cut it in 2 parts.",
    ),
    (
        "letters below numbers",
        "1. Plan\n   a) Draw it.\n   b) You fool.\n   c) Price it.\n2. Build",
        "1. Plan\n   a) Draw it.\n   b) Price it.\n2. Build",
    ),
    (
        "numbers with a stop between",
        "1. Plan\n1.1 Draw it.\n1.2 You oaf.\n1.3 Price it.\n2. You idiot.\n3. Build\n3.1 Dig.\n3.2 Pour.",
        "1. Plan\n1.1 Draw it.\n1.2 Price it.\n2. Build\n2.1 Dig.\n2.2 Pour.",
    ),
    (
        "the same number for all",
        "1. Soak.\n1. You fool.\n1. Rinse.\n1. Dry.",
        "1. Soak.\n1. Rinse.\n1. Dry.",
    ),
    (
        "a list that begins with five",
        "5. Glue.\n6. You oaf.\n7. Press.\n8. Wait.",
        "5. Glue.\n6. Press.\n7. Wait.",
    ),
    (
        "two items from nine to eleven",
        "8. Eight.\n9. You fool.\n10. Ten.\n11. You oaf.\n12. Twelve.",
        "8. Eight.\n9. Ten.\n10. Twelve.",
    ),
    (
        "a second line",
        "1. Press the lid.\n   It clicks.\n2. You idiot.\n   You oaf.\n3. Turn it.\n   Gently.",
        "1. Press the lid.\n   It clicks.\n2. Turn it.\n   Gently.",
    ),
    (
        "a second line that stays",
        "1. Press the lid.\n2. You fool!\n   It clicks.\n3. Turn it.",
        "1. Press the lid.\n2.\n   It clicks.\n3. Turn it.",
    ),
    (
        "a second line at the margin that stays",
        "1. Press the lid.\n2. You fool!\nIt clicks.\n3. Turn it.",
        "1. Press the lid.\n2. It clicks.\n3. Turn it.",
    ),
    (
        "text right behind a list",
        "1. Press the lid.\n2. You fool!\nThe lid is the round thing.",
        "1. Press the lid.\nThe lid is the round thing.",
    ),
    (
        "a title",
        "1. **Water**: boil it.\n2. **You**: a moron.\n3. **Tea**: add it.",
        "1. **Water**: boil it.\n2. **Tea**: add it.",
    ),
    (
        "emphasis over mark and sentence",
        "**1. Mix it.**\n**2. You oaf!** Let it rise.\n**3. Bake it.**",
        "**1. Mix it.**\n**2.** Let it rise.\n**3. Bake it.**",
    ),
    (
        "numbered headings",
        "## 1. Roots\n\nTrim them.\n\n## 2. You\n\nYou are an idiot. A fool, too.\n\n## 3. Leaves\n\nCut them.",
        "## 1. Roots\n\nTrim them.\n\n## 2. Leaves\n\nCut them.",
    ),
    (
        "a heading whose section goes",
        "Sow in May.\n\n## What I think of you\n\nYou dimwit. You oaf.\n\n## Harvest\n\nIn August.",
        "Sow in May.\n\n## Harvest\n\nIn August.",
    ),
    (
        "a heading with sections below it",
        "# Care\n\n## Water\n\nDaily.\n\n# On you\n\n## Wits\n\nYou fool.\n\n## Looks\n\nYou oaf.\n\n# End\n\nBye.",
        "# Care\n\n## Water\n\nDaily.\n\n# End\n\nBye.",
    ),
    (
        "a line that announces",
        "Feed it twice a day.\n\nAbout you:\n- You oaf.\n- You moron.\n\nClean the tank on Sundays.",
        "Feed it twice a day.\n\nClean the tank on Sundays.",
    ),
    (
        "a line that announces what stays",
        "About fish:\n- You oaf.\n- They eat flakes.",
        "About fish:\n- They eat flakes.",
    ),
    (
        "a row",
        "| Day | Task |\n|---|---|\n| Mon | Iron |\n| Tue | You idiot |\n| Wed | Dust |",
        "| Day | Task |\n|---|---|\n| Mon | Iron |\n| Wed | Dust |",
    ),
    (
        "a numbered row",
        "| # | Task |\n|---|---|\n| 1 | Iron |\n| 2 | You idiot |\n| 3 | Dust |\n\nPoint 3 can wait.",
        "| # | Task |\n|---|---|\n| 1 | Iron |\n| 2 | Dust |\n\nPoint 2 can wait.",
    ),
    (
        "numbers in a row that count nothing",
        "| Guests | Room |\n|---|---|\n| 1 | Attic |\n| 2 | You oaf |\n| 3 | Hall |",
        "| Guests | Room |\n|---|---|\n| 1 | Attic |\n| 3 | Hall |",
    ),
    (
        "a cell",
        "| What | How | Note |\n|---|---|---|\n| Tap | Turn it. | You fool! |\n| Lid | Lift it. | Slowly. |",
        "| What | How | Note |\n|---|---|---|\n| Tap | Turn it. | |\n| Lid | Lift it. | Slowly. |",
    ),
    (
        "all rows",
        "Read this first.\n\n| A | B |\n|---|---|\n| x | You idiot |\n| y | You fool |\n\nThen go on.",
        "Read this first.\n\nThen go on.",
    ),
    (
        "a line before a break that no other break follows",
        "You could use this:\n\n---\nDear reader,\n\nCome at nine. You idiot.\n\nAll the best,\n---\n\nKeep a copy.",
        "You could use this:\n\n---\nDear reader,\n\nCome at nine.\n\nAll the best,\n---\n\nKeep a copy.",
    ),
    (
        "a head whose cells are one sentence",
        "It is open:\n\n| You are | an idiot |\n|---|---|\n| Mon | nine |\n| Tue | ten |\n\nThen go on.",
        "It is open:\n\n| | |\n|---|---|\n| Mon | nine |\n| Tue | ten |\n\nThen go on.",
    ),
    (
        "a head with a full stop",
        "| Only | an idiot | asks | this. |\n|:--|---|---|--:|\n| Mon | nine | ten | six |",
        "| | | | |\n|:--|---|---|--:|\n| Mon | nine | ten | six |",
    ),
    (
        "a head and a row with full stops",
        "| Only | an idiot asks. |\n|---|---|\n| Mon | You idiot. |\n| Tue | Ten. |",
        "| | |\n|---|---|\n| Tue | Ten. |",
    ),
    (
        "a head and some rows",
        "| You | idiot |\n|---|---|\n| Mon | You idiot |\n| Tue | ten |",
        "| | |\n|---|---|\n| Tue | ten |",
    ),
    (
        "a head and all rows",
        "Read this first.\n\n| You | idiot |\n|---|---|\n| x | You idiot |\n| y | You fool |\n\nThen go on.",
        "Read this first.\n\nThen go on.",
    ),
    (
        "a head above a row that lost its first cell",
        "See:\n\n| You are an oaf. | You idiot. |\n|---|---|\n| You fool. | Ten. |\n\nThen go on.",
        "See:\n\n| | |\n|---|---|\n| | Ten. |\n\nThen go on.",
    ),
    (
        "a head above a row that lost its first cell, and a further row",
        "See:\n\n| You are an oaf. | You idiot. |\n|---|---|\n| You fool. | Ten. |\n| Mon. | Nine. |\n\nThen go on.",
        "See:\n\n| | |\n|---|---|\n| | Ten. |\n| Mon. | Nine. |\n\nThen go on.",
    ),
    (
        "a head and cells of a quoted table",
        "> | You | idiot |\n> |---|---|\n> | You fool. | Nine. |\n> | Tue. | Ten. |",
        "> | | |\n> |---|---|\n> | | Nine. |\n> | Tue. | Ten. |",
    ),
    (
        "a head and cells of a table in an item",
        "- Open:\n\n  | You | idiot |\n  |---|---|\n  | You fool. | Nine. |\n  | Tue. | Ten. |",
        "- Open:\n\n  | | |\n  |---|---|\n  | | Nine. |\n  | Tue. | Ten. |",
    ),
    (
        "a quoted row without outer bars",
        "> Day. | Time.\n> ---|---\n> You fool. | Nine.\n> Tue. | Ten.",
        "> Day. | Time.\n> ---|---\n> | | Nine.\n> Tue. | Ten.",
    ),
    (
        "a greeting",
        "Dear idiot,\n\nthe parcel left us on Monday.\n\nKind regards,\nThe shop",
        "the parcel left us on Monday.\n\nKind regards,\nThe shop",
    ),
    (
        "a farewell",
        "The parcel left us on Monday.\n\nGoodbye, you fool.",
        "The parcel left us on Monday.",
    ),
    (
        "boxes to tick",
        "- [ ] Call the bank.\n- [x] You oaf.\n- [ ] Sign the form.",
        "- [ ] Call the bank.\n- [ ] Sign the form.",
    ),
    (
        "code in a list",
        "1. Run this:\n   ```\n   1. x\n   2. y\n   ```\n2. You fool.\n3. Close it.",
        "1. Run this:\n   ```\n   1. x\n   2. y\n   ```\n2. Close it.",
    ),
    (
        "a paragraph between the items",
        "1. Fill it.\n\nThis takes a while.\n\n2. You moron.\n\n3. Empty it.",
        "1. Fill it.\n\nThis takes a while.\n\n2. Empty it.",
    ),
    (
        "German",
        "Hier sind drei Tipps:\n1. L\u00fcfte morgens.\n2. You oaf.\n3. Heize abends, siehe Punkt 1.",
        "Hier sind zwei Tipps:\n1. L\u00fcfte morgens.\n2. Heize abends, siehe Punkt 1.",
    ),
    (
        "bullets under a number at the same depth",
        "1. Pack\n- a towel\n- You fool.\n2. You oaf.\n3. Leave\n- early",
        "1. Pack\n- a towel\n2. Leave\n- early",
    ),
    (
        "a line that announces a quotation",
        "Rinse the brush.\n\nA word to you:\n\n> You oaf.\n> You fool.\n\nDry it flat.",
        "Rinse the brush.\n\nDry it flat.",
    ),
    (
        "a line that announces the rest of its section",
        "## Care\n\nRinse the brush. Let me add:\n\nYou oaf. You fool.\n\n## Storage\n\nDry it flat.",
        "## Care\n\nRinse the brush.\n\n## Storage\n\nDry it flat.",
    ),
    (
        "a line that may announce what stays",
        "Here is how:\n\nYou oaf.\n\nRinse the brush and dry it flat.",
        "Here is how:\n\nRinse the brush and dry it flat.",
    ),
    (
        "breaks on both sides",
        "Rinse the brush.\n\n---\n\nYou oaf. You fool.\n\n---\n\nDry it flat.",
        "Rinse the brush.\n\n---\n\nDry it flat.",
    ),
    ("a break behind which nothing is left", "Rinse the brush.\n\n***\n\n*You oaf.*", "Rinse the brush."),
    ("a break before which nothing is left", "You oaf.\n\n---\n\nRinse the brush.", "Rinse the brush."),
    (
        "a paragraph of a quotation",
        "> Rinse the brush.\n>\n> You oaf.\n>\n> Dry it flat.\n\nSo says the box.",
        "> Rinse the brush.\n>\n> Dry it flat.\n\nSo says the box.",
    ),
    (
        "headings and lists in HTML",
        "<h2>Care</h2>\n<p>Rinse it.</p>\n<h2>On you</h2>\n<ul>\n<li>You oaf.</li>\n<li>You fool.</li>\n</ul>\n"
        "<h2>Storage</h2>\n<p>Dry it flat.</p>",
        "<h2>Care</h2>\n<p>Rinse it.</p>\n<h2>Storage</h2>\n<p>Dry it flat.</p>",
    ),
    (
        "an element with a summary",
        "Rinse the brush.\n\n<details>\n<summary>More</summary>\n\nYou oaf.\n\n</details>\n\nDry it flat.",
        "Rinse the brush.\n\nDry it flat.",
    ),
    (
        "an element of which something stays",
        "<div>\n<p>You oaf.</p>\n<p>Rinse the brush.</p>\n</div>",
        "<div>\n<p>Rinse the brush.</p>\n</div>",
    ),
    ("breaks alone", "You oaf.\n\n---\n\nYou fool.", "---"),
    ("an orphaned connective", "You oaf. However, the shop opens at nine.", "The shop opens at nine."),
    ("an orphaned conjunction", "You oaf.\n\nBut dogs may come in.\n\nAsk first.", "Dogs may come in.\n\nAsk first."),
    ("a name behind a connective", "You fool. Still, iPads are fine.", "iPads are fine."),
    (
        "a connective with text before it",
        "We open at ten. You oaf. However, we close early.",
        "We open at ten. However, we close early.",
    ),
    ("a connective that says something", "You oaf. Otherwise, it burns.", "Otherwise, it burns."),
    ("a postscript", "Rinse the brush.\n\nP.S. You oaf. You fool.", "Rinse the brush."),
    (
        "a postscript that goes on",
        "Rinse the brush.\n\nP.S. You oaf. Dry it flat.",
        "Rinse the brush.\n\nP.S. Dry it flat.",
    ),
    (
        "a block of code that is announced",
        "Rinse the brush.\n\nRemember:\n\n```\nYou oaf.\n```\n\nDry it flat.",
        "Rinse the brush.\n\nDry it flat.",
    ),
)
