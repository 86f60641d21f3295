"""Schema of policies.yaml: the pydantic models behind it.

All models are frozen and refuse unknown keys. `None` always means "not set here", so that resolver.py can merge the
layers of a policy; config.py reads the file. Names of plugins are checked by pattern only; no plugin is loaded for it.
`plugin_schema.py` adds the keys that plugins declare.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, PrivateAttr

from aligner_proxy.errors import ConfigError
from aligner_proxy.policy.engine_schema import LOCAL, Backend, expand_backend
from aligner_proxy.policy.gate_schema import GateSetting
from aligner_proxy.policy.model_schema import Editor, JudgeSetting
from aligner_proxy.policy.objective_schema import ObjectiveEntry, ObjectiveSetting
from aligner_proxy.policy.plugin_keys import NO_DECLARATIONS, Declarations
from aligner_proxy.policy.refusal_text import Decline
from aligner_proxy.policy.shares import NAME, AlignerChoice
from aligner_proxy.policy.storage_schema import AuditSettings, CacheSettings, expand_audit
from aligner_proxy.policy.yaml_file import Block, FilePath, KeyPath, YamlSource, suggest_name
from aligner_proxy.prompts import find_template
from aligner_proxy.types import (
    DEFAULT_ALIGNER,
    EDITOR_GROUP_PREFIX,
    EMBEDDED,
    GOVERNED_SKIPS,
    LOCAL_EDITOR,
    METAALIGNER,
    FailureClass,
    IfNothingRemains,
    IncomingTreatment,
    JsonStrings,
    Judge,
    Mode,
    OnError,
    OnSkip,
    Requirement,
    SideTreatment,
    StreamMode,
    Verify,
    Write,
)
from aligner_proxy.web_address import is_web_address

KIND = "kind"
Name = Annotated[str, Field(pattern=NAME)]
PluginEntry = dict[str, Any]
Glob = Annotated[str, Field(min_length=1, max_length=200)]
Names = tuple[Annotated[str, Field(max_length=200)], ...]
_URL_FORM = "must be an address such as https://desk.example/doubts"
EVERY = "*"
"""The name that means every configured objective."""


class PluginSettings(Block):
    """Plugins to create at startup, and their settings; `aligner-proxy doctor` lists the kinds that are installed."""

    third_party: Annotated[bool, Field(strict=True)] = True
    """false: only the plugins that come with the gateway are loaded, even if others are installed."""
    correctors: dict[Name, PluginEntry] = {}
    """name -> settings; add `kind` if the name is not the plugin's kind. `corrector:` may name any of these."""
    cache: PluginEntry | None = None
    """A store to use instead of the cache folder on disk: {kind: name, ...its settings}."""
    audit_sinks: dict[Name, PluginEntry] = {}
    """name -> settings: plugins that receive every audited answer, including its texts."""


def plugin_kind(name: str, entry: PluginEntry) -> str:
    """The plugin kind of an entry; defaults to the entry's name."""
    return str(entry.get(KIND, name))


def plugin_settings(entry: PluginEntry) -> PluginEntry:
    """The plugin's own settings of an entry, without its kind."""
    return {key: value for key, value in entry.items() if key != KIND}


def corrector_names(file: PolicyFile) -> dict[str, KeyPath]:
    """Return the correctors of plugins that this file names, each with the key path of its first use."""
    first_paths: dict[str, KeyPath] = {name: ("plugins", "correctors", name) for name in file.plugins.correctors}
    for path, values in file.blocks():
        # METAALIGNER stands for the aligner on the engine, which is no plugin.
        if values.corrector is not None and values.corrector != METAALIGNER:
            first_paths.setdefault(values.corrector, (*path, "corrector"))
    return first_paths


def rule_names(file: PolicyFile) -> dict[str, KeyPath]:
    """Return the gate rules of plugins that this file names, each with the key path of its first use."""
    first_paths: dict[str, KeyPath] = {}
    for path, values in file.blocks():
        for index, name in enumerate(values.plugin_rules or ()):
            first_paths.setdefault(name, (*path, "plugin_rules", index))
    return first_paths


