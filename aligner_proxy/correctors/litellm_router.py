"""Completions and chats through a model group of LiteLLM's own router, inside the proxy.

LiteLLM does balancing, retries, cooldowns and fallbacks. The router calls the model directly, not through the proxy, so
no guardrail sees the call. The model's answer is neither corrected again nor taken from LiteLLM's cache, and an editor
never edits its own output.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import litellm
import openai
from litellm import exceptions
from litellm.constants import openai_text_completion_compatible_providers
from litellm.router import Router
from litellm.types.router import RouterRateLimitError

from aligner_proxy.concurrency import enforce_deadline
from aligner_proxy.correctors.judge_prompt import LIKELY
from aligner_proxy.correctors.model_group import Payer, QuestionRefused, Reply
from aligner_proxy.engine.api import Completion, CompletionRequest
from aligner_proxy.engine.client.completions import ServedModel, parse_completion, request_body
from aligner_proxy.engine.client.retry import NotReady
from aligner_proxy.errors import (
    AnswerTooLong,
    CorrectionError,
    DeadlineExceeded,
    EngineFault,
    EngineOverloaded,
    EngineUnavailable,
    InvalidOutput,
)

Routers = Callable[[], Router | None]
"""Returns the current router, None before LiteLLM has models. Called for every request, because LiteLLM replaces the
router when its models change."""
ERRORS = (openai.OpenAIError, exceptions.BudgetExceededError, RouterRateLimitError)
"""Exceptions that a call of the router may raise."""
UNTOUCHED: dict[str, Any] = {
    # A prompt quotes a tenant's conversation, which perhaps must not be logged or stored.
    "no-log": True,
    "caching": False,
    "cache": {"no-cache": True, "no-store": True},
}
"""Parameters with which LiteLLM neither logs nor caches a call."""
CHARGED: dict[str, Any] = {
    # With "no-log", LiteLLM's spend logger would skip the call. So loggers get the call, but without its texts.
    **{name: value for name, value in UNTOUCHED.items() if name != "no-log"},
    "turn_off_message_logging": True,
}
"""Parameters with which LiteLLM charges a call, but neither caches it nor logs its texts."""
_CHARS_PER_TOKEN = 3
"""Estimated characters per token, for servers that count no tokens."""
_COMPLETION_PROVIDERS = {"text-completion-openai", "azure_text", *openai_text_completion_compatible_providers}
"""Providers whose models LiteLLM calls at /v1/completions."""


def proxy_router() -> Router | None:
    """The router of the LiteLLM proxy in this process; None before it has models."""
    from litellm.proxy import proxy_server  # a slow import, but the proxy has already done it

    router: Router | None = proxy_server.llm_router
    return router


def translate_error(error: Exception) -> CorrectionError:
    """Return the `CorrectionError` for an exception of LiteLLM; drops its message, which may quote the prompt."""
    # the first class that fits counts, so subclasses come before their base classes
    translations: tuple[tuple[type[Exception], CorrectionError], ...] = (
        (exceptions.ContextWindowExceededError, AnswerTooLong("prompt and answer do not fit the model's window")),
        (openai.BadRequestError, QuestionRefused("the model group's server refused the prompt")),
        (openai.UnprocessableEntityError, QuestionRefused("the model group's server refused the prompt")),
        (exceptions.RateLimitError, EngineOverloaded("the model group is full")),
        (exceptions.Timeout, DeadlineExceeded("the model group did not answer in time")),
        (exceptions.APIConnectionError, EngineUnavailable("no deployment of the model group can be reached")),
        (RouterRateLimitError, EngineUnavailable("every deployment of the model group is cooling down")),
        (exceptions.ServiceUnavailableError, EngineUnavailable("no deployment of the model group is ready")),
    )
    for error_class, translation in translations:
        if isinstance(error, error_class):
            return translation
    if _is_unreachable(error):
        return EngineUnavailable("no deployment of the model group can be reached")
    return EngineFault(f"LiteLLM raised {type(error).__name__}")


def _is_unreachable(error: BaseException | None) -> bool:
    """Whether a failed connection caused this error, which LiteLLM then reports as an internal server error."""
    while error is not None:
        if isinstance(error, openai.APIConnectionError):
            return True
        # LiteLLM wraps the original error, sometimes several times
        error = error.__cause__ or error.__context__
    return False


class GroupCompleter:
    """Completer of a LiteLLM model group, by default one of the proxy in this process. Satisfies `Completer`."""

    def __init__(self, group: str, get_router: Routers = proxy_router, *, predicts: bool = False) -> None:
        self._group = group
        self._get_router = get_router
        self._predicts = predicts
        """Whether the server takes the original answer as a prediction of its output."""

    async def describe_model(self) -> ServedModel:
        """The group and its models; raises `EngineFault` as `_list_deployments` does."""
        models = sorted({entry["litellm_params"]["model"] for entry in self._list_deployments()})
        return ServedModel(self._group, {"models": models}, None, f"litellm:{self._group}")

    async def complete(self, request: CompletionRequest, deadline_s: float) -> Completion:
        """The group's completion of a prompt; raises `CorrectionError` subclasses only."""
        self._list_deployments()  # raises if the group cannot complete prompts
        body = request_body(request, self._group, predicts=self._predicts)
        try:
            async with enforce_deadline(deadline_s):
                response = await self._require_router().atext_completion(**body, timeout=deadline_s, **UNTOUCHED)
        except ERRORS as error:
            raise translate_error(error) from None
        return parse_completion(response.model_dump())

    async def aclose(self) -> None:
        """Nothing to close: the router belongs to LiteLLM."""

    def _require_router(self) -> Router:
        """LiteLLM's router; raises `NotReady` while LiteLLM has no models."""
        router = self._get_router()
        if router is None:
            raise NotReady("LiteLLM has no models yet")
        return router

    def _list_deployments(self) -> list[dict[str, Any]]:
        """The group's entries in LiteLLM's models; raises `EngineFault` if there are none, or one is for chats."""
        entries: Any = self._require_router().get_model_list(model_name=self._group)
        deployments: list[dict[str, Any]] = list(entries or ())
        if not deployments:
            raise EngineFault("LiteLLM has no such model group; check aligner.engine against the model_list")
        models = {entry["litellm_params"]["model"] for entry in deployments}
        chat_models = sorted(model for model in models if not _completes_text(model))
        if chat_models:
            raise EngineFault(
                f"the model group holds {', '.join(chat_models)}, which LiteLLM calls as a chat; an aligner continues "
                "a text: use text-completion-openai/NAME or hosted_vllm/NAME"
            )
        return deployments


