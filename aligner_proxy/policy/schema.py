"""Schema of policies.yaml: the pydantic models behind it, its JSON schema and its error messages.

Everything is frozen and unknown keys are refused. `None` always means "not set here", so that resolver.py can merge the
layers of a policy; config.py reads the file. No plugin is loaded to check the names of plugins.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from functools import lru_cache, partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar, Union

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PrivateAttr,
    Tag,
    WithJsonSchema,
    create_model,
    model_validator,
)

from aligner_proxy.errors import ConfigError
from aligner_proxy.policy.editor_schema import Editor
from aligner_proxy.policy.engine_schema import LOCAL, Backend, expand_backend
from aligner_proxy.policy.gate_schema import GateSetting
from aligner_proxy.policy.hand_off_schema import HandOffBlock
from aligner_proxy.policy.objective_schema import ObjectiveSetting
from aligner_proxy.policy.plugin_keys import NO_DECLARATIONS, AnyOptions, Declarations, PolicyKey, SelectorForm
from aligner_proxy.policy.refusal_text import Decline
from aligner_proxy.policy.shares import AlignerChoice
from aligner_proxy.policy.yaml_file import LIST_FORM, KeyPath, YamlSource, suggest_name
from aligner_proxy.prompts import find_template
from aligner_proxy.types import (
    DEFAULT_ALIGNER,
    GOVERNED_SKIPS,
    METAALIGNER,
    FailureClass,
    IfNothingRemains,
    JsonStrings,
    Mode,
    OnError,
    OnSkip,
    SideTreatment,
    Standard,
    StreamMode,
    Verify,
)

KIND = "kind"
AUDIT_REQUIRED = "required"
"""The short form of `audit: {enabled: true, required: true}`."""
PLUGIN_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
PluginName = Annotated[str, Field(pattern=PLUGIN_NAME)]
PluginEntry = dict[str, Any]
_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"

Name = Annotated[str, Field(pattern=_NAME)]
Glob = Annotated[str, Field(min_length=1, max_length=200)]
Names = tuple[Annotated[str, Field(max_length=200)], ...]
EVERY = "*"
"""Stands for every configured objective."""

_Model = TypeVar("_Model", bound=BaseModel)


class PluginSettings(BaseModel):
    """Plugins that are made at the start, and their settings; doctor says which kinds there are."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    third_party: Annotated[bool, Field(strict=True)] = True
    """false: no plugin is loaded but those that come with the gateway, whatever is installed."""
    correctors: dict[PluginName, PluginEntry] = {}
    """name -> settings, and the kind where it is not called so; `corrector:` may name any of these."""
    cache: PluginEntry | None = None
    """A store in place of the folder on disk: {kind: name, ...its settings}."""
    audit_sinks: dict[PluginName, PluginEntry] = {}
    """name -> settings: who is told of every answer that was looked at, texts included."""


def plugin_kind(name: str, entry: PluginEntry) -> str:
    """The kind of plugin of an entry; by default its name."""
    return str(entry.get(KIND, name))


def plugin_settings(entry: PluginEntry) -> PluginEntry:
    """The plugin's own settings of an entry, without its kind."""
    return {key: value for key, value in entry.items() if key != KIND}


def corrector_names(file: PolicyFile) -> dict[str, KeyPath]:
    """Every corrector in this file except the aligner on the engine, with the position of its first use."""
    positions: dict[str, KeyPath] = {name: ("plugins", "correctors", name) for name in file.plugins.correctors}
    for path, values in file.blocks():
        if values.corrector is not None and values.corrector != METAALIGNER:
            positions.setdefault(values.corrector, (*path, "corrector"))
    return positions


def rule_names(file: PolicyFile) -> dict[str, KeyPath]:
    """Every rule of a plugin in this file, with the position of its first use."""
    positions: dict[str, KeyPath] = {}
    for path, values in file.blocks():
        for n, name in enumerate(values.plugin_rules or ()):
            positions.setdefault(name, (*path, "plugin_rules", n))
    return positions


def _parse_off(value: object) -> object:
    """`off` as text; YAML 1.1 reads the bare word as false."""
    return "off" if value is False else value


def _expand_classes(value: object) -> object:
    """The short form, one action for every class of failure, as a block."""
    return _expand_action(value, FailureClass, OnError, "class of failure")


