"""Tables and plots of what a comparison has come to so far."""

from __future__ import annotations

from collections.abc import Mapping

from models.reporting import output

from . import figures
from .answers import Made, Workshop, key
from .config import Method, trained

TITLES: Mapping[Method, str] = {
    "sft": "SFT",
    "rlhf": "RLHF",
    "morlhf": "MORLHF",
    "modpo": "MODPO",
    "ric": "RiC",
}


def of_method(workshop: Workshop, method: Method) -> list[Made]:
    """What is there of the table's weighting, seed by seed."""
    c = workshop.comparison
    wanted = [trained(c, method, seed, c.even) for seed in c.seeds]
    return [workshop.trained(job) for job in wanted if workshop.done(job)]


def table_key(workshop: Workshop, method: Method) -> str:
    """Under which weighting a method's answers of the table are kept."""
    c = workshop.comparison
    return key({c.rlhf: 1.0} if method == "rlhf" else c.even)


def report(workshop: Workshop) -> str:
    """Write field.md and field.json; no text of anybody is in them."""
    c = workshop.comparison
    before = workshop.base().answers[""]
    asked = workshop.questions
    rows = []
    document = {}
    for method in c.methods:
        made = of_method(workshop, method)
        if not made:
            continue
        after = [one.answers[table_key(workshop, method)] for one in made]
        gains = figures.gains(c.report, asked, before, after)
        verdicts = figures.verdicts(asked, before, after)
        damage = figures.damage(asked, before, after)
        document[TITLES[method]] = {"gains": gains, "verdicts": verdicts, "damage": damage}
        rows.append((TITLES[method], len(made), *gains.values(), verdicts.win, verdicts.lose, damage))
    head = ("method", "seeds", *c.report, "win", "lose", "damage to sound answers")
    text = output.table(head, rows)
    output.write(workshop.out, "field", text, {"comparison": c.model_dump(mode="json"), "methods": document})
    return text
