"""Incremental alternating least squares for implicit feedback."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from recsys.config import Settings
from recsys.contracts import StepId
from recsys.model.als.factors import FactorTable, take_rows
from recsys.model.als.objective import Objective
from recsys.model.als.schedule import Turn, most_changed, new_shares
from recsys.model.als.selection import Selection
from recsys.model.als.solve import solve_closely, solve_exactly
from recsys.model.als.sweeps import alternations, random_factors
from recsys.model.common.arrays import FloatArray, GrowingArray, IntArray
from recsys.model.common.device import resolve_device
from recsys.model.common.randomness import Purpose, generator
from recsys.model.drift.surprise import Decision
from recsys.model.interactions.history import History, Orientation
from recsys.model.learner import CodedBatch, State


class _Draws(NamedTuple):
    """What random numbers are drawn for on one side: factors of new rows, a refit, long rows, the staleness."""

    new_rows: Purpose
    refit: Purpose
    long_rows: Purpose
    staleness: Purpose


_OF_USERS = _Draws(
    Purpose.ALS_NEW_USERS, Purpose.ALS_REFIT_USERS, Purpose.ALS_LONG_USERS, Purpose.ALS_STALENESS_OF_USERS
)
_OF_ITEMS = _Draws(
    Purpose.ALS_NEW_ITEMS, Purpose.ALS_REFIT_ITEMS, Purpose.ALS_LONG_ITEMS, Purpose.ALS_STALENESS_OF_ITEMS
)


@dataclass(eq=False)
class _Side:
    """Users or items.

    Attributes:
        table: their factors.
        turn: where the solving in turn has come to.
        unsolved: how much weight each has taken in since it was last solved, as the history stores weights, float64.
    """

    table: FactorTable
    turn: Turn
    unsolved: GrowingArray


class IncrementalAls:
    """Factors of users and items that follow a stream of batches; a `Learner`.

    A batch's users and items are solved again from their full history against the other side, the most changed ones
    first and all others in turn, within a budget (see `schedule`). So the cost of a batch follows its events, not the
    length of the history. What is served, and every sweep over everything, is solved exactly. After each batch a sample
    of rows tells how far the factors are from a full solve; past a threshold everything is solved once.

    Args:
        settings: The sections model and drift, device and seed are used.

    Raises:
        ConfigError: the device is not there.
    """

    rehearsal = 0

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.objective = Objective.of(settings.model)
        self.device = resolve_device(settings.device)
        nothing = np.zeros((0, settings.model.factors), dtype=np.float32)
        self._users, self._items = (
            _Side(FactorTable(nothing, self.device), Turn(), GrowingArray((), np.float64)) for _ in range(2)
        )
        self._halvings = 0
        # Interactions read since everything was solved at once.
        self._read = 0

    @property
    def user_factors(self) -> torch.Tensor:
        """(users, factors) float32, as a view."""
        return self._users.table.values

    @property
    def item_factors(self) -> torch.Tensor:
        """(items, factors) float32, as a view."""
        return self._items.table.values

    @property
    def nbytes(self) -> int:
        """Bytes of the factors."""
        return self._users.table.nbytes + self._items.table.nbytes

    def update(self, batch: CodedBatch, history: History, step: StepId, decision: Decision) -> dict[str, float]:
        """Learn from one batch.

        Args:
            batch: The batch; an empty one changes nothing.
            history: Everything seen, the batch included.
            step: Its generation and number.
            decision: Its effort multiplies the budget and the sweeps; a refresh solves all rows at the end.

        Returns:
            `solved_users`, `solved_items`: rows solved, each counted once per sweep; `gathered`: interactions that went
            into those solves; `user_staleness`, `item_staleness`: how far a sample of rows is from where a full solve
            would put it, relative; `full_sweep`: 1 when all rows were solved, by decision or as the drift was past its
            threshold; `turn_batches`: batches of this size after which every row has been solved in turn.

        Raises:
            SolveError: the equations have no finite solution.
        """
        self.absorb(batch, history, step)
        if not len(batch):
            return {}
        budget = int(self.settings.model.budget * decision.effort * batch.events.sum())
        changed = {
            self._items: self._most_changed(history, self._items, batch.items, budget // 2),
            self._users: self._most_changed(history, self._users, batch.users, budget // 2),
        }
        rows = {side: np.union1d(own, self._in_turn(history, side, own, budget)) for side, own in changed.items()}
        solved, gathered = {self._items: 0, self._users: 0}, 0
        for sweep in range(round(self.settings.model.sweeps * decision.effort)):
            moved, length = 0.0, 0.0
            for side in (self._items, self._users):
                before = side.table.values[self._places(rows[side])]
                gathered += self._update(history, side, rows[side], step, sweep)
                solved[side] += len(rows[side])
                after = side.table.values[self._places(rows[side])]
                moved += float((after - before).square().sum())
                length += float(after.square().sum())
            if moved <= self.settings.model.settled**2 * length:
                break
            rows = changed
        self._read += gathered
        staleness = {side: self._staleness(history, side, step) for side in (self._users, self._items)}
        # A sweep that follows soon upon another would stop the stream: together they cost no more than the updates do.
        stale = max(staleness.values()) > self.settings.staleness.threshold and self._read >= 2 * len(history)
        if stale or decision.refresh:
            self._solve_all(history, step)
        return {
            "solved_users": float(solved[self._users]),
            "solved_items": float(solved[self._items]),
            "gathered": float(gathered),
            "user_staleness": staleness[self._users],
            "item_staleness": staleness[self._items],
            "full_sweep": float(stale or decision.refresh),
            "turn_batches": len(history) / max(budget - budget // 2, 1),
        }

    def absorb(self, batch: CodedBatch, history: History, step: StepId) -> None:
        """Make room for a batch's users and items and note what is new of them; `refit` learns from it."""
        if history.halvings > self._halvings:
            for side in (self._users, self._items):
                np.ldexp(side.unsolved.values, self._halvings - history.halvings, out=side.unsolved.values)
            self._halvings = history.halvings
        # Rounded as the history rounds: a row of which all is new must not seem to have been solved.
        amounts = np.abs(history.stored(batch.weights, batch.times).astype(np.float32))
        sides = ((self._users, batch.users, batch.user_count), (self._items, batch.items, batch.item_count))
        for side, codes, count in sides:
            arriving = self._generator(step, self._draws(side).new_rows)
            side.table.append(random_factors(count - len(side.table), self.settings.model.factors, arriving))
            side.unsolved.resize(count)
            np.add.at(side.unsolved.values, codes, amounts)

    def refit(self, history: History, step: StepId) -> dict[str, float]:
        """Learn all factors anew from the whole history, from a seeded random start.

        Raises:
            SolveError: the equations have no finite solution.
        """
        self._users.table, self._items.table = self._trained(history, step)
        self._all_solved()
        sweeps = self.settings.model.rebuild_sweeps
        return {
            "solved_users": float(sweeps * len(self._users.table)),
            "solved_items": float(sweeps * len(self._items.table)),
            "gathered": float(2 * sweeps * len(history)),
        }

    def score(self, users: IntArray) -> torch.Tensor:
        """Inner products of the users' factors with all items', (n, items) float32 on the device; see `Learner`."""
        return take_rows(self.user_factors, users) @ self.item_factors.T

    def score_pairs(self, users: IntArray, items: IntArray) -> FloatArray:
        """See `Learner`."""
        factors = self.user_factors[self._places(users)] * self.item_factors[self._places(items)]
        scores: FloatArray = factors.sum(dim=1).double().cpu().numpy()
        return scores

    def served(self, history: History) -> State:
        """`user_factors` (users, factors) float32, folded in exactly, and `item_factors` (items, factors) float32.

        Raises:
            SolveError: the equations have no finite solution.
        """
        return {
            "user_factors": self.folded_in_users(history).cpu().numpy(),
            "item_factors": self.item_factors.cpu().numpy().copy(),
        }

    def folded_in_users(self, history: History) -> torch.Tensor:
        """All users solved exactly against the items as they are, (users, factors) float32.

        Raises:
            SolveError: the equations have no finite solution.
        """
        rows = np.arange(len(self._users.table))
        # Rows of more interactions than the cap are drawn the same way every time.
        return self._solution(history, self._users, rows, self._users.table, self._items.table, StepId(0, 0))

    def _generator(self, step: StepId, purpose: Purpose, *place: int) -> np.random.Generator:
        return generator(self.settings.seed, step, purpose, *place)

    def _draws(self, side: _Side) -> _Draws:
        return _OF_ITEMS if side is self._items else _OF_USERS

    def _most_changed(self, history: History, side: _Side, codes: IntArray, budget: int) -> IntArray:
        """Rows of a batch, given by the codes of its interactions (n,), that are solved at once."""
        rows = np.unique(codes)
        shares = new_shares(side.unsolved.values[rows], self._pairs(history, side).total.values[rows])
        return most_changed(rows, shares, self._costs(history, side)[rows], budget)

    def _in_turn(self, history: History, side: _Side, changed: IntArray, budget: int) -> IntArray:
        """Rows solved in turn with what the changed ones leave of the budget, and half of it in any case."""
        costs = self._costs(history, side)
        return side.turn.take(costs, budget - min(int(costs[changed].sum()), budget // 2))

    def _costs(self, history: History, side: _Side) -> IntArray:
        """Interactions read when a row is solved, for all rows of a side."""
        return np.minimum(self._pairs(history, side).lists.lengths, self.settings.model.history_cap)

    def _trained(self, history: History, step: StepId) -> tuple[FactorTable, FactorTable]:
        """Users and items learned from the whole history, from a seeded random start."""
        factors = self.settings.model.factors
        side_rows = {side: np.arange(len(side.table)) for side in (self._users, self._items)}
        starts = (
            random_factors(len(rows), factors, self._generator(step, self._draws(side).refit))
            for side, rows in side_rows.items()
        )
        users, items = (torch.from_numpy(start).to(self.device) for start in starts)
        by_user, by_item = (self._select(history, side, rows, step) for side, rows in side_rows.items())
        rounds = alternations(by_user, by_item, users, items, self.objective, self._chunk_bytes)
        for round_ in itertools.islice(rounds, self.settings.model.rebuild_sweeps - 1):
            users, items = round_
        user_table, item_table = (FactorTable(values.cpu().numpy(), self.device) for values in (users, items))
        for side, own, other in ((self._items, item_table, user_table), (self._users, user_table, item_table)):
            own.replace(side_rows[side], self._solution(history, side, side_rows[side], own, other, step))
        return user_table, item_table

    def _solve_all(self, history: History, step: StepId) -> None:
        for side in (self._items, self._users):
            rows = np.arange(len(side.table))
            side.table.replace(rows, self._solution(history, side, rows, side.table, self._other(side).table, step))
        self._all_solved()

    def _all_solved(self) -> None:
        self._read = 0
        for side in (self._users, self._items):
            side.turn = Turn()
            side.unsolved.values[:] = 0

    def _staleness(self, history: History, side: _Side, step: StepId) -> float:
        """How far a seeded sample of rows is from its exact solution, as a share of the solution's length."""
        drawn = self._generator(step, self._draws(side).staleness).integers(
            len(side.table), size=self.settings.staleness.sample_rows
        )
        rows = np.unique(drawn)
        exact = self._solution(history, side, rows, side.table, self._other(side).table, step)
        distance = float((side.table.values[self._places(rows)] - exact).norm())
        length = float(exact.norm())
        return distance / length if length else 0.0

    def _update(self, history: History, side: _Side, rows: IntArray, step: StepId, sweep: int) -> int:
        """Solve rows of a side closely against the other and store them; the number of interactions read."""
        selection, other = self._select(history, side, rows, step, sweep), self._other(side).table
        start = side.table.values[self._places(rows)]
        solved = solve_closely(selection, other.values, other.gram, start, self.objective, self._chunk_bytes)
        side.table.replace(rows, solved)
        side.unsolved.values[rows] = 0
        return selection.pairs

    def _solution(
        self, history: History, side: _Side, rows: IntArray, own: FactorTable, other: FactorTable, step: StepId
    ) -> torch.Tensor:
        """Rows of a side solved exactly against the other, from where they are."""
        start = own.values[self._places(rows)]
        selection = self._select(history, side, rows, step)
        return solve_exactly(selection, other.values, other.gram, start, self.objective, self._chunk_bytes)

    def _select(self, history: History, side: _Side, rows: IntArray, step: StepId, sweep: int = 0) -> Selection:
        pairs, scale = self._pairs(history, side), history.scale
        return Selection.of(
            pairs.lists.view(),
            rows,
            pairs.total.values[rows] * scale,
            scale,
            self.settings.model.history_cap,
            self._generator(step, self._draws(side).long_rows, sweep),
        )

    @property
    def _chunk_bytes(self) -> int:
        return self.settings.model.chunk_megabytes << 20

    def _places(self, rows: IntArray) -> torch.Tensor:
        return torch.from_numpy(rows).to(self.device)

    def _other(self, side: _Side) -> _Side:
        return self._users if side is self._items else self._items

    def _pairs(self, history: History, side: _Side) -> Orientation:
        return history.by_item if side is self._items else history.by_user

    def state(self) -> State:
        """See `Learner`."""
        state: State = {"read": np.array([self._read]), "halvings": np.array([self._halvings])}
        for name, side in (("user", self._users), ("item", self._items)):
            state[f"{name}.factors"] = side.table.values.cpu().numpy()
            state[f"{name}.gram"] = side.table.gram.numpy()
            state[f"{name}.unsolved"] = side.unsolved.values
            state[f"{name}.counters"] = np.array([side.table.corrections, side.turn.cursor, side.turn.credit])
        return state

    @classmethod
    def from_state(cls, settings: Settings, state: Mapping[str, npt.NDArray[Any]]) -> "IncrementalAls":
        """See `Learner`."""
        learner = cls(settings)
        learner._read, learner._halvings = int(state["read"][0]), int(state["halvings"][0])
        learner._users, learner._items = (
            _Side(
                FactorTable.from_state(
                    state[f"{name}.factors"], state[f"{name}.gram"], int(state[f"{name}.counters"][0]), learner.device
                ),
                Turn(*(int(number) for number in state[f"{name}.counters"][1:])),
                GrowingArray(state[f"{name}.unsolved"], np.float64),
            )
            for name in ("user", "item")
        )
        return learner
