"""What may a route say in place of a list of objectives? `auto`: a net chooses among some of them, prompt by prompt."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag

from aligner_proxy.auto import Auto
from aligner_proxy.provenance import BLOCK_FORM, LIST_FORM

AUTO, ALL = "auto", "*"
Names = tuple[Annotated[str, Field(max_length=200)], ...]


class AutoObjectives(BaseModel):
    """The candidates, and how the net's weights are used."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    auto: Annotated[Names, Field(min_length=1)]
    """Names of the candidates, most important first (that order breaks ties); "*" stands for every configured one."""
    keep: Annotated[int, Field(ge=1, le=256, strict=True)] | None = None
    """How many candidates stay for a prompt, the heaviest; all of them when not said."""
    floor: Annotated[float, Field(ge=0, le=1, strict=True, allow_inf_nan=False)] = 0.1
    """The least that an enforced objective weighs; an equal share where all their floors together exceed 1."""
    words: Annotated[bool, Field(strict=True)] = False
    """true: weights stand in the objectives' texts in words; for aligners that learnt to read them."""


def _form(value: object) -> str:
    return BLOCK_FORM if value == AUTO or isinstance(value, (Mapping, AutoObjectives)) else LIST_FORM


def _short(value: object) -> object:
    """The bare word `auto` stands for all objectives of the file."""
    return {AUTO: (ALL,)} if value == AUTO else value


Chosen = Annotated[
    Annotated[
        AutoObjectives,
        BeforeValidator(_short, json_schema_input_type=Literal["auto"] | AutoObjectives),
        Tag(BLOCK_FORM),
    ]
    | Annotated[Names, Tag(LIST_FORM)],
    Discriminator(_form),
]


def listed(said: Names | AutoObjectives, known: Iterable[str]) -> Iterator[tuple[str, tuple[str | int, ...]]]:
    """The objectives of a route, each with its place below the route; `known` are those that "*" stands for."""
    names, place = (said.auto, ("objectives", AUTO)) if isinstance(said, AutoObjectives) else (said, ("objectives",))
    for n, name in enumerate(names):
        every = known if name == ALL and isinstance(said, AutoObjectives) else (name,)
        yield from ((one, (*place, n)) for one in every)


def auto_of(said: Names | AutoObjectives, candidates: Iterable[str], enforced: tuple[str, ...]) -> Auto | None:
    """What the net is asked; None where the route names its objectives itself."""
    if not isinstance(said, AutoObjectives):
        return None
    return Auto(tuple(candidates), enforced, said.keep, said.floor, said.words)
