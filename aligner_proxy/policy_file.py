"""What may stand in policies.yaml? The models behind the file, its JSON schema and its error messages.

Everything is frozen and unknown keys are refused. `None` always means "not said here", so that the layers of a policy
can be laid over each other. How they are laid is policy.py's business; reading the file is config.py's.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr

from aligner_proxy.errors import ConfigError
from aligner_proxy.prompts import template
from aligner_proxy.provenance import Source
from aligner_proxy.types import Mode, OnError, StreamMode, Verify

MAX_OBJECTIVE_CHARS = 2_000
_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
_OBJECTIVE = re.compile(r"[^:\n]{1,80}:\s+\S")


def _yaml_off(value: object) -> object:
    """YAML 1.1 reads a bare `off` as false."""
    return "off" if value is False else value


def objective_text(text: str) -> str:
    """The text of an objective, checked: "Name: description", not longer than an aligner can usefully read."""
    text = text.strip()
    if len(text) > MAX_OBJECTIVE_CHARS:
        raise ValueError(f"the text has {len(text):,} characters; shorten it to at most {MAX_OBJECTIVE_CHARS:,}")
    if not _OBJECTIVE.match(text):
        raise ValueError('must read "Name: description", for example "Brevity: the response should be short"')
    return text


def engine_address(text: str) -> str:
    """Where the aligner runs, checked: `local`, `unix:/path` or a http(s) address."""
    works = "use local, unix:/path/to/engine.sock or http(s)://host:port"
    if text.startswith("litellm:"):
        raise ValueError(f"an engine behind a LiteLLM model group is not supported yet; {works}")
    web = text.startswith(("http://", "https://")) and urlsplit(text).hostname
    if text == "local" or text.startswith("unix:/") or web:
        return text
    raise ValueError(f"not an engine address; {works}")


def _template_name(name: str) -> str:
    try:
        return template(name).name
    except ConfigError as error:
        raise ValueError(str(error)) from None


Name = Annotated[str, Field(pattern=_NAME)]
Glob = Annotated[str, Field(min_length=1, max_length=200)]
Names = tuple[Annotated[str, Field(max_length=200)], ...]


class _Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Settings(_Block):
    """The settings that defaults, routes, tenants and key or team metadata may each say."""

    mode: Annotated[Mode, BeforeValidator(_yaml_off)] | None = None
    """enforce: deliver the correction; shadow: correct and record, deliver the original; off: leave alone."""
    stream: StreamMode | None = None
    """hold: withhold a stream, align the whole answer, replay it."""
    deadline_s: Annotated[float, Field(gt=0, le=600, strict=True)] | None = None
    """Seconds that a correction may take before on_error applies."""
    on_error: OnError | None = None
    """What the client gets when a correction fails: passthrough (the original) or block (an error)."""
    caution: Annotated[float, Field(ge=-50, le=50, strict=True, allow_inf_nan=False)] | None = None
    """Nats by which an edit must beat leaving things as they are; more means fewer edits."""
    verify: Verify | None = None
    """flagged: generate only in place of flagged segments; always: verify the whole answer as a draft."""
    sample: Annotated[float, Field(ge=0, le=1, strict=True)] | None = None
    """Share of requests that is looked at."""
    max_answer_chars: Annotated[int, Field(ge=1, le=1_000_000, strict=True)] | None = None
    """Longer answers are skipped (reason too_long)."""


class Grants(Settings):
    """What a tenant must have and may have; also the form of key and team metadata under "aligner"."""

    enforce: Names = ()
    """Objectives that are always there, first, whatever a request says."""
    allow: Names | None = None
    """Objectives that a request may add by itself; "*" stands for every configured one."""
    deny: Names = ()
    """Objectives that a request may not add even where allow says so."""
    allow_bypass: Annotated[bool, Field(strict=True)] | None = None
    """Whether a request may ask to be left alone (x-aligner-bypass)."""


class RouteMatch(_Block):
    """Which requests a route is for; what is not said matches everything."""

    model: Glob | None = None
    """Glob over the model name that the client sends (LiteLLM's model_name), case-sensitive."""
    tag: Glob | None = None
    """Glob over the request's tags; one of them must match."""


class Route(Settings):
    """The first route in file order that matches decides."""

    match: RouteMatch
    name: Name | None = None
    """Shown in x-aligner-policy; by default route-1, route-2 ..."""
    objectives: Names = ()
    """Names of built-in or configured objectives, most important first."""


class TenantMatch(_Block):
    """Whose requests a tenant entry is for; what is not said matches everyone."""

    team: Glob | None = None
    """Glob over the team's id or alias."""
    key: Glob | None = None
    """Glob over the key's alias or sha256."""


class Tenant(Grants):
    """The first tenant in file order that matches decides."""

    match: TenantMatch
    name: Name | None = None
    """Shown in x-aligner-policy; by default tenant-1, tenant-2 ..."""


class Aligner(_Block):
    """Which model corrects, and where it runs."""

    model: Annotated[str, Field(min_length=1, max_length=400)] = "embedded"
    """embedded, a Hugging Face id (owner/name), or a folder that starts with ./ ../ / or ~."""
    template: Annotated[str, AfterValidator(_template_name)] | None = None
    """hh-rlhf, ultrafeedback, imhi or aligner; known models set it themselves."""
    quantization: Literal["nf4", "none"] = "nf4"
    """nf4: 4-bit weights; none: weights as dtype says."""
    dtype: Literal["auto", "bf16", "fp32"] = "auto"
    """Number format of computation; auto takes what the device does well."""
    engine: Annotated[str, AfterValidator(engine_address)] = "local"
    """local, unix:/path/to/engine.sock, or http(s)://host:port of an aligner-proxy engine."""


class CacheSettings(_Block):
    """Where corrected answers are remembered, and for how long."""

    enabled: Annotated[bool, Field(strict=True)] = True
    """false: every answer is aligned anew (identical requests in flight still share one correction)."""
    dir: str | None = None
    """Folder of the cache, relative to this file; by default in the user's cache folder."""
    ttl_s: Annotated[float, Field(gt=0, strict=True, allow_inf_nan=False)] = 86_400.0
    """Seconds after which an entry is forgotten."""
    max_mb: Annotated[int, Field(ge=1, le=1_000_000, strict=True)] = 512
    """Size bound; the entries not used for longest go first."""


class PolicyFile(_Block):
    """policies.yaml: which aligner, which objectives, and what applies to whom."""

    aligner: Aligner = Aligner()
    objectives: dict[Name, Annotated[str, AfterValidator(objective_text)]] = {}
    """Objectives of your own, name -> "Name: description"; they go over the built-in ones."""
    defaults: Settings = Settings()
    routes: tuple[Route, ...] = ()
    tenants: tuple[Tenant, ...] = ()
    cache: CacheSettings = CacheSettings()
    keys: str | None = None
    """File with hashed keys (without a database), relative to this file."""
    _source: Source = PrivateAttr(default_factory=Source)

    @property
    def source(self) -> Source:
        """Where each value of this file stands."""
        return self._source

    def placed(self, source: Source) -> PolicyFile:
        """The same file, knowing where its values stand."""
        copy = self.model_copy()
        copy._source = source
        return copy


class KeyEntry(_Block):
    """One client key of the keys file: its hash, never the key itself."""

    sha256: Annotated[str, Field(pattern=r"^[0-9a-fA-F]{64}$")]
    alias: Annotated[str, Field(min_length=1, max_length=200)]
    team: Annotated[str, Field(min_length=1, max_length=200)] | None = None