class GroupChat:
    """A model group of LiteLLM that answers chats, by default one of the proxy in this process. Satisfies `Chat`."""

    def __init__(self, group: str, get_router: Routers = proxy_router) -> None:
        self._group = group
        self._get_router = get_router
        self._supports_response_format = True
        """Whether replies are asked for in a format; False once a server has rejected a request for its format."""

    def models(self) -> Sequence[str]:
        """The models of the group's deployments; empty if LiteLLM has no such group."""
        router = self._get_router()
        entries: Any = router.get_model_list(model_name=self._group) if router else None
        return sorted({str(entry["litellm_params"]["model"]) for entry in entries or ()})

    async def ask(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        max_tokens: int,
        temperature: float,
        response_format: Mapping[str, Any] | None,
        payer: Payer,
        deadline_s: float,
    ) -> Reply:
        """One reply; raises `CorrectionError` subclasses only, `NotReady` while LiteLLM has no models.

        If the server rejects `response_format`, the group is asked without a format from then on.
        """
        router = self._get_router()
        if router is None:
            raise NotReady("LiteLLM has no models yet")
        call = {
            "model": self._group,
            "messages": [dict(message) for message in messages],
            "max_tokens": max_tokens,
            "temperature": temperature,
            "timeout": deadline_s,
            "num_retries": 0,
            "drop_params": True,
            "metadata": dict(payer),
            **CHARGED,
        }
        try:
            async with enforce_deadline(deadline_s):
                return reply_of(await self._call_router(router, call, response_format))
        except ERRORS as error:
            raise translate_error(error) from None

    async def _call_router(
        self, router: Router, call: Mapping[str, Any], response_format: Mapping[str, Any] | None
    ) -> Any:
        """The router's response to a call with these parameters; in the format, if the server supports formats."""
        if response_format is None or not self._supports_response_format:
            return await router.acompletion(**call)
        try:
            return await router.acompletion(**call, response_format=dict(response_format))
        except exceptions.BadRequestError as error:
            # its subclasses have other causes: the prompt is too long, against the provider's policy, ...
            if type(error) is not exceptions.BadRequestError:
                raise
        response = await router.acompletion(**call)
        # only a success without the format shows that the format was the cause
        self._supports_response_format = False
        return response


