"""Ranking in two stages: cheap scores choose candidates, and the network ranks them."""

from collections.abc import Callable

import torch

from recsys.model.common.arrays import IntArray

# Users are ranked in groups of at most this many pairs.
_PAIRS_AT_ONCE = 1 << 14

# Logits (b, n) of items (b, n) for users (b,).
Logits = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def two_stage(users: IntArray, first: torch.Tensor, counts: IntArray, logits: Logits) -> torch.Tensor:
    """Rank the candidates of users by the network, and the other items behind them.

    Candidates score their logits. The others follow at a distance, in the order of the first stage.

    Args:
        users: (n,) codes of known users.
        first: (n, items) float32 scores of the first stage.
        counts: (n,) how many candidates each user has, at least 1 and at most the number of items.
        logits: What ranks candidates.

    Returns:
        (n, items) float32.
    """
    scores = torch.empty_like(first)
    group = max(1, _PAIRS_AT_ONCE // int(counts.max()))
    for begin in range(0, len(users), group):
        part = slice(begin, begin + group)
        scores[part] = _ranked(users[part], first[part], counts[part], logits)
    return scores


def _ranked(users: IntArray, first: torch.Tensor, counts: IntArray, logits: Logits) -> torch.Tensor:
    values, items = first.topk(int(counts.max()), dim=1)
    wanted = torch.from_numpy(counts).to(first.device)[:, None]
    chosen = torch.arange(items.shape[1], device=first.device) < wanted
    ranked = logits(torch.from_numpy(users).to(first.device), items)
    lowest = torch.where(chosen, ranked, torch.inf).amin(dim=1, keepdim=True)
    scores = first - values.gather(1, wanted - 1) + (lowest - 1)
    return scores.scatter(1, items, torch.where(chosen, ranked, scores.gather(1, items)))
