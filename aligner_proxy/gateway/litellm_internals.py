"""All uses of LiteLLM beyond its public interface, for what the hooks need besides their arguments."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from functools import wraps
from itertools import groupby, islice
from pathlib import Path
from typing import Any
from uuid import uuid4

from fastapi import HTTPException, Request
from litellm.litellm_core_utils.served_output_texts import record_served_output_texts, served_stream_output_texts
from litellm.proxy._types import LiteLLMRoutes, ProxyErrorTypes, ProxyException, UserAPIKeyAuth
from litellm.proxy.auth.auth_utils import get_request_route, iter_request_fallback_targets
from litellm.proxy.types_utils.utils import get_instance_fn
from litellm.types.guardrails import GuardrailEventHooks, LitellmParams
from litellm.types.guardrails import Mode as ModeByTag
from litellm.types.utils import ModelResponseStream
from pydantic import ValidationError
from starlette.applications import Starlette

from aligner_proxy.concurrency import DisconnectMiddleware
from aligner_proxy.errors import ConfigError
from aligner_proxy.gateway import readiness
from aligner_proxy.gateway.asgi_layers import add_layer
from aligner_proxy.gateway.comment_lines import CommentLineMiddleware
from aligner_proxy.policy.yaml_file import quote_name, suggest_name

CALL_ID_HEADER = "x-litellm-call-id"
_LONGEST_CALL_ID = 256
"""Most characters of a call id that a client chooses; a longer one is replaced."""
_MAX_FALLBACKS = 32
"""Most fallbacks in a request whose models are checked against the key."""
_PAYER_FIELDS = tuple(
    f"user_api_key_{name}"
    for name in ("hash", "alias", "team_id", "team_alias", "user_id", "org_id", "project_id", "end_user_id")
)
"""Fields of LiteLLM's metadata that determine to whom a call is charged."""
_CACHE_ENTRIES = 200
"""Default size of LiteLLM's counter cache, in entries."""
_COUNTERS_OF_A_KEY = 8
"""Twice the four entries that a limited key needs: window, requests, tokens, and requests in flight."""


def proxy_module() -> Any:
    """LiteLLM's module of globals; importing it takes seconds, except inside the proxy."""
    from litellm.proxy import proxy_server

    return proxy_server


def use_key_check(address: str) -> None:
    """Let the proxy check keys by the function at `address` ("package.module.function") if its file names none."""
    if proxy_application() is not None:
        proxy = proxy_module()
        proxy.user_custom_auth = proxy.user_custom_auth or get_instance_fn(address)


def config_folder() -> Path:
    """Folder of LiteLLM's YAML file, to which paths are relative."""
    path = proxy_module().user_config_file_path
    return Path(path).resolve().parent if path else Path.cwd()


async def refuse_other_models(caller: UserAPIKeyAuth, request: Request) -> None:
    """Raise `ProxyException` if the request names a model, or a fallback, that the caller may not use.

    LiteLLM checks this for its own keys, but for keys of a `custom_auth` only if its function is called, as here.
    """
    from litellm.proxy.auth.user_api_key_auth import enforce_key_and_fallback_model_access
    from litellm.proxy.common_utils.http_parsing_utils import read_request_body

    body = await read_request_body(request)
    # The fallbacks are counted only up to the limit, since a body may name very many.
    fallback_count = sum(1 for _ in islice(iter_request_fallback_targets(body), _MAX_FALLBACKS + 1))
    if fallback_count > _MAX_FALLBACKS:
        kind = ProxyErrorTypes.bad_request_error.value
        raise ProxyException(f"more than {_MAX_FALLBACKS} fallbacks", kind, "fallbacks", 400)
    proxy = proxy_module()
    # LiteLLM checks only the name in a body, but a name in the path or query may decide which model answers. So we let
    # it check a body with each of these names, too.
    bodies_to_check = [dict(body)]
    bodies_to_check += [{**body, "model": name} for name in _models_in_address(request)]
    for body_to_check in bodies_to_check:
        await enforce_key_and_fallback_model_access(
            valid_token=caller,
            request_data=body_to_check,
            route=get_request_route(request),
            request=request,
            llm_model_list=proxy.llm_model_list,
            llm_router=proxy.llm_router,
        )


def _models_in_address(request: Request) -> Iterator[str]:
    """Yield the models that the query or the path of a request names."""
    yield from request.query_params.getlist("model")
    model_in_path = request.path_params.get("model")
    if isinstance(model_in_path, str):
        yield model_in_path