def _expand_reasons(value: object) -> object:
    """The short form, one action for every reason, as a block."""
    return _expand_action(value, GOVERNED_SKIPS, OnSkip, "reason")


def _expand_action(value: object, names: Iterable[StrEnum], actions: Iterable[StrEnum], kind: str) -> object:
    if not isinstance(value, str):
        return value
    words = [action.value for action in actions]
    if value not in words:
        raise ValueError(f"must be one of these words, or a block of them by {kind}; {suggest_name(value, words)}")
    return dict.fromkeys((name.value for name in names), value)


def _refuse_drop(treatment: SideTreatment) -> SideTreatment:
    if treatment is SideTreatment.DROP:
        raise ValueError("drop would leave a part that programs cannot read; say pass, judge or block")
    return treatment


WholeTreatment = Annotated[SideTreatment, AfterValidator(_refuse_drop)]
"""Treatment of texts that cannot be taken out of their place."""


def _refuse_reserved(names: dict[str, str]) -> dict[str, str]:
    if DEFAULT_ALIGNER in names:
        raise ValueError(f"{DEFAULT_ALIGNER} is what aligner.model is called; choose another name")
    return names


def _check_template(name: str) -> str:
    try:
        return find_template(name).name
    except ConfigError as error:
        raise ValueError(str(error)) from None


class _Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class OnErrorByClass(_Block):
    """What follows a failure of each class; a class that is not named here keeps what was said before."""

    timeout: OnError | None = None
    """The deadline passed."""
    overload: OnError | None = None
    """The engine is full."""
    engine_down: OnError | None = None
    """The engine cannot be reached, died, or is left alone because it did not answer lately."""
    gate: OnError | None = None
    """The gate found that the correction would do harm; retry asks for a more careful one."""
    invalid_output: OnError | None = None
    """What came back is no correction."""
    bug: OnError | None = None
    """A fault of ours, in the engine or in the gateway."""
    unjudged: OnError | None = None
    """on_skip says judge, and the answer could not be judged (quota, not sampled, too long, images, contradictions, its
    language)."""


class OnSkipByReason(_Block):
    """What follows when an answer would be skipped; a reason that is not named here keeps what was said before."""

    not_sampled: OnSkip | None = None
    """`sample` left the request out."""
    tool_calls: OnSkip | None = None
    """The answer calls tools; judge: the text beside the calls is judged."""
    structured_output: OnSkip | None = None
    """The answer is JSON, or the request bound its form; judge: its strings are judged, its shape is kept."""
    refusal: OnSkip | None = None
    """The upstream declined."""
    truncated: OnSkip | None = None
    """The answer was cut off."""
    filtered: OnSkip | None = None
    """The upstream's own filter ended it."""
    too_long: OnSkip | None = None
    """It is longer than max_answer_chars or than the aligner can read."""
    non_text: OnSkip | None = None
    """It holds images, audio or unknown parts; judge: the text beside them is judged."""
    annotations: OnSkip | None = None
    """Citations point into it; judge: an edited text loses them."""
    inconsistent: OnSkip | None = None
    """The events of its stream contradict one another."""
    logprobs: OnSkip | None = None
    """The request wants token probabilities; judge: an edited text loses them."""
    background: OnSkip | None = None
    """It is to be fetched later."""
    upstream_error: OnSkip | None = None
    """The upstream failed before its end; judge: what had come is judged like an answer that was cut off."""
    quota: OnSkip | None = None
    """The tenant's engine time is used up."""
    language: OnSkip | None = None
    """It is in a language that the aligner was not trained for; only block keeps it back, else it is judged as well as
    that goes, and its status is not_judged."""


