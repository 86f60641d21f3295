"""Import path that LiteLLM's configuration uses for `custom_auth`; the code is in `gateway/auth.py`."""

from aligner_proxy.gateway.auth import user_api_key_auth

__all__ = ["user_api_key_auth"]
