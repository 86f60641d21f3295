"""Selector for `objectives: auto`: Meal's net weighs the candidates for each prompt, and the heaviest stay, ordered by
weight. Candidates are the objectives that the policies file lists.

Weights are missing with another aligner, or if the engine is down, late or has no hidden states. Then all objectives
weigh the same, the reason is reported, and the order in the file decides which candidates stay. A request never fares
worse than with a fixed list of objectives.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from aligner_proxy.errors import StatesUnavailable
from aligner_proxy.plugins.api import Extension, SelectorForm, TextEncoder
from aligner_proxy.policy.request_facts import RequestFacts
from aligner_proxy.types import Outcome, Policy, Turn

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
"""An objective is called very important from `MUCH` times an equal share on, less important up to `LITTLE` times."""


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
    """Why all objectives weigh the same; None if the net weighed them."""


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

    def __init__(self, weigher: Weigher | None = None) -> None:
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
        if weights is None:
            return self.unselected(policy, NO_WEIGHTS)
        return choose_objectives(policy, weights, reason=None)

    def unselected(self, policy: Policy, reason: str) -> Policy:
        """Return the policy with equal weights, so that the file's order decides which candidates stay."""
        count = len(policy.objectives)
        return choose_objectives(policy, [1.0 / count] * count, reason)

    def headers(self, policy: Policy, outcomes: Sequence[Outcome]) -> Mapping[str, str]:
        """Return the headers with names and weights (three decimals), and with the reason if all weigh the same."""
        objective_weights = find_weights(policy)
        if objective_weights is None:
            return {}
        headers = {"weights": ",".join(f"{name}={weight:.3f}" for name, weight in objective_weights.weights)}
        if objective_weights.reason:
            headers["weights-reason"] = objective_weights.reason
        return headers

    def record(self, policy: Policy) -> Mapping[str, Any]:
        """Return names and weights for the audit record; no weights if the objectives were not selected yet.

        The result is empty if the policy does not select objectives by prompt.
        """
        objective_weights = find_weights(policy)
        if objective_weights is None and not self.selects(policy):
            return {}
        return {"weights": dict(objective_weights.weights) if objective_weights else {}}

    def explain(self, policy: Policy, request: RequestFacts) -> Iterable[str]:
        """Yield a note if the objectives that `aligner-proxy check` shows are not those selected for a prompt."""
        objective_weights = find_weights(policy)
        if objective_weights is not None and objective_weights.reason:
            yield f"objectives weigh the same ({objective_weights.reason}): they could not be weighed for this prompt"
        elif objective_weights is None and self.selects(policy):
            yield "objectives: auto: which of these stay is decided for each prompt; try one with --prompt"


class Weigher:
    """Weighs objectives with Meal's net, which reads a row (hidden states of the aligner) of each text. It caches the
    rows of objectives' texts, and stores nothing of a prompt.
    """

    def __init__(self) -> None:
        self._net: WeightNet | None = None
        # by the aligner's content hash and the text, the least recently stored first
        self._rows: OrderedDict[tuple[str, str], Row] = OrderedDict()
        self._encoding_lock = asyncio.Lock()

    async def weights(
        self, objectives: Sequence[str], turns: Sequence[Turn], encoder: TextEncoder
    ) -> Sequence[float] | None:
        """Return the weights for the user's last turn; None without a turn, or if the net is for another aligner."""
        prompts = [turn.content for turn in turns if turn.role == "user" and turn.content.strip()]
        if not prompts:
            return None
        prompt = prompts[-1]
        if self._net is None:
            self._net = await asyncio.to_thread(_load_net)
        net = self._net
        identity = await encoder.identity()
        # concurrent requests wait, and then use the rows that the first request fetched
        async with self._encoding_lock:
            rows_by_text = await self._fetch_rows(identity, objectives, encoder, net.layers)
        prompt_states = await encoder.states([prompt], net.layers)
        prompt_row = _make_row(prompt_states[0])
        # an aligner of another width is not the aligner for which the net was made
        if len(prompt_row) != net.size:
            return None
        return net.weights(prompt_row, [rows_by_text[text] for text in objectives])

    async def _fetch_rows(
        self, identity: str, objectives: Sequence[str], encoder: TextEncoder, layers: Sequence[int]
    ) -> dict[str, Row]:
        """Return the rows of objective texts by text; those that are not cached are fetched in small batches.

        So if the deadline ends the fetch, the next request has fewer rows left to fetch. `identity` is the aligner's
        content hash.
        """
        rows_by_text = {text: self._rows[identity, text] for text in objectives if (identity, text) in self._rows}
        missing_texts = [text for text in dict.fromkeys(objectives) if text not in rows_by_text]
        for first in range(0, len(missing_texts), TOGETHER):
            texts = missing_texts[first : first + TOGETHER]
            rows = [_make_row(states) for states in await encoder.states(texts, layers)]
            rows_by_text |= zip(texts, rows, strict=True)
            self._remember(identity, rows_by_text)
        return rows_by_text

    def _remember(self, identity: str, rows_by_text: Mapping[str, Row]) -> None:
        """Cache rows, and drop the rows beyond `_MAX_TEXTS` that were used longest ago."""
        for text, row in rows_by_text.items():
            self._rows[identity, text] = row
            self._rows.move_to_end((identity, text))
        while len(self._rows) > _MAX_TEXTS:
            self._rows.popitem(last=False)


