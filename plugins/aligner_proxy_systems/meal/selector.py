"""Selector for `objectives: auto`: Meal's net weighs the candidates for each prompt; the heaviest stay, in that order.

Without the net's weights (another aligner, an engine that is down, late or without hidden states) all weigh the same
and the reason is kept; the order of the file then decides which candidates stay. A request is never worse off than with
a list of objectives.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Protocol

from pydantic import BaseModel, ConfigDict, Field

from aligner_proxy.errors import StatesUnavailable
from aligner_proxy.plugins.api import Extension, SelectorForm, TextEncoder
from aligner_proxy.policy.resolver import RequestFacts
from aligner_proxy.types import Objective, Outcome, Policy, Turn

if TYPE_CHECKING:
    from aligner_proxy_systems.meal.net import Row, WeightNet

AUTO = "auto"
WEIGHED = "meal"
"""The extension value of a policy whose objectives were weighed: `Weighed`."""
NO_WEIGHTS = "no_weights"
"""Why all weigh the same where nothing failed: the net was made for another aligner, or there is nothing to read."""
TOGETHER = 2
"""Objective texts in one request for hidden states."""
_MOST_TEXTS = 1024
"""Objective texts whose hidden states are remembered, about 7 KB each."""
MUCH = 1.5
LITTLE = 0.5
"""Times an equal share: from here on an objective is called very important, or less important."""


class AutoOptions(BaseModel):
    """How the net's weights are used."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    keep: Annotated[int, Field(ge=1, le=256, strict=True)] | None = None
    """How many candidates stay for a prompt, the heaviest; all of them when not said."""
    floor: Annotated[float, Field(ge=0, le=1, strict=True, allow_inf_nan=False)] = 0.1
    """The least that an enforced objective weighs; an equal share where all their floors together exceed 1."""
    words: Annotated[bool, Field(strict=True)] = False
    """true: weights stand in the objectives' texts in words; for aligners that learnt to read them."""


@dataclass(frozen=True, slots=True)
class Weighed:
    """What the objectives of a policy weigh for one prompt, in the policy's order; they sum to 1."""

    weights: tuple[tuple[str, float], ...]
    reason: str | None = None
    """Why all weigh the same."""


class WeighsObjectives(Protocol):
    """Says what objectives weigh for a conversation."""

    async def weights(
        self, objectives: Sequence[str], turns: Sequence[Turn], encoder: TextEncoder
    ) -> Sequence[float] | None:
        """One weight for each text, in their order; they sum to 1. None where it cannot say."""
        ...


class Auto(Extension):
    """`objectives: auto`: which objectives, in which order, for this prompt."""

    name = "meal"
    selectors = (
        SelectorForm(
            AUTO,
            "The objectives are candidates, most important first (that order breaks ties); a net weighs them for each "
            "prompt.",
            AutoOptions,
        ),
    )

    def __init__(self, weigher: WeighsObjectives | None = None) -> None:
        self._weigher = weigher or Weigher()

    def selects(self, policy: Policy) -> bool:
        """Where the file says `objectives: auto`."""
        return policy.selection is not None and policy.selection.word == AUTO and bool(policy.objectives)

    async def select(self, policy: Policy, turns: Sequence[Turn], encoder: TextEncoder) -> Policy:
        """The policy with its objectives chosen, ordered and weighed for the user's last turn."""
        texts = [objective.text for objective in policy.objectives]
        try:
            weights = await self._weigher.weights(texts, turns, encoder)
        except StatesUnavailable:
            weights = None
        return self.unselected(policy, NO_WEIGHTS) if weights is None else chosen(policy, weights, None)

    def unselected(self, policy: Policy, reason: str) -> Policy:
        """The policy with all objectives weighing the same: the order of the file decides which candidates stay."""
        return chosen(policy, [1.0 / len(policy.objectives)] * len(policy.objectives), reason)

    def headers(self, policy: Policy, outcomes: Sequence[Outcome]) -> Mapping[str, str]:
        """Names and weights, to three places, and why all weigh the same."""
        weighed = weighed_of(policy)
        if weighed is None:
            return {}
        words = ",".join(f"{name}={weight:.3f}" for name, weight in weighed.weights)
        return {"weights": words} | ({"weights-reason": weighed.reason} if weighed.reason else {})

    def record(self, policy: Policy) -> Mapping[str, Any]:
        """Names and weights; none where the route chooses by prompt and nothing was chosen yet."""
        weighed = weighed_of(policy)
        if weighed is None and not self.selects(policy):
            return {}
        return {"weights": dict(weighed.weights) if weighed else {}}

    def explain(self, policy: Policy, request: RequestFacts) -> Iterable[str]:
        """Whether the objectives that are shown are those of one prompt."""
        weighed = weighed_of(policy)
        if weighed is not None and weighed.reason:
            yield f"objectives weigh the same ({weighed.reason}): they could not be weighed for this prompt"
        elif weighed is None and self.selects(policy):
            yield "objectives: auto: which of these stay is decided for each prompt; try one with --prompt"