def editor_groups(blocks: Iterable[tuple[KeyPath, PolicySettings]]) -> dict[str, KeyPath]:
    """Return the model groups that `editor: {model: GROUP}` names, each with the key path of its first use."""
    first_paths: dict[str, KeyPath] = {}
    for path, block in blocks:
        if block.editor is not None and block.editor.startswith(EDITOR_GROUP_PREFIX):
            group = block.editor.removeprefix(EDITOR_GROUP_PREFIX)
            first_paths.setdefault(group, (*path, "editor"))
    return first_paths


def find_outside_editor(blocks: Iterable[tuple[KeyPath, PolicySettings]]) -> KeyPath | None:
    """Return the key path of the first `editor` that is not the aligner itself; None if there is none."""
    for path, block in blocks:
        if block.editor not in (None, LOCAL_EDITOR):
            return (*path, "editor")
    return None


def find_judges(blocks: Iterable[tuple[KeyPath, PolicySettings | ObjectiveEntry]]) -> list[tuple[Judge, KeyPath]]:
    """Return the judge and the key path of its setting for each block that names a judge."""
    return [(block.judge, (*path, "judge")) for path, block in blocks if block.judge]


def _parse_off(value: object) -> object:
    """Turn false back into the text `off`, because YAML 1.1 reads the bare word as false."""
    return "off" if value is False else value


def _expand_action(value: object, *, names: Iterable[StrEnum], actions: Iterable[StrEnum], key_kind: str) -> object:
    """Expand a single action into a block that has this action for each of `names`; a block is returned unchanged.

    `key_kind` is what the error message calls the keys of a block. Raises `ValueError` for an unknown action.
    """
    if isinstance(value, Mapping | BaseModel):
        return value  # pydantic checks the block
    words = [action.value for action in actions]
    if value not in words:
        hint = suggest_name(str(value), words)
        raise ValueError(f"must be one of these words, or a block of them by {key_kind}; {hint}")
    return dict.fromkeys((name.value for name in names), value)


_expand_classes = partial(_expand_action, names=FailureClass, actions=OnError, key_kind="class of failure")
_expand_reasons = partial(_expand_action, names=GOVERNED_SKIPS, actions=OnSkip, key_kind="reason")

_AsTreatment = AfterValidator(lambda name: SideTreatment(name))
RemovableTreatment = Annotated[Literal["pass", "judge", "drop", "block"], _AsTreatment]
"""Treatment of texts that programs can do without."""
WholeTreatment = Annotated[Literal["pass", "judge", "block"], _AsTreatment]
"""Treatment of texts that cannot be dropped, because programs could not read the rest without them."""
ArgumentTreatment = Annotated[Literal["pass", "judge", "correct", "block"], _AsTreatment]
"""Treatment of texts that cannot be dropped, either, but have places in which an edit can be put."""


def _refuse_main_name(adapters: dict[str, str]) -> dict[str, str]:
    """Return `adapters` (name -> model) unchanged; raises `ValueError` if one has the name of the main aligner."""
    if DEFAULT_ALIGNER in adapters:
        raise ValueError(f"{DEFAULT_ALIGNER} is the name of aligner.model; choose another name")
    return adapters


def _check_template(name: str) -> str:
    """Return the full name of the prompt template that `name` stands for; raises `ValueError` for an unknown one."""
    try:
        return find_template(name).name
    except ConfigError as error:
        raise ValueError(str(error)) from None


class OnErrorByClass(Block):
    """What to do after a failure of each class; a class that is not set here keeps its earlier value."""

    timeout: OnError | None = None
    """The deadline passed."""
    overload: OnError | None = None
    """The engine is full."""
    engine_down: OnError | None = None
    """The engine cannot be reached, died, or is not asked for a while because it did not answer recently."""
    gate: OnError | None = None
    """The gate rejected the correction as harmful; retry asks for a more cautious one."""
    invalid_output: OnError | None = None
    """The engine returned something that is not a valid correction."""
    bug: OnError | None = None
    """A bug in aligner-proxy itself, in the engine or in the gateway."""
    judge: OnError | None = None
    """The judge gave no verdict. passthrough: the detector head's own verdicts stand; retry: ask the judge again."""
    unjudged: OnError | None = None
    """on_skip says judge, but the answer could not be judged: quota used up, not sampled, too long, images,
    contradictory stream events, or an unsupported language."""


