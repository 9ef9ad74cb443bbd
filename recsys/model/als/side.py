"""Users or items: their factors, and how some of them are solved against those of the other side."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch

from recsys.config import Settings
from recsys.contracts import StepId
from recsys.model.als.factors import FactorTable
from recsys.model.als.objective import Objective
from recsys.model.als.schedule import Turn, expected_gains, most_promising, turn_budget
from recsys.model.als.selection import Selection
from recsys.model.als.solve import solve_closely, solve_exactly
from recsys.model.als.sweeps import random_factors
from recsys.model.common.arrays import Float32Array, GrowingArray, IntArray
from recsys.model.common.randomness import Purpose, generator
from recsys.model.interactions.history import History, Orientation
from recsys.model.interactions.keeping import KeptRows
from recsys.model.learner import State

SideName = Literal["user", "item"]


class _Purposes(NamedTuple):
    """What random numbers are drawn for: factors of new rows, a refit, samples of long rows, the staleness."""

    new_rows: Purpose
    refit: Purpose
    long_rows: Purpose
    staleness: Purpose


_PURPOSES: dict[SideName, _Purposes] = {
    "user": _Purposes(
        Purpose.ALS_NEW_USERS, Purpose.ALS_REFIT_USERS, Purpose.ALS_LONG_USERS, Purpose.ALS_STALENESS_OF_USERS
    ),
    "item": _Purposes(
        Purpose.ALS_NEW_ITEMS, Purpose.ALS_REFIT_ITEMS, Purpose.ALS_LONG_ITEMS, Purpose.ALS_STALENESS_OF_ITEMS
    ),
}


class Side:
    """The users, or the items, of a model of alternating least squares.

    Args:
        name: Which of them.
        settings: The sections model and staleness, and the seed, are used.
        device: Where the factors live.

    Attributes:
        table: The factors of all rows.
        turn: How far solving all rows in turn has come.
        unsolved: (rows,) float64, the weight that each row has received since it was last solved, as the history stores
            weights.
    """

    def __init__(self, name: SideName, settings: Settings, device: torch.device) -> None:
        self._name, self._settings, self._device = name, settings, device
        self._objective = Objective.of(settings.model)
        self._purposes = _PURPOSES[name]
        self.table = FactorTable(np.zeros((0, settings.model.factors), dtype=np.float32), device)
        self.turn = Turn()
        self.unsolved = GrowingArray((), np.float64)

    def __len__(self) -> int:
        return len(self.table)

    @property
    def rows(self) -> IntArray:
        """All rows, (rows,)."""
        return np.arange(len(self.table))

    def pairs(self, history: History) -> Orientation:
        """The history as this side sees it."""
        return history.by_user if self._name == "user" else history.by_item

    def factors_of(self, rows: IntArray) -> torch.Tensor:
        """A copy of the factors (n, factors) of rows (n,)."""
        return self.table.values[torch.from_numpy(rows).to(self._device)]

    def grow(self, rows: int, step: StepId) -> None:
        """Have this many rows; new ones start at random factors."""
        arriving = self._generator(step, self._purposes.new_rows)
        self.table.append(random_factors(rows - len(self.table), self._settings.model.factors, arriving))
        self.unsolved.resize(rows)

    def keep(self, rows: KeptRows, history: History) -> None:
        """Have only these rows, of whose pairs the history may have fewer."""
        self.table.keep(rows.codes)
        self.turn.keep(rows)
        self.unsolved.keep(rows.codes)
        np.minimum(self.unsolved.values, self.pairs(history).total.values, out=self.unsolved.values)

    def receive(self, codes: IntArray, amounts: Float32Array) -> None:
        """Note the stored weight (n,) that rows (n,), repeated as they come, have received."""
        np.add.at(self.unsolved.values, codes, amounts)

    def halve(self, halvings: int) -> None:
        """Divide the weights that are noted by 2^halvings, as the history has divided those it stores."""
        np.ldexp(self.unsolved.values, -halvings, out=self.unsolved.values)

    def most_promising(self, history: History, codes: IntArray, budget: int) -> IntArray:
        """Rows of a batch, given by the codes of its interactions (n,), that are solved at once."""
        rows = np.unique(codes)
        gains = expected_gains(self.unsolved.values[rows], self.pairs(history).total.values[rows])
        return most_promising(rows, gains, self._costs(history)[rows], budget - turn_budget(budget))

    def in_turn(self, history: History, at_once: IntArray, budget: int) -> IntArray:
        """Rows solved in turn with what those solved at once leave of the budget, and their own part in any case."""
        costs = self._costs(history)
        return self.turn.take(costs, max(budget - int(costs[at_once].sum()), turn_budget(budget)))

    def update(self, history: History, rows: IntArray, other: FactorTable, step: StepId, sweep: int) -> int:
        """Solve rows (n,) closely against the other side and store them; the number of interactions read.

        Raises:
            SolveError: the equations have no finite solution.
        """
        selection = self.select(history, rows, step, sweep)
        start = self.factors_of(rows)
        solved = solve_closely(selection, other.values, other.gram, start, self._objective, self._chunk_bytes)
        self.table.replace(rows, solved)
        self.unsolved.values[rows] = 0
        return selection.pairs

    def solution(
        self, history: History, rows: IntArray, start: torch.Tensor, other: FactorTable, step: StepId
    ) -> torch.Tensor:
        """The exact solution (n, factors) of rows (n,) against the other side, found from start (n, factors).

        Raises:
            SolveError: the equations have no finite solution.
        """
        selection = self.select(history, rows, step)
        return solve_exactly(selection, other.values, other.gram, start, self._objective, self._chunk_bytes)

    def solve_all(self, history: History, other: FactorTable, step: StepId) -> None:
        """Solve all rows exactly against the other side and store them.

        Raises:
            SolveError: the equations have no finite solution.
        """
        self.table.replace(self.rows, self.solution(history, self.rows, self.table.values, other, step))

    def all_solved(self) -> None:
        """Note that no row has received anything since it was solved."""
        self.turn = Turn()
        self.unsolved.values[:] = 0

    def staleness(self, history: History, other: FactorTable, step: StepId) -> float:
        """How far a seeded sample of rows is from its solution, to a thousandth of the solution's length."""
        drawing = self._generator(step, self._purposes.staleness)
        rows = np.unique(drawing.integers(len(self.table), size=self._settings.staleness.sample_rows))
        factors = self.factors_of(rows)
        selection = self.select(history, rows, step)
        solved = solve_closely(selection, other.values, other.gram, factors, self._objective, self._chunk_bytes)
        length = float(solved.norm())
        return float((factors - solved).norm()) / length if length else 0.0

    def select(self, history: History, rows: IntArray, step: StepId, sweep: int = 0) -> Selection:
        """The interactions that rows (n,) are solved from: a seeded sample of those of a long row."""
        pairs, scale = self.pairs(history), history.scale
        return Selection.of(
            pairs.lists.view(),
            rows,
            pairs.total.values[rows] * scale,
            scale,
            self._settings.model.history_cap,
            self.sampling(step, sweep),
        )

    def sampling(self, step: StepId, sweep: int = 0) -> np.random.Generator:
        """Draws the samples of long rows."""
        return self._generator(step, self._purposes.long_rows, sweep)

    def random_start(self, step: StepId) -> torch.Tensor:
        """Factors (rows, factors) from which a refit starts."""
        drawing = self._generator(step, self._purposes.refit)
        return torch.from_numpy(random_factors(len(self), self._settings.model.factors, drawing)).to(self._device)

    def state(self) -> State:
        """Arrays from which `from_state` continues."""
        return {
            "factors": self.table.values.cpu().numpy(),
            "gram": self.table.gram.numpy(),
            "unsolved": self.unsolved.values,
            "counters": np.array([self.table.corrections, self.turn.cursor, self.turn.credit]),
        }

    @classmethod
    def from_state(
        cls, name: SideName, settings: Settings, device: torch.device, state: Mapping[str, npt.NDArray[Any]]
    ) -> Self:
        """A side from what `state` returned."""
        side = cls(name, settings, device)
        corrections, cursor, credit = (int(number) for number in state["counters"])
        side.table = FactorTable.from_state(state["factors"], state["gram"], corrections, device)
        side.turn = Turn(cursor, credit)
        side.unsolved = GrowingArray(state["unsolved"], np.float64)
        return side

    def _costs(self, history: History) -> IntArray:
        """Interactions read when a row is solved, for all rows; a row that has none left counts as one."""
        return np.clip(self.pairs(history).lists.lengths, 1, self._settings.model.history_cap)

    def _generator(self, step: StepId, purpose: Purpose, *place: int) -> np.random.Generator:
        return generator(self._settings.seed, step, purpose, *place)

    @property
    def _chunk_bytes(self) -> int:
        return self._settings.model.chunk_megabytes << 20
