"""A recurrent network over the order of each user's latest items."""

from collections.abc import Mapping
from copy import deepcopy
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from recsys.config import Settings
from recsys.contracts import StepId
from recsys.model.als.incremental_als import IncrementalAls
from recsys.model.common.arrays import FloatArray, GrowingArray, Int32Array, IntArray
from recsys.model.common.device import one_thread, resolve_device
from recsys.model.common.randomness import Purpose, generator
from recsys.model.drift.surprise import Decision
from recsys.model.interactions.history import History
from recsys.model.interactions.keeping import Kept
from recsys.model.learner import CodedBatch, State
from recsys.model.neural.optimizers import grow_rows, keep_rows, optimizer_state, restore_optimizer
from recsys.model.neural.sequence_examples import WIDTH, SequenceExamples, examples_of, no_examples
from recsys.model.neural.sequence_network import DIMENSIONS, TABLES, SequenceNetwork
from recsys.serving import Lists
from recsys.serving.arrays import part, prefixed
from recsys.serving.sequence import SequenceScorer
from recsys.serving.walks import put_first

# Examples that are kept to be learned again.
_KEPT = 20_000
# Passes over a batch, with as many kept examples as it has of its own; and over what is kept, in a rebuild.
_PASSES, _EPOCHS = 2, 5
_AT_ONCE, _RATE = 256, 2e-3
# What a step leaves of the average of the weights, and after how many steps it is brought up to date.
_DECAY, _EVERY = 0.99, 8
# Standard deviation of the vector of a new item that nobody else knows either.
_NEW = 0.1

# Each with its parameters by name.
Optimizers = tuple[tuple[torch.optim.Optimizer, dict[str, torch.nn.Parameter]], ...]


