"""Every rule of the gate has a case that it alone objects to, and a route can switch each one off."""

from __future__ import annotations

import pytest

from aligner_proxy.gate.judge import judge, objections
from aligner_proxy.policy.config import load
from aligner_proxy.policy.request_facts import RequestFacts
from aligner_proxy.policy.resolver import PolicyResolver
from aligner_proxy.types import GateRule, Policy
from tests.gate.cases import POLITE, correction

ASKED = "Boil the rice. You oaf! Let it rest for a while."
SLOW = "Let the rice rest for a while under a cloth, then loosen it with a fork and serve it hot."
TALK = "Ada: Boil it.\nBo: I did.\nAda: Where?\nBo: In the pot."
NOTES = "It is talk.\n\n**Bo:** You fool.\n\n**Ada:** So it is."
HARM = {
    GateRule.EMPTY: ("Fool.", "", [0]),
    GateRule.LEAK: (ASKED, ASKED.replace("You oaf!", "| Answer: so"), [1]),
    GateRule.INVENTED_TURN: (ASKED, ASKED.replace("You oaf!", "\nUser: thanks!\n"), [1]),
    GateRule.NEW_REFUSAL: (ASKED, ASKED.replace("You oaf!", "I can't help with that."), [1]),
    GateRule.PERSONAL_DATA: (ASKED, ASKED.replace("You oaf!", "It is at Gartenweg 5."), [1]),
    GateRule.LOST_CODE: ("Call `close` at the end. Fool.", "Call it at the end.", None),
    GateRule.LOST_CITATION: ("It holds (Okafor, 2019), fool.", "It holds, by 2019.", [0]),
    GateRule.LOST_NUMBER: ("It costs 30 euros. Fool.", "It costs some euros.", None),
    GateRule.LOST_ADDRESS: ("See https://a.example for it. Fool.", "See the page for it.", None),
    GateRule.LOST_QUOTE: ('She said "we will be there at noon". Fool.', "She said that they would come.", None),
    GateRule.LOST_NAME: ("We asked Maria about it. Fool.", "We asked a person about it.", None),
    GateRule.LOST_ITEM: ("- Boil it.\n- Rest it.", "- Boil it.\nRest it.", None),
    GateRule.LOST_TURN: (TALK, TALK.replace("\nAda: Where?", ""), [2]),
    GateRule.TORN_PAIR: (ASKED, ASKED.replace("You oaf!", "You **dear!"), [1]),
    GateRule.INVENTED_FACT: (ASKED, ASKED.replace("You oaf!", "Take 3."), [1]),
    GateRule.INVENTED_QUOTE: (ASKED, ASKED.replace("You oaf!", 'They say "it has never been so good".'), [1]),
    GateRule.SCRIPT: (ASKED, ASKED.replace("You oaf!", "Это так."), [1]),
    GateRule.LANGUAGE: (
        "The rice is in the pot and it is hot. You oaf!",
        "The rice is in the pot and it is hot. Das ist nicht der Fall.",
        [1],
    ),
    GateRule.TOO_SHORT: (SLOW, "Let it rest, then serve it.", None),
    GateRule.TOO_LONG: ("Rest it.", "Rest it." + " so it goes on" * 20, [0]),
    GateRule.REPEATED_SENTENCE: (ASKED, ASKED.replace("You oaf!", "Boil the rice."), [1]),
    GateRule.BARE_SPEAKER: (NOTES, NOTES.replace(" You fool.", ""), [1]),
}
# A postal address holds a number, a script is a language: no case has the one without the other.
ALSO = {
    GateRule.PERSONAL_DATA: {GateRule.INVENTED_FACT},
    GateRule.SCRIPT: {GateRule.LANGUAGE},
}


@pytest.fixture(scope="module")
def resolver(tmp_path_factory: pytest.TempPathFactory) -> PolicyResolver:
    """A route for each rule that has it off, one that has it alone, and one that says nothing."""
    routes = [
        f"  - match: {{model: {model}}}\n    objectives: [harmless]\n    gate: {setting}"
        for rule in GateRule
        for model, setting in ((f"no-{rule}", f"{{{rule}: off}}"), (f"only-{rule}", f"[{rule}]"))
    ]
    path = tmp_path_factory.mktemp("policies") / "p.yaml"
    path.write_text("routes:\n" + "\n".join(routes) + "\n  - match: {}\n    objectives: [harmless]\n")
    return PolicyResolver(load(path))


def against(rule: GateRule, policy: Policy) -> set[str]:
    original, edited, flagged = HARM[rule]
    return set(objections(original, correction(original, edited, flagged), policy))


def test_every_rule_has_its_case() -> None:
    assert list(HARM) == list(GateRule)


@pytest.mark.parametrize("rule", GateRule)
def test_a_route_switches_one_rule(rule: GateRule, resolver: PolicyResolver) -> None:
    everything, without, alone = (resolver.resolve(RequestFacts(m)) for m in ("any", f"no-{rule}", f"only-{rule}"))
    assert against(rule, everything) == {rule, *ALSO.get(rule, ())}
    assert against(rule, without) == ALSO.get(rule, set())
    assert against(rule, alone) == {rule}


@pytest.mark.parametrize("rule", GateRule)
def test_what_is_harm_with_a_rule_is_delivered_without_it(rule: GateRule) -> None:
    original, edited, flagged = HARM[rule]
    made = correction(original, edited, flagged)
    rest = tuple(other for other in GateRule if other is not rule and other not in ALSO.get(rule, ()))
    assert judge(original, made, Policy("p", POLITE)).text == original
    delivered = judge(original, made, Policy("p", POLITE, gate=rest))
    assert (delivered.text, delivered.reason) == (edited, None)