class PolicySettings(_Block):
    """The settings that defaults, routes, tenants and key or team metadata may each say."""

    mode: Annotated[Mode, BeforeValidator(_parse_off)] | None = None
    """enforce: deliver the correction; shadow: correct and record, deliver the original; off: leave alone."""
    stream: StreamMode | None = None
    """hold: withhold, align the whole answer, replay; sentence: release by segments; passthrough: deliver at once."""
    keepalive_s: Annotated[float, Field(ge=0, le=600, strict=True)] | None = None
    """Seconds between the comments that keep a withheld stream alive; 0: none."""
    debug_trailer: Annotated[bool, Field(strict=True)] | None = None
    """true: a stream ends with a comment that tells what was flagged and how long it took; never any text."""
    exact_times: Annotated[bool, Field(strict=True)] | None = None
    """true: x-aligner-ms is exact; else a power of ten, because what a correction takes depends on the texts in it."""
    deadline_s: Annotated[float, Field(gt=0, le=600, strict=True)] | None = None
    """Seconds that a correction may take, retries included, before on_error applies."""
    on_error: (
        Annotated[OnErrorByClass, BeforeValidator(_expand_classes, json_schema_input_type=OnError | OnErrorByClass)]
        | None
    ) = None
    """When a correction fails: passthrough (the original), block (an error) or retry; one word, or a word by class."""
    after_retry: Annotated[Literal["passthrough", "block"], AfterValidator(lambda name: OnError(name))] | None = None
    """What the client gets when retry did not help."""
    on_skip: (
        Annotated[OnSkipByReason, BeforeValidator(_expand_reasons, json_schema_input_type=OnSkip | OnSkipByReason)]
        | None
    ) = None
    """When an answer would be skipped: judge (what cannot be is class unjudged of on_error), passthrough or block; one
    word, or a word by reason. Where objectives are enforced the default is judge, elsewhere passthrough."""
    if_nothing_remains: IfNothingRemains | None = None
    """When all or the core of an answer is flagged: decline (a text in its place), second_try (the editor answers anew,
    or else decline), block (an error) or original. Where objectives are enforced the default is decline, elsewhere
    original."""
    decline: Decline | None = None
    """The text of decline, one or one a language (`default`: the others); {objective}: what the answer violates."""
    decline_within: Annotated[float, Field(ge=0, le=50, strict=True, allow_inf_nan=False)] | None = None
    """Where `harmless` was violated: an answer of which a part that would remain came within so many nats of being
    flagged, too, has nothing left. More leaves less harm, and declines more of what was fine; 0: never for that."""
    editor: Editor | None = None
    """Who writes in place of what is flagged: local (the aligner), upstream (the model group that answers), or
    {model: GROUP}."""
    caution: Annotated[float, Field(ge=-50, le=50, strict=True, allow_inf_nan=False)] | None = None
    """Nats by which an edit must beat leaving things as they are; more means fewer edits."""
    aligner: AlignerChoice | None = None
    """Which aligner corrects: default, or a name under aligner.adapters; or shares of several in whole per cent, of
    which a conversation has one: {default: 95, acme-2: 5}."""
    shadow_aligner: Name | None = None
    """A further aligner that judges the same answers beside, for the record alone (`aligner-proxy compare`)."""
    verify: Verify | None = None
    """flagged: generate only in place of flagged segments; always: verify the whole answer as a draft."""
    sample: Annotated[float, Field(ge=0, le=1, strict=True)] | None = None
    """Share of requests that is looked at; which ones, nothing in a request decides."""
    max_answer_chars: Annotated[int, Field(ge=1, le=1_000_000, strict=True)] | None = None
    """Longer whole answers are skipped (reason too_long); longer streams are corrected part by part."""
    gate: GateSetting | None = None
    """Rules that a correction must not break: {lost_name: off} switches one, a list names all that are on."""
    json_strings: JsonStrings | None = None
    """keep: JSON answers are never edited; correct: each long text inside one is aligned as a text of its own."""
    reasoning: SideTreatment | None = None
    """pass: reasoning beside an answer stays as it came; judge: it is scored, the record says so, and what is flagged
    counts as unjudged; drop: it is taken out, but for what tools need back (thinking blocks, reasoning items); block:
    an answer with reasoning is an error. Here and below: where objectives are enforced and unjudged answers block, the
    default is judge, elsewhere pass."""
    tool_arguments: WholeTreatment | None = None
    """Likewise for prose in the arguments of calls: pass, judge or block."""
    tool_output: SideTreatment | None = None
    """Likewise for what tools returned, as an upstream shows it beside its answer."""
    transcripts: SideTreatment | None = None
    """Likewise for transcripts of sound."""
    other_text: WholeTreatment | None = None
    """Likewise for any other prose of 20 characters and more: pass, judge or block."""
    corrector: PluginName | None = None
    """metaaligner: the aligner on the engine; or a corrector of a plugin: self_refine, aligner, or an installed one."""
    plugin_rules: Annotated[tuple[PluginName, ...], Field(max_length=32)] | None = None
    """Gate rules of plugins that hold besides the gate's own; the last place that says any names all of them."""


