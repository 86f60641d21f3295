"""Correctors of plugins as engines, each behind its own admission control.

Deadline, failure policy, tenant shares, quota, cache and gate apply to them as to the aligner on the engine. Slots and
quota are counted per worker and corrector; with a shared Redis, use in other workers counts, too. Nothing about a
request is kept here.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import replace

from aligner_proxy.correctors.incremental import IncrementalSession
from aligner_proxy.engine.admission import Accounts, Admission, OpenAccounts
from aligner_proxy.engine.api import AlignerInfo, AlignRequest, DeferredSession, Engine, Session, Startable
from aligner_proxy.errors import DeadlineExceeded, EngineUnavailable, InvalidOutput
from aligner_proxy.plugins import registry
from aligner_proxy.plugins.api import Corrector, SentenceCorrector
from aligner_proxy.plugins.extensions import Runner
from aligner_proxy.policy.schema import PolicyFile
from aligner_proxy.types import Correction

SLOTS = 32
"""Maximum concurrent answers per corrector and worker; if more are wanted, tenants share as with a full engine."""


def open_correctors(file: PolicyFile, open_accounts: OpenAccounts | None = None) -> dict[str, Engine]:
    """Make the correctors that a policies file configures, by name; raises `ConfigError`.

    The aligner on the engine is not among them. `open_accounts` opens the accounts that workers and gateways share, by
    name; None if each worker counts alone.
    """
    correctors: dict[str, Engine] = {}
    for plugin in registry.configure_plugins(file)["correctors"]:
        accounts = open_accounts(f"corrector {plugin.name}") if open_accounts else None
        corrector = PluginCorrector(plugin.name, plugin.label, plugin.make(), plugin.make_runner())
        correctors[plugin.name] = admit_corrector(corrector, accounts)
    return correctors


class SentenceAdmission(Admission[Startable]):
    """Admission control of a corrector that edits sentence by sentence.

    The pipeline recognises such correctors by this type, and lets them edit answers that are still being written.
    """


def admit_corrector(corrector: PluginCorrector, accounts: Accounts | None = None) -> Admission[Startable]:
    """Put a corrector behind admission control: `SLOTS` slots, shared fairly among tenants."""
    admission_class = SentenceAdmission if corrector.revises else Admission
    return admission_class(corrector, slots=SLOTS, accounts=accounts)


class PluginCorrector:
    """A plugin's corrector as an engine; its results are validated. Satisfies `Startable`."""

    def __init__(self, name: str, label: str, corrector: Corrector, runner: Runner) -> None:
        self._name = name
        self._label = label
        """Name, kind, plugin, version and settings, for cache keys."""
        self._corrector = corrector
        self._runner = runner
        """Runs the plugin's code, in the plugin's thread or in the gateway's loop."""

    async def start(self) -> AlignerInfo:
        # there is nothing to load
        return await self.info()

    async def info(self) -> AlignerInfo:
        """The corrector's description as that of an aligner, with a hash of its label and its own identity."""
        identity = await self._runner.call(lambda: self._corrector.identity())
        # a corrector describes no model, so there is no window, no detector head and no device
        return AlignerInfo(
            model=self._name,
            content_hash=self._hash(identity),
            template=self._name,
            template_hash="",
            window=0,
            has_head=False,
            quantization="none",
            device="-",
        )

    async def align(self, request: AlignRequest) -> Correction:
        """Correct an answer within the request's deadline; raises `DeadlineExceeded` or `InvalidOutput`."""
        began_at = time.monotonic()
        try:
            async with asyncio.timeout(request.deadline_s):
                correction = await self._runner.call(lambda: self._corrector.correct(request))
                # a corrector may name the aligner that made this correction; otherwise its own identity counts
                aligner = correction.aligner if isinstance(correction, Correction) else ""
                identity = aligner or await self._runner.call(lambda: self._corrector.identity())
        except TimeoutError:
            raise DeadlineExceeded(f"{self._name} did not answer in time") from None
        text = _check_text(correction)
        return replace(correction, text=text, ms=(time.monotonic() - began_at) * 1000, aligner=self._hash(identity))

    @property
    def revises(self) -> bool:
        """Whether the corrector edits sentence by sentence."""
        return isinstance(self._corrector, SentenceCorrector)

    async def read(self, request: AlignRequest) -> Session:
        """Open a session. The answer is read while it streams only if the corrector edits sentence by sentence."""
        return IncrementalSession(self._revise, self, request) if self.revises else DeferredSession(self)

    async def _revise(self, request: AlignRequest, text_before: str, sentence: str) -> Correction:
        """The corrector's revision of one sentence; `text_before` is the delivered text before it."""
        corrector = self._corrector
        assert isinstance(corrector, SentenceCorrector)
        return await self._runner.call(lambda: corrector.revise(request, text_before, sentence))

    async def aclose(self) -> None:
        """Nothing to close: its thread is a daemon."""

    def _hash(self, identity: object) -> str:
        """The content hash, for cache keys, of the corrector with this identity."""
        return hashlib.sha256(json.dumps([self._label, str(identity)]).encode()).hexdigest()


def _check_text(correction: object) -> str:
    """The text of a plugin's correction; raises `InvalidOutput` if it is missing, empty or cannot be encoded."""
    text = correction.text if isinstance(correction, Correction) else None
    # `encode` raises an error for text that cannot be sent
    with contextlib.suppress(UnicodeEncodeError):
        if isinstance(text, str) and text.encode():
            return text
    raise InvalidOutput("a corrector returned something that is no correction")


_ADDED_LATER = "this corrector was added to the policies file; restart the gateway to load it"


class MissingCorrector:
    """The engine of a corrector that was added to the policies file after the start; it always fails.

    Each method raises `EngineUnavailable`. Satisfies `Engine`.
    """

    async def info(self) -> AlignerInfo:
        raise EngineUnavailable(_ADDED_LATER)

    async def align(self, request: AlignRequest) -> Correction:
        raise EngineUnavailable(_ADDED_LATER)

    async def read(self, request: AlignRequest) -> Session:
        """A session that fails at the end of the answer."""
        return DeferredSession(self)

    async def aclose(self) -> None:
        """Nothing to close."""


MISSING = MissingCorrector()
Correctors = Mapping[str, Engine]
"""The engine of each corrector, by the name that policies give in `corrector`."""
