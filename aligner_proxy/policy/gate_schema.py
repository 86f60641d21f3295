"""Schema of `gate`: which of its rules are on, as a block of switches or as the list of those that are."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Tag, WithJsonSchema

from aligner_proxy.policy.yaml_file import BLOCK_FORM, LIST_FORM, quote_name, suggest_name
from aligner_proxy.types import GateRule


def _parse_switch(value: object) -> object:
    """`on` or `off` as text; YAML 1.1 reads the bare words as true and false."""
    return ("on" if value else "off") if isinstance(value, bool) else value


def _check_rule_name(name: object) -> object:
    rules = [rule.value for rule in GateRule]
    if isinstance(name, str) and name not in rules:
        raise ValueError(f"unknown rule {quote_name(name)}; {suggest_name(name, rules)}")
    return name


Switch = Annotated[
    Literal["on", "off"], BeforeValidator(_parse_switch), WithJsonSchema({"enum": ["on", "off", True, False]})
]


class GateSwitches(BaseModel):
    """Rules of the gate, each on or off; what is not said here stays as it was."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    empty: Switch | None = None
    """Nothing is left of the answer."""
    template_leak: Switch | None = None
    """It repeats text of the aligner's template or of an objective."""
    invented_turn: Switch | None = None
    """Somebody else begins to speak (User:, Assistant: ...)."""
    new_refusal: Switch | None = None
    """It declines what the original did not decline."""
    new_personal_data: Switch | None = None
    """A mail address, telephone number or postal address that was not there."""
    lost_code: Switch | None = None
    """Code that had to stay is gone or changed, or a code block is left open."""
    lost_citation: Switch | None = None
    """A citation that had to stay is gone: [1], (Author 2020), a DOI."""
    lost_number: Switch | None = None
    """A number, time, date or version that had to stay is gone."""
    lost_address: Switch | None = None
    """A web or mail address that had to stay is gone."""
    lost_quote: Switch | None = None
    """The words of a quotation that had to stay are gone or changed."""
    lost_name: Switch | None = None
    """A name that had to stay is gone."""
    lost_list_item: Switch | None = None
    """An item of a list that had to stay lost its mark or its number."""
    lost_turn: Switch | None = None
    """A speaker has fewer lines in an answer that is a dialogue from its beginning."""
    invented_fact: Switch | None = None
    """A number or address that the original did not have."""
    invented_quote: Switch | None = None
    """Words between quotation marks that the original did not have."""
    changed_script: Switch | None = None
    """Words in a script that the original does not use."""
    changed_language: Switch | None = None
    """Sentences in a language that the original does not use."""
    too_short: Switch | None = None
    """Less than half of what had to stay is left (a fifth where an objective asks for brevity)."""
    too_long: Switch | None = None
    """More than twice the original and 200 characters."""


def _gate_tag(value: object) -> str:
    return LIST_FORM if isinstance(value, (list, tuple)) else BLOCK_FORM


GateSetting = Annotated[
    Annotated[GateSwitches, Tag(BLOCK_FORM)]
    | Annotated[tuple[Annotated[GateRule, BeforeValidator(_check_rule_name)], ...], Tag(LIST_FORM)],
    Discriminator(_gate_tag),
]


def switches(setting: GateSwitches | tuple[GateRule, ...] | None) -> dict[GateRule, bool]:
    """The rules that a gate setting switches. A list switches all: those in it are on, the others off."""
    if setting is None:
        return {}
    if isinstance(setting, tuple):
        return {rule: rule in setting for rule in GateRule}
    values = {rule: getattr(setting, rule.value) for rule in GateRule}
    return {rule: value == "on" for rule, value in values.items() if value is not None}