class Grants(PolicySettings):
    """What a tenant must have and may have; also the form of key and team metadata under "aligner"."""

    enforce: Names = ()
    """Objectives that are always there, first, whatever a request says."""
    allow: Names | None = None
    """Objectives that a request may add by itself; "*": every configured one, and to /v1/align any in its own words."""
    deny: Names = ()
    """Objectives that a request may not ask for, whatever allow says; what the operator enforces stays."""
    allow_bypass: Annotated[bool, Field(strict=True)] | None = None
    """Whether a request may ask to be left alone (x-aligner-bypass)."""
    quota: Annotated[float, Field(ge=0, le=3600, strict=True, allow_inf_nan=False)] | None = None
    """Seconds of engine time a minute; beyond them answers pass as they are (reason quota)."""


class RouteMatch(_Block):
    """Which requests a route is for; what is not said matches everything."""

    model: Glob | None = None
    """Glob over LiteLLM's model_name, case-sensitive; an alias has the routes of its model group, too."""
    tag: Glob | None = None
    """Glob over the request's tags; one of them must match."""


class Route(PolicySettings):
    """The first route in file order that matches decides."""

    match: RouteMatch
    name: Name | None = None
    """Shown in x-aligner-policy; by default route-1, route-2 ..."""
    hand_off: HandOffBlock | None = None
    """Reports doubtful answers to a webhook of the operator's, signed, without text unless asked for."""
    objectives: Names = ()
    """Names of objectives, most important first; or a word by which a plugin chooses among them, prompt by prompt."""


class TenantMatch(_Block):
    """Whose requests a tenant entry is for; what is not said matches everyone."""

    team: Glob | None = None
    """Glob over the team's id; over its alias only with `trust: {aliases: true}`."""
    key: Glob | None = None
    """Glob over the key's sha256 or its alias in the keys file; over LiteLLM's alias only with trust.aliases."""


class Tenant(Grants):
    """The first tenant in file order that matches decides."""

    match: TenantMatch
    name: Name | None = None
    """Shown in x-aligner-policy; by default tenant-1, tenant-2 ..."""
    objectives: dict[Name, ObjectiveSetting] = {}
    """Objectives of this tenant alone, in the form of the file's; they go over those, and nobody else can name them."""


class AlignerSettings(_Block):
    """Which model corrects, and where it runs."""

    model: Annotated[str, Field(min_length=1, max_length=400)] = "embedded"
    """embedded, a Hugging Face id (owner/name@commit), or a folder that starts with ./ ../ / or ~."""
    require_revision: Annotated[bool, Field(strict=True)] = False
    """true: a Hugging Face id without a commit is refused; by default it is a warning."""
    template: Annotated[str, AfterValidator(_check_template)] | None = None
    """hh-rlhf, ultrafeedback, imhi (each also with -vicuna), aligner or aligner-v1; known models set it themselves."""
    quantization: Literal["nf4", "none"] = "nf4"
    """nf4: 4-bit weights; none: weights as dtype says."""
    dtype: Literal["auto", "bf16", "fp32"] = "auto"
    """Number format of computation; auto takes what the device does well."""
    cache_tokens: int = Field(default=16_384, ge=1024)
    """Tokens of KV cache, where there is memory for them: how much can be worked on at once, and how much is shared."""
    adapters: Annotated[
        dict[Name, Annotated[str, Field(min_length=1, max_length=400)]], AfterValidator(_refuse_reserved)
    ] = {}
    """More aligners over the same base, name -> as model; routes and tenants choose one by `aligner: name`."""
    engine: Annotated[
        Backend, BeforeValidator(expand_backend, json_schema_input_type=str | tuple[str, ...] | Backend)
    ] = LOCAL
    """local, unix:/path, http(s)://host:port (an aligner-proxy engine), http(s)://host:port/v1 (a completions server),
    litellm:<model group>, a list of replicas, or a block with more."""


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
    redis_env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = None
    """Environment variable with the URL of a Redis that several gateways share: corrections, the computing of each by
    one of them, and quotas; dir and max_mb are then of the disk that serves while Redis is away."""
    key_env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = None
    """Environment variable with the key that encrypts what lies in Redis: 32 bytes in base64, the same everywhere."""

    @model_validator(mode="after")
    def _check_key_env(self) -> CacheSettings:
        if self.key_env and not self.redis_env:
            raise ValueError("key_env encrypts what lies in Redis: name the variable with its URL, too (redis_env)")
        return self