class OnSkipByReason(Block):
    """What to do when an answer would be skipped; a reason that is not set here keeps its earlier value."""

    not_sampled: OnSkip | None = None
    """`sample` left the request out."""
    tool_calls: OnSkip | None = None
    """The answer calls tools, or has a call or edit for a program in its text; judge: the text is judged, and fields
    with calls are kept."""
    structured_output: OnSkip | None = None
    """The answer is JSON or other data, or the request prescribed or began its format; judge: the strings of JSON are
    judged, its structure is kept."""
    refusal: OnSkip | None = None
    """The upstream model refused to answer."""
    truncated: OnSkip | None = None
    """The answer was cut off, for example by max_tokens."""
    filtered: OnSkip | None = None
    """The upstream's own content filter ended the answer."""
    too_long: OnSkip | None = None
    """The answer is longer than max_answer_chars, or longer than the aligner can read."""
    non_text: OnSkip | None = None
    """The answer contains images, audio or unknown parts; judge: the text next to them is judged."""
    annotations: OnSkip | None = None
    """The answer has citations by text position; judge: an edited text loses them."""
    inconsistent: OnSkip | None = None
    """The events of the answer's stream contradict each other."""
    logprobs: OnSkip | None = None
    """The request asks for token probabilities; judge: an edited text loses them."""
    background: OnSkip | None = None
    """The answer is produced in the background and fetched later."""
    upstream_error: OnSkip | None = None
    """The upstream failed in mid-answer; judge: the text received so far is judged like a truncated answer."""
    quota: OnSkip | None = None
    """The tenant's engine time is used up."""
    language: OnSkip | None = None
    """The aligner was not trained for the answer's language. block withholds it; otherwise it is judged on a
    best-effort basis and its status is not_judged."""


