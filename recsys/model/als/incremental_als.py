"""Incremental alternating least squares for implicit feedback."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from recsys.config import Settings
from recsys.contracts import StepId
from recsys.model.als.conjugate_gradient import SomeRows
from recsys.model.als.factors import FactorTable, take_rows
from recsys.model.als.objective import Objective
from recsys.model.als.schedule import turn_budget
from recsys.model.als.selection import Selection
from recsys.model.als.side import Side, SideName
from recsys.model.als.solve import solve_exactly
from recsys.model.als.sweeps import trained
from recsys.model.common.arrays import FloatArray, IntArray
from recsys.model.common.device import resolve_device
from recsys.model.drift.surprise import Decision
from recsys.model.interactions.adjacency import RaggedRows
from recsys.model.interactions.history import History
from recsys.model.interactions.keeping import Kept
from recsys.model.learner import CodedBatch, State
from recsys.serving.arrays import part, prefixed


class IncrementalAls:
    """Factors of users and items that follow a stream of batches; a `Learner`.

    The users and items of a batch are re-solved from their full history against the other side, within a budget: those
    with the most to gain first, and all others in turn (see `schedule`). So the cost of a batch follows its events, not
    the length of the history. Served factors and full sweeps are solved exactly. After each batch the staleness is
    measured on a sample of rows, against a close solve; above a threshold all rows are solved once.

    Args:
        settings: The sections model and staleness, and the keys device and seed, are used.

    Raises:
        ConfigError: the device is not there.
    """

    rehearsal = 0

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.objective = Objective.of(settings.model)
        self.device = resolve_device(settings.device)
        self._users, self._items = Side("user", settings, self.device), Side("item", settings, self.device)
        self._halvings = 0
        # Interactions read since the last full solve.
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
            decision: Its effort multiplies the budget and the sweeps; with `refresh` all rows are solved at the end.

        Returns:
            `solved_users`, `solved_items`: rows solved, each counted once per sweep; `gathered`: interactions read
            for them; `user_staleness`, `item_staleness`: relative distance of a sample of rows from a full solve;
            `full_sweep`: 1 if all rows were solved, by decision or because the staleness was above its threshold;
            `turn_batches`: batches of this size after which every row has been solved in turn.

        Raises:
            SolveError: the equations have no finite solution.
        """
        self.absorb(batch, history, step)
        if not len(batch):
            return {}
        budget = int(self.settings.model.budget * decision.effort * batch.events.sum())
        at_once = {
            self._items: self._items.most_promising(history, batch.items, budget),
            self._users: self._users.most_promising(history, batch.users, budget),
        }
        rows = {side: np.union1d(own, side.in_turn(history, own, budget)) for side, own in at_once.items()}
        solved, gathered = {self._items: 0, self._users: 0}, 0
        for sweep in range(round(self.settings.model.sweeps * decision.effort)):
            moved, length = 0.0, 0.0
            for side in (self._items, self._users):
                before = side.factors_of(rows[side])
                gathered += side.update(history, rows[side], self._other(side), step, sweep)
                solved[side] += len(rows[side])
                after = side.factors_of(rows[side])
                moved += float((after - before).square().sum())
                length += float(after.square().sum())
            if moved <= self.settings.model.settled**2 * length:
                break
            rows = at_once
        self._read += gathered
        staleness = {side: side.staleness(history, self._other(side), step) for side in (self._users, self._items)}
        # Frequent full sweeps would stall the stream, so together they may cost no more than the updates do.
        stale = max(staleness.values()) > self.settings.staleness.threshold and self._read >= 2 * len(history)
        if stale or decision.refresh:
            for side in (self._items, self._users):
                side.solve_all(history, self._other(side), step)
            self._all_solved()
        return {
            "solved_users": float(solved[self._users]),
            "solved_items": float(solved[self._items]),
            "gathered": float(gathered),
            "user_staleness": staleness[self._users],
            "item_staleness": staleness[self._items],
            "full_sweep": float(stale or decision.refresh),
            "turn_batches": len(history) / max(turn_budget(budget), 1),
        }

    def absorb(self, batch: CodedBatch, history: History, step: StepId) -> None:
        """Make room for a batch's users and items and record their new weight; `refit` learns from the history."""
        if history.halvings > self._halvings:
            for side in (self._users, self._items):
                side.halve(history.halvings - self._halvings)
            self._halvings = history.halvings
        # Rounded as the history rounds, so that a row that has never been solved is recognized exactly.
        amounts = np.abs(history.stored(batch.weights, batch.times).astype(np.float32))
        sides = ((self._users, batch.users, batch.user_count), (self._items, batch.items, batch.item_count))
        for side, codes, count in sides:
            side.grow(count, step)
            side.receive(codes, amounts)

    def keep(self, kept: Kept, history: History) -> None:
        """See `Learner`. The factors of what stays are not solved again: they get their turn."""
        self._users.keep(kept.users, history)
        self._items.keep(kept.items, history)

    def refit(self, history: History, step: StepId) -> dict[str, float]:
        """Retrain all factors from the whole history, from a seeded random start.

        Raises:
            SolveError: the equations have no finite solution.
        """
        self.refit_rows(*self.every_row(history, step), step)
        sweeps = self.settings.model.rebuild_sweeps
        return {
            "solved_users": float(sweeps * len(self._users.table)),
            "solved_items": float(sweeps * len(self._items.table)),
            "gathered": float(2 * sweeps * len(history)),
        }

    def every_row(self, history: History, step: StepId) -> tuple[Selection, Selection]:
        """All users and all items, with the sample of long rows that is drawn at a step."""
        by_user, by_item = (side.select(history, side.rows, step) for side in (self._users, self._items))
        return by_user, by_item

    def refit_rows(self, by_user: SomeRows, by_item: SomeRows, step: StepId) -> None:
        """Retrain all factors from all rows, in this process or in others, from a seeded random start.

        Raises:
            SolveError: the equations have no finite solution.
        """
        users, items = (side.random_start(step) for side in (self._users, self._items))
        model = self.settings.model
        solved = trained(
            by_user, by_item, users, items, self.objective, model.chunk_megabytes << 20, model.rebuild_sweeps
        )
        for side, factors in zip((self._users, self._items), solved, strict=True):
            side.table = FactorTable(factors.cpu().numpy(), self.device)
        self._all_solved()

    def score(self, users: IntArray) -> torch.Tensor:
        """Inner products of the users' factors with all items', (n, items) float32 on the device; see `Learner`."""
        return take_rows(self.user_factors, users) @ self.item_factors.T

    def score_pairs(self, users: IntArray, items: IntArray) -> FloatArray:
        """See `Learner`."""
        factors = self.user_factors[self._places(users)] * self.item_factors[self._places(items)]
        scores: FloatArray = factors.sum(dim=1).double().cpu().numpy()
        return scores

    def served(self, history: History) -> State:
        """The arrays of `AlsScorer`; `user_factors` are folded in exactly.

        Raises:
            SolveError: the equations have no finite solution.
        """
        own = self.objective
        return {
            "user_factors": self.folded_in_users(history).cpu().numpy(),
            "item_factors": self.item_factors.cpu().numpy().copy(),
            "gram": self._items.table.gram.cpu().numpy().astype(np.float64),
            "objective": np.array([own.alpha, own.regularization, own.exponent, len(self._items)]),
        }

    def begin(self, users: int, items: int, halvings: int, step: StepId) -> None:
        """Make room for so many users and items of a history that is elsewhere, and has halved its weights so often."""
        self._users.grow(users, step)
        self._items.grow(items, step)
        self._halvings = halvings

    def sampling(self, side: SideName, step: StepId) -> np.random.Generator:
        """Draws the samples of long rows of a side at a step."""
        return (self._users if side == "user" else self._items).sampling(step)

    def folded_in(self, by_user: SomeRows) -> torch.Tensor:
        """All users solved exactly against the current items from rows that lie anywhere, (users, factors) float32."""
        items, chunk_bytes = self._items.table, self.settings.model.chunk_megabytes << 20
        return solve_exactly(by_user, items.values, items.gram, self.user_factors, self.objective, chunk_bytes)

    def folded_in_from(self, rows: RaggedRows, users: IntArray) -> torch.Tensor:
        """Users (n,), -1 for unknown ones, solved exactly from rows (n,) of their own, (n, factors) float32."""
        items, chunk_bytes = self._items.table, self.settings.model.chunk_megabytes << 20
        owners = np.repeat(np.arange(len(users)), rows.lengths)
        totals = np.bincount(owners, np.abs(rows.weights), minlength=len(users)).astype(np.float64)
        chosen, start = Selection.of(rows, np.arange(len(users)), totals), take_rows(self.user_factors, users)
        return solve_exactly(chosen, items.values, items.gram, start, self.objective, chunk_bytes)

    def folded_in_users(self, history: History) -> torch.Tensor:
        """All users solved exactly against the current items, (users, factors) float32.

        Raises:
            SolveError: the equations have no finite solution.
        """
        # Rows with more interactions than the cap are sampled the same way every time.
        return self.folded_in(self._users.select(history, self._users.rows, StepId(0, 0)))

    def _all_solved(self) -> None:
        self._read = 0
        for side in (self._users, self._items):
            side.all_solved()

    def _other(self, side: Side) -> FactorTable:
        return self._users.table if side is self._items else self._items.table

    def _places(self, rows: IntArray) -> torch.Tensor:
        return torch.from_numpy(rows).to(self.device)

    def state(self) -> State:
        """See `Learner`."""
        state: State = {"read": np.array([self._read]), "halvings": np.array([self._halvings])}
        return state | prefixed(self._users.state(), "user") | prefixed(self._items.state(), "item")

    @classmethod
    def from_state(cls, settings: Settings, state: Mapping[str, npt.NDArray[Any]]) -> "IncrementalAls":
        """See `Learner`."""
        learner = cls(settings)
        learner._read, learner._halvings = int(state["read"][0]), int(state["halvings"][0])
        learner._users = Side.from_state("user", settings, learner.device, part(state, "user"))
        learner._items = Side.from_state("item", settings, learner.device, part(state, "item"))
        return learner
