"""RiC, rewards in context: SFT on questions with the rewards of their answers, then asked for the rewards one wants.

    offline:  L(theta) = - E log pi_theta(y | x, <R1> r_1(x, y) <R2> r_2(x, y) ...)
    online:   answers are sampled for desired rewards near the front, scored, kept where some reward lies in the
              highest three tenths, and learned with the rewards that they got, beside the best of the offline ones
    asked:    R_i(w) = max_i for the largest weight, min(1, N w_i) (max_i - min_i) + min_i for the others

Yang et al. 2024 (arXiv 2402.10207): offline training, online training, and the mapping of preferences to rewards in the
form that the authors' code has by default. One training serves all weightings. Rewards stand with one decimal behind
the question, inside the user's turn; their names are ours. There is one online round.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random

from .pool import TEMPERATURE, ScoredAnswer, score_answer
from .sft import imitate
from .task import Ask, BaselineTask

KEPT = 0.7
"""Quantile of a reward from which on an answer is kept for the online stage."""


def question_with_rewards(text: str, rewards: Mapping[str, float]) -> str:
    """The question with rewards: `text <concise> 0.9 <courteous> 1.0`."""
    return " ".join([text, *(f"<{name}> {round(reward, 1):.1f}" for name, reward in rewards.items())])


def find_bounds(pool: Sequence[ScoredAnswer], names: Sequence[str]) -> dict[str, tuple[float, float]]:
    """The (lowest, highest) reward of each objective in the pool."""
    return {
        name: (min(answer.rewards[name] for answer in pool), max(answer.rewards[name] for answer in pool))
        for name in names
    }


def desired_rewards(weights: Mapping[str, float], ranges: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    """The rewards to ask for under these weights. `ranges` has the (lowest, highest) reward of each objective.

    The objective with the largest weight gets its highest reward. Any other gets its highest reward too if it weighs
    at least an equal share, and proportionally less below that: with two objectives, a weight of 0.25 asks for the
    middle of the range.
    """
    heaviest = max(weights, key=lambda name: weights[name])
    rewards = {}
    for name, (low, high) in ranges.items():
        equal_shares = len(ranges) * weights.get(name, 0.0)
        part_of_range = 1.0 if name == heaviest else min(1.0, equal_shares)
        rewards[name] = low + part_of_range * (high - low)
    return rewards


def best_answers(pool: Sequence[ScoredAnswer], names: Sequence[str]) -> list[ScoredAnswer]:
    """The answers with some reward in the top 30 % of that objective's rewards."""
    least_rewards = {}
    for name in names:
        rewards = sorted(answer.rewards[name] for answer in pool)
        least_rewards[name] = rewards[min(len(rewards) - 1, int(KEPT * len(rewards)))]
    return [answer for answer in pool if any(answer.rewards[name] >= least_rewards[name] > 0 for name in names)]


def draw_goals(count: int, ranges: Mapping[str, tuple[float, float]], seed: int) -> list[dict[str, float]]:
    """Draw rewards to ask for: one objective anywhere in its range, all others at their highest."""
    rng = Random(f"ric:{seed}")
    names = list(ranges)
    drawn_goals = []
    for i in range(count):
        free = names[i % len(names)]
        drawn_goals.append({name: rng.uniform(*ranges[name]) if name == free else ranges[name][1] for name in names})
    return drawn_goals


def train(task: BaselineTask) -> Ask:
    """Train in an offline stage and an online one. One training serves all weights, so the task's are not used.

    Online, the policy answers with rewards asked for, and learns from the best of its answers and of the pool.
    """
    names = list(task.weights)
    ranges = find_bounds(task.pool, names)

    def prompt(question: str, rewards: Mapping[str, float]) -> str:
        return task.policy.prompt(question_with_rewards(question, {name: rewards[name] for name in names}))

    rows = [(prompt(scored.question, scored.rewards), scored.answer) for scored in task.pool]
    Random(task.seed).shuffle(rows)
    imitate(task, rows, "offline", 1 - task.training.first)
    task.policy.merge_adapter()

    requests = list(zip(task.questions, draw_goals(len(task.questions), ranges, task.seed), strict=True))
    answers = task.policy.write([prompt(question, goal) for question, goal in requests], TEMPERATURE, task.seed)
    new_answers = [
        score_answer(question, answer, task.objectives) for (question, _), answer in zip(requests, answers, strict=True)
    ]
    best_of_both = best_answers([*task.pool, *new_answers], names)
    imitate(task, [(prompt(scored.question, scored.rewards), scored.answer) for scored in best_of_both], "online", 1.0)
    return lambda question, weights: prompt(question, desired_rewards(weights, ranges))
