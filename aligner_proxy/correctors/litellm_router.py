"""Completions and chats through a model group of LiteLLM's own router, inside the proxy.

LiteLLM does balancing, retries, cooldowns and fallbacks. The router calls the model directly, not through the proxy, so
the guardrail does not see this call. Its answer is neither corrected again nor taken from LiteLLM's cache.
"""

from __future__ import annotations

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
"""Returns the current router; called for every request, because LiteLLM replaces it when its models change."""
ERRORS = (openai.OpenAIError, exceptions.BudgetExceededError, RouterRateLimitError)
"""Exceptions that a call of the router may raise."""
UNTOUCHED: dict[str, Any] = {
    # A prompt quotes a tenant's conversation, which perhaps must not be logged or stored.
    "no-log": True,
    "caching": False,
    "cache": {"no-cache": True, "no-store": True},
}
CHARGED: dict[str, Any] = {
    # With "no-log", LiteLLM's spend logger skips the call. So loggers are told of the call, but without its texts.
    **{name: value for name, value in UNTOUCHED.items() if name != "no-log"},
    "turn_off_message_logging": True,
}
_CHARS_PER_TOKEN = 3
"""Estimated characters per token, for servers that count no tokens."""
_COMPLETE = {"text-completion-openai", "azure_text", *openai_text_completion_compatible_providers}
"""Providers whose models LiteLLM calls at /v1/completions."""


def proxy_router() -> Router | None:
    """The router of the LiteLLM proxy in this process; None before it has models."""
    from litellm.proxy import proxy_server  # a slow import, but the proxy has already done it

    router: Router | None = proxy_server.llm_router
    return router


def translate_error(error: Exception) -> CorrectionError:
    """The `CorrectionError` for an exception of LiteLLM; its message is dropped because it may quote the prompt."""
    kinds: tuple[tuple[type[Exception], Callable[[], CorrectionError]], ...] = (
        (
            exceptions.ContextWindowExceededError,
            lambda: AnswerTooLong("prompt and answer do not fit the model's window"),
        ),
        (openai.BadRequestError, lambda: QuestionRefused("the model group's server refused the prompt")),
        (openai.UnprocessableEntityError, lambda: QuestionRefused("the model group's server refused the prompt")),
        (exceptions.RateLimitError, lambda: EngineOverloaded("the model group is full")),
        (exceptions.Timeout, lambda: DeadlineExceeded("the model group did not answer in time")),
        (exceptions.APIConnectionError, lambda: EngineUnavailable("no deployment of the model group can be reached")),
        (RouterRateLimitError, lambda: EngineUnavailable("every deployment of the model group is cooling down")),
        (exceptions.ServiceUnavailableError, lambda: EngineUnavailable("no deployment of the model group is ready")),
    )
    translated = next((make() for kind, make in kinds if isinstance(error, kind)), None)
    if translated is None and _is_unreachable(error):
        translated = EngineUnavailable("no deployment of the model group can be reached")
    return translated or EngineFault(f"LiteLLM raised {type(error).__name__}")


def _is_unreachable(error: BaseException | None) -> bool:
    """Whether a connection failed or was lost, which LiteLLM reports as an internal server error."""
    while error is not None:
        if isinstance(error, openai.APIConnectionError):
            return True
        # LiteLLM wraps the original error, sometimes several times
        error = error.__cause__ or error.__context__
    return False


class GroupCompleter:
    """Completer of a LiteLLM model group, by default one of the proxy in this process. Satisfies `Completer`."""

    def __init__(self, group: str, router: Routers = proxy_router, *, predicts: bool = False) -> None:
        self._group = group
        self._router = router
        self._predicts = predicts
        """Whether the server takes the original answer as a prediction of its output."""

    async def describe_model(self) -> ServedModel:
        """The group and its models; raises `EngineFault` when the LiteLLM file has no such group."""
        models = sorted({entry["litellm_params"]["model"] for entry in self._deployments()})
        return ServedModel(self._group, {"models": models}, None, f"litellm:{self._group}")

    async def complete(self, request: CompletionRequest, deadline_s: float) -> Completion:
        """The group's completion of a prompt; raises `CorrectionError` subclasses only."""
        self._deployments()
        body = request_body(request, self._group, predicts=self._predicts)
        try:
            async with enforce_deadline(deadline_s):
                response = await self._current_router().atext_completion(**body, timeout=deadline_s, **UNTOUCHED)
        except ERRORS as error:
            raise translate_error(error) from None
        return parse_completion(response.model_dump())

    async def aclose(self) -> None:
        """Nothing to close: the router belongs to LiteLLM."""

    def _current_router(self) -> Router:
        """LiteLLM's router; raises `NotReady` while LiteLLM has no models."""
        router = self._router()
        if router is None:
            raise NotReady("LiteLLM has no models yet")
        return router

    def _deployments(self) -> list[dict[str, Any]]:
        """The group's deployments; raises `EngineFault` if there are none, or if one is called as a chat."""
        entries: Any = self._current_router().get_model_list(model_name=self._group)
        deployments: list[dict[str, Any]] = list(entries or ())
        if not deployments:
            raise EngineFault("LiteLLM has no such model group; check aligner.engine against the model_list")
        chats = sorted({name for entry in deployments if not _completes(name := entry["litellm_params"]["model"])})
        if chats:
            raise EngineFault(
                f"the model group holds {', '.join(chats)}, which LiteLLM calls as a chat; an aligner continues a "
                "text: use text-completion-openai/NAME or hosted_vllm/NAME"
            )
        return deployments


