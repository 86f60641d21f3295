"""Model groups of LiteLLM that answer questions: the code that editors and judges have in common.

Each group has its own slots (for concurrent calls) and quota, and a circuit breaker for each tenant.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from cachetools import LRUCache

from aligner_proxy.concurrency import enforce_deadline
from aligner_proxy.engine.admission import Accounts, FairAdmission, OpenAccounts
from aligner_proxy.engine.api import AlignRequest
from aligner_proxy.engine.client.circuit_breaker import Circuit, State
from aligner_proxy.errors import (
    BreakerOpen,
    CorrectionError,
    DeadlineExceeded,
    EngineFault,
    EngineUnavailable,
    InvalidOutput,
)
from aligner_proxy.types import EditorUse

SLOTS = 32
"""Maximum concurrent calls to one model group per worker; if more are wanted, tenants share as with a full engine."""
DRAFT_TEMPERATURE = 0.7
"""Temperature for the second and later drafts; at 0 all drafts would be the same."""
MAX_GROUPS = 256
"""Maximum number of model groups whose state is stored; limited because clients may name models behind a wildcard."""
MAX_CIRCUITS = 256
"""Maximum number of tenants whose circuit breaker of a group is stored."""
_Result = TypeVar("_Result")
Payer = Mapping[str, Any]
"""LiteLLM metadata that charges a call to the key of the request."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A chat model's reply, and what it cost."""

    text: str
    read_tokens: int = 0
    written_tokens: int = 0
    finished: bool = True
    """Whether the model ended the reply; False if it was cut off at the token limit."""
    ms: float = 0.0
    """Milliseconds from the question to the reply."""


class UnusableReply(InvalidOutput):
    """A reply that does not have the requested format; its cost is charged anyway."""

    def __init__(self, message: str, reply: Reply) -> None:
        super().__init__(message)
        self.use = EditorUse(read=reply.read_tokens, written=reply.written_tokens, ms=reply.ms)
        """What the reply cost."""


class QuestionRefused(EngineFault):
    """The server refuses this question, for example because of the text in it; other questions may be answered."""


class Chat(Protocol):
    """A model group that answers chats. Raises `CorrectionError` subclasses only; `CancelledError` passes."""

    def models(self) -> Sequence[str]:
        """Names of the models behind the group, as far as they are known; never raises."""
        ...

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
        """One reply within the deadline, in the `response_format` (as in the OpenAI API) if the group supports it."""
        ...


@dataclass(frozen=True, slots=True)
class Question:
    """A question to a model group."""

    messages: Sequence[Mapping[str, str]]
    max_tokens: int
    """Token limit of the reply."""
    response_format: Mapping[str, Any] | None = None
    """Format of the reply as in the OpenAI API, or what another kind of model is asked; None for free text."""
    varies: bool = True
    """Whether the second and later drafts may get other replies than the first."""


OpenChat = Callable[[str], Chat]
"""Opens a model group by its name."""