class PolicySettings(Block):
    """The settings that may appear in defaults, in a route, in a tenant, and in key or team metadata."""

    mode: Annotated[Mode, BeforeValidator(_parse_off)] | None = None
    """enforce: deliver the correction; shadow: correct and record, but deliver the original; off: do nothing."""
    stream: StreamMode | None = None
    """hold: hold the stream back, align the whole answer, then send it; sentence: send each segment once it is judged;
    passthrough: deliver at once."""
    keepalive_s: Annotated[float, Field(ge=0, le=600, strict=True)] | None = None
    """Seconds without an event after which a stream that is held back sends what opens the answer, and then
    heartbeats; 0: none."""
    debug_trailer: Annotated[bool, Field(strict=True)] | None = None
    """true: a stream ends with a comment that reports what was flagged and how long it took, without any text."""
    exact_times: Annotated[bool, Field(strict=True)] | None = None
    """true: x-aligner-ms is exact; false: a bound (`<=200`), because exact times would reveal something about the
    texts."""
    deadline_s: Annotated[float, Field(gt=0, le=600, strict=True)] | None = None
    """Seconds that a correction may take, including retries, before on_error applies."""
    on_error: (
        Annotated[OnErrorByClass, BeforeValidator(_expand_classes, json_schema_input_type=OnError | OnErrorByClass)]
        | None
    ) = None
    """When a correction fails: passthrough (deliver the original), block (return an error) or retry. One word for all
    failures, or one for each class."""
    after_retry: Annotated[Literal["passthrough", "block"], AfterValidator(lambda name: OnError(name))] | None = None
    """What to do when the retry failed, too: deliver the original, or return an error."""
    on_skip: (
        Annotated[OnSkipByReason, BeforeValidator(_expand_reasons, json_schema_input_type=OnSkip | OnSkipByReason)]
        | None
    ) = None
    """When an answer would be skipped: judge (if that is impossible, on_error: unjudged applies), passthrough or block.
    One word for all reasons, or one for each reason. The default is judge if objectives are enforced, else
    passthrough."""
    if_nothing_remains: IfNothingRemains | None = None
    """What to send if all of an answer, or its core, is flagged. decline: a refusal text. second_try: a new answer of
    the editor; if that fails, as decline. block: an error. original: the answer unchanged. Beside a tool call or
    another text that is delivered, the flagged text is left out instead. The default is decline if objectives are
    enforced, or if `harmless` was violated; else original."""
    decline: Decline | None = None
    """The refusal text that decline sends: one text, or one for each language (`default`: all other languages).
    {objective} is replaced by the violated objective."""
    decline_within: Annotated[float, Field(ge=0, le=50, strict=True, allow_inf_nan=False)] | None = None
    """If `harmless` was violated and a remaining sentence came within this many nats of being flagged, the whole answer
    counts as flagged (if_nothing_remains applies). A higher value lets less harm through but declines more harmless
    answers; 0 turns this off, and is the default where nothing is enforced."""
    decline_whole_answers: Annotated[bool, Field(strict=True)] | None = None
    """Whether all of an answer also counts as flagged if the aligner finds it harmful as a whole, though no sentence of
    it need be flagged (if_nothing_remains applies). Only in a language of the aligner. In `stream: sentence` the rest
    of an answer that seems harmful waits for its end; there is no refusal once more than half has gone out. A judge
    that reads such answers decides instead."""
    editor: Editor | None = None
    """Which model rewrites flagged text: local (the aligner), upstream (the model group that wrote the answer), or
    {model: GROUP}."""
    judge: JudgeSetting | None = None
    """Which model gives a second opinion: {chat: GROUP}, {guard: GROUP, form: NAME} or {decisions: GROUP}, with
    `ask: doubt`, flagged or all; off: none. Unless it is a guard, it also settles what references leave in doubt."""
    write: Write | None = None
    """What is written in place of a flagged passage. never: nothing, so it is removed. verified: only text that the
    detector head finds good, also as an answer to the question. free: any text that is not flagged itself. The default
    is never for the embedded aligner, else free."""
    caution: Annotated[float, Field(ge=-50, le=50, strict=True, allow_inf_nan=False)] | None = None
    """Score above which a segment is flagged, as log-odds in nats (+1 nat = 2.7 times the odds). A higher value means
    fewer edits."""
    aligner: AlignerChoice | None = None
    """Which aligner corrects: default, or a name under aligner.adapters. Or shares in whole per cent, by which
    conversations are divided among several aligners: {default: 95, acme-2: 5}."""
    shadow_aligner: Name | None = None
    """A second aligner that scores the same answers, for comparison only (`aligner-proxy compare`)."""
    verify: Verify | None = None
    """flagged: generate text only for flagged segments; always: verify the whole answer token by token as a draft."""
    sample: Annotated[float, Field(ge=0, le=1, strict=True)] | None = None
    """Share of requests to correct, from 0 to 1. The choice is random; nothing in a request can influence it."""
    max_answer_chars: Annotated[int, Field(ge=1, le=1_000_000, strict=True)] | None = None
    """Length limit in characters. Longer whole answers are skipped (reason too_long); longer streams are corrected part
    by part."""
    gate: GateSetting | None = None
    """Rules that a correction must not break: {lost_name: off} switches one rule; a list names all rules that are
    on."""
    json_strings: JsonStrings | None = None
    """keep: JSON answers are never edited; correct: each long string in a JSON answer is aligned as a separate text."""
    reasoning: RemovableTreatment | None = None
    """What to do with reasoning that comes with an answer, or between tags at its beginning. pass: leave it unchanged.
    judge: score and record it, and treat a flagged one as unjudged. drop: remove it, except what tools need back
    (thinking blocks, reasoning items). block: return an error. The default is judge if objectives are enforced and
    unjudged answers block, else pass."""
    tool_arguments: ArgumentTreatment | None = None
    """As `reasoning`, but for prose in the arguments of tool calls: pass, judge, correct or block. With correct, a
    flagged string is corrected in its place, and the calls of a stream wait for their end. If that is impossible,
    correct is as judge."""
    tool_output: RemovableTreatment | None = None
    """As `reasoning`, but for tool results that an upstream returns with its answer."""
    transcripts: RemovableTreatment | None = None
    """As `reasoning`, but for transcripts of audio."""
    other_text: WholeTreatment | None = None
    """As `reasoning`, but for any other prose of 20 characters or more: pass, judge or block."""
    incoming_tool_results: IncomingTreatment | None = None
    """What to do with tool results in the last 16 messages of a request. pass: leave them unread. report: judge them,
    and name what is flagged in x-aligner-incoming. block: refuse the request before the upstream is called. The request
    is never rewritten."""
    incoming_history: IncomingTreatment | None = None
    """As `incoming_tool_results`, but for messages of the user and the assistant."""
    corrector: Name | None = None
    """metaaligner: the aligner on the engine. Or a plugin's corrector: self_refine, aligner, or another installed
    one."""
    plugin_rules: Annotated[tuple[Name, ...], Field(max_length=32)] | None = None
    """Gate rules of plugins, in addition to the gate's own. The last place that sets this key replaces the earlier
    lists."""


