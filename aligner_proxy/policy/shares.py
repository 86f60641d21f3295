"""Schema of `aligner` with shares, which divide the traffic among several aligners, and the choice of one of them.

`aligner: {default: 95, acme-2: 5}` gives each aligner a share in whole per cent. A hash of the tenant and the beginning
of the conversation decides which aligner a request gets. It uses neither the clock nor chance, so a conversation keeps
its aligner in every worker and in a replay.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
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
_WHOLE = 100
_FORMS = "must be the name of an aligner, or shares in whole per cent: {default: 95, acme-2: 5}"
Shares = tuple[tuple[str, int], ...]
"""Pairs (aligner, per cent), in the order of the file."""


def _parse_choice(value: object) -> object:
    """Parse a name, or shares into pairs that sum to 100; a single share becomes its name. Raises `ValueError`."""
    if isinstance(value, str):
        return _check_name(value)
    if isinstance(value, tuple):  # already parsed
        return value
    if not isinstance(value, Mapping) or not value:
        raise ValueError(_FORMS)
    pairs = []
    for name, percent in value.items():
        _check_name(name)
        if isinstance(percent, bool) or not isinstance(percent, int) or not 1 <= percent <= _WHOLE:
            raise ValueError(f"the share of {name} must be a whole number of per cent from 1 to 100")
        pairs.append((name, percent))
    total = sum(percent for _, percent in pairs)
    if total != _WHOLE:
        raise ValueError(f"the shares sum to {total} per cent; make them sum to 100")
    return pairs[0][0] if len(pairs) == 1 else tuple(pairs)


def _check_name(name: object) -> str:
    """Return the name of an aligner; raises `ValueError` for anything else."""
    if not isinstance(name, str) or not re.fullmatch(NAME, name):
        raise ValueError(f"{_FORMS}; a name has letters, digits, dots, hyphens and underscores, at most 64")
    return name


_Named = Annotated[str, Field(pattern=NAME)]
_Percent = Annotated[int, Field(ge=1, le=_WHOLE)]
AlignerChoice = Annotated[
    str | Shares, BeforeValidator(_parse_choice, json_schema_input_type=_Named | dict[_Named, _Percent])
]
"""The values that a policies file may have for `aligner`: one name, or shares."""


def aligner_names(choice: str | Shares) -> tuple[str, ...]:
    """The aligners that a value of `aligner` names, in the order of the file."""
    return (choice,) if isinstance(choice, str) else tuple(name for name, _ in choice)


def leading_aligner(choice: str | Shares) -> str:
    """The aligner with the largest share; the first one if several are equal."""
    return choice if isinstance(choice, str) else max(choice, key=lambda pair: pair[1])[0]


def traffic_percentile(tenant: str, turns: Sequence[Turn]) -> int:
    """The percentile of a conversation in its tenant's traffic, 0 to 99, by which an aligner is chosen.

    It is a hash of the turns up to the user's first one, because every request of a conversation repeats these.
    """
    opening_turns = next((n for n, turn in enumerate(turns, 1) if turn.role == "user"), len(turns))
    opening = [tenant, *([turn.role, turn.content] for turn in turns[:opening_turns])]
    digest = hashlib.sha256(json.dumps(opening).encode()).digest()
    return int.from_bytes(digest[:8]) % _WHOLE


def pick_aligner(policy: Policy, percentile: int) -> Policy:
    """The policy with the aligner whose share covers `percentile`, and with the heads taught for that aligner."""
    end = 0
    for share in policy.aligner_shares:
        end += share.percent
        if percentile < end:
            return _with_aligner(policy, share)
    # Only a policy without shares comes here: shares sum to 100, and positions are below that.
    return replace(policy, aligner_shares=())


def shadow_policy(policy: Policy) -> Policy | None:
    """The policy for the shadow aligner; None if there is no shadow aligner, or if it is the one that corrects."""
    share = policy.shadow_aligner
    if share is None or share.name == policy.aligner:
        return None
    # A comparison must cost nothing and change nothing: no quota, no paid editor or judge, no reports.
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
    """The policy with this aligner and its heads, and without shares."""
    heads = dict(share.heads)
    objectives = tuple(replace(objective, head=heads.get(objective.name, "")) for objective in policy.objectives)
    return replace(policy, aligner=share.name, objectives=objectives, aligner_shares=())


def share_percents(shares: Iterable[AlignerShare]) -> dict[str, int]:
    """The shares as in the file: aligner -> per cent."""
    return {share.name: share.percent for share in shares}


def parse_shares(text: str) -> str | dict[str, int]:
    """Parse typed text into the form of the file: a name, or shares (default=95,acme-2=5); raises `ConfigError`."""
    if "=" not in text:
        return text
    percents: dict[str, int] = {}
    for part in text.split(","):
        name, _, percent = (piece.strip() for piece in part.partition("="))
        if not name or not percent.isdecimal() or len(percent) > len(str(_WHOLE)):
            raise ConfigError("aligner must be a name, or shares in whole per cent: default=95,acme-2=5")
        percents[name] = int(percent)
    return percents