class ModelGroup:
    """One model group with slots, quota and circuit breakers; keeps no request data."""

    def __init__(
        self,
        group: str,
        chat: Chat,
        *,
        clock: Callable[[], float] = time.monotonic,
        accounts: Accounts | None = None,
    ) -> None:
        self.group = group
        """Its name in LiteLLM's file."""
        self._chat = chat
        self._clock = clock
        """Returns seconds that only grow."""
        self._slots = FairAdmission(SLOTS, clock, accounts)
        """Limits concurrent calls, shared fairly among tenants, and charges them to quotas."""
        self._circuits: LRUCache[str, Circuit] = LRUCache(MAX_CIRCUITS)
        """The circuit breakers, by tenant."""

    def identity(self) -> dict[str, Any]:
        """The group's name and its models, for cache keys."""
        return {"group": self.group, "models": list(self._chat.models())}

    def circuit(self, tenant: str) -> Circuit:
        """The circuit breaker of a tenant, which refuses the tenant's calls for a while after some have failed.

        Whether a call fails may depend on its text or its deadline, so failures of one tenant do not count for others.
        """
        return self._circuits.setdefault(tenant, Circuit())

    async def ask(
        self,
        request: AlignRequest,
        question: Question,
        read_reply: Callable[[Reply], _Result],
        payer: Payer,
        deadline_s: float,
    ) -> tuple[_Result, EditorUse]:
        """Ask the group on behalf of the tenant of `request`; return (the result of `read_reply`, cost of the call).

        `read_reply` is called with the reply, and raises `InvalidOutput` for an unusable one. Raises `CorrectionError`
        subclasses only. Failures, unusable replies included, count in the tenant's circuit breaker.
        """

        async def call_group() -> Reply:
            """The reply with its duration; called once there is a slot for the call."""
            began_at = self._clock()
            # `draft` counts from 0; the first draft is the most likely reply
            temperature = DRAFT_TEMPERATURE if request.draft and question.varies else 0.0
            async with enforce_deadline(deadline_s):
                reply = await self._chat.ask(
                    question.messages,
                    max_tokens=question.max_tokens,
                    temperature=temperature,
                    response_format=question.response_format,
                    payer=payer,
                    deadline_s=deadline_s,
                )
            return replace(reply, ms=(self._clock() - began_at) * 1000)

        circuit = self.circuit(request.tenant)
        is_probe = self._check_circuit(circuit)
        # None if the call does not tell whether the group works, for example because it was cancelled
        has_answered: bool | None = None
        try:
            reply = await self._slots.admit_work(request.tenant, request.quota, call_group)
            try:
                result = read_reply(reply)
            except InvalidOutput as error:
                raise UnusableReply(str(error), reply) from None
            has_answered = True
            return result, EditorUse(calls=1, read=reply.read_tokens, written=reply.written_tokens, ms=reply.ms)
        except CorrectionError as error:
            has_answered = self._note_error(error, circuit)
            raise
        finally:
            if is_probe:
                circuit.end_probe(alive=has_answered, now=self._clock())
            # a failure was already counted by `_note_error`
            elif has_answered:
                circuit.note_answer()

    def _check_circuit(self, circuit: Circuit) -> bool:
        """Begin a probe of a failing group if one is due, and return whether; raises `BreakerOpen` if none may run."""
        now = self._clock()
        if circuit.wants_probe(now):
            circuit.begin_probe()
            return True
        if circuit.state is not State.CLOSED:
            raise BreakerOpen("the model group did not answer lately", max(0.0, circuit.paused_until - now))
        return False

    def _note_error(self, error: CorrectionError, circuit: Circuit) -> bool | None:
        """Return whether the error shows that the group works; record a failure in the circuit breaker if it does not.

        None if the error does not tell, such as a spent quota.
        """
        if isinstance(error, QuestionRefused):
            return True
        is_late = isinstance(error, DeadlineExceeded)
        if not is_late and not isinstance(error, EngineUnavailable | InvalidOutput | EngineFault):
            return None
        circuit.note_failure(self._clock(), late=is_late)
        return False


class ModelGroups:
    """Model groups by name, opened on first use.

    `role` ("editor" or "judge") is part of the accounts' names, so that a group has other accounts in each role.
    """

    def __init__(self, open_chat: OpenChat, accounts: OpenAccounts | None = None, *, role: str) -> None:
        self._open_chat = open_chat
        self._open_accounts = accounts
        """Opens the accounts of slots and quota that workers share, by name; None if each worker counts alone."""
        self._role = role
        self._groups: LRUCache[str, ModelGroup] = LRUCache(MAX_GROUPS)

    def group(self, name: str) -> ModelGroup:
        """The model group of this name, opened if necessary."""
        group = self._groups.get(name)
        if group is None:
            accounts = self._open_accounts(f"{self._role} {name}") if self._open_accounts else None
            group = ModelGroup(name, self._open_chat(name), accounts=accounts)
            self._groups[name] = group
        return group


def cost_of_failure(error: CorrectionError) -> EditorUse:
    """The cost of a call that failed with this error: an unusable reply has to be paid for, too."""
    reply_cost = error.use if isinstance(error, UnusableReply) else EditorUse()
    return reply_cost + EditorUse(failed=1)