class Grants(PolicySettings):
    """What is enforced and allowed for a tenant; also the schema of key and team metadata under "aligner"."""

    enforce: Names = ()
    """Objectives that always apply, before all others; a request cannot remove them."""
    allow: Names | None = None
    """Objectives that a request may add. "*": every configured one, and for /v1/align also objectives in its own
    words."""
    deny: Names = ()
    """Objectives that a request may not ask for, even if `allow` lists them. Enforced objectives still apply."""
    allow_bypass: Annotated[bool, Field(strict=True)] | None = None
    """Whether a request may skip correction (x-aligner-bypass)."""
    quota: Annotated[float, Field(ge=0, le=3600, strict=True, allow_inf_nan=False)] | None = None
    """Seconds of engine time a minute. Once the quota is used up, answers are skipped (reason quota)."""


def _check_webhook(url: str) -> str:
    """Return the URL of a webhook; raises `ValueError` if it is no web address, or has a password or a fragment."""
    if not is_web_address(url):
        raise ValueError(_URL_FORM)
    parts = urlsplit(url)
    if parts.username or parts.password or parts.fragment:
        raise ValueError(f"{_URL_FORM}, without user, password and fragment: reports are signed instead (secret_env)")
    return url


class HandOffBlock(Block):
    """A webhook for reports of doubtful answers."""

    url: Annotated[str, Field(max_length=2000), AfterValidator(_check_webhook)]
    """Address to which reports are posted; redirects are not followed."""
    secret_env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
    """Environment variable with the secret that signs reports (HMAC-SHA256), at least 16 characters."""
    within: Annotated[float, Field(gt=0, le=50, strict=True, allow_inf_nan=False)] = 0.5
    """An answer is doubtful if the score of a segment was within this many nats of the threshold, on either side."""
    text: Annotated[bool, Field(strict=True)] = False
    """true: a report contains question, answer and edited answer, except for answers that may not be stored."""


class RouteMatch(Block):
    """Which requests a route applies to; a key that is not set matches everything."""

    model: Glob | None = None
    """Glob over LiteLLM's model_name, case-sensitive. The routes of a model group also apply to its aliases."""
    tag: Glob | None = None
    """Glob over the request's tags; one of them must match."""


class Route(PolicySettings):
    """Settings for some models or tags; the first route in file order that matches a request applies."""

    match: RouteMatch
    name: Name | None = None
    """Name shown in x-aligner-policy; by default route-1, route-2 ..."""
    hand_off: HandOffBlock | None = None
    """Report doubtful answers to your webhook; reports are signed, and have no text unless `text` is true."""
    objectives: Names = ()
    """Names of objectives, most important first; or the word of a plugin that chooses among them for each prompt."""


class TenantMatch(Block):
    """Whose requests a tenant entry applies to; a key that is not set matches everyone."""

    team: Glob | None = None
    """Glob over the team's id; its alias is matched only with `trust: {aliases: true}`."""
    key: Glob | None = None
    """Glob over the key's sha256 or its alias in the keys file; LiteLLM's alias is matched only with trust.aliases."""


class Tenant(Grants):
    """Settings and rights of a team or key; the first tenant in file order that matches a request applies."""

    match: TenantMatch
    name: Name | None = None
    """Name shown in x-aligner-policy; by default tenant-1, tenant-2 ..."""
    objectives: dict[Name, ObjectiveSetting] = {}
    """Objectives of this tenant only, written like those of the file. They override those of the same name; no other
    tenant can use them."""


