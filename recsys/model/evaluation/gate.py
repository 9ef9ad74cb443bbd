"""The gate: does a new version serve at least as well as the champion?"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class GateResult:
    """The verdict on a version.

    Attributes:
        passed: whether it may become champion.
        reasons: why, one line each.
        figures: what was compared: `model`, `champion` (mean NDCG) and `batches`.
    """

    passed: bool
    reasons: tuple[str, ...]
    figures: dict[str, float] = field(default_factory=dict)


def judge(
    model_ndcg: Mapping[int, float], champion_ndcg: Mapping[int, float] | None, tolerance: float, batches: int
) -> GateResult:
    """Compare a model with the champion on the same batches.

    Args:
        model_ndcg: The model's NDCG by batch id, each measured before it learned the batch.
        champion_ndcg: The champion's NDCG by batch id; None when there is no champion.
        tolerance: Relative loss that still passes.
        batches: How many of the last batches with both figures count.

    Returns:
        Passed if there is no champion, or if the model's mean is at least (1 - tolerance) times the champion's.
    """
    if champion_ndcg is None:
        return GateResult(True, ("there is no champion yet",))
    common = sorted(model_ndcg.keys() & champion_ndcg.keys())[-batches:]
    if not common:
        return GateResult(False, ("model and champion were never measured on the same batch",))
    model = float(np.mean([model_ndcg[batch] for batch in common]))
    champion = float(np.mean([champion_ndcg[batch] for batch in common]))
    figures = {"model": model, "champion": champion, "batches": float(len(common))}
    bound = (1 - tolerance) * champion
    # Written so that an NDCG that is not a number fails.
    passed = model >= bound
    sign = ">=" if passed else "<"
    return GateResult(passed, (f"{model:.4f} {sign} {bound:.4f} over the last {len(common)} batches",), figures)
