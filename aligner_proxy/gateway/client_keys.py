"""Client keys that the gateway checks itself: those in the active keys file, and LiteLLM's master key.

Keys are compared as SHA-256 digests and never stored or logged.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
from collections.abc import Mapping
from functools import lru_cache, partial
from pathlib import Path

from aligner_proxy.errors import AlignerProxyError, ConfigError
from aligner_proxy.gateway import litellm_internals, reload
from aligner_proxy.gateway.reload import ClientKeys, WatchedFiles
from aligner_proxy.policy import config, environment
from aligner_proxy.policy.keys_file import KeyEntry
from aligner_proxy.policy.litellm_config import find_policies

log = logging.getLogger(__name__)


_KEY_CHECK = "aligner_proxy.auth.user_api_key_auth"
"""Address of our `custom_auth` function."""


class KeysUnreadable(AlignerProxyError):
    """No keys file has been readable since the start, so no client can be authenticated."""


def install() -> None:
    """Let the running proxy check keys by `auth`, if `serve` found nothing else that does."""
    if environment.read_variable(environment.CHECK_KEYS):
        litellm_internals.use_key_check(_KEY_CHECK)


def key_digest(key: str) -> str:
    """The SHA-256 digest that identifies a key."""
    return hashlib.sha256(key.encode()).hexdigest()


def is_master(sha256: str) -> bool:
    """Whether this digest is that of LiteLLM's master key."""
    master = litellm_internals.proxy_module().master_key
    return bool(master) and hmac.compare_digest(sha256, _master_digest(str(master)))


@lru_cache(maxsize=1)
def _master_digest(master: str) -> str:
    return key_digest(master)


def active_keys() -> Mapping[str, KeyEntry]:
    """The active keys by digest; raises `KeysUnreadable` if no keys file has been valid since the start."""
    try:
        policies_file = policies_path()
        if policies_file is not None:
            return reload.watched_policies(policies_file).keys
        keys_file = config.keys_path()
        return keys_watcher(keys_file).current.entries if keys_file else {}
    except (ConfigError, OSError) as error:
        log.error("keys file cannot be read (%s); run `aligner-proxy check`", type(error).__name__)  # noqa: TRY400 - its text may quote the file
        raise KeysUnreadable from None


@lru_cache(maxsize=1)
def policies_path() -> Path | None:
    """The policies file that names the keys file: from the environment, else from LiteLLM's configuration.

    None if neither names a policies file. Raises `ConfigError` if LiteLLM's configuration is invalid, unless a keys
    file is set, which is used without policies.
    """
    path = config.policies_in_environment()
    litellm_file = litellm_internals.proxy_module().user_config_file_path
    if path is not None or not litellm_file:
        return path
    try:
        return find_policies(litellm_file)
    except ConfigError:
        if config.keys_path() is None:
            raise
        return None


@lru_cache(maxsize=2)
def keys_watcher(path: Path) -> WatchedFiles[ClientKeys]:
    """The watcher of a keys file that is used without a policies file; started at the first call."""

    def log_change(refusal: str | None) -> None:
        """Log that the file changed; `refusal` says why the new version is refused, None if it is adopted."""
        reload.log_keys_change(watcher.current, refusal)

    watcher = WatchedFiles(partial(reload.read_keys, path), log_change)
    # A file that is missing at the start counts as a file without keys, and is watched; the operator should know.
    if watcher.current.fault:
        reload.log_keys_change(watcher.current, None)
    reload.keep_checking(watcher)
    return watcher
