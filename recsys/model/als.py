"""Incremental alternating least squares for implicit feedback."""

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
from recsys.model.history import History, Orientation
from recsys.model.popularity import Popularity
from recsys.model.solve import Penalty, solve_rows
from recsys.model.vocab import Vocabulary, pack_ids, unpack_ids

# Working bytes per pair of a half-step: code, weight, confidence, root, target, index.
_BYTES_PER_PAIR = 64
# Small enough to stay in a processor's cache between the steps of one chunk.
_CPU_STEP_BYTES = 16 << 20


# Standard deviation of a new row's factors before its first solve, times sqrt(factors).
_START_SCALE = 0.1
# What the random start of a row is drawn for.
_ARRIVAL, _REFIT = 0, 1


@dataclass(frozen=True)
class UpdateReport:
    """What an update did.

    Attributes:
        new_users, new_items: ids never seen before.
        solved_users, solved_items: rows solved, each counted once per sweep.
        gathered: interactions that went into those solves.
    """

    new_users: int = 0
    new_items: int = 0
    solved_users: int = 0
    solved_items: int = 0
    gathered: int = 0


@dataclass(eq=False)
class _Side:
    """Users or items: their ids, their factors, and the row from which the refreshing in turn goes on."""

    vocabulary: Vocabulary
    table: FactorTable
    cursor: int = 0


class IncrementalAls:
    """Factors of users and items that follow a stream of batches.

    Each batch's users and items are solved again from their full history against the other side, for as long as
    `min_change` of their weight is new; a further share of rows is refreshed in turn, so that no row stays behind the
    rest for ever. The cost of a batch follows the interactions it touches, not the length of the history.

    The state is a function of the batches learnt and the settings: the same batches give the same arrays to the last
    bit, also when a snapshot is taken and loaded in between (on one kind of machine and number of threads).

    Args:
        settings: The sections model, decay, evaluation (half-life of the popularity), device and seed are used.

    Raises:
        ConfigError: the device is not there.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.device = resolve_device(settings.device)
        self.step: StepId | None = None
        self.popularity = Popularity(settings.evaluation.popularity_half_life_days)
        self.history = History(settings.decay.half_life_days)
        nothing = np.zeros((0, settings.model.factors), dtype=np.float32)
        self._users = _Side(Vocabulary(), FactorTable(nothing, self.device))
        self._items = _Side(Vocabulary(), FactorTable(nothing, self.device))

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
        share = self.settings.model.min_change
        due = {
            self._items: self.history.by_item.due(np.unique(items), share),
            self._users: self.history.by_user.due(np.unique(users), share),
        }
        solved, gathered = {self._items: 0, self._users: 0}, 0
        for sweep in range(self.settings.model.sweeps):
            for side, rows in due.items():
                if sweep == self.settings.model.sweeps - 1:
                    rows = np.union1d(rows, self._refresh(side, rows))
                gathered += self._solve(side, rows)
                solved[side] += len(rows)
        return UpdateReport(new_users, new_items, solved[self._users], solved[self._items], gathered)

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
        for side in (self._users, self._items):
            side.table = FactorTable(self._start(side, len(side.vocabulary), step, purpose=_REFIT), self.device)
            side.cursor = 0
        sweeps = self.settings.model.rebuild_sweeps
        gathered = 0
        for _ in range(sweeps):
            for side in (self._items, self._users):
                gathered += self._solve(side, np.arange(len(side.table)))
        return UpdateReport(
            solved_users=sweeps * len(self.users), solved_items=sweeps * len(self.items), gathered=gathered
        )

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
            side.table.append(self._start(side, count, step, purpose=_ARRIVAL))
            added.append(count)
        return users, items, added[0], added[1]

    def _start(self, side: "_Side", count: int, step: StepId, purpose: int) -> npt.NDArray[np.float32]:
        """Random factors (count, factors) from which the first solve of new rows starts."""
        # A rebuild without a checkpoint has batch id -1, and seeds must not be negative.
        place = (self.settings.seed, step.epoch, step.batch_id + 1, purpose, side is self._items)
        generator = np.random.default_rng([int(number) for number in place])
        factors = self.settings.model.factors
        return generator.standard_normal((count, factors), dtype=np.float32) * np.float32(_START_SCALE / factors**0.5)

    def _refresh(self, side: "_Side", due: IntArray) -> IntArray:
        """Rows that are solved again in turn: as many as take `refresh_ratio` times the interactions of `due`."""
        lengths = self._pairs(side).lists.lengths
        budget = int(self.settings.model.refresh_ratio * lengths[due].sum())
        # A row has at least one interaction, so more rows than the budget are never needed.
        window = (side.cursor + np.arange(min(budget, len(lengths)))) % max(len(lengths), 1)
        taken = int(np.searchsorted(np.cumsum(lengths[window]), budget, side="right"))
        side.cursor = int((side.cursor + taken) % max(len(lengths), 1))
        return window[:taken]

    def _solve(self, side: "_Side", rows: IntArray) -> int:
        """Solve rows of a side against the other and store them; the number of interactions used."""
        model = self.settings.model
        penalty = Penalty(model.alpha, model.regularization, model.regularization_exponent)
        other = self._users if side is self._items else self._items
        gather = self.history.item_rows if side is self._items else self.history.user_rows
        chunk_bytes = model.chunk_megabytes << 20
        step_bytes = min(chunk_bytes, _CPU_STEP_BYTES) if self.device.type == "cpu" else chunk_bytes
        ends = np.cumsum(self._pairs(side).lists.lengths[rows])
        cuts = np.flatnonzero(np.diff(ends * _BYTES_PER_PAIR // chunk_bytes)) + 1
        solved = [
            solve_rows(gather(chunk), other.table.values, other.table.gram, penalty, step_bytes)
            for chunk in np.split(rows, cuts)
        ]
        side.table.replace(rows, torch.cat(solved))
        self._pairs(side).unsolved.values[rows] = 0
        return int(ends[-1]) if len(ends) else 0

    def _pairs(self, side: "_Side") -> Orientation:
        return self.history.by_item if side is self._items else self.history.by_user

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """All arrays of the model; `from_state` continues from them as if nothing had happened."""
        state = {f"history.{name}": array for name, array in self.history.state().items()}
        state |= {"popularity.stored": self.popularity.stored, "popularity.clock": self.popularity.clock}
        for name, side in (("user", self._users), ("item", self._items)):
            state[f"{name}.ids"], state[f"{name}.offsets"] = pack_ids(side.vocabulary.ids)
            state[f"{name}.factors"] = side.table.values.cpu().numpy()
            state[f"{name}.gram"] = side.table.gram.numpy()
            state[f"{name}.counters"] = np.array([side.table.corrections, side.cursor])
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
        model._users, model._items = (
            _Side(
                Vocabulary(unpack_ids(state[f"{name}.ids"], state[f"{name}.offsets"])),
                FactorTable.from_state(
                    state[f"{name}.factors"], state[f"{name}.gram"], int(state[f"{name}.counters"][0]), model.device
                ),
                cursor=int(state[f"{name}.counters"][1]),
            )
            for name in ("user", "item")
        )
        return model
