"""Schema of `gate`, which switches rules on and off: a block of switches, or the list of all rules that are on."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Discriminator, Tag, WithJsonSchema

from aligner_proxy.policy.yaml_file import BLOCK_FORM, LIST_FORM, Block, quote_name, suggest_name
from aligner_proxy.types import GateRule


def _parse_switch(value: object) -> object:
    """Turn a truth value back into `on` or `off`, because YAML 1.1 reads the bare words as true and false."""
    return ("on" if value else "off") if isinstance(value, bool) else value


def _check_rule_name(name: object) -> object:
    """Return the name of a gate rule; raises `ValueError` with a suggestion for an unknown one."""
    known_names = [rule.value for rule in GateRule]
    # Pydantic itself refuses anything but a text.
    if isinstance(name, str) and name not in known_names:
        raise ValueError(f"unknown rule {quote_name(name)}; {suggest_name(name, known_names)}")
    return name


Switch = Annotated[
    Literal["on", "off"], BeforeValidator(_parse_switch), WithJsonSchema({"enum": ["on", "off", True, False]})
]


class GateSwitches(Block):
    """Rules of the gate, each on or off; a rule that is not set here keeps its earlier value.

    "Must be kept" means everything except flagged segments that were removed, and names in rewritten ones.
    """

    empty: Switch | None = None
    """The edit leaves an empty answer."""
    template_leak: Switch | None = None
    """The edit repeats text of the aligner's prompt template or of an objective."""
    invented_turn: Switch | None = None
    """The edit adds a turn of another speaker (User:, Assistant: ...)."""
    new_refusal: Switch | None = None
    """The edit refuses something that the original did not refuse."""
    new_personal_data: Switch | None = None
    """The edit adds a mail address, telephone number or postal address that the original did not have."""
    lost_code: Switch | None = None
    """Code that must be kept is gone or changed, or a code block is left open."""
    lost_citation: Switch | None = None
    """A citation that must be kept is gone: [1], (Author 2020), a DOI."""
    lost_number: Switch | None = None
    """A number, time, date or version that must be kept is gone."""
    lost_address: Switch | None = None
    """A web or mail address that must be kept is gone."""
    lost_quote: Switch | None = None
    """The words of a quotation that must be kept are gone or changed."""
    lost_name: Switch | None = None
    """A name that must be kept is gone."""
    lost_list_item: Switch | None = None
    """A list item that must be kept lost its bullet or its number."""
    lost_turn: Switch | None = None
    """In an answer that is a dialogue from its beginning, a speaker has fewer lines than before."""
    torn_pair: Switch | None = None
    """The edit has half a pair: emphasis, quotation marks, brackets or tags of which one sign is missing."""
    invented_fact: Switch | None = None
    """The edit adds a number or address that the original did not have."""
    invented_quote: Switch | None = None
    """The edit adds words in quotation marks that the original did not have."""
    changed_script: Switch | None = None
    """The edit has words in a script that the original does not use."""
    changed_language: Switch | None = None
    """The edit has sentences in a language that the original does not use."""
    too_short: Switch | None = None
    """Less than half of the text that must be kept is left (a fifth if an objective asks for brevity)."""
    too_long: Switch | None = None
    """The edited answer is longer than twice the original plus 200 characters."""
    said_twice: Switch | None = None
    """The edit writes a sentence that then stands in the answer twice."""
    bare_speaker: Switch | None = None
    """The edit leaves the name of a speaker without any words."""


def _gate_tag(value: object) -> str:
    """The tag of the form in which pydantic is to read a gate setting: a list, or a block of switches."""
    return LIST_FORM if isinstance(value, (list, tuple)) else BLOCK_FORM


GateSetting = Annotated[
    Annotated[GateSwitches, Tag(BLOCK_FORM)]
    | Annotated[tuple[Annotated[GateRule, BeforeValidator(_check_rule_name)], ...], Tag(LIST_FORM)],
    Discriminator(_gate_tag),
]


def read_switches(setting: GateSwitches | tuple[GateRule, ...] | None) -> dict[GateRule, bool]:
    """Return the rules that a gate setting turns on (True) or off (False), without those that it leaves as they are.

    A list turns on the rules that it names, and turns off all others. None leaves all rules as they are.
    """
    if setting is None:
        return {}
    if isinstance(setting, tuple):
        return {rule: rule in setting for rule in GateRule}
    switches = {rule: getattr(setting, rule.value) for rule in GateRule}
    return {rule: switch == "on" for rule, switch in switches.items() if switch is not None}
