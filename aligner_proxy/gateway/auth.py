"""LiteLLM's `custom_auth` without a database: keys from a file of hashes, and the master key.

Register it as `general_settings: {custom_auth: aligner_proxy.auth.user_api_key_auth}`. A key of the file may use the
model endpoints and nothing else. Keys are compared as SHA-256 digests and never stored or logged.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from fastapi import Request
from litellm.proxy._types import LitellmUserRoles, ProxyErrorTypes, ProxyException, UserAPIKeyAuth
from litellm.proxy.auth.auth_utils import get_request_route
from litellm.proxy.auth.route_checks import RouteChecks

from aligner_proxy.errors import ConfigError
from aligner_proxy.gateway import reload
from aligner_proxy.gateway.reload import Watched
from aligner_proxy.policy import config
from aligner_proxy.policy.litellm_config import find_policies
from aligner_proxy.policy.schema import KeyEntry

log = logging.getLogger(__name__)


async def user_api_key_auth(request: Request, api_key: str | None) -> UserAPIKeyAuth:
    """The caller of this request; 401 for an unknown key, 403 for a route that keys may not use."""
    if not api_key:
        raise _refused("no key was sent; send it as Authorization: Bearer KEY", 401)
    digest = hashlib.sha256(api_key.encode()).hexdigest()
    if _is_master(digest):
        role = LitellmUserRoles.PROXY_ADMIN
        return UserAPIKeyAuth(api_key=digest, key_alias="master", user_role=role, parent_otel_span=_span(request))
    entry = _keys().get(digest)
    if entry is None:
        raise _refused("this key is not known to the gateway", 401)
    if not RouteChecks.is_llm_api_route(get_request_route(request)):
        raise _refused("this key may only call model endpoints", 403)
    return UserAPIKeyAuth(
        api_key=digest,
        key_alias=entry.alias,
        team_id=entry.team,
        team_alias=entry.team,
        user_role=LitellmUserRoles.INTERNAL_USER,
        parent_otel_span=_span(request),
    )


def _span(request: Request) -> Any:
    """LiteLLM's span of this request, which a custom_auth has to pass on; None without its otel callback."""
    return getattr(request.state, "parent_otel_span", None)


def _is_master(digest: str) -> bool:
    master = _server().master_key
    return bool(master) and hmac.compare_digest(digest, hashlib.sha256(str(master).encode()).hexdigest())


def _keys() -> Mapping[str, KeyEntry]:
    """The active keys: a changed file applies within seconds, an invalid one leaves the old keys active."""
    try:
        policies = _policies()
        if policies is not None:
            return reload.at(policies).current.keys
        path = config.keys_path()
        return _watched(path).current if path else {}
    except (ConfigError, OSError) as error:
        log.error("keys file cannot be read (%s); run `aligner-proxy check`", type(error).__name__)  # noqa: TRY400 - its text may quote the file
        raise _refused("the gateway's keys file cannot be read; ask its operator", 503) from None


@lru_cache(maxsize=1)
def _policies() -> Path | None:
    """The policies file that names the keys file: the environment's, else the one that LiteLLM's file registers."""
    path = config.policies_in_environment()
    litellm_file = _server().user_config_file_path
    if path is not None or not litellm_file:
        return path
    try:
        return find_policies(litellm_file)
    except ConfigError:
        if config.keys_path() is None:
            raise
        return None


@lru_cache(maxsize=2)
def _watched(path: Path) -> Watched[dict[str, KeyEntry]]:
    """Watcher of a keys file without policies."""

    def changed(refused: str | None) -> None:
        log.log(logging.ERROR if refused else logging.INFO, "%s: %s", path.name, refused or "reloaded")

    watched = Watched(lambda: (reload.load_keys_quietly(path), (path,)), changed)
    watched.keep_looking()
    return watched


def _server() -> Any:
    """LiteLLM's globals. Importing them takes seconds, except inside the proxy."""
    from litellm.proxy import proxy_server

    return proxy_server


def _refused(message: str, code: int) -> ProxyException:
    return ProxyException(message, ProxyErrorTypes.auth_error.value, "key", code)
