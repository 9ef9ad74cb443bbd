"""The loss that the factors minimize, and its value.

With user factors x_u, item factors y_i and weights w of the observed pairs, w = 0 for all others, the loss is

    sum over ALL pairs of c (p - x.y)^2  +  sum over rows of penalty |row|^2,     c = 1 + alpha |w|,   c p = t
    t = alpha w + offset where w > 0, else 0

so that a pair that was never observed has confidence 1 in preference 0. For one row against fixed factors y_i of the
other side, setting the gradient to zero gives

    (G + penalty I + sum over the row's pairs of d_i y_i y_i') x = sum over the row's pairs of t_i y_i,
    G = sum over all i of y_i y_i',   d_i = alpha |w_i|

Sources: Hu, Koren & Volinsky, "Collaborative filtering for implicit feedback datasets" (2008) for confidence and
preference; Rendle, Krichene, Zhang & Koren, "Revisiting the performance of iALS on item recommendation benchmarks"
(2021) for the form of the objective and for the penalty that grows with a row's frequency. Hu et al. have p = 1 for
every observed pair, which is offset 1. At offset 0, as in the objective of Rendle et al., p = alpha w / (1 + alpha w),
which is nearly 1 for a strong pair and fades to 0 as its weight decays: otherwise an interaction of years ago would
keep half the pull of a fresh one.
"""

from dataclasses import dataclass

import numba
import numpy as np
import torch

from recsys.config.model import Model
from recsys.model.als.selection import Selection
from recsys.model.common.arrays import Float32Array, FloatArray, Int32Array, IntArray
from recsys.model.common.jit import compiled_parallel


@dataclass(frozen=True)
class Objective:
    """The constants of the loss.

    Attributes:
        alpha: confidence per weight.
        regularization, exponent: see `penalties`.
        offset: what an observed pair of positive weight adds to t; 1 is the objective of Hu et al.
    """

    alpha: float
    regularization: float
    exponent: float
    offset: float = 0.0

    @classmethod
    def of(cls, model: Model) -> "Objective":
        """The objective that the settings describe."""
        return cls(model.alpha, model.regularization, model.regularization_exponent)

    def penalties(self, totals: FloatArray, others: int) -> FloatArray:
        """L2 penalty of each row: regularization * (alpha * total + others) ^ exponent.

        Rendle et al. write the observed pairs with weight 1 and all pairs with weight a0, and penalize a row by
        lambda (|I_u| + a0 |I|)^nu. Dividing that objective by a0 = 1 / alpha gives confidences alpha and 1 as here, and
        at nu = 1 the penalty above with lambda = regularization. What differs: a pair counts with its weight instead of
        1, and at other exponents lambda is regularization * alpha^(nu - 1).

        Args:
            totals: (rows,) sum of |weight| of each row.
            others: Number of rows of the other side.

        Returns:
            (rows,) float64.
        """
        return self.regularization * (self.alpha * totals + others) ** self.exponent


def training_loss(
    by_user: Selection, by_item: Selection, users: torch.Tensor, items: torch.Tensor, objective: Objective
) -> float:
    """The loss over all pairs, with its penalties.

    The pairs that were never observed enter through the two Gram matrices: the sum of all (x.y)^2 is trace(Gx Gy).

    Args:
        by_user, by_item: All rows of either side; every pair counts, whatever is sampled of long rows.
        users, items: (users, factors) and (items, factors) float32.
    """
    wide_users, wide_items = users.double(), items.double()
    total = float(((wide_users.T @ wide_users) * (wide_items.T @ wide_items)).sum())
    for factors, rows, others in ((wide_users, by_user, len(items)), (wide_items, by_item, len(users))):
        penalties = torch.from_numpy(objective.penalties(rows.totals, others)).to(factors.device)
        total += float((penalties * factors.square().sum(dim=1)).sum())
    table, alpha = by_user.table, objective.alpha * by_user.scale
    pairs = table.starts[by_user.rows], table.lengths[by_user.rows], table.others, table.weights
    return total + _observed_loss(*pairs, users.cpu().numpy(), items.cpu().numpy(), alpha, objective.offset)


@compiled_parallel
def _observed_loss(
    starts: IntArray,
    lengths: IntArray,
    codes: Int32Array,
    weights: Float32Array,
    users: Float32Array,
    items: Float32Array,
    alpha: float,
    offset: float,
) -> float:
    """What the observed pairs add to the sum of all (x.y)^2: the sum of d (x.y)^2 - 2 t x.y + t^2 / c."""
    sums = np.zeros(len(starts))
    for row in numba.prange(len(starts)):
        user = users[row]
        for at in range(starts[row], starts[row] + lengths[row]):
            item, amount, score = items[codes[at]], alpha * weights[at], 0.0
            for j in range(len(user)):
                score += np.float64(user[j]) * item[j]
            target = amount + offset if amount > 0 else 0.0
            sums[row] += abs(amount) * score**2 - 2 * target * score + target**2 / (1 + abs(amount))
    return float(sums.sum())
