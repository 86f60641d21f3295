"""How do rules of plugins hold? As further rules of the gate, all of them in one thread that they may block alone.

A rule that raises or takes too long is a failure of the correction, so what follows is the policy's word: a correction
that could not be judged is never delivered.
"""

from __future__ import annotations

from collections.abc import Mapping

from aligner_proxy import gate, plugged
from aligner_proxy.apart import Apart
from aligner_proxy.errors import PluginFault
from aligner_proxy.gate.candidate import Candidate
from aligner_proxy.hookspecs import GateCheck
from aligner_proxy.policy_file import PolicyFile
from aligner_proxy.types import Correction, Policy


class PluggedRules:
    """The rules that a policies file names, made."""

    def __init__(self, rules: Mapping[str, GateCheck]) -> None:
        self._rules, self._apart = rules, Apart("gate rules")

    @classmethod
    def of(cls, file: PolicyFile) -> PluggedRules:
        """Those of a policies file; raises `ConfigError`."""
        return cls({one.name: one.make() for one in plugged.wanted(file)["gate_rules"]})

    async def judge(self, original: str, correction: Correction, policy: Policy) -> gate.Verdict:
        """The gate's verdict with the policy's further rules."""
        if correction.text == original:
            return gate.judge(original, correction, policy)
        missing = set(policy.plugin_rules) - set(self._rules)
        if missing:
            raise PluginFault("a rule of a plugin counts after a restart")
        further = {name: _rule(self._rules[name]) for name in policy.plugin_rules}

        async def work() -> gate.Verdict:
            return gate.judge(original, correction, policy, further)

        return await self._apart.call(work)


def _rule(check: GateCheck) -> gate.Rule:
    def rule(candidate: Candidate) -> bool:
        objectives = [objective.text for objective in candidate.objectives]
        return bool(check.breaks(candidate.before.text, candidate.after.text, objectives))

    return rule
