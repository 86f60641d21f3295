"""Factory of the engine, cache and pipeline that a policies file configures; makes no connection."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

from aligner_proxy import prompts
from aligner_proxy.correctors.editor import Editors
from aligner_proxy.correctors.judge import Judges
from aligner_proxy.correctors.registry import open_correctors
from aligner_proxy.correctors.token_judge import EngineClassifier
from aligner_proxy.engine.admission import AdmittedEngine
from aligner_proxy.engine.api import Engine, HeadSource
from aligner_proxy.engine.client.circuit_breaker import Breaker
from aligner_proxy.engine.client.completions import Completer, CompletionsClient
from aligner_proxy.engine.client.completions_aligner import CompletionsAligner
from aligner_proxy.engine.client.edited_engine import EditedEngine
from aligner_proxy.engine.client.head_supply import SuppliedEngine
from aligner_proxy.engine.client.http import HttpEngine
from aligner_proxy.engine.client.replicas import Replicas
from aligner_proxy.engine.client.vllm_scorer import VllmScorer
from aligner_proxy.engine.weights import sources
from aligner_proxy.errors import ConfigError
from aligner_proxy.gateway import metrics
from aligner_proxy.gateway.shared_server import SharedServer
from aligner_proxy.pipeline.cache import CorrectionCache, PluginCache
from aligner_proxy.pipeline.pipeline import Pipeline
from aligner_proxy.plugins import registry
from aligner_proxy.plugins.registry import PluginRules
from aligner_proxy.policy import config
from aligner_proxy.policy.engine_schema import Backend, ServerKind, server_kind
from aligner_proxy.policy.schema import PolicyFile

OpenGroup = Callable[[str], Completer]
"""Given the name of a LiteLLM model group, returns what sends completions to it."""
_WAIT_S = 0.0
"""In the gateway the engine client does not retry, because `on_error: retry` of a policy does."""


def open_engine(
    file: PolicyFile,
    open_group: OpenGroup | None = None,
    *,
    local: Engine | None = None,
    wait_s: float = 5.0,
    head_source: HeadSource | None = None,
) -> Engine:
    """Build the engine of a policies file, with overrides from the environment. Raises `ConfigError`.

    `open_group` opens a LiteLLM model group by name; None outside the gateway. `local` replaces the engine that listens
    on this machine's socket. A client waits `wait_s` seconds for an engine that is down. `head_source` supplies taught
    heads that an engine lacks; without it, the general head judges objectives whose head is missing. An engine that is
    a completions server only edits, so it may have a scorer: another engine, which judges.
    """
    backend = config.engine_backend(file)

    def open_client(address: str, wait_s: float) -> Engine:
        """A client of the engine at `address`, or `local` itself, if given, for the engine on this machine's socket."""
        kind = server_kind(address)
        if kind is ServerKind.SCORER:
            return _supply_heads(VllmScorer(address, wait_s=wait_s), head_source)
        if kind is ServerKind.LOCAL and local is not None:
            return _supply_heads(local, head_source)
        if kind is ServerKind.LOCAL:
            address = f"unix:{config.engine_socket()}"
        return HttpEngine(address, wait_s=wait_s, head_source=head_source)

    if not backend.completes:
        wait_s = _replica_wait_s(backend, wait_s)
        return _join_replicas([(address, open_client(address, wait_s)) for address in backend.at], wait_s)
    template = prompts.find_template(completions_template(file, backend))
    scorer = open_client(backend.scorer, wait_s) if backend.scorer else None
    if backend.kind is ServerKind.GROUP:
        if open_group is None:
            raise ConfigError(f"{backend} can only be reached inside the gateway: `aligner-proxy serve`")
        return _make_editor(backend, open_group(backend.group), template, scorer)
    key = config.engine_key(backend)
    wait_s = _replica_wait_s(backend, wait_s)
    clients = [
        CompletionsClient(address, backend.model, key=key, predicts=backend.prediction, wait_s=wait_s)
        for address in backend.at
    ]
    editors = [_make_editor(backend, client, template, scorer) for client in clients]
    return _join_replicas(list(zip(backend.at, editors, strict=True)), wait_s)


def _supply_heads(engine: Engine, head_source: HeadSource | None) -> Engine:
    """An engine that gets the taught heads that it lacks from `head_source`; the engine itself without a source."""
    return engine if head_source is None else SuppliedEngine(engine, head_source)