class SequenceEncoder:
    """Predicts what a user interacts with next from the order of the user's latest items; a `Learner`.

    From what a user had before a batch it learns all that the user has in it, and what comes behind one random place
    of the batch from what comes before; with as many examples of earlier batches, so that it does not forget. Half of
    the target of these is what it said itself before the batch (Mi et al., "ADER: Adaptively distilled exemplar replay
    towards continual learning for session-based recommendation", RecSys 2020). The loss is the mean cross-entropy of a
    softmax over all items, summed up over a sample. With an `als` model the network learns a correction to its factors.
    Scores come from an exponential moving average of the weights.

    Args:
        settings: The section model and the keys device and seed are used.

    Raises:
        ConfigError: the device is not there.

    Source: Hidasi et al., "Session-based recommendations with recurrent neural networks" (ICLR 2016).
    """

    rehearsal = 0

    def __init__(self, settings: Settings) -> None:
        self._seed, self._device = settings.seed, resolve_device(settings.device)
        model = settings.model
        self._factor_count = model.factors if model.kind == "mixture" and "als" in model.mixture.members else 0
        self._teacher: IncrementalAls | None = None
        # Codes of latest items, one higher, newest first, 0 for none. Flat: (users * width,).
        self._recent = GrowingArray((), np.int32)
        self._kept = no_examples()
        self._start(generator(self._seed, None, Purpose.SEQUENCE_START))

    def borrow(self, teacher: IncrementalAls) -> None:
        """Read the factors of a model that learns the same batches before this learner does."""
        self._teacher = teacher

    def update(self, batch: CodedBatch, history: History, step: StepId, decision: Decision) -> dict[str, float]:
        """See `Learner`; of the decision the learning rate applies."""
        if not len(batch):
            return {}
        drawing = generator(self._seed, step, Purpose.SEQUENCE_UPDATE)
        known = self._kept
        own = self._take_in(batch, step, drawing)
        older = known.take(drawing.integers(len(known), size=len(own) if len(known) else 0))
        former = deepcopy(self._average) if len(older) else None
        self._learn(own.joined(older), _PASSES, decision.learning_rate, drawing, former, len(own))
        return {}

    def absorb(self, batch: CodedBatch, history: History, step: StepId) -> None:
        """See `Learner`."""
        self._take_in(batch, step, generator(self._seed, step, Purpose.SEQUENCE_UPDATE))

    def keep(self, kept: Kept, history: History) -> None:
        """See `Learner`. Examples that are left without an item before or after go, too."""
        self._recent = GrowingArray(kept.items.latest_in_slots(self._latest()[kept.users.codes]).ravel(), np.int32)
        sides = (self._kept.contexts, self._kept.targets)
        left = SequenceExamples(*(kept.items.latest_in_slots(side) for side in sides))
        self._kept = left.take(np.flatnonzero((left.contexts[:, 0] > 0) & (left.targets[:, 0] > 0)))
        rows = torch.from_numpy(kept.items.codes).to(self._device)
        for name in TABLES:
            keep_rows(self._network.get_parameter(name), rows, self._tables)
            keep_rows(self._average.get_parameter(name), rows)

    def refit(self, history: History, step: StepId) -> dict[str, float]:
        """Train from scratch on the kept examples."""
        items = len(self._network.bias)
        self._start(generator(self._seed, step, Purpose.SEQUENCE_START))
        self._grow(items, step)
        self._learn(self._kept, _EPOCHS, 1.0, generator(self._seed, step, Purpose.SEQUENCE_REFIT))
        return {}

    def score(self, users: IntArray) -> torch.Tensor:
        """See `Learner`."""
        return torch.from_numpy(self.scorer().score(users))

    def score_pairs(self, users: IntArray, items: IntArray) -> FloatArray:
        """See `Learner`."""
        scores: FloatArray = self.scorer().at(users, Lists.of(np.ones(len(items)), items))
        return scores

    def scorer(self) -> SequenceScorer:
        """The scorer of the network as it is now."""
        return SequenceScorer(self._arrays())

    def state(self) -> State:
        """See `Learner`."""
        named = dict(self._network.named_parameters())
        average = dict(self._average.named_parameters())
        moments: State = {}
        for optimizer, own in self._optimizers:
            moments |= optimizer_state(optimizer, own, lambda name: len(named[name]))
        buffer = {"contexts": self._kept.contexts, "targets": self._kept.targets}
        state: State = {"recent": self._latest()}
        for name, parameters in (("network", named), ("average", average)):
            weights = {own: parameter.detach().cpu().numpy() for own, parameter in parameters.items()}
            state |= prefixed(weights, name)
        return state | prefixed(buffer, "buffer") | prefixed(moments, "optimizer")

    @classmethod
    def from_state(cls, settings: Settings, state: Mapping[str, npt.NDArray[Any]]) -> "SequenceEncoder":
        """See `Learner`."""
        learner = cls(settings)
        learner._recent = GrowingArray(state["recent"].ravel(), np.int32)
        learner._kept = SequenceExamples(*(state[f"buffer.{name}"].copy() for name in ("contexts", "targets")))
        for network, kind in ((learner._network, "network"), (learner._average, "average")):
            for name, parameter in network.named_parameters():
                # A copy by torch lies where a parameter would: its alignment may decide about the last bits of sums.
                parameter.data = torch.from_numpy(state[f"{kind}.{name}"]).clone().to(learner._device)
            # On CUDA the weights of the unit lie in one piece; elsewhere nothing happens.
            network.gru.flatten_parameters()
        for optimizer, own in learner._optimizers:
            restore_optimizer(optimizer, own, part(state, "optimizer"))
        return learner

    def served(self, history: History) -> State:
        """The arrays of `SequenceScorer`."""
        return {name: array.copy() for name, array in self._arrays().items()}

    def _start(self, drawing: np.random.Generator) -> None:
        """A network that has learned nothing, of no items."""
        self._network = SequenceNetwork(self._factor_count, drawing).to(self._device)
        self._average = deepcopy(self._network).requires_grad_(False)
        layers = dict(self._network.named_parameters())
        tables = {name: layers.pop(name) for name in TABLES}
        # Of the tables only the rows that a step touches move.
        self._tables = torch.optim.SparseAdam([*tables.values()], _RATE)
        self._optimizers: Optimizers = ((self._tables, tables), (torch.optim.Adam(layers.values(), _RATE), layers))

    def _grow(self, items: int, step: StepId) -> None:
        """Have this many items: new ones have the mean bias, and no correction, or without factors a small vector."""
        residual, bias = (self._network.get_parameter(name) for name in TABLES)
        before = len(bias)
        for table in (residual, bias):
            grow_rows(table, items, self._tables, spare=False)
        if 0 < before < items:
            bias.data[before:] = bias.data[:before].mean()
        if not self._factor_count:
            drawing = generator(self._seed, step, Purpose.SEQUENCE_NEW_ITEMS)
            drawn = _NEW * drawing.standard_normal((items - before, DIMENSIONS), dtype=np.float32)
            residual.data[before:] = torch.from_numpy(drawn)
        for name, table in zip(TABLES, (residual, bias), strict=True):
            average = self._average.get_parameter(name)
            grow_rows(average, items, spare=False)
            average[before:] = table.detach()[before:]

    def _take_in(self, batch: CodedBatch, step: StepId, drawing: np.random.Generator) -> SequenceExamples:
        """Make room for a batch, keep the examples that it gives, and follow its users' latest items."""
        self._grow(batch.item_count, step)
        self._recent.resize(batch.user_count * WIDTH)
        liked = Lists(*batch.liked_in_order())
        own = examples_of(self._latest(), liked, drawing)
        put_first(self._latest(), *liked)
        self._kept = self._kept.joined(own).take(slice(-_KEPT, None))
        return own

    def _learn(
        self,
        examples: SequenceExamples,
        passes: int,
        rate: float,
        drawing: np.random.Generator,
        former: SequenceNetwork | None = None,
        fresh: int = 0,
    ) -> None:
        """Train on examples, in random order, so many times; those behind the fresh ones also on the former network."""
        dropping = torch.Generator(self._device).manual_seed(int(drawing.integers(2**62)))
        factors = self._factors()
        for optimizer, _ in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = _RATE * rate
        made = 0
        for places in chain.from_iterable(examples.drawn(_AT_ONCE, drawing) for _ in range(passes)):
            for optimizer, _ in self._optimizers:
                optimizer.zero_grad()
            known = None if former is None else (former, places >= fresh)
            torch.autograd.backward(self._network.loss(examples.take(places), factors, drawing, dropping, known))
            for optimizer, _ in self._optimizers:
                optimizer.step()
            made += 1
            if made % _EVERY == 0:
                self._follow(_EVERY)
        self._follow(made % _EVERY)

    @torch.no_grad()
    def _follow(self, steps: int) -> None:
        """Move the average toward the network as for so many steps; at first more, so that it forgets how it began."""
        count = self._tables.state.get(self._network.bias, {}).get("step", 0)
        kept = min(_DECAY, (1 + count) / (10 + count)) ** steps
        for average, parameter in zip(self._average.parameters(), self._network.parameters(), strict=True):
            average.lerp_(parameter, 1 - kept)

    def _factors(self) -> torch.Tensor:
        """(items, f) factors; a copy, which is aligned like any other tensor."""
        if self._teacher is None:
            return torch.zeros(len(self._network.bias), 0, device=self._device)
        return self._teacher.item_factors.clone()

    def _latest(self) -> Int32Array:
        """(users, width), a view."""
        latest: Int32Array = self._recent.values.reshape(-1, WIDTH)
        return latest

    @one_thread()
    def _arrays(self) -> State:
        return {"recent": self._latest(), **self._average.arrays(self._factors())}