def watch_bodies(note_body: Callable[[bytes], None]) -> None:
    """Patch LiteLLM to call `note_body` with each JSON body before parsing; a `ProxyException` goes to the client."""
    from litellm.proxy.common_utils import http_parsing_utils

    parsing_module: Any = http_parsing_utils
    if not isinstance(parsing_module.orjson, _WatchedParser):
        parsing_module.orjson = _WatchedParser(parsing_module.orjson, note_body)


class _WatchedParser:
    """Wrapper of `orjson`, with which LiteLLM parses bodies, that passes each body to `note_body` first."""

    def __init__(self, parser: Any, note_body: Callable[[bytes], None]) -> None:
        self._parser = parser
        self._note_body = note_body

    def __getattr__(self, name: str) -> Any:
        return getattr(self._parser, name)

    def loads(self, body: bytes) -> Any:
        """Parse a body after `note_body` has seen it; an error that it raises passes."""
        self._note_body(body)
        return self._parser.loads(body)


def admit_paths(paths: Iterable[str]) -> None:
    """Let LiteLLM's own keys call these paths like model endpoints; also adds the paths to its OpenAPI document."""
    for group in (LiteLLMRoutes.openai_routes, LiteLLMRoutes.llm_api_routes):
        group_paths = group.value  # LiteLLM's own list, which grows in place
        group_paths += [path for path in paths if path not in group_paths]


async def make_request_data(
    request: Request, caller: UserAPIKeyAuth, body: Mapping[str, Any], call_id: str | None = None
) -> dict[str, Any]:
    """The data of a request to our own endpoints as LiteLLM makes it for hooks: `body` with LiteLLM's additions.

    These are metadata of key and team, tags, headers, and the call id: `call_id`, the client's, or a new one.
    """
    proxy = proxy_module()
    data = await proxy.add_litellm_data_to_request(
        data=dict(body),
        request=request,
        user_api_key_dict=caller,
        proxy_config=proxy.proxy_config,
        general_settings=proxy.general_settings,
        version=proxy.version,
    )
    requested_id = call_id or request.headers.get(CALL_ID_HEADER) or ""
    data["litellm_call_id"] = requested_id if 0 < len(requested_id) <= _LONGEST_CALL_ID else str(uuid4())
    return dict(data)


@contextlib.asynccontextmanager
async def count_request(caller: UserAPIKeyAuth, data: Mapping[str, Any]) -> AsyncIterator[None]:
    """Context manager that counts a request towards the limits of its key, team and tags; raises HTTP 429 above them.

    Any budget that LiteLLM reserved for the request is released at the end, because judging an answer costs nothing in
    LiteLLM's accounts.
    """
    limiter = proxy_module().proxy_logging_obj.get_proxy_hook("parallel_request_limiter")
    try:
        async with contextlib.AsyncExitStack() as stack:
            if hasattr(limiter, "request_capacity"):
                try:
                    model = str(data.get("model") or "")
                    capacity = limiter.request_capacity(caller, model, request_data=data)
                    await stack.enter_async_context(capacity)
                except HTTPException as error:
                    headers = dict(error.headers or {})
                    kind = "rate_limit_error"
                    raise ProxyException(str(error.detail), kind, None, error.status_code, headers) from None
            yield
    finally:
        if caller.budget_reservation:  # judging an answer costs nothing in LiteLLM's accounts
            from litellm.proxy.spend_tracking.budget_reservation import release_budget_reservation

            await release_budget_reservation(caller.budget_reservation)


def payer_metadata(caller: UserAPIKeyAuth) -> dict[str, Any]:
    """Metadata for a call of LiteLLM's router (of an editor or judge) that charges it to the key of a request.

    It contains no budgets or reservations: those are settled with the request's own answer.
    """
    from litellm.proxy.litellm_pre_call_utils import LiteLLMProxyRequestSetup

    user_fields: Mapping[str, Any] = LiteLLMProxyRequestSetup.get_sanitized_user_information_from_key(caller)
    payer_fields = {name: user_fields[name] for name in _PAYER_FIELDS if user_fields.get(name) is not None}
    logged_key = LiteLLMProxyRequestSetup.get_logged_api_key(caller)
    if logged_key is not None:
        payer_fields["user_api_key"] = logged_key
    return payer_fields


