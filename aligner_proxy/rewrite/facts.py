"""Who asks, for which model, and with which wishes? From LiteLLM's shapes to `RequestFacts`.

Who asks is read from what LiteLLM authenticated (`UserAPIKeyAuth`) alone; metadata of the body is the client's and only
ever counts as a wish.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from litellm.proxy._types import UserAPIKeyAuth

from aligner_proxy.policy import RequestFacts
from aligner_proxy.preferences.dialogue import MetaPrompt, SystemInfo, UserInfo
from aligner_proxy.rewrite import stored
from aligner_proxy.rewrite.request import buckets, headers, system, turns

OBJECTIVES_HEADER = "x-aligner-objectives"
BYPASS_HEADER = "x-aligner-bypass"
_OURS = "aligner"
_ABOVE = frozenset({"system", "developer"})
"""Roles of those who speak before the user does."""
_NOTHING = MetaPrompt()
_SHA256 = re.compile(r"[0-9a-f]{64}")


def facts(data: Mapping[str, Any], user: UserAPIKeyAuth) -> RequestFacts:
    """Everything that the policy of this request depends on."""
    given, metadata = headers(data), buckets(data)
    wishes = [bucket[_OURS] for bucket in metadata if _OURS in bucket]
    return RequestFacts(
        model=_model(data, user.request_route),
        tags=_tags(metadata),
        team_id=user.team_id,
        team_alias=user.team_alias,
        key_hash=_hashed(user.token or user.api_key),
        key_alias=user.key_alias,
        team_settings=_ours(user.team_metadata),
        key_settings=_ours(user.metadata),
        asked=_asked(wishes, given),
        bypass=given.get(BYPASS_HEADER, "").strip().lower() in ("1", "true", "yes"),
        said=_said(data, wishes),
    )


def _said(data: Mapping[str, Any], wishes: Sequence[object]) -> MetaPrompt:
    """What may hold preferences, in the fields of any endpoint: system prompt, persona, preference."""
    above = [*system(data.get("instructions")), *system(data.get("system"))]
    above += [turn for name in ("messages", "input") for turn in turns(data.get(name), _ABOVE)]
    if not (above or wishes):
        return _NOTHING
    user = UserInfo(_wish(wishes, "persona"), _wish(wishes, "preference"))
    return MetaPrompt(SystemInfo("\n".join(turn.content for turn in above)), user)


def _wish(wishes: Sequence[object], name: str) -> str:
    """A wish in words; a list of texts counts as one, anything else as none."""
    said = next((some[name] for some in wishes if isinstance(some, Mapping) and name in some), None)
    texts = said if isinstance(said, list) else [said]
    return "\n".join(text for text in texts if isinstance(text, str))


def _model(data: Mapping[str, Any], route: str | None) -> str:
    """The model that was asked; for a stored answer the group that gave it, which LiteLLM knows by the answer's id.

    There the body may name any model, and must not choose its policy by that.
    """
    if stored(route):
        return str(getattr(data.get("deployment"), "model_name", None) or "")
    return str(data.get("model") or "")


def forget_wishes(data: Mapping[str, Any]) -> None:
    """Take our field out of the client's metadata, so that it reaches neither the upstream nor a log."""
    for bucket in buckets(data):
        for place in (bucket, bucket.get("requester_metadata")):
            if isinstance(place, dict):
                place.pop(_OURS, None)


def further_models(data: Mapping[str, Any]) -> tuple[str, ...]:
    """Models besides the one asked for that the request itself lets answer, by LiteLLM's body field `fallbacks`."""
    given = data.get("fallbacks")
    found: list[str] = []
    for one in given if isinstance(given, list) else ():
        if isinstance(one, Mapping):
            named = one.get("model") or [name for names in one.values() if isinstance(names, list) for name in names]
            found.extend(map(str, named if isinstance(named, list) else [named]))
        else:
            found.append(str(one))
    return tuple(found)


def _hashed(key: str | None) -> str | None:
    """LiteLLM hashes keys that begin with `sk-`; a bare one of another custom auth must not travel."""
    if key is None or _SHA256.fullmatch(key):
        return key
    return hashlib.sha256(key.encode()).hexdigest()


def _ours(metadata: object) -> object:
    return metadata.get(_OURS) if isinstance(metadata, Mapping) else None


def _tags(metadata: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    found = (bucket.get("tags") for bucket in metadata)
    return tuple(dict.fromkeys(str(tag) for tags in found if isinstance(tags, list) for tag in tags))


def _asked(wishes: Sequence[object], given: Mapping[str, str]) -> tuple[str, ...]:
    """Header first, then body; a name said twice counts once."""
    names = [name.strip() for name in given.get(OBJECTIVES_HEADER, "").split(",")]
    for some in wishes:
        names.extend(_listed(some))
    return tuple(dict.fromkeys(name for name in names if name))


def _listed(wishes: object) -> list[str]:
    listed = wishes.get("objectives") if isinstance(wishes, Mapping) else None
    if isinstance(listed, str):
        return [name.strip() for name in listed.split(",")]
    return [str(name) for name in listed] if isinstance(listed, list) else []