def _load_net() -> WeightNet:
    # imported on first use, so that a process that only reads the policies file does not load numpy
    from aligner_proxy_systems.meal.net import WeightNet

    return WeightNet.load()


def find_weights(policy: Policy) -> ObjectiveWeights | None:
    """Return the weights of the policy's objectives; None if the objectives were not weighed."""
    objective_weights: ObjectiveWeights | None = policy.extension(WEIGHED)
    return objective_weights


def choose_objectives(policy: Policy, weights: Sequence[float], reason: str | None) -> Policy:
    """Return the policy with the candidates that stay, ordered, and with their weights.

    `weights` are those of the policy's objectives, in order; `reason` says why all are equal, None if they were
    weighed. Enforced objectives come first in their order, then the others by weight. Objectives that a request asked
    for are not candidates and are never dropped.
    """
    selection = policy.selection
    if selection is None:
        return policy
    options = selection.options
    first_weights = dict(zip((objective.name for objective in policy.objectives), weights, strict=True))
    ranked_names = sorted(selection.candidates, key=lambda name: -first_weights[name])  # ties keep the file's order
    dropped_names = set(ranked_names[options.keep :]) if options.keep else set[str]()
    kept_objectives = [objective for objective in policy.objectives if objective.name not in dropped_names]
    kept_weights = {objective.name: first_weights[objective.name] for objective in kept_objectives}
    final_weights = apply_floor(kept_weights, selection.enforced, options.floor)
    enforced = [objective for objective in kept_objectives if objective.name in selection.enforced]
    others = [objective for objective in kept_objectives if objective.name not in selection.enforced]
    objectives = [*enforced, *sorted(others, key=lambda objective: -final_weights[objective.name])]
    named_weights = tuple((objective.name, final_weights[objective.name]) for objective in objectives)
    if options.words:
        count = len(objectives)
        objectives = [
            replace(objective, text=add_weight_words(objective.text, final_weights[objective.name] * count))
            for objective in objectives
        ]
    new_policy = replace(policy, objectives=tuple(objectives))
    return new_policy.with_extension(WEIGHED, ObjectiveWeights(named_weights, reason))


def apply_floor(weights: Mapping[str, float], enforced: Sequence[str], floor: float) -> dict[str, float]:
    """Return weights with the sum 1, none of an enforced objective below the floor; the other objectives give way.

    `weights` are by objective name. If the enforced objectives together would need more than 1, the floor is lowered to
    an equal share.
    """
    enforced_names = [name for name in weights if name in enforced]
    floor = min(floor, 1.0 / len(enforced_names)) if enforced_names else 0.0
    new_weights = _scale_weights(weights, 1.0)
    raised_names: set[str] = set()
    # raising one weight lowers the others, which may push another enforced objective below the floor
    while True:
        low_names = {name for name in enforced_names if name not in raised_names and new_weights[name] < floor}
        if not low_names:
            return new_weights
        raised_names |= low_names
        other_weights = {name: weight for name, weight in new_weights.items() if name not in raised_names}
        lowered_weights = _scale_weights(other_weights, max(0.0, 1.0 - floor * len(raised_names)))
        new_weights = {name: floor if name in raised_names else lowered_weights[name] for name in new_weights}


def add_weight_words(text: str, share: float) -> str:
    """Add the weight in words to an objective's text, "Name: description".

    `share` is its weight times the number of objectives. Weights near the average are not stated.
    """
    name, colon, description = text.partition(":")
    if not colon or LITTLE < share < MUCH:
        return text
    importance = "very important" if share >= MUCH else "less important"
    return f"{name} ({importance}){colon}{description}"


def _scale_weights(weights: Mapping[str, float], total: float) -> dict[str, float]:
    """Return the weights by name, scaled to the sum `total`; if all are 0, they become equal."""
    old_total = sum(weights.values())
    if not old_total:
        return dict.fromkeys(weights, total * (1.0 / len(weights))) if weights else {}
    return {name: total * (weight / old_total) for name, weight in weights.items()}


def _make_row(states: Sequence[float]) -> Row:
    import numpy as np

    return np.asarray(states, dtype=np.float32)
