"""Incremental alternating least squares for implicit feedback."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from recsys.config import Settings
from recsys.contracts import InteractionBatch, StepId
from recsys.model.arrays import IntArray
from recsys.model.device import resolve_device
from recsys.model.factors import FactorTable
from recsys.model.frozen import FrozenFactors
from recsys.model.history import History, Orientation
from recsys.model.objective import Objective
from recsys.model.popularity import Popularity
from recsys.model.schedule import Turn, most_changed
from recsys.model.selection import Selection
from recsys.model.solve import solve_closely, solve_exactly
from recsys.model.sweeps import alternations, random_factors
from recsys.model.vocab import Vocabulary, pack_ids, unpack_ids

# What random numbers are drawn for.
_ARRIVAL, _REFIT, _LONG_ROWS, _DRIFT = range(4)


@dataclass(frozen=True)
class UpdateReport:
    """What an update did.

    Attributes:
        new_users, new_items: ids never seen before.
        solved_users, solved_items: rows solved, each counted once per sweep.
        gathered: interactions that went into those solves.
        user_drift, item_drift: how far a sample of rows is from where a full solve would put it, relative.
        full_sweep: whether the drift was past its threshold, so that all rows were solved.
        turn_batches: batches of this size after which every row has been solved in turn.
    """

    new_users: int = 0
    new_items: int = 0
    solved_users: int = 0
    solved_items: int = 0
    gathered: int = 0
    user_drift: float = 0.0
    item_drift: float = 0.0
    full_sweep: bool = False
    turn_batches: float = 0.0


@dataclass(eq=False)
class _Side:
    """Users or items: their ids, their factors, and where the solving in turn has come to."""

    vocabulary: Vocabulary
    table: FactorTable
    turn: Turn


class IncrementalAls:
    """Factors of users and items that follow a stream of batches.

    A batch's users and items are solved again from their full history against the other side, the most changed ones
    first and all others in turn, within a budget (see `schedule`). So the cost of a batch follows its events, not the
    length of the history. What is served, and every sweep over everything, is solved exactly. After each batch a sample
    of rows tells how far the factors are from a full solve; past a threshold everything is solved once.

    The state is a function of the batches learnt and the settings: the same batches give the same arrays to the last
    bit, also when a snapshot is taken and loaded in between (on one kind of machine).

    Args:
        settings: The sections model, decay, drift, evaluation (half-life of the popularity), device and seed are used.

    Raises:
        ConfigError: the device is not there.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.objective = Objective.of(settings.model)
        self.device = resolve_device(settings.device)
        self.step: StepId | None = None
        self.popularity = Popularity(settings.evaluation.popularity_half_life_days)
        self.history = History(settings.decay.half_life_days)
        nothing = np.zeros((0, settings.model.factors), dtype=np.float32)
        self._users = _Side(Vocabulary(), FactorTable(nothing, self.device), Turn())
        self._items = _Side(Vocabulary(), FactorTable(nothing, self.device), Turn())
        # Interactions read since everything was solved at once.
        self._read = 0

    @property
    def users(self) -> Vocabulary:
        """All users seen."""
        return self._users.vocabulary

    @property
    def items(self) -> Vocabulary:
        """All items seen."""
        return self._items.vocabulary

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
        """Bytes of history and factors, the ids not counted."""
        return self.history.nbytes + self._users.table.nbytes + self._items.table.nbytes

    def update(self, batch: InteractionBatch, step: StepId) -> UpdateReport:
        """Learn from one batch.

        Args:
            batch: The batch; an empty one only moves `step`.
            step: Its epoch and number, larger than the last one.

        Raises:
            ValueError: the step is not larger than the last one learnt.
            SolveError: the equations have no finite solution.
        """
        users, items, new_users, new_items = self._take_in(batch, step)
        if not len(batch):
            return UpdateReport()
        budget = int(self.settings.model.budget * batch.events.sum())
        changed = {
            self._items: self._most_changed(self._items, items, budget // 2),
            self._users: self._most_changed(self._users, users, budget // 2),
        }
        rows = {side: np.union1d(own, self._in_turn(side, own, budget)) for side, own in changed.items()}
        solved, gathered = {self._items: 0, self._users: 0}, 0
        for sweep in range(self.settings.model.sweeps):
            moved, length = 0.0, 0.0
            for side in (self._items, self._users):
                before = side.table.values[self._places(rows[side])]
                gathered += self._update(side, rows[side], sweep)
                solved[side] += len(rows[side])
                after = side.table.values[self._places(rows[side])]
                moved += float((after - before).square().sum())
                length += float(after.square().sum())
            if moved <= self.settings.model.settled**2 * length:
                break
            rows = changed
        self._read += gathered
        drift = {side: self._drift(side) for side in (self._users, self._items)}
        # A sweep that follows soon upon another would stop the stream: together they cost no more than the updates do.
        full_sweep = max(drift.values()) > self.settings.drift.threshold and self._read >= 2 * len(self.history)
        if full_sweep:
            self._solve_all()
        return UpdateReport(
            new_users,
            new_items,
            solved[self._users],
            solved[self._items],
            gathered,
            drift[self._users],
            drift[self._items],
            full_sweep,
            turn_batches=len(self.history) / max(budget - budget // 2, 1),
        )

    def absorb(self, batch: InteractionBatch, step: StepId) -> None:
        """Take a batch into the history and the popularity without learning factors from it; `refit` does that.

        Raises:
            ValueError: the step is not larger than the last one learnt.
        """
        self._take_in(batch, step)

    def refit(self, step: StepId) -> UpdateReport:
        """Learn all factors anew from the whole history, from a seeded random start.

        Args:
            step: The step that the model has from now on: it begins an epoch, so it may be any that is larger.

        Raises:
            ValueError: the step is smaller than that of the last batch.
            SolveError: the equations have no finite solution.
        """
        if self.step is not None and step < self.step:
            raise ValueError(f"step {step} comes before {self.step}")
        self.step = step
        self._users.table, self._items.table = self._trained(step)
        self._all_solved()
        sweeps = self.settings.model.rebuild_sweeps
        return UpdateReport(
            solved_users=sweeps * len(self.users),
            solved_items=sweeps * len(self.items),
            gathered=2 * sweeps * len(self.history),
        )

    def shadow(self, step: StepId) -> FrozenFactors:
        """What `refit` would make of the history, to be measured beside this model, which stays as it is.

        Args:
            step: Seeds the start.

        Raises:
            SolveError: the equations have no finite solution.
        """
        users, items = self._trained(step)
        return FrozenFactors(
            self.users,
            self.items,
            users.values.cpu().numpy(),
            items.values.cpu().numpy(),
            self.popularity.scores().astype(np.float32),
        )

    def folded_in_users(self) -> torch.Tensor:
        """All users solved exactly against the items as they are, (users, factors) float32: what is served.

        Raises:
            SolveError: the equations have no finite solution.
        """
        rows = np.arange(len(self.users))
        return self._solution(self._users, rows, self._users.table, self._items.table)

    def _take_in(self, batch: InteractionBatch, step: StepId) -> tuple[IntArray, IntArray, int, int]:
        """Add a batch to everything but the factors of known rows; codes of its users and items, and counts of new."""
        if self.step is not None and step <= self.step:
            raise ValueError(f"step {step} does not come after {self.step}")
        self.step = step
        users, items = self.users.extend(batch.user_ids), self.items.extend(batch.item_ids)
        self.history.add_rows(len(self.users), len(self.items))
        self.history.add(users, items, batch.weights, batch.times)
        self.popularity.add(items, batch.weights, batch.times, len(self.items))
        added = []
        for side in (self._users, self._items):
            count = len(side.vocabulary) - len(side.table)
            generator = self._generator(side, step, _ARRIVAL)
            side.table.append(random_factors(count, self.settings.model.factors, generator))
            added.append(count)
        return users, items, added[0], added[1]

    def _generator(self, side: _Side, step: StepId, *purpose: int) -> np.random.Generator:
        # A rebuild without a checkpoint has batch id -1, and seeds must not be negative.
        place = (self.settings.seed, step.epoch, step.batch_id + 1, side is self._items, *purpose)
        return np.random.default_rng([int(number) for number in place])

    def _most_changed(self, side: _Side, codes: IntArray, budget: int) -> IntArray:
        """Rows of a batch, given by the codes of its interactions (n,), that are solved at once."""
        rows, pairs = np.unique(codes), self._pairs(side)
        return most_changed(rows, pairs.new_shares(rows), self._costs(side)[rows], budget)

    def _in_turn(self, side: _Side, changed: IntArray, budget: int) -> IntArray:
        """Rows solved in turn with what the changed ones leave of the budget, and half of it in any case."""
        costs = self._costs(side)
        return side.turn.take(costs, budget - min(int(costs[changed].sum()), budget // 2))

    def _costs(self, side: _Side) -> IntArray:
        """Interactions read when a row is solved, for all rows of a side."""
        return np.minimum(self._pairs(side).lists.lengths, self.settings.model.history_cap)

    def _trained(self, step: StepId) -> tuple[FactorTable, FactorTable]:
        """Users and items learnt from the whole history, from a seeded random start."""
        factors = self.settings.model.factors
        side_rows = {side: np.arange(len(side.vocabulary)) for side in (self._users, self._items)}
        starts = (
            random_factors(len(rows), factors, self._generator(side, step, _REFIT)) for side, rows in side_rows.items()
        )
        users, items = (torch.from_numpy(start).to(self.device) for start in starts)
        by_user, by_item = (self._select(side, rows) for side, rows in side_rows.items())
        rounds = alternations(by_user, by_item, users, items, self.objective, self._chunk_bytes)
        for round_ in itertools.islice(rounds, self.settings.model.rebuild_sweeps - 1):
            users, items = round_
        user_table, item_table = (FactorTable(values.cpu().numpy(), self.device) for values in (users, items))
        for side, own, other in ((self._items, item_table, user_table), (self._users, user_table, item_table)):
            own.replace(side_rows[side], self._solution(side, side_rows[side], own, other))
        return user_table, item_table

    def _solve_all(self) -> None:
        for side in (self._items, self._users):
            rows = np.arange(len(side.table))
            side.table.replace(rows, self._solution(side, rows, side.table, self._other(side).table))
        self._all_solved()

    def _all_solved(self) -> None:
        self._read = 0
        for side in (self._users, self._items):
            side.turn = Turn()
            self._pairs(side).unsolved.values[:] = 0

    def _drift(self, side: _Side) -> float:
        """How far a seeded sample of rows is from its exact solution, as a share of the solution's length."""
        assert self.step is not None
        drawn = self._generator(side, self.step, _DRIFT).integers(len(side.table), size=self.settings.drift.sample_rows)
        rows = np.unique(drawn)
        exact = self._solution(side, rows, side.table, self._other(side).table)
        distance = float((side.table.values[self._places(rows)] - exact).norm())
        length = float(exact.norm())
        return distance / length if length else 0.0

    def _update(self, side: _Side, rows: IntArray, sweep: int) -> int:
        """Solve rows of a side closely against the other and store them; the number of interactions read."""
        selection, other = self._select(side, rows, sweep), self._other(side).table
        start = side.table.values[self._places(rows)]
        solved = solve_closely(selection, other.values, other.gram, start, self.objective, self._chunk_bytes)
        side.table.replace(rows, solved)
        self._pairs(side).unsolved.values[rows] = 0
        return selection.pairs

    def _solution(self, side: _Side, rows: IntArray, own: FactorTable, other: FactorTable) -> torch.Tensor:
        """Rows of a side solved exactly against the other, from where they are."""
        start = own.values[self._places(rows)]
        selection = self._select(side, rows)
        return solve_exactly(selection, other.values, other.gram, start, self.objective, self._chunk_bytes)

    def _select(self, side: _Side, rows: IntArray, sweep: int = 0) -> Selection:
        assert self.step is not None
        pairs, scale = self._pairs(side), self.history.scale
        return Selection.of(
            pairs.lists.view(),
            rows,
            pairs.total.values[rows] * scale,
            scale,
            self.settings.model.history_cap,
            self._generator(side, self.step, _LONG_ROWS, sweep),
        )

    @property
    def _chunk_bytes(self) -> int:
        return self.settings.model.chunk_megabytes << 20

    def _places(self, rows: IntArray) -> torch.Tensor:
        return torch.from_numpy(rows).to(self.device)

    def _other(self, side: _Side) -> _Side:
        return self._users if side is self._items else self._items

    def _pairs(self, side: "_Side") -> Orientation:
        return self.history.by_item if side is self._items else self.history.by_user

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """All arrays of the model; `from_state` continues from them as if nothing had happened."""
        state = {f"history.{name}": array for name, array in self.history.state().items()}
        state["read"] = np.array([self._read])
        state |= {"popularity.stored": self.popularity.stored, "popularity.clock": self.popularity.clock}
        for name, side in (("user", self._users), ("item", self._items)):
            state[f"{name}.ids"], state[f"{name}.offsets"] = pack_ids(side.vocabulary.ids)
            state[f"{name}.factors"] = side.table.values.cpu().numpy()
            state[f"{name}.gram"] = side.table.gram.numpy()
            state[f"{name}.counters"] = np.array([side.table.corrections, side.turn.cursor, side.turn.credit])
        return state

    @classmethod
    def from_state(
        cls, settings: Settings, state: Mapping[str, npt.NDArray[Any]], step: StepId | None
    ) -> "IncrementalAls":
        """A model from what `state` returned, and the step it had learnt last."""
        model = cls(settings)
        model.step = step
        model.history = History.from_state(
            settings.decay.half_life_days,
            {name.removeprefix("history."): array for name, array in state.items() if name.startswith("history.")},
        )
        model.popularity = Popularity(
            settings.evaluation.popularity_half_life_days, state["popularity.stored"], state["popularity.clock"]
        )
        model._read = int(state["read"][0])
        model._users, model._items = (
            _Side(
                Vocabulary(unpack_ids(state[f"{name}.ids"], state[f"{name}.offsets"])),
                FactorTable.from_state(
                    state[f"{name}.factors"], state[f"{name}.gram"], int(state[f"{name}.counters"][0]), model.device
                ),
                Turn(*(int(number) for number in state[f"{name}.counters"][1:])),
            )
            for name in ("user", "item")
        )
        return model