class GroupDecisions(GroupChat):
    """A model group of LiteLLM with a decision model, which is asked questions about the last message.

    The questions are `response_format["questions"]`. The model's probabilities become the reply of a judge that chats.
    """

    async def _call_router(
        self, router: Router, call: Mapping[str, Any], response_format: Mapping[str, Any] | None
    ) -> Any:
        """The decision model's answers to `response_format["questions"]`, as the response of a chat."""
        names = ("model", "timeout", "num_retries", "metadata", *CHARGED)
        parameters = {name: value for name, value in call.items() if name in names}
        questions = list((response_format or {})["questions"])
        response = await router.adecisions(**parameters, input=call["messages"][-1]["content"], questions=questions)
        usage = litellm.Usage(prompt_tokens=response.usage.input_tokens, completion_tokens=response.usage.output_tokens)
        message = litellm.Message(content=_read_decisions(response.answers))
        return litellm.ModelResponse(choices=[litellm.Choices(message=message)], usage=usage)


def _read_decisions(answers: Sequence[Any]) -> str:
    """The answers of a decision model as a judge's reply in JSON; raises `InvalidOutput` if one is no probability."""
    try:
        entries = [
            {
                "number": _read_number(answer.name),
                "violates": answer.probability >= LIKELY,
                "probability": answer.probability,
            }
            for answer in answers
        ]
    except (AttributeError, TypeError, ValueError):
        raise InvalidOutput("the decision model answered with something other than probabilities") from None
    return json.dumps({"verdicts": entries})


def _read_number(name: str) -> int:
    """The number that is the name of a question; raises `ValueError` for another spelling, such as "01"."""
    number = int(name)
    if str(number) != name:
        raise ValueError("no name of a question")
    return number


def reply_of(response: Any) -> Reply:
    """The first choice of a chat response, with its cost; raises `InvalidOutput` if it has no text."""
    text = None
    finish_reason = None
    with contextlib.suppress(AttributeError, IndexError):
        choice = response.choices[0]
        text = choice.message.content
        finish_reason = choice.finish_reason
    if not isinstance(text, str):
        raise InvalidOutput("the model group answered without a text")
    usage = getattr(response, "usage", None)
    read_tokens = getattr(usage, "prompt_tokens", None) or 0
    # If the server counts no tokens, estimate them from the length.
    written_tokens = getattr(usage, "completion_tokens", None) or math.ceil(len(text) / _CHARS_PER_TOKEN)
    # a server that gives no finish reason is trusted to have finished
    return Reply(text, read_tokens, written_tokens, finished=finish_reason in ("stop", "eos", None))


def _completes_text(model: str) -> bool:
    """Whether LiteLLM calls deployments of this model at /v1/completions, with the prompt unchanged."""
    name, provider, *_ = litellm.get_llm_provider(model)
    return provider in _COMPLETION_PROVIDERS or (
        provider == "openai" and name not in litellm.open_ai_chat_completion_models
    )