def make_room_for_counters(key_count: int) -> None:
    """Enlarge LiteLLM's cache of rate-limit counters for this many keys, so that no key's counters evict another's."""
    cache = proxy_module().proxy_logging_obj.internal_usage_cache.dual_cache.in_memory_cache
    cache.max_size_in_memory = max(cache.max_size_in_memory, _CACHE_ENTRIES + _COUNTERS_OF_A_KEY * key_count)


def proxy_application() -> Starlette | None:
    """The proxy's application; None outside the proxy."""
    app: Starlette | None = getattr(sys.modules.get("litellm.proxy.proxy_server"), "app", None)
    return app


def model_names() -> frozenset[str]:
    """The configured model names: groups, aliases, and the upstream models of deployments; empty without a router.

    An upstream model is named with its provider and without ("openai/gpt-4o", "gpt-4o").
    """
    router = getattr(proxy_module(), "llm_router", None)
    if router is None:
        return frozenset()
    full_names = [str(deployment["litellm_params"].get("model")) for deployment in router.get_model_list() or ()]
    short_names = [name.partition("/")[2] for name in full_names]
    return frozenset([*router.get_model_names(), *full_names, *short_names])


def price_map(catalog_only: bool) -> dict[str, Any]:
    """LiteLLM's prices by model: all that it knows or, with `catalog_only`, those of the catalog that it loaded."""
    import litellm
    from litellm.litellm_core_utils.get_model_cost_map import GetModelCostMap

    return dict(GetModelCostMap.loaded_model_cost_map() if catalog_only else litellm.model_cost)


def add_middleware() -> None:
    """Add our middleware, for clients that disconnect and comments in streams; does nothing outside the proxy."""
    app = proxy_application()
    if app is not None:
        add_layer(app, DisconnectMiddleware)
        add_layer(app, CommentLineMiddleware)


def count_in_readiness(reason: readiness.Reason) -> None:
    """Let the proxy's /health/readiness fail while `reason` returns a word; does nothing outside the proxy."""
    app = proxy_application()
    if app is not None:
        readiness.add_reason(app, reason)


def run_at_shutdown(last_work: Callable[[], Awaitable[object]]) -> None:
    """Patch the proxy to run `last_work` after its last request, before its own shutdown handler.

    Does nothing outside the proxy. After several calls, the last one's work runs first.
    """
    module = sys.modules.get("litellm.proxy.proxy_server")
    if module is None:
        return
    earlier_shutdown = module.proxy_shutdown_event

    async def shutdown(*arguments: Any, **keywords: Any) -> None:
        await last_work()
        await earlier_shutdown(*arguments, **keywords)

    module.proxy_shutdown_event = shutdown  # type: ignore[attr-defined]


def bound_fallbacks(has_too_many: Callable[[object], bool], message: str) -> None:
    """Patch LiteLLM's check of a body to refuse long lists of fallbacks, with HTTP 400 and this message.

    `has_too_many` is called with the value of each fallback field. LiteLLM runs this check before any hook, and
    compares each entry with about a hundred parameter names, which takes long for a long list.
    """
    from litellm.proxy.auth import auth_utils

    iterate_values = auth_utils._iter_fallback_field_values
    if getattr(iterate_values, "bounded", False):  # patched already
        return

    def iterate_bounded(request_body: Mapping[str, object]) -> Iterator[object]:
        for value in iterate_values(request_body):
            if has_too_many(value):
                raise ProxyException(message, "invalid_request_error", "fallbacks", 400)
            yield value

    iterate_bounded.bounded = True  # type: ignore[attr-defined]
    auth_utils._iter_fallback_field_values = iterate_bounded


def keep_out_of_pipelines(guardrail_name: str) -> None:
    """Patch LiteLLM's guardrail pipelines to leave out steps of this guardrail, which then runs for every answer.

    LiteLLM runs a step of a pipeline only for some answers, and may drop the step's result. A pipeline may be in
    LiteLLM's database, where our check of the configuration file cannot find it.
    """
    from litellm.proxy.policy_engine.policy_resolver import PolicyResolver

    resolver: Any = PolicyResolver
    resolve = resolver.resolve_pipelines_for_context
    if hasattr(resolve, "excluded_names"):  # patched already
        resolve.excluded_names.add(guardrail_name)
        return
    excluded_names = {guardrail_name}

    @wraps(resolve)
    def resolve_other_steps(*arguments: Any, **keywords: Any) -> list[tuple[str, Any]]:
        pipelines = []
        for policy_name, pipeline in resolve(*arguments, **keywords):
            steps = [step for step in pipeline.steps if step.guardrail not in excluded_names]
            if steps:
                pipelines.append((policy_name, pipeline.model_copy(update={"steps": steps})))
        return pipelines

    resolve_other_steps.excluded_names = excluded_names  # type: ignore[attr-defined]
    resolver.resolve_pipelines_for_context = staticmethod(resolve_other_steps)