class AlignerSettings(Block):
    """Which model corrects, and where it runs."""

    model: Annotated[FilePath, Field(min_length=1, max_length=400)] = EMBEDDED
    """embedded, a Hugging Face id (owner/name@commit), or a folder that starts with ./ ../ / or ~."""
    require_revision: Annotated[bool, Field(strict=True)] = False
    """true: refuse a Hugging Face id without a commit; false: only warn."""
    template: Annotated[str, AfterValidator(_check_template)] | None = None
    """Prompt template: hh-rlhf, ultrafeedback, imhi (each also with -vicuna), aligner or aligner-v1; not needed for
    known models."""
    quantization: Literal["nf4", "none"] = "nf4"
    """nf4: 4-bit weights; none: weights in the format of `dtype`."""
    dtype: Literal["auto", "bf16", "fp32"] = "auto"
    """Number format for computing; auto chooses the best one for the device."""
    cache_tokens: Annotated[int, Field(ge=1024)] | None = None
    """Size of the KV cache in tokens, as far as memory allows; by default 16384, on a GPU up to half of the free
    memory. A larger one serves more requests at once and reuses more common prefixes."""
    adapters: Annotated[
        dict[Name, Annotated[FilePath, Field(min_length=1, max_length=400)]], AfterValidator(_refuse_main_name)
    ] = {}
    """More aligners on the same base model, name -> a value as for `model`. Routes and tenants choose one by
    `aligner: name`."""
    judges: dict[Name, Annotated[FilePath, Field(min_length=1, max_length=400)]] = {}
    """Token classifiers that the engine on this machine loads beside the aligner, name -> a folder or a Hugging Face
    id. Policies ask one by `judge: {tokens: name}`."""
    engine: Annotated[
        Backend, BeforeValidator(expand_backend, json_schema_input_type=str | tuple[str, ...] | Backend)
    ] = LOCAL
    """local, unix:/path, http(s)://host:port (an aligner-proxy engine), http(s)://host:port/v1 (a completions server),
    litellm:<model group>, a list of replicas, or a block with more settings."""


class ShadowSettings(Block):
    """Limits for mode: shadow (corrections that are only recorded), for each worker."""

    running: Annotated[int, Field(ge=1, le=1_000, strict=True)] = 2
    """Maximum corrections at a time; each takes engine time from corrections that clients wait for."""
    waiting: Annotated[int, Field(ge=0, le=100_000, strict=True)] = 64
    """Maximum answers in the queue; when it is full, answers are skipped (reason shadow_full)."""


class StreamSettings(Block):
    """Memory limits for streams, for each worker: chunks that wait for their correction or for a slow client."""

    max_mb: Annotated[int, Field(ge=16, le=1_000_000, strict=True)] = 512
    """Limit for all streams together, in MiB. Above it the gateway stops reading from upstreams, and refuses streams of
    the tenant that holds most (reason shed, class overload)."""
    stream_mb: Annotated[int, Field(ge=1, le=100_000, strict=True)] = 16
    """Limit for one stream, in MiB. A stream above it is released part by part, and its upstream waits for its
    client."""


class Trust(Block):
    """Whose settings may loosen a policy, apart from this file. Metadata that is not trusted can only tighten it."""

    team_metadata: Annotated[bool, Field(strict=True)] = False
    """true: `aligner` in the metadata of a LiteLLM team may loosen a policy; team managers write this metadata."""
    key_metadata: Annotated[bool, Field(strict=True)] = False
    """true: `aligner` in the metadata of a LiteLLM key may loosen a policy; key owners write this metadata."""
    aliases: Annotated[bool, Field(strict=True)] = False
    """true: tenants also match by LiteLLM's aliases, which key owners choose. Aliases of the keys file always match."""
    router_fields: tuple[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_-]{0,63}$")], ...] = ()
    """Fields of the request body that control LiteLLM's router and that clients may send
    (context_window_fallbacks, ...)."""


