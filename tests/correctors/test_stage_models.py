"""Models that stages ask: what a judge's answer to a stage costs, what of it is kept, and what follows if it fails."""

from __future__ import annotations

import pytest

from aligner_proxy.correctors.model_group import Reply
from aligner_proxy.correctors.stage_models import StageJudge
from aligner_proxy.engine.api import AlignRequest
from aligner_proxy.errors import EngineUnavailable, InvalidOutput, JudgeFailed
from aligner_proxy.types import FailurePolicy, Judge, JudgeKind, OnError, Policy
from tests.support import tiny
from tests.support.editors import Script, ScriptedChat
from tests.support.judges import judges

QUESTION = [{"role": "user", "content": "Is the shop open on Sundays?"}]
CHAT = Judge(JudgeKind.CHAT, "strong")


def yes(reply: str) -> bool:
    if reply != "yes":
        raise InvalidOutput("the judge said something else")
    return True


def stage_judge(chat: ScriptedChat, policy: Policy, tenant: str = "shop") -> StageJudge:
    request: AlignRequest = tiny.request(deadline_s=8.0).model_copy(update={"tenant": tenant})
    groups = judges(chat)
    return StageJudge(groups.open_judge(policy.judge, policy), request, groups.replies)


def policy_with(reaction: OnError) -> Policy:
    return Policy("p", judge=CHAT, on_error=FailurePolicy(judge=reaction), after_retry=OnError.PASSTHROUGH)


async def test_a_judge_is_asked_for_the_key_of_the_request_within_half_of_the_time() -> None:
    chat = ScriptedChat(lambda _: "yes")
    policy = Policy("p", judge=CHAT, payer=(("user_api_key", "k"),))
    verdict, use = await stage_judge(chat, policy).ask(QUESTION, yes, max_tokens=9)
    assert (verdict, use.calls, use.failed) == (True, 1, 0)
    assert (chat.payers, chat.tokens, chat.temperatures) == ([{"user_api_key": "k"}], [9], [0.0])
    assert 3.0 < chat.seconds[0] <= 4.0


async def test_an_equal_question_is_answered_from_memory_for_the_same_tenant_alone() -> None:
    chat = ScriptedChat(lambda _: "yes")
    judge = stage_judge(chat, Policy("p", judge=CHAT))
    for tokens, calls in ((9, 1), (9, 0)):
        verdict, use = await judge.ask(QUESTION, yes, max_tokens=tokens)
        assert (verdict, use.calls) == (True, calls)
    other = StageJudge(judge._judge, judge._request.model_copy(update={"tenant": "other"}), judge._replies)
    assert (await other.ask(QUESTION, yes, max_tokens=9))[1].calls == 1
    assert (await judge.ask(QUESTION, yes, max_tokens=9, response_format={"questions": []}))[1].calls == 1


@pytest.mark.parametrize("script", [lambda _: "perhaps", lambda _: EngineUnavailable("away")])
async def test_a_failed_call_is_kept_by_nobody_and_reacted_to_as_the_policy_says(script: Script) -> None:
    chat = ScriptedChat(script)
    verdict, use = await stage_judge(chat, policy_with(OnError.PASSTHROUGH)).ask(QUESTION, yes, max_tokens=9)
    assert (verdict, use.calls, use.failed, len(chat.asked)) == (None, 0, 1, 1)
    verdict, use = await stage_judge(chat, policy_with(OnError.RETRY)).ask(QUESTION, yes, max_tokens=9)
    assert (verdict, len(chat.asked)) == (None, 3)
    with pytest.raises(JudgeFailed):
        await stage_judge(chat, policy_with(OnError.BLOCK)).ask(QUESTION, yes, max_tokens=9)
    assert len(chat.asked) == 4


async def test_both_tries_are_charged() -> None:
    replies = ["perhaps", "yes", "perhaps", "perhaps"]
    chat = ScriptedChat(lambda _: Reply(replies.pop(0), read_tokens=10, written_tokens=2))
    judge = stage_judge(chat, policy_with(OnError.RETRY))
    verdict, use = await judge.ask(QUESTION, yes, max_tokens=9)
    assert (verdict, use.calls, use.failed, use.read, use.written) == (True, 1, 1, 20, 4)
    verdict, use = await judge.ask(QUESTION, yes, max_tokens=9, response_format={"questions": []})
    assert (verdict, use.calls, use.failed, use.read, use.written) == (None, 0, 2, 20, 4)


def test_a_decision_model_says_that_it_is_one() -> None:
    chat = ScriptedChat(lambda _: "yes")
    assert not stage_judge(chat, Policy("p", judge=CHAT)).is_decision_model
    assert stage_judge(chat, Policy("p", judge=Judge(JudgeKind.DECISIONS, "luna"))).is_decision_model