_MAX_CHARS_IN_LOOP = 50_000
"""Most characters of a stream whose tokens LiteLLM may count in the event loop, in some five milliseconds."""


def count_tokens_off_loop() -> None:
    """Patch LiteLLM's billing of streams whose client has left, so that it finds their usage counted already.

    LiteLLM would count the tokens in the event loop: a fifth of a second for two million characters. Does nothing
    outside the proxy.
    """
    processing: Any = sys.modules.get("litellm.proxy.common_request_processing")
    bill = getattr(processing, "_bill_partial_streamed_spend_on_disconnect", None)
    if bill is None or getattr(bill, "counts_off_loop", False):  # patched already
        return

    @wraps(bill)
    async def count_and_bill(request_data: dict[str, Any], response: object) -> bool:
        await add_usage(response)
        return bool(await bill(request_data, response))

    count_and_bill.counts_off_loop = True  # type: ignore[attr-defined]
    processing._bill_partial_streamed_spend_on_disconnect = count_and_bill


async def add_usage(stream: object) -> None:
    """Count the tokens of a long stream in a thread, and add a chunk with the usage to the chunks that LiteLLM keeps.

    LiteLLM then takes the usage from this chunk. If counting fails, LiteLLM counts the tokens itself.
    """
    import litellm

    chunks = getattr(stream, "chunks", None)
    if not isinstance(chunks, list) or sum(map(_text_length, chunks)) <= _MAX_CHARS_IN_LOOP:
        return
    messages = getattr(stream, "messages", None)
    with contextlib.suppress(Exception):  # LiteLLM then counts the tokens itself
        response: Any = await asyncio.to_thread(litellm.stream_chunk_builder, chunks=list(chunks), messages=messages)
        usage_chunk = ModelResponseStream(model=chunks[-1].model, choices=[])
        usage_chunk.usage = response.usage
        chunks.append(usage_chunk)


def _text_length(chunk: object) -> int:
    """Characters of text in all choices of a chat chunk."""
    choices = getattr(chunk, "choices", None) or ()
    return sum(len(getattr(getattr(choice, "delta", None), "content", None) or "") for choice in choices)


def add_pre_call(event_hook: Any) -> Any:
    """The guardrail's modes (`event_hook`, one or a list) with pre_call first, so that LiteLLM calls this hook, too.

    No mode, or modes by tag, are returned as they are. Raises `ConfigError` for an unknown mode, with which LiteLLM
    would start without the guardrail.
    """
    if event_hook is None or isinstance(event_hook, ModeByTag):
        return event_hook
    hooks = event_hook if isinstance(event_hook, list) else [event_hook]
    names = [str(getattr(hook, "value", hook)) for hook in hooks]
    known_names = [hook.value for hook in GuardrailEventHooks]
    for name in names:
        if name not in known_names:
            suggestion = suggest_name(name, known_names)
            raise ConfigError(f"mode {quote_name(name)} is no mode of LiteLLM's guardrails; {suggestion}")
    return [GuardrailEventHooks(name) for name in dict.fromkeys(["pre_call", *names])]


def check_entry(params: Mapping[str, Any]) -> None:
    """Raise `ConfigError` for guardrail settings with which LiteLLM would log a line and skip the guardrail."""
    # LiteLLM fills in `os.environ/` values later; a mode given in this way is replaced by a valid one here.
    literal_params = {name: value for name, value in params.items() if not str(value).startswith("os.environ/")}
    if "mode" in params:
        literal_params.setdefault("mode", "post_call")
    try:
        settings = LitellmParams(**literal_params)
    except ValidationError as error:
        first_error = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(map(str, first_error["loc"])) or "litellm_params"
        raise ConfigError(f"{key}: {first_error['msg']}; LiteLLM would start without the guardrail") from None
    add_pre_call(settings.mode)  # raises for an unknown mode