class ShadowSettings(_Block):
    """How much is corrected at once for the record only (mode: shadow), in each worker."""

    running: Annotated[int, Field(ge=1, le=1_000, strict=True)] = 2
    """Corrections at a time; each takes engine time from those that somebody waits for."""
    waiting: Annotated[int, Field(ge=0, le=100_000, strict=True)] = 64
    """Answers that wait for their turn; beyond them answers are skipped (reason shadow_full)."""


class AuditSettings(_Block):
    """Whether answers are kept with what was done to them. Nothing else keeps text."""

    enabled: Annotated[bool, Field(strict=True)] = False
    """true: conversation, answer and correction of every answer that was looked at are kept."""
    file: str | None = None
    """SQLite file, relative to this one; by default in the user's cache folder."""
    database_env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = None
    """Environment variable with the URL of a PostgreSQL, in place of the file: several gateways share it."""
    keep_days: Annotated[float, Field(gt=0, le=36_500, strict=True, allow_inf_nan=False)] = 30.0
    """Days after which an entry is deleted."""
    max_mb: Annotated[int, Field(ge=1, le=1_000_000, strict=True)] = 1024
    """Size bound; the oldest entries go first."""
    redact: Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)+$")] | None = None
    """package.module.function, which is given every text and returns what may be kept of it."""
    key_env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = None
    """Environment variable with the key that encrypts what holds text: 32 bytes in base64."""
    required: Annotated[bool, Field(strict=True)] = False
    """true: an answer is delivered only when its entry is on the disk, otherwise the client gets an error (503)."""
    waiting_mb: Annotated[int, Field(ge=1, le=100_000, strict=True)] = 64
    """Memory for entries that wait for the disk, in each worker; beyond it entries are dropped and counted."""
    waiting: Annotated[int, Field(ge=1, le=1_000_000, strict=True)] | None = None
    """Entries that may wait, whatever their size; by default only their memory is bounded."""
    feedback_rpm: Annotated[int, Field(ge=1, le=1_000_000, strict=True)] = 600
    """Calls of POST /v1/feedback a minute, for each tenant in each worker; beyond them 429."""

    @model_validator(mode="after")
    def _check_store(self) -> AuditSettings:
        if self.file and self.database_env:
            raise ValueError("entries go into one store: remove file, or database_env")
        if self.required and not self.enabled:
            raise ValueError("required needs the store: set enabled: true, too, or write audit: required")
        return self


def _expand_audit(value: object) -> object:
    if isinstance(value, str) and value != AUDIT_REQUIRED:
        raise ValueError(f"must be a block of keys, or the word {AUDIT_REQUIRED}")
    return {"enabled": True, "required": True} if value == AUDIT_REQUIRED else value


class StreamSettings(_Block):
    """How much streams may hold back, in each worker: chunks that wait for their correction or for a slow client."""

    max_mb: Annotated[int, Field(ge=16, le=1_000_000, strict=True)] = 512
    """All streams together, in MiB; where they hold more, upstreams are not read on, and the largest tenant's streams
    are refused (reason shed, class overload)."""
    stream_mb: Annotated[int, Field(ge=1, le=100_000, strict=True)] = 16
    """One stream, in MiB; one that holds more is released part by part, and its upstream waits for its client."""


class Trust(_Block):
    """Whose word counts beside this file's. Without it, metadata can only make a policy stricter."""

    team_metadata: Annotated[bool, Field(strict=True)] = False
    """true: `aligner` in the metadata of a LiteLLM team may loosen a policy; whoever manages the team writes it."""
    key_metadata: Annotated[bool, Field(strict=True)] = False
    """true: the same for metadata of a LiteLLM key; whoever owns the key writes it."""
    aliases: Annotated[bool, Field(strict=True)] = False
    """true: tenants match by LiteLLM's aliases, too, which key owners choose; those of the keys file always match."""
    router_fields: tuple[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_-]{0,63}$")], ...] = ()
    """Fields of a request's body that direct LiteLLM's router and may be sent (context_window_fallbacks, ...)."""


