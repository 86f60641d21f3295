"""Model groups of LiteLLM that answer questions: what editors and judges have in common.

Each group has its own seats (slots for concurrent calls) and quota, and a circuit breaker for each tenant.
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

SEATS = 32
"""Maximum concurrent calls to one model group per worker; above it, tenants share as with a full engine."""
DRAFT_TEMPERATURE = 0.7
"""Temperature for the second and later drafts; at 0 all drafts would be the same."""
MAX_GROUPS = 256
"""Maximum number of model groups whose state is stored; limited because clients may name models behind a wildcard."""
MAX_CIRCUITS = 256
"""Maximum number of tenants whose circuit breaker of a group is stored."""
_Read = TypeVar("_Read")
Payer = Mapping[str, Any]
"""LiteLLM metadata that charges a call to the key of the request."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A chat model's reply, the tokens read and written, and the duration; `finished` is False if it was cut off."""

    text: str
    read: int = 0
    written_tokens: int = 0
    finished: bool = True
    ms: float = 0.0


class UnusableReply(InvalidOutput):
    """A reply that does not have the requested format; its cost is charged anyway."""

    def __init__(self, message: str, reply: Reply) -> None:
        super().__init__(message)
        self.use = EditorUse(read=reply.read, written=reply.written_tokens, ms=reply.ms)
        """What the reply cost."""


class QuestionRefused(EngineFault):
    """The server refuses this question, for example because of the text in it; other questions may be answered."""


class Chat(Protocol):
    """A model group that answers chats. Raises `CorrectionError` subclasses only; `CancelledError` passes."""

    def models(self) -> Sequence[str]:
        """The models behind the group, as far as they are known; never raises."""
        ...

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
        """One reply of at most `tokens` tokens within the deadline, in format `form` if the group supports that."""
        ...


@dataclass(frozen=True, slots=True)
class Question:
    """A question to a model group: its messages, the token limit of the reply, and the reply's format, if any."""

    messages: Sequence[Mapping[str, str]]
    tokens: int
    form: Mapping[str, Any] | None = None
    varies: bool = True
    """Whether the second and later drafts may get other replies than the first."""


OpenChat = Callable[[str], Chat]
"""Opens a model group by its name."""


class ModelGroup:
    """One model group with seats, quota and circuit breakers; keeps no request data."""

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
        self._seats = FairAdmission(SEATS, clock, accounts)
        """Limits concurrent calls, shared fairly among tenants, and charges them to quotas."""
        self._circuits: LRUCache[str, Circuit] = LRUCache(MAX_CIRCUITS)
        """The circuit breakers, by tenant."""

    def identity(self) -> dict[str, Any]:
        """The group and its models, for cache keys."""
        return {"group": self.group, "models": list(self._chat.models())}

    def circuit(self, tenant: str) -> Circuit:
        """The circuit breaker of a tenant: after failures of its calls, refuses its calls for a while.

        Whether a call fails may depend on its text or on the time it has, so it says nothing about other tenants.
        """
        circuit = self._circuits.get(tenant)
        if circuit is None:
            circuit = self._circuits[tenant] = Circuit()
        return circuit

    async def ask(
        self, request: AlignRequest, question: Question, read: Callable[[Reply], _Read], payer: Payer, deadline_s: float
    ) -> tuple[_Read, EditorUse]:
        """Ask the group; return (what `read` makes of the reply, cost), charged to the tenant of `request`.

        `read` raises `InvalidOutput` for an unusable reply. Raises `CorrectionError` subclasses only. Failures,
        including replies that `read` rejects, count in the tenant's circuit breaker.
        """

        async def work() -> Reply:
            """The reply with its duration; runs once the call has a seat."""
            began = self._clock()
            # `draft` counts from 0; the first draft is the most likely reply
            temperature = DRAFT_TEMPERATURE if request.draft and question.varies else 0.0
            async with enforce_deadline(deadline_s):
                reply = await self._chat.ask(
                    question.messages,
                    tokens=question.tokens,
                    temperature=temperature,
                    form=question.form,
                    payer=payer,
                    deadline_s=deadline_s,
                )
            return replace(reply, ms=(self._clock() - began) * 1000)

        circuit = self.circuit(request.tenant)
        probes = self._check_circuit(circuit)
        # None: the call says nothing about the group, for example because it was cancelled
        has_answered: bool | None = None
        try:
            reply = await self._seats.admit_work(request.tenant, request.quota, work)
            try:
                result = read(reply)
            except InvalidOutput as error:
                raise UnusableReply(str(error), reply) from None
            has_answered = True
            return result, EditorUse(calls=1, read=reply.read, written=reply.written_tokens, ms=reply.ms)
        except CorrectionError as error:
            has_answered = self._note_error(error, circuit)
            raise
        finally:
            if probes:
                circuit.end_probe(alive=has_answered, now=self._clock())
            # a failure was already counted by `_note_error`
            elif has_answered:
                circuit.note_answer()

    def _check_circuit(self, circuit: Circuit) -> bool:
        """Whether this call probes a failing group; begins the probe. Raises `BreakerOpen` if no call is allowed."""
        now = self._clock()
        if circuit.wants_probe(now):
            circuit.begin_probe()
            return True
        if circuit.state is not State.CLOSED:
            raise BreakerOpen("the model group did not answer lately", max(0.0, circuit.paused_until - now))
        return False

    def _note_error(self, error: CorrectionError, circuit: Circuit) -> bool | None:
        """Record a failure of the group and return False; None for errors unrelated to it, such as a spent quota.

        True for a refusal, which shows as well as an answer that the group works.
        """
        if isinstance(error, QuestionRefused):
            return True
        late = isinstance(error, DeadlineExceeded)
        if not late and not isinstance(error, EngineUnavailable | InvalidOutput | EngineFault):
            return None
        circuit.note_failure(self._clock(), late=late)
        return False


class ModelGroups:
    """Model groups by name, opened on first use. `role` says in accounts what they are asked for."""

    def __init__(self, open_chat: OpenChat, accounts: OpenAccounts | None = None, *, role: str) -> None:
        self._open = open_chat
        self._accounts = accounts
        """Opens the accounts of seats and quota that workers share, by name; None if each worker counts alone."""
        self._role = role
        self._groups: LRUCache[str, ModelGroup] = LRUCache(MAX_GROUPS)

    def group(self, name: str) -> ModelGroup:
        """The model group of this name, opened if necessary."""
        group = self._groups.get(name)
        if group is None:
            accounts = self._accounts(f"{self._role} {name}") if self._accounts else None
            group = self._groups[name] = ModelGroup(name, self._open(name), accounts=accounts)
        return group


def cost_of_failure(error: CorrectionError) -> EditorUse:
    """The cost of a failed call; an unusable reply has to be paid for, too."""
    paid = error.use if isinstance(error, UnusableReply) else EditorUse()
    return paid + EditorUse(failed=1)
