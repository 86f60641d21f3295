"""MORLHF: RLHF whose reward is the weighted sum of several (linear scalarisation), one training for every weighting.

    max_theta  E_(x, y ~ pi_theta) [ sum_i w_i r_i(x, y) ] - beta KL(pi_theta || pi_SFT)

Li, Zhang and Wang 2019 (arXiv 1906.02386) on the scalarisation; the baseline of this name in Zhou et al. 2023 (arXiv
2310.03708) and, with w_i = 1/N, in MetaAligner's Table 3. How it is optimised is that of `rlhf`.
"""

from __future__ import annotations

from .rlhf import train_online
from .task import Ask, BaselineTask


def train(task: BaselineTask) -> Ask:
    """SFT by the weighted reward, then RLOO by the same reward."""
    return train_online(task)
