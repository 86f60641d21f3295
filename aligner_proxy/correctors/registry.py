"""Which corrector does a policy get? Each stands where the pipeline expects an engine, behind an admission of its own.

So deadline, failure policy, shares among tenants, quota, cache and gate hold for it as they do for the aligner on the
engine. Places and quota are counted by each worker and each corrector for itself. Nothing about a request is kept here.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import replace

from aligner_proxy.correctors.incremental import Along
from aligner_proxy.engine.admission import Admission
from aligner_proxy.engine.api import AlignerInfo, AlignRequest, DeferredSession, Engine, Session
from aligner_proxy.errors import DeadlineExceeded, EngineUnavailable, InvalidOutput
from aligner_proxy.plugins import registry
from aligner_proxy.plugins.api import Corrector, SentenceCorrector
from aligner_proxy.plugins.isolation import InlineRunner, Runner, ThreadRunner
from aligner_proxy.plugins.registry import ConfiguredPlugin
from aligner_proxy.policy.schema import PolicyFile
from aligner_proxy.types import Correction

SEATS = 32
"""Answers at a time in each corrector of each worker; beyond them tenants share as they do at a full engine."""


def correctors(file: PolicyFile) -> dict[str, Engine]:
    """What the policies of this file may name besides the aligner on the engine; raises `ConfigError`."""
    return {one.name: admitted(_plugged(one)) for one in registry.configured(file)["correctors"]}


class Revising(Admission):
    """Before a corrector that can read along, sentence by sentence."""


def admitted(corrector: PluginCorrector) -> Admission:
    """The admission before a corrector."""
    return (Revising if corrector.revises else Admission)(corrector, seats=SEATS)


def _plugged(wanted: ConfiguredPlugin) -> PluginCorrector:
    caller = ThreadRunner(wanted.name) if wanted.offer.plugin.third_party else InlineRunner()
    return PluginCorrector(wanted.name, wanted.label, wanted.make(), caller)


class PluginCorrector:
    """Satisfies `Startable`: a plugin's corrector as an engine. What it says is checked before anybody believes it."""

    def __init__(self, name: str, label: str, corrector: Corrector, caller: Runner) -> None:
        self._name = name
        self._label = label
        self._corrector = corrector
        self._caller = caller

    async def start(self) -> AlignerInfo:
        """There is nothing to load."""
        return await self.info()

    async def info(self) -> AlignerInfo:
        """What it is: its hash covers name, plugin, version, settings, and what it says of itself."""
        identity = await self._caller.call(lambda: self._corrector.identity())
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
        """Its correction, within the request's deadline."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(request.deadline_s):
                said = await self._caller.call(lambda: self._corrector.correct(request))
                made_by = said.aligner if isinstance(said, Correction) else ""
                identity = made_by or await self._caller.call(lambda: self._corrector.identity())
        except TimeoutError:
            raise DeadlineExceeded(f"{self._name} did not answer in time") from None
        text = _text(said)
        return replace(said, text=text, ms=(time.monotonic() - began) * 1000, aligner=self._hash(identity))

    @property
    def revises(self) -> bool:
        """Whether it edits sentence by sentence."""
        return isinstance(self._corrector, SentenceCorrector)

    async def read(self, request: AlignRequest) -> Session:
        """Read along where it edits sentence by sentence; otherwise nothing is read ahead."""
        return Along(self._revise, self, request) if self.revises else DeferredSession(self)

    async def _revise(self, request: AlignRequest, before: str, sentence: str) -> Correction:
        corrector = self._corrector
        assert isinstance(corrector, SentenceCorrector)
        return await self._caller.call(lambda: corrector.revise(request, before, sentence))

    async def aclose(self) -> None:
        """Its thread is a daemon."""

    def _hash(self, identity: object) -> str:
        return hashlib.sha256(json.dumps([self._label, str(identity)]).encode()).hexdigest()


def _text(said: object) -> str:
    """The text of a correction that is one."""
    text = said.text if isinstance(said, Correction) else None
    try:
        if isinstance(text, str) and text.encode():
            return text
    except UnicodeEncodeError:
        pass
    raise InvalidOutput("a corrector returned something that is no correction")


class Missing:
    """Satisfies `Engine` in place of a corrector that a changed policies file names but nobody has made yet."""

    async def info(self) -> AlignerInfo:
        """Nobody is there."""
        raise EngineUnavailable("this corrector counts after a restart")

    async def align(self, request: AlignRequest) -> Correction:
        """Nobody is there."""
        raise EngineUnavailable("this corrector counts after a restart")

    async def read(self, request: AlignRequest) -> Session:
        """What is asked at the end fails then."""
        return DeferredSession(self)

    async def aclose(self) -> None:
        """There is nothing to close."""


MISSING = Missing()
Correctors = Mapping[str, Engine]