class GroupChat:
    """A model group of LiteLLM that answers chats, by default one of the proxy in this process. Satisfies `Chat`.

    The router calls the model directly, not through the proxy. No guardrail sees the call, so an editor never edits its
    own output.
    """

    def __init__(self, group: str, router: Routers = proxy_router) -> None:
        self._group = group
        self._router = router
        self._takes_form = True
        """Whether replies may be asked for in a format; False once a server has rejected a request because of it."""

    def models(self) -> Sequence[str]:
        """The models of its deployments; empty if LiteLLM has no such group."""
        router = self._router()
        entries: Any = router.get_model_list(model_name=self._group) if router else None
        return sorted({str(entry["litellm_params"]["model"]) for entry in entries or ()})

    async def ask(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        tokens: int,
        temperature: float,
        form: Mapping[str, Any] | None,
        payer: Payer,
        deadline_s: float,
    ) -> Reply:
        """One reply; raises `CorrectionError` subclasses only, `NotReady` while LiteLLM has no models.

        If the server rejects `form`, the group is asked without a format from then on.
        """
        router = self._router()
        if router is None:
            raise NotReady("LiteLLM has no models yet")
        call = {
            "model": self._group,
            "messages": [dict(message) for message in messages],
            "max_tokens": tokens,
            "temperature": temperature,
            "timeout": deadline_s,
            "num_retries": 0,
            "drop_params": True,
            "metadata": dict(payer),
            **CHARGED,
        }
        try:
            async with enforce_deadline(deadline_s):
                return reply_of(await self._call_router(router, call, form))
        except ERRORS as error:
            raise translate_error(error) from None

    async def _call_router(self, router: Router, call: Mapping[str, Any], form: Mapping[str, Any] | None) -> Any:
        """The router's response, in `form` if the server takes it, otherwise without."""
        if form is None or not self._takes_form:
            return await router.acompletion(**call)
        try:
            return await router.acompletion(**call, response_format=dict(form))
        except exceptions.BadRequestError as error:
            if type(error) is not exceptions.BadRequestError:  # too long, against the provider's policy, ...
                raise
        response = await router.acompletion(**call)
        # only now, because a call that fails without the form, too, was not rejected because of it
        self._takes_form = False
        return response


class GroupDecisions(GroupChat):
    """A model group of LiteLLM with a decision model, asked by `form["questions"]` about the last message.

    Its probabilities are returned as the reply of a judge that chats.
    """

    async def _call_router(self, router: Router, call: Mapping[str, Any], form: Mapping[str, Any] | None) -> Any:
        """The decision model's answers to `form["questions"]`, as the response of a chat."""
        names = ("model", "timeout", "num_retries", "metadata", *CHARGED)
        body = {name: value for name, value in call.items() if name in names}
        response = await router.adecisions(
            **body, input=call["messages"][-1]["content"], questions=list((form or {})["questions"])
        )
        usage = litellm.Usage(prompt_tokens=response.usage.input_tokens, completion_tokens=response.usage.output_tokens)
        message = litellm.Message(content=_read_decisions(response.answers))
        return litellm.ModelResponse(choices=[litellm.Choices(message=message)], usage=usage)


def _read_decisions(answers: Sequence[Any]) -> str:
    """The probabilities of predicates as verdicts by number; raises `InvalidOutput` for other answers."""
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
    """The number that a question had as its name; raises `ValueError` for another spelling of it."""
    number = int(name)
    if str(number) != name:
        raise ValueError("no name of a question")
    return number


def reply_of(response: Any) -> Reply:
    """The first choice of a chat response; raises `InvalidOutput` if it has no text."""
    try:
        choice = response.choices[0]
        text = choice.message.content
        reason = choice.finish_reason
    except (AttributeError, IndexError):
        text = reason = None
    if not isinstance(text, str):
        raise InvalidOutput("the model group answered without a text")
    usage = getattr(response, "usage", None)
    read = getattr(usage, "prompt_tokens", None) or 0
    # If the server counts no tokens, estimate them from the length.
    written_tokens = getattr(usage, "completion_tokens", None) or math.ceil(len(text) / _CHARS_PER_TOKEN)
    # a server that gives no reason is trusted to have finished
    return Reply(text, read, written_tokens, finished=reason in ("stop", "eos", None))


def _completes(model: str) -> bool:
    """Whether LiteLLM calls such a deployment at /v1/completions, with the prompt unchanged."""
    name, provider, *_ = litellm.get_llm_provider(model)
    return provider in _COMPLETE or (provider == "openai" and name not in litellm.open_ai_chat_completion_models)