def log_served_texts(data: dict[str, Any], items: Sequence[object]) -> None:
    """Record a stream's served text for LiteLLM's log; our final comment keeps LiteLLM from doing this itself."""
    details = getattr(data.get("litellm_logging_obj"), "model_call_details", None)
    if isinstance(details, dict):
        record_served_output_texts(details, served_stream_output_texts(items))


_MIN_MERGED_ITEMS = 512
"""Number of kept chunks from which the older ones are merged."""
_RECENT_ITEMS = 64
"""Number of recent chunks that stay separate, because LiteLLM looks for repetitions in them."""


class MergedItems:
    """A growing list of chunks that is kept short by merging chunks that carry only text."""

    def __init__(self, items: list[object]) -> None:
        self.items = items
        self._merge_at = _MIN_MERGED_ITEMS

    def merge(self) -> None:
        """Merge the older chunks in place once the list is too long."""
        if len(self.items) >= self._merge_at:
            self.items[:-_RECENT_ITEMS] = merge_items(self.items[:-_RECENT_ITEMS])
            # The limit doubles, so that the total work stays linear even if nothing can be merged.
            self._merge_at = max(_MIN_MERGED_ITEMS, 2 * len(self.items))


def stream_chunks(stream: object) -> MergedItems:
    """The chunks of a chat stream that LiteLLM keeps for its log, 3 kB each for a few letters that it joins later."""
    chunks = getattr(stream, "chunks", None)
    return MergedItems(chunks if isinstance(chunks, list) else [])


class ServedItems(MergedItems):
    """The delivered items of a stream for LiteLLM's log; older text chunks of a long stream are merged."""

    def __init__(self) -> None:
        super().__init__([])
        self.has_any = False

    def append(self, item: object) -> None:
        """Add a delivered item and merge older ones if there are too many."""
        self.has_any = True
        self.items.append(item)
        self.merge()


def merge_items(items: Iterable[object]) -> list[object]:
    """The items, with neighbours merged into one item if they carry only text of the same choice, or are all bytes."""
    merged: list[object] = []
    for choice_number, run in groupby(items, key=_text_choice):
        neighbours = list(run)
        if choice_number is None or len(neighbours) == 1:
            merged += neighbours
        elif choice_number == _BYTES:
            merged.append(b"".join(item for item in neighbours if isinstance(item, bytes)))
        else:
            merged.append(_join_chunks(neighbours))
    return merged


_BYTES = -1
"""What `_text_choice` returns for bytes; choices count from 0."""


def _text_choice(item: object) -> int | None:
    """The number of the only choice in a chunk without anything but text; `_BYTES` for bytes, None for other items."""
    if isinstance(item, bytes):
        return _BYTES
    if not isinstance(item, ModelResponseStream) or len(item.choices) != 1:
        return None
    choice = item.choices[0]
    if not isinstance(choice.index, int) or not isinstance(getattr(choice.delta, "content", None), str):
        return None
    if any(value is not None for name, value in choice.delta if name != "content"):
        return None
    if getattr(choice, "finish_reason", None) or getattr(choice, "logprobs", None) or getattr(item, "usage", None):
        return None
    return choice.index


def _join_chunks(chunks: Sequence[Any]) -> object:
    """One chunk with the text of all these text-only chunks of one choice."""
    first_chunk = chunks[0]
    first_choice = first_chunk.choices[0]
    # All levels are copied, since the first chunk may be in another list, too.
    delta = first_choice.delta.model_copy()
    delta.content = "".join(chunk.choices[0].delta.content for chunk in chunks)
    choice = first_choice.model_copy()
    choice.delta = delta
    joined = first_chunk.model_copy()
    joined.choices = [choice]
    return joined


def is_pass_through(route: str | None) -> bool:
    """Whether a route is a pass-through route of the configuration, whose answers LiteLLM hands over as JSON."""
    from litellm.proxy.pass_through_endpoints.pass_through_endpoints import InitPassThroughEndpointHelpers

    return route is not None and InitPassThroughEndpointHelpers.is_registered_pass_through_route(route)


class WatchedStream:
    """A stream of `items` with LiteLLM's attributes of the stream `source`: headers, and chunks for the log."""

    def __init__(self, items: AsyncGenerator[Any, None], source: AsyncIterable[Any]) -> None:
        self._items = items
        self._hidden_params = getattr(source, "_hidden_params", None)
        # the same list, so that `stream_chunks` can keep it short
        self.chunks = getattr(source, "chunks", None)

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._items
