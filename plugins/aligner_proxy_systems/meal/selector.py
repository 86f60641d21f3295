"""Selector for `objectives: auto`: Meal's net weighs the candidates by prompt and keeps the heaviest, in that order.

Weights are missing with another aligner, or if the engine is down, late or has no hidden states. Then all objectives
weigh the same, the reason is reported, and the order in the file decides which candidates stay. A request never fares
worse than with a fixed list of objectives.
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
from aligner_proxy.policy.request_facts import RequestFacts
from aligner_proxy.types import Objective, Outcome, Policy, Turn

if TYPE_CHECKING:
    from aligner_proxy_systems.meal.net import Row, WeightNet

AUTO = "auto"
WEIGHED = "meal"
"""Extension value of a policy whose objectives were weighed: `ObjectiveWeights`."""
NO_WEIGHTS = "no_weights"
"""Reason for equal weights without a failure: the net was made for another aligner, or there is no user turn to
read."""
TOGETHER = 2
"""Objective texts per request for hidden states."""
_MAX_TEXTS = 1024
"""Objective texts whose hidden states are cached, about 7 KB each."""
MUCH = 1.5
LITTLE = 0.5
"""Multiple of an equal share from which an objective is called very important, or up to which less important."""


class AutoOptions(BaseModel):
    """How the net's weights are used."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    keep: Annotated[int, Field(ge=1, le=256, strict=True)] | None = None
    """How many candidates stay for a prompt, the heaviest ones; by default all."""
    floor: Annotated[float, Field(ge=0, le=1, strict=True, allow_inf_nan=False)] = 0.1
    """Least weight of an enforced objective; if all their floors together exceed 1, an equal share."""
    words: Annotated[bool, Field(strict=True)] = False
    """true: write weights into the objectives' texts, in words; for aligners trained to read them."""


@dataclass(frozen=True, slots=True)
class ObjectiveWeights:
    """Weights of a policy's objectives for one prompt, in the policy's order; they sum to 1."""

    weights: tuple[tuple[str, float], ...]
    reason: str | None = None
    """Why all weigh the same; None if they were weighed."""


class ObjectiveWeigher(Protocol):
    """Computes the weights of objectives for a conversation."""

    async def weights(
        self, objectives: Sequence[str], turns: Sequence[Turn], encoder: TextEncoder
    ) -> Sequence[float] | None:
        """Return one weight for each text, in order, with sum 1; None if it cannot weigh them."""
        ...


class AutoSelector(Extension):
    """`objectives: auto`: chooses and orders the objectives for each prompt."""

    name = "meal"
    selectors = (
        SelectorForm(
            AUTO,
            "The objectives are candidates, most important first (that order breaks ties). A neural net weighs them "
            "for each prompt.",
            AutoOptions,
        ),
    )

    def __init__(self, weigher: ObjectiveWeigher | None = None) -> None:
        self._weigher = weigher or Weigher()

    def selects(self, policy: Policy) -> bool:
        """Whether the file says `objectives: auto`."""
        return policy.selection is not None and policy.selection.word == AUTO and bool(policy.objectives)

    async def select(self, policy: Policy, turns: Sequence[Turn], encoder: TextEncoder) -> Policy:
        """Return the policy with its objectives chosen, ordered and weighed for the user's last turn."""
        texts = [objective.text for objective in policy.objectives]
        try:
            weights = await self._weigher.weights(texts, turns, encoder)
        except StatesUnavailable:
            weights = None
        return self.unselected(policy, NO_WEIGHTS) if weights is None else choose_objectives(policy, weights, None)

    def unselected(self, policy: Policy, reason: str) -> Policy:
        """Return the policy with equal weights, so that the file's order decides which candidates stay."""
        return choose_objectives(policy, [1.0 / len(policy.objectives)] * len(policy.objectives), reason)

    def headers(self, policy: Policy, outcomes: Sequence[Outcome]) -> Mapping[str, str]:
        """Headers with names and weights (three decimals), and the reason if all weigh the same."""
        weighed = find_weights(policy)
        if weighed is None:
            return {}
        words = ",".join(f"{name}={weight:.3f}" for name, weight in weighed.weights)
        return {"weights": words} | ({"weights-reason": weighed.reason} if weighed.reason else {})

    def record(self, policy: Policy) -> Mapping[str, Any]:
        """Names and weights for the record; empty weights if the route selects by prompt but has not selected yet."""
        weighed = find_weights(policy)
        if weighed is None and not self.selects(policy):
            return {}
        return {"weights": dict(weighed.weights) if weighed else {}}

    def explain(self, policy: Policy, request: RequestFacts) -> Iterable[str]:
        """Notes on whether the objectives shown are those of one prompt."""
        weighed = find_weights(policy)
        if weighed is not None and weighed.reason:
            yield f"objectives weigh the same ({weighed.reason}): they could not be weighed for this prompt"
        elif weighed is None and self.selects(policy):
            yield "objectives: auto: which of these stay is decided for each prompt; try one with --prompt"