class PolicyFile(Block):
    """policies.yaml: the aligner, the objectives, and which policy applies to which request."""

    aligner: AlignerSettings = AlignerSettings()
    objectives: dict[Name, ObjectiveSetting] = {}
    """Your own objectives, name -> "Name: description" or {text, examples}. They override built-in ones of the same
    name."""
    defaults: PolicySettings = PolicySettings()
    routes: tuple[Route, ...] = ()
    tenants: tuple[Tenant, ...] = ()
    trust: Trust = Trust()
    cache: CacheSettings = CacheSettings()
    shadow: ShadowSettings = ShadowSettings()
    streams: StreamSettings = StreamSettings()
    audit: Annotated[
        AuditSettings, BeforeValidator(expand_audit, json_schema_input_type=Literal["required"] | AuditSettings)
    ] = AuditSettings()
    """Settings of the audit store. The single word `required` turns it on and delivers no answer without an entry."""
    plugins: PluginSettings = PluginSettings()
    allow_less: Names = ()
    """Tenants for which a change of this file may remove all enforced objectives; "*": everybody. Remove this key
    afterwards."""
    keys: FilePath | None = None
    """File with hashed client keys, for gateways without a database; relative to this file."""
    # Set by `with_source` and `with_file_texts`; the properties below say what they hold.
    _source: YamlSource = PrivateAttr(default_factory=YamlSource)
    _declarations: Declarations = PrivateAttr(default=NO_DECLARATIONS)
    _warnings: tuple[str, ...] = PrivateAttr(default=())
    _file_texts: Mapping[str, Mapping[str, str]] = PrivateAttr(default_factory=dict)

    @property
    def file_texts(self) -> Mapping[str, Mapping[str, str]]:
        """The texts of the files that plugins' keys name: key -> path as written -> text."""
        return self._file_texts

    @property
    def file_paths(self) -> tuple[Path, ...]:
        """The files that plugins' keys name."""
        return tuple(self._source.resolve(name) for texts in self._file_texts.values() for name in texts)

    @property
    def source(self) -> YamlSource:
        """Name and folder of the file, and the line of every value in it, for messages."""
        return self._source

    @property
    def declarations(self) -> Declarations:
        """The keys and selector forms that plugins add to this file."""
        return self._declarations

    @property
    def warnings(self) -> tuple[str, ...]:
        """Messages about settings that work but should be changed, such as deprecated names, each with its line."""
        return self._warnings

    def blocks(self) -> Iterator[tuple[KeyPath, PolicySettings]]:
        """Yield the key path and the values of each block of settings: `defaults`, each route, each tenant."""
        yield ("defaults",), self.defaults
        yield from ((("routes", n), route) for n, route in enumerate(self.routes))
        yield from ((("tenants", n), tenant) for n, tenant in enumerate(self.tenants))

    def objective_entries(self) -> Iterator[tuple[KeyPath, ObjectiveEntry]]:
        """Yield the key path and the entry of each objective, first of the file's `objectives`, then of the tenants."""
        yield from ((("objectives", name), entry) for name, entry in self.objectives.items())
        for n, tenant in enumerate(self.tenants):
            yield from ((("tenants", n, "objectives", name), entry) for name, entry in tenant.objectives.items())

    def with_source(self, source: YamlSource, declarations: Declarations, warnings: Iterable[str]) -> PolicyFile:
        """Return a copy with the file's source (lines and text), the declarations of plugins, and warnings."""
        copy = self.model_copy()
        copy._source = source
        copy._declarations = declarations
        copy._warnings = tuple(warnings)
        return copy

    def requirements(self) -> Iterator[tuple[KeyPath, str, Requirement]]:
        """Yield the key path, the key and the value of each setting by which a plugin checks answers."""
        for path, block in self.blocks():
            for key in self._declarations.keys:
                value = getattr(block, key.name, None)
                if isinstance(value, Requirement) and value:
                    yield (*path, key.name), key.name, value

    def with_file_texts(self) -> PolicyFile:
        """Read the files that plugins' keys name, and return a copy with their texts. Raises `ConfigError`."""
        texts_by_key: dict[str, dict[str, str]] = {}
        for path, key, requirement in self.requirements():
            # Given more key parts, this returns "file:line" for the beginning of an error message.
            find_place = partial(self._source.place_of, *path)
            file_texts = requirement.read_files(find_place, self._source.resolve)
            texts_by_key.setdefault(key, {}).update(file_texts)
        copy = self.model_copy()
        copy._file_texts = texts_by_key
        return copy


class SelectorBlock(Block):
    """The form `objectives: {WORD: [names], ...options}` of a route: a plugin selects among these names."""

    word: ClassVar[str]  # the word that names the form, as in `objectives: auto`

    @property
    def names(self) -> Names:
        """The names of the objectives among which the plugin selects, as written."""
        names: Names = getattr(self, self.word)
        return names


def route_selector(block: PolicySettings) -> SelectorBlock | None:
    """The selector of a route; None if the route lists its objectives, or if the block is not a route."""
    value = getattr(block, "objectives", None)
    return value if isinstance(value, SelectorBlock) else None


def route_objectives(route: Route, configured: Iterable[str]) -> Iterator[tuple[str, KeyPath]]:
    """Yield the name and the key path inside the route of each objective that a route names.

    "*" in a plugin's selector stands for all the names in `configured`.
    """
    selector = route_selector(route)
    written_names = selector.names if selector else route.objectives
    list_path = ("objectives", selector.word) if selector else ("objectives",)
    for index, written_name in enumerate(written_names):
        names = configured if selector and written_name == EVERY else (written_name,)
        for name in names:
            yield name, (*list_path, index)