class PolicyFile(_Block):
    """policies.yaml: which aligner, which objectives, and what applies to whom."""

    aligner: AlignerSettings = AlignerSettings()
    objectives: dict[Name, ObjectiveSetting] = {}
    """Objectives of your own, name -> "Name: description", or {text, examples}; they go over the built-in ones."""
    defaults: PolicySettings = PolicySettings()
    routes: tuple[Route, ...] = ()
    tenants: tuple[Tenant, ...] = ()
    trust: Trust = Trust()
    cache: CacheSettings = CacheSettings()
    shadow: ShadowSettings = ShadowSettings()
    streams: StreamSettings = StreamSettings()
    audit: Annotated[
        AuditSettings, BeforeValidator(_expand_audit, json_schema_input_type=Literal["required"] | AuditSettings)
    ] = AuditSettings()
    """Settings of the audit store; the word required alone turns it on and delivers no answer without its entry."""
    plugins: PluginSettings = PluginSettings()
    allow_less: Names = ()
    """Tenants that a change of this file may take all that is enforced from; "*": everybody. Remove it afterwards."""
    keys: str | None = None
    """File with hashed keys (without a database), relative to this file."""
    _source: YamlSource = PrivateAttr(default_factory=YamlSource)
    _declarations: Declarations = PrivateAttr(default=NO_DECLARATIONS)
    _warnings: tuple[str, ...] = PrivateAttr(default=())
    _file_texts: Mapping[str, Mapping[str, str]] = PrivateAttr(default_factory=dict)

    @property
    def file_texts(self) -> Mapping[str, Mapping[str, str]]:
        """The texts of the files that keys of plugins name: key -> path as written -> text."""
        return self._file_texts

    @property
    def file_paths(self) -> tuple[Path, ...]:
        """The files that keys of plugins name."""
        return tuple(self._source.resolve(name) for texts in self._file_texts.values() for name in texts)

    @property
    def source(self) -> YamlSource:
        """The file with the position of each value."""
        return self._source

    @property
    def declarations(self) -> Declarations:
        """The keys and selector forms that plugins add to this file."""
        return self._declarations

    @property
    def warnings(self) -> tuple[str, ...]:
        """Deprecated names and missing plugins, each with its line."""
        return self._warnings

    def blocks(self) -> Iterator[tuple[tuple[str | int, ...], PolicySettings]]:
        """Every block of settings with its position: `defaults`, each route, each tenant."""
        yield ("defaults",), self.defaults
        yield from ((("routes", n), route) for n, route in enumerate(self.routes))
        yield from ((("tenants", n), tenant) for n, tenant in enumerate(self.tenants))

    def with_source(self, source: YamlSource, declarations: Declarations, warnings: Iterable[str]) -> PolicyFile:
        """A copy with the positions of its values, the declarations it was read by, and warnings."""
        copy = self.model_copy()
        copy._source = source
        copy._declarations = declarations
        copy._warnings = tuple(warnings)
        return copy

    def standards(self) -> Iterator[tuple[KeyPath, str, Standard]]:
        """What plugins hold answers to: the position of each value, its key, and the value."""
        for path, block in self.blocks():
            for key in self._declarations.keys:
                value = getattr(block, key.name, None)
                if isinstance(value, Standard) and value:
                    yield (*path, key.name), key.name, value

    def with_file_texts(self) -> PolicyFile:
        """A copy with the texts of the files that keys of plugins name; raises `ConfigError`."""
        texts: dict[str, dict[str, str]] = {}
        for path, key, standard in self.standards():
            place = partial(self._source.place_of, *path)
            texts.setdefault(key, {}).update(standard.read_files(place, self._source.resolve))
        copy = self.model_copy()
        copy._file_texts = texts
        return copy


class SelectorBlock(_Block):
    """`objectives: {WORD: [names], ...options}`: the candidates of a plugin's selector, and its options."""

    word: ClassVar[str]

    @property
    def names(self) -> Names:
        """The candidates as written."""
        names: Names = getattr(self, self.word)
        return names


def route_selector(block: PolicySettings) -> SelectorBlock | None:
    """The selector of a route; None where it lists its objectives, and for other blocks."""
    value = getattr(block, "objectives", None)
    return value if isinstance(value, SelectorBlock) else None


