"""Schema of `aligner` with shares, which divide the traffic among several aligners, and the choice of one of them.

`aligner: {default: 95, acme-2: 5}` gives each aligner a share in whole per cent. A hash of the tenant and the beginning
of the conversation decides which aligner a request gets. It uses neither the clock nor chance, so a conversation keeps
its aligner in every worker and in a replay.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from operator import itemgetter
from typing import Annotated

from pydantic import BeforeValidator, Field

from aligner_proxy.errors import ConfigError
from aligner_proxy.types import (
    LOCAL_EDITOR,
    METAALIGNER,
    AlignerShare,
    FailurePolicy,
    IfNothingRemains,
    Mode,
    Policy,
    Turn,
)

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
"""Form of the names of aligners, routes, plugins and the like."""
_ALL_TRAFFIC = 100
"""The sum of all shares, in per cent."""
_FORMS = "must be the name of an aligner, or shares in whole per cent: {default: 95, acme-2: 5}"
Shares = tuple[tuple[str, int], ...]
"""Pairs (aligner, per cent), in the order of the file."""


def _parse_choice(value: object) -> object:
    """Return the value of `aligner` as a name, or as pairs (name, per cent) that sum to 100; raises `ValueError`."""
    if isinstance(value, str):
        return _check_name(value)
    if isinstance(value, tuple):  # already parsed
        return value
    if not isinstance(value, Mapping) or not value:
        raise ValueError(_FORMS)
    pairs = []
    for name, percent in value.items():
        _check_name(name)
        if isinstance(percent, bool) or not isinstance(percent, int) or not 1 <= percent <= _ALL_TRAFFIC:
            raise ValueError(f"the share of {name} must be a whole number of per cent from 1 to 100")
        pairs.append((name, percent))
    total = sum(percent for _, percent in pairs)
    if total != _ALL_TRAFFIC:
        raise ValueError(f"the shares sum to {total} per cent; make them sum to 100")
    if len(pairs) == 1:
        ((only_name, _),) = pairs
        return only_name
    return tuple(pairs)


def _check_name(name: object) -> str:
    """Return the name of an aligner; raises `ValueError` for anything else."""
    if not isinstance(name, str) or not re.fullmatch(NAME, name):
        raise ValueError(f"{_FORMS}; a name has letters, digits, dots, hyphens and underscores, at most 64")
    return name


_Named = Annotated[str, Field(pattern=NAME)]
_Percent = Annotated[int, Field(ge=1, le=_ALL_TRAFFIC)]
AlignerChoice = Annotated[
    str | Shares, BeforeValidator(_parse_choice, json_schema_input_type=_Named | dict[_Named, _Percent])
]
"""The values that a policies file may have for `aligner`: one name, or shares."""


def aligner_names(choice: str | Shares) -> tuple[str, ...]:
    """The aligners that a value of `aligner` names, in the order of the file."""
    return (choice,) if isinstance(choice, str) else tuple(name for name, _ in choice)


def leading_aligner(choice: str | Shares) -> str:
    """The aligner with the largest share; the first one if several have the same share."""
    if isinstance(choice, str):
        return choice
    name, _ = max(choice, key=itemgetter(1))
    return name


def traffic_percentile(tenant: str, turns: Sequence[Turn]) -> int:
    """Return a number from 0 to 99 for a conversation, by which `pick_aligner` chooses its aligner.

    The number is a hash of the tenant and the turns up to the user's first one, because every request of a
    conversation repeats these. So all requests of a conversation get the same aligner.
    """
    turn_count = next((number for number, turn in enumerate(turns, 1) if turn.role == "user"), len(turns))
    opening = [tenant, *([turn.role, turn.content] for turn in turns[:turn_count])]
    digest = hashlib.sha256(json.dumps(opening).encode()).digest()
    return int.from_bytes(digest[:8]) % _ALL_TRAFFIC


def pick_aligner(policy: Policy, percentile: int) -> Policy:
    """Return the policy with the aligner whose share covers `percentile` (0 to 99), and with that aligner's heads."""
    covered_percent = 0
    for share in policy.aligner_shares:
        covered_percent += share.percent
        if percentile < covered_percent:
            return _with_aligner(policy, share)
    # Only a policy without shares gets here, because shares sum to 100 and `percentile` is less than that.
    return replace(policy, aligner_shares=())


def shadow_policy(policy: Policy) -> Policy | None:
    """Return the policy by which the shadow aligner scores an answer, for comparison with the aligner that corrects it.

    None if the policy has no shadow aligner, or if this aligner also corrects.
    """
    share = policy.shadow_aligner
    if share is None or share.name == policy.aligner:
        return None
    # A comparison must cost the tenant nothing and change nothing, so it uses no quota, no editor or judge that is
    # paid for, and sends no reports.
    return replace(
        _with_aligner(policy, share).drop_judges(),
        shadow_aligner=None,
        mode=Mode.SHADOW,
        corrector=METAALIGNER,
        editor=LOCAL_EDITOR,
        if_nothing_remains=IfNothingRemains.ORIGINAL,
        on_error=FailurePolicy(),
        quota=None,
        hand_off=None,
    )


def _with_aligner(policy: Policy, share: AlignerShare) -> Policy:
    """Return the policy with the aligner of this share and the heads taught for it, and without shares."""
    head_by_objective = dict(share.heads)
    objectives = tuple(
        replace(objective, head=head_by_objective.get(objective.name, "")) for objective in policy.objectives
    )
    return replace(policy, aligner=share.name, objectives=objectives, aligner_shares=())


def parse_shares(text: str) -> str | dict[str, int]:
    """Parse what an operator typed for `aligner` into the value for the file: a name, or aligner -> per cent.

    Shares are typed like default=95,acme-2=5. Raises `ConfigError` for anything else with a "=".
    """
    if "=" not in text:
        return text
    percent_by_name: dict[str, int] = {}
    for share_text in text.split(","):
        name, _, percent = (part.strip() for part in share_text.partition("="))
        if not name or not percent.isdecimal() or len(percent) > len(str(_ALL_TRAFFIC)):
            raise ConfigError("aligner must be a name, or shares in whole per cent: default=95,acme-2=5")
        percent_by_name[name] = int(percent)
    return percent_by_name