class Weigher:
    """Satisfies `WeighsObjectives`: Meal's net. Objective texts are remembered; nothing of a prompt is kept."""

    def __init__(self) -> None:
        self._net: WeightNet | None = None
        self._rows: OrderedDict[tuple[str, str], Row] = OrderedDict()
        self._encoding = asyncio.Lock()

    async def weights(
        self, objectives: Sequence[str], turns: Sequence[Turn], encoder: TextEncoder
    ) -> Sequence[float] | None:
        """Weights for the user's last turn; None where there is none, or the net was made for another aligner."""
        prompt = next((turn.content for turn in reversed(turns) if turn.role == "user" and turn.content.strip()), None)
        if prompt is None:
            return None
        if self._net is None:
            self._net = await asyncio.to_thread(_load)
        net = self._net
        identity = await encoder.identity()
        async with self._encoding:  # requests that come meanwhile find what the first one asked for
            known = await self._known(identity, objectives, encoder, net.layers)
        (row,) = [_row(states) for states in await encoder.states([prompt], net.layers)]
        if len(row) != net.size:
            return None  # the aligner is of another width than the one that the net was made for
        return net.weights(row, [known[text] for text in objectives])

    async def _known(
        self, identity: str, objectives: Sequence[str], encoder: TextEncoder, layers: Sequence[int]
    ) -> dict[str, Row]:
        """The rows of objective texts, a few at a time: when the time is up, the next request has fewer to ask for."""
        known = {text: self._rows[identity, text] for text in objectives if (identity, text) in self._rows}
        unknown = [text for text in dict.fromkeys(objectives) if text not in known]
        for first in range(0, len(unknown), TOGETHER):
            texts = unknown[first : first + TOGETHER]
            rows = [_row(states) for states in await encoder.states(texts, layers)]
            known |= zip(texts, rows, strict=True)
            self._remember(identity, known)
        return known

    def _remember(self, identity: str, rows: Mapping[str, Row]) -> None:
        for text, row in rows.items():
            self._rows[identity, text] = row
            self._rows.move_to_end((identity, text))
        while len(self._rows) > _MOST_TEXTS:
            self._rows.popitem(last=False)


def _load() -> WeightNet:
    # Imported when it is first needed: a process that only reads the policies file does not pay for numpy.
    from aligner_proxy_systems.meal.net import WeightNet

    return WeightNet.load()


def weighed_of(policy: Policy) -> Weighed | None:
    """What the policy's objectives weigh; None: nothing, or not yet."""
    weighed: Weighed | None = policy.extension(WEIGHED)
    return weighed


def chosen(policy: Policy, weights: Sequence[float], reason: str | None) -> Policy:
    """The policy with its candidates chosen, lifted to the floor and ordered.

    Enforced objectives come first as they stand, then the rest by weight; what a request asked for is no candidate and
    never dropped.
    """
    selection = policy.selection
    if selection is None:
        return policy
    options = selection.options
    by_name = dict(zip((objective.name for objective in policy.objectives), weights, strict=True))
    ranked = sorted(selection.candidates, key=lambda name: -by_name[name])  # equals stay in the order of the file
    dropped = set(ranked[options.keep :]) if options.keep else set[str]()
    kept = [objective for objective in policy.objectives if objective.name not in dropped]
    final = floored({objective.name: by_name[objective.name] for objective in kept}, selection.enforced, options.floor)
    first = [objective for objective in kept if objective.name in selection.enforced]
    rest = [objective for objective in kept if objective.name not in selection.enforced]
    ordered = [*first, *sorted(rest, key=lambda objective: -final[objective.name])]
    weighed = Weighed(tuple((objective.name, final[objective.name]) for objective in ordered), reason)
    if options.words:
        ordered = [_with_weight(objective, final[objective.name] * len(ordered)) for objective in ordered]
    return replace(policy, objectives=tuple(ordered)).with_extension(WEIGHED, weighed)


def floored(weights: Mapping[str, float], enforced: Sequence[str], floor: float) -> dict[str, float]:
    """Weights that sum to 1, none of the enforced ones below the floor; the others give what these get."""
    names = [name for name in weights if name in enforced]
    floor = min(floor, 1.0 / len(names)) if names else 0.0
    shared = _scaled(weights, 1.0)
    # Lifting one takes from the others, which may bring another enforced one below the floor.
    lifted: set[str] = set()
    while low := {name for name in names if name not in lifted and shared[name] < floor}:
        lifted |= low
        others = {name: weight for name, weight in shared.items() if name not in lifted}
        rest = _scaled(others, max(0.0, 1.0 - floor * len(lifted)))
        shared = {name: floor if name in lifted else rest[name] for name in shared}
    return shared


def worded(text: str, share: float) -> str:
    """The objective "Name: description" with its weight in words; `share` is its weight times their number."""
    importance = "very important" if share >= MUCH else "less important" if share <= LITTLE else ""
    name, colon, rest = text.partition(":")
    return f"{name} ({importance}){colon}{rest}" if importance and colon else text


def _scaled(weights: Mapping[str, float], total: float) -> dict[str, float]:
    whole = sum(weights.values())
    return {name: total * (weight / whole if whole else 1.0 / len(weights)) for name, weight in weights.items()}


def _with_weight(objective: Objective, share: float) -> Objective:
    return replace(objective, text=worded(objective.text, share))


def _row(states: Sequence[float]) -> Row:
    import numpy as np

    return np.asarray(states, dtype=np.float32)