def route_objectives(route: Route, configured: Iterable[str]) -> Iterator[tuple[str, tuple[str | int, ...]]]:
    """The objectives of a route, each with its position below the route; "*" stands for `known`."""
    selector = route_selector(route)
    names = selector.names if selector else route.objectives
    place = ("objectives", selector.word) if selector else ("objectives",)
    for position, name in enumerate(names):
        every = configured if selector and name == EVERY else (name,)
        yield from ((objective, (*place, position)) for objective in every)


_BUILDING = threading.Lock()
"""Held while a model is built: for its descriptions it parses source, of which Python 3.11 counts the depth for all
threads together."""


@lru_cache(maxsize=64)
def file_model(declarations: Declarations) -> type[PolicyFile]:
    """The policies file with the keys and selector forms of plugins."""
    settings = _plugin_fields(key for key in declarations.all_keys if not key.grant)
    grants = settings | _plugin_fields(key for key in declarations.all_keys if key.grant)
    route = extend_model(Route, settings | _objectives_field(declarations.all_selectors))
    tenant = extend_model(Tenant, grants)
    defaults = extend_model(PolicySettings, settings)
    blocks: dict[str, Any] = {
        "defaults": (defaults, defaults()),
        "routes": (tuple[route, ...], ()),  # type: ignore[valid-type]
        "tenants": (tuple[tenant, ...], ()),  # type: ignore[valid-type]
    }
    return extend_model(PolicyFile, blocks)


@lru_cache(maxsize=64)
def grants_model(declarations: Declarations) -> type[Grants]:
    """The form of key and team metadata with the keys of plugins."""
    return extend_model(Grants, _plugin_fields(declarations.all_keys))


def extend_model(base: type[_Model], fields: Mapping[str, Any]) -> type[_Model]:
    """A model with more fields, under the same name and with the same description."""
    with _BUILDING:
        model: type[_Model] = create_model(base.__name__, __base__=base, __doc__=base.__doc__, **fields)
    return model


def _plugin_fields(keys: Iterable[PolicyKey]) -> dict[str, Any]:
    return {key.name: (key.type | None, Field(default=None, description=key.about)) for key in keys}


def _objectives_field(selectors: Sequence[SelectorForm]) -> dict[str, Any]:
    """The field `objectives` of a route: a list of names, or one of these forms."""
    if not selectors:
        return {}
    words = tuple(form.word for form in selectors)
    forms = [_selector_type(form) for form in selectors]
    lists = Annotated[Names, Tag(LIST_FORM)]

    def tag_of(value: object) -> str:
        if isinstance(value, SelectorBlock):
            return _tag(value.word)
        if isinstance(value, Mapping):
            return _tag(next((word for word in words if word in value), words[0]))
        return _tag(value) if isinstance(value, str) and value in words else LIST_FORM

    field_type = Annotated[Union[(lists, *forms)], Discriminator(tag_of)]  # type: ignore[valid-type]
    descriptions = [Route.model_fields["objectives"].description, *(f"{form.word}: {form.about}" for form in selectors)]
    return {"objectives": (field_type, Field(default=(), description=" ".join(filter(None, descriptions))))}


def _selector_type(form: SelectorForm) -> Any:
    names = Field(min_length=1, description='Names of the candidates, most important first; "*": every configured one.')
    create: Any = create_model  # mypy cannot check a model with computed fields
    with _BUILDING:
        block = create(
            f"{form.word.title()}Objectives",
            # The later base decides whether unknown keys are refused.
            __base__=(SelectorBlock, AnyOptions) if form.options is AnyOptions else (form.options, SelectorBlock),
            __doc__=form.about,
            **{form.word: (Annotated[Names, names], ...)},
        )
    block.word = form.word

    def as_block(value: object) -> object:
        """The block form; the word alone stands for every objective of the file."""
        return {form.word: (EVERY,)} if value == form.word else value

    short_form: Any = Annotated[str, WithJsonSchema({"const": form.word, "type": "string"})]
    input_type = short_form | block
    return Annotated[block, BeforeValidator(as_block, json_schema_input_type=input_type), Tag(_tag(form.word))]


def _tag(word: str) -> str:
    """Pydantic's name for this form in the location of an error; yaml_file.py removes it."""
    return f"[{word}]"
