"""Concept drift: its detection, and the reaction to it.

Before a batch is learned, its `surprise` is measured: how often the model scores a random item above the one that a
user interacted with. The Page-Hinkley test monitors it. A rise beyond the usual noise is taken for concept drift. Then

* the weights of the history are halved a few times at once, so that new interactions outweigh old ones;
* for some batches more rows are solved, in more sweeps, and gradient learners take larger steps; both return to normal;
* every few of these batches all rows are solved again, each time with more of the new preferences in the history.

A fall needs no reaction. `bench/quality/concept_drift.py` measures what each of these brings.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from recsys.config.model import ConceptDrift
from recsys.model.common.arrays import FloatArray, IntArray

# Batches that are remembered; batches whose median is the usual level; and rises needed before the first test.
_WINDOW, _LEVEL, _WARM_UP = 40, 8, 10
# In usual deviations: what a rise must exceed, and the most that one batch counts, so that one outlier is no drift.
_SLACK, _MOST = 1.0, 4.0
# Smaller deviations than this are treated as noise.
_LEAST_DEVIATION = 0.005
# The median absolute deviation of a normal distribution, in standard deviations.
_MEDIAN_DISTANCE = 0.6745
# The last batches, among which the drift was found.
_NOW = 2
# Surprise of a model without any skill.
_NO_SKILL = 0.5
# The fewest pairs of a batch that suffice.
_FEWEST = 100


@dataclass(frozen=True)
class Decision:
    """How a batch is learned.

    Attributes:
        effort: multiplies the interactions that a batch may read to solve rows, and its sweeps; at least 1.
        learning_rate: multiplies the steps of gradient learners; at least 1.
        refresh: whether the batch ends with a sweep over everything.
        halvings: how often the history is halved before the batch joins it.
        reasons: one line for what is decided, none if all is as usual.
    """

    effort: float = 1.0
    learning_rate: float = 1.0
    refresh: bool = False
    halvings: int = 0
    reasons: tuple[str, ...] = ()


AS_USUAL = Decision()


class DriftController:
    """Decides how each batch is learned, from how surprising the last ones were.

    Its decisions are a function of the settings and of past surprises, of which it keeps at most 40. After a drift it
    starts over, so the next 17 batches cannot raise another one.

    Args:
        settings: The bounds.
        surprises: Surprises since the last drift.
        age: Batches since the last drift; None if there was none.
    """

    def __init__(self, settings: ConceptDrift, surprises: Iterable[float] = (), age: int | None = None) -> None:
        self._settings = settings
        self._surprises = deque(surprises, maxlen=_WINDOW)
        self._age = age

    def observe(self, surprise: float) -> Decision:
        """Decide how a batch is learned.

        Args:
            surprise: How surprising it is, from 0 to 1; NaN where that could not be measured.
        """
        if self._age is not None:
            self._age += 1
        if not math.isnan(surprise):
            self._surprises.append(surprise)
            values = np.array(self._surprises)
            if has_risen(values, self._settings.threshold):
                self._surprises.clear()
                self._age = 0
                before, now = values[-_NOW - _LEVEL : -_NOW], values[-_NOW:]
                return self._begin(float(np.median(before)), float(now.max()))
        if self._age is None or self._age > self._settings.batches:
            return AS_USUAL
        return self._go_on(self._age)

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """`surprises` (n,) float64, n at most 40, and `age` (1,) int64, -1 for none."""
        age = -1 if self._age is None else self._age
        return {"surprises": np.array(self._surprises, dtype=np.float64), "age": np.array([age])}

    @classmethod
    def from_state(cls, settings: ConceptDrift, state: Mapping[str, npt.NDArray[Any]]) -> "DriftController":
        """A controller from what `state` returned."""
        age = int(state["age"][0])
        return cls(settings, state["surprises"].tolist(), None if age < 0 else age)

    def _begin(self, before: float, now: float) -> Decision:
        """Drift was found: the surprise was `before` on most batches, and is `now`."""
        halvings = math.ceil(self._settings.max_halvings * min(1.0, 2 * skill_lost(before, now)))
        effort, rate, actions = self._raised(0)
        if halvings:
            actions = [f"history counts 1/{2**halvings}", *actions]
        summary = ", ".join(actions) or "the bounds allow nothing"
        reason = f"surprise rose from {before:.3f} to {now:.3f} (Page-Hinkley): {summary}"
        return Decision(effort, rate, halvings=halvings, reasons=(reason,))

    def _go_on(self, age: int) -> Decision:
        """The drift was found `age` batches ago."""
        effort, rate, actions = self._raised(age)
        every = self._settings.refresh_every_batches
        refresh = every > 0 and age % every == 0
        if refresh:
            actions.append("everything solved again")
        reason = f"{age} after the change: {', '.join(actions) or 'as usual again'}"
        return Decision(effort, rate, refresh, reasons=(reason,))

    def _raised(self, age: int) -> tuple[float, float, list[str]]:
        """Effort and learning rate `age` batches after a drift, and how to report them."""
        left = 1 - age / self._settings.batches
        raised = {
            "effort": 1 + (self._settings.max_effort - 1) * left,
            "learning rate": 1 + (self._settings.max_learning_rate - 1) * left,
        }
        reports = [f"{name} x{factor:.2g}" for name, factor in raised.items() if factor > 1]
        return raised["effort"], raised["learning rate"], reports


def has_risen(surprises: FloatArray, threshold: float) -> bool:
    """Whether some surprises rose above their usual level.

    Each surprise is compared with the median of the 8 before it, so that the long decline of a young model masks
    nothing. The difference is divided by the usual deviation, estimated by the median absolute deviation of these
    differences. Negative differences count as 0, so that the end of a decline is no rise. A batch counts at most 4, so
    that one outlier is no drift. What exceeds the mean by more than one deviation is added up (Page 1954, Continuous
    inspection schemes).

    Args:
        surprises: (n,) in the order of their batches; fewer than 18 are not enough.
        threshold: The sum that counts as a rise, in usual deviations.
    """
    if len(surprises) < _LEVEL + _WARM_UP:
        return False
    windows = np.lib.stride_tricks.sliding_window_view(surprises, _LEVEL + 1)
    rises = windows[:, -1] - np.median(windows[:, :-1], axis=1)
    distance = float(np.median(np.abs(rises - np.median(rises))))
    deviation = max(distance / _MEDIAN_DISTANCE, _LEAST_DEVIATION)
    rises = np.clip(rises / deviation, 0, _MOST)
    means = np.cumsum(rises) / np.arange(1, len(rises) + 1)
    excess = np.cumsum(rises - means - _SLACK)
    risen = excess - np.minimum.accumulate(excess)
    return bool((risen[_WARM_UP - 1 :] > threshold).any())


def skill_lost(before: float, now: float) -> float:
    """Share of a model's skill that is lost when its surprise rises; 1 if it had none.

    When the preferences of some users change completely, it is about their share of the events.
    """
    return min(1.0, max(0.0, (now - before) / (_NO_SKILL - before))) if before < _NO_SKILL else 1.0


def measure_surprise(
    score_pairs: Callable[[IntArray, IntArray], FloatArray],
    users: IntArray,
    items: IntArray,
    item_count: int,
    generator: np.random.Generator,
) -> float:
    """How often a random item scores above the one that a user interacted with: 1 - AUC; a tie counts one half.

    Args:
        score_pairs: Scores (n,) of users (n,) and items (n,).
        users, items: (n,) pairs of known users and items.
        item_count: Random items are drawn uniformly from this many.
        generator: Draws them.

    Returns:
        From 0 to 1; NaN for fewer than 100 pairs.
    """
    if len(users) < _FEWEST:
        return math.nan
    interacted = score_pairs(users, items)
    drawn = score_pairs(users, generator.integers(item_count, size=len(users)))
    return float(((drawn > interacted) + 0.5 * (drawn == interacted)).mean())