def check_completions(file: PolicyFile, backend: Backend) -> None:
    """Raise `ConfigError` if the template or the key of an aligner on a completions server is missing."""
    if backend.completes:
        completions_template(file, backend)
        config.engine_key(backend)


def completions_template(file: PolicyFile, backend: Backend) -> str:
    """The name of the prompt template of an aligner on a completions server: the configured one, else its model's.

    With a scorer (an engine that judges for this server), `aligner.model` and `aligner.template` describe the scorer,
    so the template of the editing model must be set in the engine's own block. Raises `ConfigError` if it is not known.
    """
    known_template = sources.known_template(backend.model or "")
    if backend.template or known_template:
        return sources.template_of(str(backend), backend.template, known_template)
    if backend.scorer:
        raise ConfigError("the prompt template of the editor is not known; set aligner.engine.template")
    model = file.aligner.model
    return sources.template_of(model, file.aligner.template, sources.known_template(model))


def _make_editor(backend: Backend, completer: Completer, template: prompts.Template, scorer: Engine | None) -> Engine:
    """An engine that edits by a completions server; with a scorer, it edits only what the scorer flags."""
    editor = CompletionsAligner(completer, template, window=backend.window, revision=backend.revision)
    return EditedEngine(scorer, editor) if scorer else editor


def _replica_wait_s(backend: Backend, wait_s: float) -> float:
    """The seconds to wait for one engine; 0 if there is another replica to try."""
    return wait_s if len(backend.at) == 1 else 0.0


def _join_replicas(engines: list[tuple[str, Engine]], wait_s: float) -> Engine:
    """One engine that chooses among these (address, engine) pairs; a single engine is returned itself."""
    return engines[0][1] if len(engines) == 1 else Replicas(engines, wait_s=wait_s)


def correction_cache(file: PolicyFile, server: SharedServer | None = None) -> CorrectionCache:
    """The cache of corrections that a file configures: on disk, in a plugin's store, or on the server of several hosts.

    Raises `ConfigError` if a plugin and a server are configured.
    """
    folder = config.cache_dir(file)
    ttl_s = file.cache.ttl_s
    plugins = registry.configure_plugins(file)["caches"]
    if plugins and server is not None:
        place = config.server_setting(file, "cache", "redis_env")
        raise ConfigError(
            f"{place}: corrections are stored in Redis or in plugins.cache, not in both; remove one of them"
        )
    if plugins:  # the schema allows only one
        plugin = plugins[0]
        return PluginCache(folder, ttl_s, plugin.make(), plugin.make_runner())
    if server is None:
        return CorrectionCache(folder, ttl_s, file.cache.max_mb)
    return server.open_cache(folder, ttl_s, file.cache.max_mb)


def build_pipeline(
    file: PolicyFile, head_source: HeadSource | None = None, server: SharedServer | None = None
) -> Pipeline:
    """Build the pipeline with engine and cache of the policies file; makes no connection yet.

    `head_source` supplies the taught heads that policies name; `server` is the server that several hosts share.
    """
    # This module imports LiteLLM, which takes seconds; commands that only open an engine do not need it.
    from aligner_proxy.correctors.litellm_router import GroupChat, GroupCompleter, GroupDecisions

    opened_engine = open_engine(file, GroupCompleter, wait_s=_WAIT_S, head_source=head_source)
    engine = Breaker(opened_engine, metrics.record_breaker)
    open_accounts = server.open_accounts if server else None
    counted_engine: Engine = engine
    if open_accounts is not None:
        # The engine limits its own slots, so here only the tenants' use through all gateways is counted.
        counted_engine = AdmittedEngine(engine, slots=sys.maxsize, accounts=open_accounts("engine"))
    return Pipeline(
        counted_engine,
        correction_cache(file, server),
        remember=file.cache.enabled,
        correctors=open_correctors(file, open_accounts),
        rules=PluginRules.from_file(file),
        extensions=registry.load_extensions(file),
        editors=Editors(GroupChat, open_accounts),
        # Judges get the engine without its circuit breaker, so that a slow judge does not switch the aligner off.
        judges=Judges(GroupChat, GroupDecisions, open_accounts, partial(EngineClassifier, opened_engine)),
    )
