"""Extraction of `RequestFacts` from LiteLLM's data: the caller, the model and the settings of a request.

The caller comes only from LiteLLM's authentication (`UserAPIKeyAuth`); metadata of the body is the client's and counts
only as a request for settings.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import Any

from litellm.proxy._types import LitellmUserRoles, UserAPIKeyAuth

from aligner_proxy.formats import stored
from aligner_proxy.formats.base import buckets, headers, system, turns
from aligner_proxy.gateway import model_groups
from aligner_proxy.policy.resolver import RequestFacts

OBJECTIVES_HEADER = "x-aligner-objectives"
BYPASS_HEADER = "x-aligner-bypass"
_OURS = "aligner"
_ABOVE = frozenset({"system", "developer"})
"""Roles of turns with more authority than the user's."""
_SHA256 = re.compile(r"[0-9a-f]{64}")


def facts(
    data: Mapping[str, Any], user: UserAPIKeyAuth, fields: Iterable[str] = (), keys: Container[str] = ()
) -> RequestFacts:
    """All facts that a policy depends on; `fields` are those that plugins read, `keys` the hashes of the keys file."""
    sent = headers(data)
    metadata = buckets(data)
    wishes = [bucket[_OURS] for bucket in metadata if _OURS in bucket]
    model, groups = model_groups.named(_model(data, user.request_route), user.team_id)
    key_hash = _hashed(user.token or user.api_key)
    return RequestFacts(
        model=model,
        tags=_tags(metadata),
        team_id=user.team_id,
        team_alias=user.team_alias,
        key_hash=key_hash,
        key_alias=user.key_alias,
        user_id=_user_id(user),
        team_settings=_ours(user.team_metadata),
        key_settings=_ours(user.metadata),
        asked=_objectives(wishes, sent),
        bypass=sent.get(BYPASS_HEADER, "").strip().lower() in ("1", "true", "yes"),
        system=_system(data),
        fields=dict(_fields(wishes, fields)),
        groups=groups,
        alias_by_operator=key_hash in keys or user.user_role is LitellmUserRoles.PROXY_ADMIN,
    )


def _system(data: Mapping[str, Any]) -> str:
    """The system prompt, in the fields of any endpoint."""
    above = [*system(data.get("instructions")), *system(data.get("system"))]
    above += [turn for name in ("messages", "input") for turn in turns(data.get(name), _ABOVE)]
    return "\n".join(turn.content for turn in above)


def _fields(wishes: Sequence[object], names: Iterable[str]) -> Iterator[tuple[str, object]]:
    """The fields with these names, each from the first metadata that has it."""
    for name in names:
        values = [wish[name] for wish in wishes if isinstance(wish, Mapping) and name in wish]
        if values:
            yield name, values[0]


def _model(data: Mapping[str, Any], route: str | None) -> str:
    """The requested model; for a stored answer the group that gave it, which LiteLLM knows by the answer's id.

    For a stored answer the body may name any model, so that must not choose the policy.
    """
    if stored(route):
        return str(getattr(data.get("deployment"), "model_name", None) or "")
    return str(data.get("model") or "")


def forget_wishes(data: Mapping[str, Any]) -> None:
    """Remove our field from the client's metadata, so that it reaches neither the upstream nor a log."""
    for bucket in buckets(data):
        for metadata in (bucket, bucket.get("requester_metadata")):
            if isinstance(metadata, dict):
                metadata.pop(_OURS, None)


def _hashed(key: str | None) -> str | None:
    """The hash of a key. LiteLLM hashes keys that begin with `sk-`; others of a custom auth are hashed here."""
    if key is None or _SHA256.fullmatch(key):
        return key
    return hashlib.sha256(key.encode()).hexdigest()


def _user_id(user: UserAPIKeyAuth) -> str | None:
    """LiteLLM's user, else the subject of a token: LiteLLM takes it for a user only where a setting names the claim."""
    claims = user.jwt_claims or {}
    subject = claims.get("sub")
    return user.user_id or (f"{claims.get('iss', '')}#{subject}" if subject else None)


def _ours(metadata: object) -> object:
    return metadata.get(_OURS) if isinstance(metadata, Mapping) else None


def _tags(metadata: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    values = (bucket.get("tags") for bucket in metadata)
    return tuple(dict.fromkeys(str(tag) for tags in values if isinstance(tags, list) for tag in tags))


def _objectives(wishes: Sequence[object], sent: Mapping[str, str]) -> tuple[str, ...]:
    """Names of requested objectives, without duplicates: header first, then body."""
    names = [name.strip() for name in sent.get(OBJECTIVES_HEADER, "").split(",")]
    for wish in wishes:
        names.extend(_listed(wish))
    return tuple(dict.fromkeys(name for name in names if name))


def _listed(wishes: object) -> list[str]:
    listed = wishes.get("objectives") if isinstance(wishes, Mapping) else None
    if isinstance(listed, str):
        return [name.strip() for name in listed.split(",")]
    return [str(name) for name in listed] if isinstance(listed, list) else []