class Weigher:
    """Weighs objectives with Meal's net; caches objective texts' states, and stores nothing of a prompt."""

    def __init__(self) -> None:
        self._net: WeightNet | None = None
        self._rows: OrderedDict[tuple[str, str], Row] = OrderedDict()
        self._encoding = asyncio.Lock()

    async def weights(
        self, objectives: Sequence[str], turns: Sequence[Turn], encoder: TextEncoder
    ) -> Sequence[float] | None:
        """Weights for the user's last turn; None without one, or if the net was made for another aligner."""
        prompt = next((turn.content for turn in reversed(turns) if turn.role == "user" and turn.content.strip()), None)
        if prompt is None:
            return None
        if self._net is None:
            self._net = await asyncio.to_thread(_load)
        net = self._net
        identity = await encoder.identity()
        async with self._encoding:  # concurrent requests wait and then use the first one's result
            rows_by_text = await self._fetch_rows(identity, objectives, encoder, net.layers)
        (row,) = [_to_row(states) for states in await encoder.states([prompt], net.layers)]
        if len(row) != net.size:
            return None  # the aligner's width is not that of the aligner for which the net was made
        return net.weights(row, [rows_by_text[text] for text in objectives])

    async def _fetch_rows(
        self, identity: str, objectives: Sequence[str], encoder: TextEncoder, layers: Sequence[int]
    ) -> dict[str, Row]:
        """Return the rows of objective texts, fetching and caching missing ones in small batches.

        If the deadline ends the fetch, the next request has fewer rows left to fetch.
        """
        rows_by_text = {text: self._rows[identity, text] for text in objectives if (identity, text) in self._rows}
        missing_texts = [text for text in dict.fromkeys(objectives) if text not in rows_by_text]
        for first in range(0, len(missing_texts), TOGETHER):
            texts = missing_texts[first : first + TOGETHER]
            rows = [_to_row(states) for states in await encoder.states(texts, layers)]
            rows_by_text |= zip(texts, rows, strict=True)
            self._remember(identity, rows_by_text)
        return rows_by_text

    def _remember(self, identity: str, rows: Mapping[str, Row]) -> None:
        """Cache rows, and drop those that were stored longest ago."""
        for text, row in rows.items():
            self._rows[identity, text] = row
            self._rows.move_to_end((identity, text))
        while len(self._rows) > _MAX_TEXTS:
            self._rows.popitem(last=False)


def _load() -> WeightNet:
    # Imported on first use, so that a process that only reads the policies file does not load numpy.
    from aligner_proxy_systems.meal.net import WeightNet

    return WeightNet.load()


def find_weights(policy: Policy) -> ObjectiveWeights | None:
    """The weights of the policy's objectives; None if they were not weighed."""
    weighed: ObjectiveWeights | None = policy.extension(WEIGHED)
    return weighed


def choose_objectives(policy: Policy, weights: Sequence[float], reason: str | None) -> Policy:
    """Return the policy with its candidates selected, raised to the floor and ordered.

    Enforced objectives come first in their order, then the rest by weight. Objectives that a request asked for are not
    candidates and are never dropped.
    """
    selection = policy.selection
    if selection is None:
        return policy
    options = selection.options
    weight_by_name = dict(zip((objective.name for objective in policy.objectives), weights, strict=True))
    ranked = sorted(selection.candidates, key=lambda name: -weight_by_name[name])  # ties keep the order of the file
    dropped = set(ranked[options.keep :]) if options.keep else set[str]()
    remaining = [objective for objective in policy.objectives if objective.name not in dropped]
    final = apply_floor(
        {objective.name: weight_by_name[objective.name] for objective in remaining}, selection.enforced, options.floor
    )
    enforced_first = [objective for objective in remaining if objective.name in selection.enforced]
    others = [objective for objective in remaining if objective.name not in selection.enforced]
    ordered = [*enforced_first, *sorted(others, key=lambda objective: -final[objective.name])]
    weighed = ObjectiveWeights(tuple((objective.name, final[objective.name]) for objective in ordered), reason)
    if options.words:
        ordered = [_state_weight(objective, final[objective.name] * len(ordered)) for objective in ordered]
    return replace(policy, objectives=tuple(ordered)).with_extension(WEIGHED, weighed)


def apply_floor(weights: Mapping[str, float], enforced: Sequence[str], floor: float) -> dict[str, float]:
    """Scale weights to sum 1 with no enforced one below the floor; the other objectives give up the difference.

    If the enforced objectives together would need more than 1, the floor is lowered to an equal share.
    """
    names = [name for name in weights if name in enforced]
    floor = min(floor, 1.0 / len(names)) if names else 0.0
    shared = _scale_weights(weights, 1.0)
    # Raising one lowers the others, which may push another enforced one below the floor.
    lifted: set[str] = set()
    while too_low := {name for name in names if name not in lifted and shared[name] < floor}:
        lifted |= too_low
        others = {name: weight for name, weight in shared.items() if name not in lifted}
        rest = _scale_weights(others, max(0.0, 1.0 - floor * len(lifted)))
        shared = {name: floor if name in lifted else rest[name] for name in shared}
    return shared


def add_weight_words(text: str, share: float) -> str:
    """Add the weight in words to an objective "Name: description".

    `share` is its weight times the number of objectives.
    """
    importance = "very important" if share >= MUCH else "less important" if share <= LITTLE else ""
    name, colon, rest = text.partition(":")
    return f"{name} ({importance}){colon}{rest}" if importance and colon else text


def _scale_weights(weights: Mapping[str, float], total: float) -> dict[str, float]:
    """Scale weights to the sum `total`; if all are 0, they become equal."""
    whole = sum(weights.values())
    return {name: total * (weight / whole if whole else 1.0 / len(weights)) for name, weight in weights.items()}


def _state_weight(objective: Objective, share: float) -> Objective:
    return replace(objective, text=add_weight_words(objective.text, share))


def _to_row(states: Sequence[float]) -> Row:
    import numpy as np

    return np.asarray(states, dtype=np.float32)
