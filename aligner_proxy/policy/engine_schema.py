"""Schema of `aligner.engine`: an address, a list of replicas, or a block for completions servers.

Every form is parsed into the same frozen `Backend`. No connection is opened here.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from aligner_proxy.policy.yaml_file import Block

_ADDRESS_FORMS = (
    "use local, unix:/path/to/engine.sock, http(s)://host:port of an aligner-proxy engine, "
    "http(s)://host:port/v1 of a completions server, or litellm:<model group>"
)
_COMPLETION_SETTINGS = ("model", "template", "key_env", "prediction", "window", "revision", "scorer")
LITELLM = "litellm:"
VLLM = "vllm://"


class ServerKind(StrEnum):
    """Kind of server at an address."""

    LOCAL = "local"
    ENGINE = "aligner-proxy engine"
    COMPLETIONS = "completions server"
    GROUP = "LiteLLM model group"
    SCORER = "scoring server in vLLM"


def server_kind(address: str) -> ServerKind:
    """Return the kind of server at an address; `engine_address` must have checked the address."""
    if address == "local":
        return ServerKind.LOCAL
    if address.startswith(LITELLM):
        return ServerKind.GROUP
    if address.startswith(VLLM):
        return ServerKind.SCORER
    is_web = address.startswith(("http://", "https://"))
    ends_in_v1 = is_web and urlsplit(address).path.rstrip("/").endswith("/v1")
    return ServerKind.COMPLETIONS if ends_in_v1 else ServerKind.ENGINE


def engine_address(text: str) -> str:
    """Check the address of an engine and return it without a trailing slash; raises `ValueError`."""
    if text.startswith(LITELLM):
        if not text.removeprefix(LITELLM).strip():
            raise ValueError("litellm: needs the name of a model group of the LiteLLM file, as in litellm:aligners")
        return text
    if text == "local" or text.startswith("unix:/"):
        return text
    fault = f"not an engine address; {_ADDRESS_FORMS}"
    if not text.startswith(("http://", "https://", VLLM)):
        raise ValueError(fault)
    try:
        parts = urlsplit(text)
        port = parts.port  # urllib raises ValueError for a wrong port only when the port is read
    except ValueError:
        raise ValueError(fault) from None
    if parts.username or parts.password:
        raise ValueError("an engine address must not hold a password; put the key into a variable and name it: key_env")
    if not parts.hostname or port == 0:
        raise ValueError(fault)
    return text.rstrip("/")


Address = Annotated[str, AfterValidator(engine_address)]


def _expand_address(value: object) -> object:
    """Expand the short form (one address) into a list."""
    return [value] if isinstance(value, str) else value


class Backend(Block):
    """The engine that makes corrections: its addresses and, for a completions server, its settings."""

    at: Annotated[
        tuple[Address, ...],
        BeforeValidator(_expand_address, json_schema_input_type=str | tuple[str, ...]),
        Field(min_length=1, max_length=64),
    ]
    """One address, or a list of replicas; each request goes to the least loaded replica that works."""
    model: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """The aligner's model name on a completions server; by default the only model that it serves."""
    template: str | None = None
    """Prompt template of the served aligner: hh-rlhf, ultrafeedback, imhi or aligner; not needed for known models."""
    key_env: Annotated[str, Field(pattern=r"^[A-Z_][A-Z0-9_]{0,99}$")] | None = None
    """Name of the environment variable with the completions server's key, not the key itself."""
    prediction: Annotated[bool, Field(strict=True)] = False
    """true: send the answer as `prediction` (OpenAI's predicted outputs), for servers that support it, such as our
    engine."""
    window: Annotated[int, Field(ge=256, le=1_000_000, strict=True)] | None = None
    """Maximum tokens of prompt plus correction; by default what the server reports, else 4096."""
    revision: Annotated[str, Field(max_length=100)] = ""
    """Any text. Change it when the server gets new weights under the same name, so that cached corrections are not
    used."""
    scorer: Address | None = None
    """A server that scores answers first, so that the completions server rewrites only what is flagged: an
    aligner-proxy engine with a detector head, or vllm://host:port (docs/guides/vllm.md)."""

    @model_validator(mode="after")
    def _check_consistency(self) -> Backend:
        """Refuse replicas of different kinds, `local` or a model group in a list, duplicates, and unused settings."""
        kinds = {server_kind(address) for address in self.at}
        if len(kinds) > 1:
            raise ValueError(f"replicas must be of one kind; these are {' and '.join(sorted(kinds))}")
        if len(self.at) > 1 and self.kind in (ServerKind.LOCAL, ServerKind.GROUP):
            raise ValueError(
                f"a list is for addresses; {self.at[0]} cannot be in one (a model group has its own replicas)"
            )
        if len(set(self.at)) < len(self.at):
            raise ValueError("the same address is listed twice; keep one")
        self._refuse_unused_settings()
        return self

    def _refuse_unused_settings(self) -> None:
        """Raise `ValueError` for settings that this kind of server does not use, or a `scorer` without a detector."""
        if self.kind is ServerKind.SCORER:
            raise ValueError(
                f"{self.at[0]} only judges; name it as `scorer` of a completions server (docs/guides/vllm.md)"
            )
        completion_settings = [name for name in _COMPLETION_SETTINGS if name in self.model_fields_set]
        if completion_settings and not self.completes:
            names = ", ".join(completion_settings)
            raise ValueError(f"{names}: only for a completions server (http(s)://host:port/v1) or litellm:")
        if self.kind is ServerKind.GROUP and (self.model or self.key_env):
            raise ValueError("model and key_env: a model group has its models and keys in the LiteLLM file")
        kinds_with_detector = (ServerKind.LOCAL, ServerKind.ENGINE, ServerKind.SCORER)
        if self.scorer is not None and server_kind(self.scorer) not in kinds_with_detector:
            raise ValueError(
                "scorer: must be an aligner-proxy engine (local, unix:/path or http(s)://host:port) or vllm://host:port"
            )

    @property
    def kind(self) -> ServerKind:
        """The kind of all its addresses."""
        return server_kind(self.at[0])

    @property
    def completes(self) -> bool:
        """Whether the server only completes texts; such a server has no detector head."""
        return self.kind in (ServerKind.COMPLETIONS, ServerKind.GROUP)

    @property
    def group(self) -> str:
        """The name of the LiteLLM model group, of an engine at `litellm:NAME`."""
        return self.at[0].removeprefix(LITELLM)

    @property
    def needs_local(self) -> bool:
        """Whether this needs an engine on this machine, which `serve` starts."""
        return "local" in (self.at[0], self.scorer)

    @property
    def engines(self) -> tuple[str, ...]:
        """The addresses of aligner-proxy engines: the replicas (unless they only complete texts), then the scorer."""
        replicas = () if self.completes else self.at
        return replicas + ((self.scorer,) if self.scorer else ())

    def __str__(self) -> str:
        scorer_text = f", where {self.scorer} flags something" if self.scorer else ""
        return ", ".join(self.at) + scorer_text


def expand_backend(value: object) -> object:
    """Expand the short forms of `engine` (an address, or a list of addresses) into a block; raises `ValueError`."""
    if not isinstance(value, str | list | tuple):
        return value
    addresses = [value] if isinstance(value, str) else value
    if not addresses or not all(isinstance(address, str) for address in addresses):
        raise ValueError(f"a list of engines holds addresses; {_ADDRESS_FORMS}")
    return {"at": tuple(engine_address(address) for address in addresses)}


LOCAL = Backend(at=("local",))
