"""Extraction of `RequestFacts` from LiteLLM's shapes: who asks, for which model, and for what beside the answer.

The caller is read from what LiteLLM authenticated (`UserAPIKeyAuth`) alone; metadata of the body is the client's
and only ever counts as a wish.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from litellm.proxy._types import UserAPIKeyAuth

from aligner_proxy.formats import stored
from aligner_proxy.formats.base import buckets, headers, system, turns
from aligner_proxy.policy.resolver import RequestFacts

OBJECTIVES_HEADER = "x-aligner-objectives"
BYPASS_HEADER = "x-aligner-bypass"
_OURS = "aligner"
_ABOVE = frozenset({"system", "developer"})
"""Roles of those who speak before the user does."""
_SHA256 = re.compile(r"[0-9a-f]{64}")


def facts(data: Mapping[str, Any], user: UserAPIKeyAuth, fields: Iterable[str] = ()) -> RequestFacts:
    """Everything that the policy of this request depends on; `fields` are those that plugins read."""
    given = headers(data)
    metadata = buckets(data)
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
        system=_system(data),
        fields=dict(_fields(wishes, fields)),
    )


def _system(data: Mapping[str, Any]) -> str:
    """The system prompt, in the fields of any endpoint."""
    above = [*system(data.get("instructions")), *system(data.get("system"))]
    above += [turn for name in ("messages", "input") for turn in turns(data.get(name), _ABOVE)]
    return "\n".join(turn.content for turn in above)


def _fields(wishes: Sequence[object], names: Iterable[str]) -> Iterator[tuple[str, object]]:
    """The fields of these names, each from the first place that has it."""
    for name in names:
        found = [given[name] for given in wishes if isinstance(given, Mapping) and name in given]
        if found:
            yield name, found[0]


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
    models: list[str] = []
    for entry in given if isinstance(given, list) else ():
        if isinstance(entry, Mapping):
            named = entry.get("model") or [
                name for names in entry.values() if isinstance(names, list) for name in names
            ]
            models.extend(map(str, named if isinstance(named, list) else [named]))
        else:
            models.append(str(entry))
    return tuple(models)


def _hashed(key: str | None) -> str | None:
    """LiteLLM hashes keys that begin with `sk-`; a bare one of another custom auth must not travel."""
    if key is None or _SHA256.fullmatch(key):
        return key
    return hashlib.sha256(key.encode()).hexdigest()


def _ours(metadata: object) -> object:
    return metadata.get(_OURS) if isinstance(metadata, Mapping) else None


def _tags(metadata: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    given = (bucket.get("tags") for bucket in metadata)
    return tuple(dict.fromkeys(str(tag) for tags in given if isinstance(tags, list) for tag in tags))


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
