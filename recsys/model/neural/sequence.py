"""A recurrent network over the order of each user's latest items."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from recsys.config import Settings
from recsys.contracts import StepId
from recsys.model.als.incremental_als import IncrementalAls
from recsys.model.common.arrays import Float32Array, FloatArray, GrowingArray, Int32Array, IntArray
from recsys.model.common.device import one_thread, resolve_device
from recsys.model.common.randomness import Purpose, generator
from recsys.model.drift.surprise import Decision
from recsys.model.interactions.history import History
from recsys.model.interactions.keeping import Kept
from recsys.model.learner import CodedBatch, State
from recsys.model.neural.optimizers import grow_rows, keep_rows, optimizer_state, restore_optimizer
from recsys.serving import Lists
from recsys.serving.arrays import part, prefixed, ragged_ranges
from recsys.serving.sequence import SequenceScorer
from recsys.serving.walks import put_first

# Latest items of a user that are read, and items that an example asks for, at most.
_WIDTH = _TARGETS = 20
_DIMENSIONS = 64
# SequenceExamples that are kept to be learned again.
_KEPT = 20_000
# Passes over a batch, with as many kept examples as it has of its own; and over what is kept, in a rebuild.
_PASSES, _EPOCHS = 2, 5
_AT_ONCE, _RATE, _DROPOUT, _PENALTY = 256, 2e-3, 0.1, 1e-5
# Items, beside those asked for, over which a softmax is summed up.
_SAMPLED = 2_048
# Standard deviation of the vector of a new item that nobody else knows either.
_NEW = 0.1
_TABLES = ("residual", "bias")


@dataclass(frozen=True)
class SequenceExamples:
    """What users had, and what they had next.

    Attributes:
        contexts: (n, latest) int32 codes, one higher, newest first, 0 for none; at least one each.
        targets: (n, most) int32 codes, one higher, in no particular order, then 0 for none; at least one each.
    """

    contexts: Int32Array
    targets: Int32Array

    def __len__(self) -> int:
        return len(self.contexts)

    def take(self, places: IntArray | slice) -> "SequenceExamples":
        """Those at some places."""
        return SequenceExamples(self.contexts[places], self.targets[places])

    def joined(self, other: "SequenceExamples") -> "SequenceExamples":
        """These, then the others."""
        pairs = ((self.contexts, other.contexts), (self.targets, other.targets))
        return SequenceExamples(*(np.concatenate(pair) for pair in pairs))


class SequenceNetwork(torch.nn.Module):
    """Vectors of items, a gated recurrent unit (GRU) over those of a user's latest items, and a linear map behind it.

    The vector of an item is a linear map of its factors, at first the identity, plus a correction of its own. It is
    both what the network reads and what its output is multiplied with.

    Args:
        factors: Length of the items' factors; 0: they have none.
        drawing: What the weights are drawn from.
    """

    def __init__(self, factors: int, drawing: np.random.Generator) -> None:
        super().__init__()
        self.projection = torch.nn.Parameter(torch.eye(_DIMENSIONS, factors))
        self.residual = torch.nn.Parameter(torch.zeros(0, _DIMENSIONS))
        self.bias = torch.nn.Parameter(torch.zeros(0, 1))
        # Not initialized by the global generator of torch.
        with torch.device("meta"):
            gru, output = (
                torch.nn.GRU(_DIMENSIONS, _DIMENSIONS, batch_first=True),
                torch.nn.Linear(_DIMENSIONS, _DIMENSIONS),
            )
        self.gru: torch.nn.GRU = gru.to_empty(device="cpu")
        self.output: torch.nn.Linear = output.to_empty(device="cpu")
        with torch.no_grad():
            for weights in (*self.gru.parameters(), *self.output.parameters()):
                drawn = drawing.uniform(-(_DIMENSIONS**-0.5), _DIMENSIONS**-0.5, weights.shape)
                weights.copy_(torch.from_numpy(drawn.astype(np.float32)))

    def vectors(self, factors: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        """(..., d) vectors of items (...) that have some factors (all items, f)."""
        return functional.linear(factors[items], self.projection) + functional.embedding(items, self.residual)

    def forward(
        self, contexts: torch.Tensor, items: torch.Tensor, factors: torch.Tensor, dropping: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Vectors of users (b, d) after contexts (b, latest), codes as in `SequenceExamples`; of items (c, d)."""
        last = (contexts > 0).sum(dim=1) - 1
        # Oldest first. What comes behind the newest is read, but its states are not used.
        places = (last[:, None] - torch.arange(contexts.shape[1], device=contexts.device)).clamp(min=0)
        read = self.vectors(factors, contexts.gather(1, places) - 1)
        kept = torch.rand(read.shape, generator=dropping, device=read.device) >= _DROPOUT
        states, _ = self.gru(read * kept / (1 - _DROPOUT))
        users = self.output(states[torch.arange(len(last), device=last.device), last])
        return users, self.vectors(factors, items)


class SequenceEncoder:
    """Predicts what a user interacts with next from the order of the user's latest items; a `Learner`.

    From what a user had before a batch it learns all that the user has in it, and what comes behind one random place
    of the batch from what comes before; with as many examples of earlier batches, so that it does not forget (Mi et
    al., "ADER: Adaptively distilled exemplar replay towards continual learning for session-based recommendation",
    RecSys 2020, of which only the replay is used). The loss is the mean cross-entropy of a softmax over all items,
    beyond `_SAMPLED` of them over a sample. With an `als` model the network learns a correction to its factors.

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
        self._kept = SequenceExamples(np.zeros((0, _WIDTH), np.int32), np.zeros((0, _TARGETS), np.int32))
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
        self._learn(own.joined(older), _PASSES, decision.learning_rate, drawing)
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
        for name in _TABLES:
            keep_rows(self._network.get_parameter(name), rows, self._optimizer)

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
        weights = {name: parameter.detach().cpu().numpy() for name, parameter in named.items()}
        moments = optimizer_state(self._optimizer, named, lambda name: len(named[name]))
        buffer = {"contexts": self._kept.contexts, "targets": self._kept.targets}
        state: State = {"recent": self._latest()}
        return state | prefixed(buffer, "buffer") | prefixed(weights, "network") | prefixed(moments, "optimizer")

    @classmethod
    def from_state(cls, settings: Settings, state: Mapping[str, npt.NDArray[Any]]) -> "SequenceEncoder":
        """See `Learner`."""
        learner = cls(settings)
        learner._recent = GrowingArray(state["recent"].ravel(), np.int32)
        learner._kept = SequenceExamples(*(state[f"buffer.{name}"].copy() for name in ("contexts", "targets")))
        named = dict(learner._network.named_parameters())
        for name, parameter in named.items():
            # A copy by torch lies where a parameter would: how it is aligned may decide about the last bits of sums.
            parameter.data = torch.from_numpy(state[f"network.{name}"]).clone().to(learner._device)
        # On CUDA the weights of the unit lie in one piece; elsewhere nothing happens.
        learner._network.gru.flatten_parameters()
        restore_optimizer(learner._optimizer, named, part(state, "optimizer"))
        return learner

    def served(self, history: History) -> State:
        """The arrays of `SequenceScorer`."""
        return {name: array.copy() for name, array in self._arrays().items()}

    def _start(self, drawing: np.random.Generator) -> None:
        """A network that has learned nothing, of no items."""
        self._network = SequenceNetwork(self._factor_count, drawing).to(self._device)
        self._optimizer = torch.optim.Adam(self._network.parameters(), _RATE)

    def _grow(self, items: int, step: StepId) -> None:
        """Have this many items: new ones have the mean bias, and no correction, or without factors a small vector."""
        residual, bias = (self._network.get_parameter(name) for name in _TABLES)
        before = len(bias)
        for table in (residual, bias):
            grow_rows(table, items, self._optimizer, spare=False)
        if 0 < before < items:
            bias.data[before:] = bias.data[:before].mean()
        if not self._factor_count:
            drawing = generator(self._seed, step, Purpose.SEQUENCE_NEW_ITEMS)
            drawn = _NEW * drawing.standard_normal((items - before, _DIMENSIONS), dtype=np.float32)
            residual.data[before:] = torch.from_numpy(drawn)

    def _take_in(self, batch: CodedBatch, step: StepId, drawing: np.random.Generator) -> SequenceExamples:
        """Make room for a batch, keep the examples that it gives, and follow its users' latest items."""
        self._grow(batch.item_count, step)
        self._recent.resize(batch.user_count * _WIDTH)
        liked = Lists(*batch.liked_in_order())
        own = examples_of(self._latest(), liked, drawing)
        put_first(self._latest(), *liked)
        self._kept = self._kept.joined(own).take(slice(-_KEPT, None))
        return own

    def _learn(self, examples: SequenceExamples, passes: int, rate: float, drawing: np.random.Generator) -> None:
        """Train on examples, in random order, so many times."""
        dropping = torch.Generator(self._device).manual_seed(int(drawing.integers(2**62)))
        factors = self._factors()
        for group in self._optimizer.param_groups:
            group["lr"] = _RATE * rate
        for _ in range(passes):
            order = drawing.permutation(len(examples))
            for begin in range(0, len(order), _AT_ONCE):
                some = examples.take(order[begin : begin + _AT_ONCE])
                loss = self._loss(some, factors, drawing, dropping)
                self._optimizer.zero_grad()
                torch.autograd.backward(loss + _PENALTY * self._network.residual.square().sum())
                self._optimizer.step()

    def _loss(
        self, examples: SequenceExamples, factors: torch.Tensor, drawing: np.random.Generator, dropping: torch.Generator
    ) -> torch.Tensor:
        """Mean cross-entropy of examples, in each of which all targets count alike."""
        items, shifts = softmax_items(examples.targets, len(self._network.bias), drawing)
        rows = torch.from_numpy(items).to(self._device)
        contexts = torch.from_numpy(examples.contexts).long().to(self._device)
        users, vectors = self._network(contexts, rows, factors, dropping)
        levels = self._network.bias[rows, 0] + torch.from_numpy(shifts).to(self._device)
        logs = torch.log_softmax(torch.addmm(levels, users, vectors.T), dim=1)
        owners, places = np.nonzero(examples.targets)
        asked = np.searchsorted(items, examples.targets[owners, places] - 1)
        weights = (1 / np.bincount(owners))[owners].astype(np.float32)
        found = logs[torch.from_numpy(owners).to(self._device), torch.from_numpy(asked).to(self._device)]
        return -(found * torch.from_numpy(weights).to(self._device)).sum() / len(examples)

    def _factors(self) -> torch.Tensor:
        """(items, f) factors; a copy, which is aligned like any other tensor."""
        if self._teacher is None:
            return torch.zeros(len(self._network.bias), 0, device=self._device)
        return self._teacher.item_factors.clone()

    def _latest(self) -> Int32Array:
        """(users, width), a view."""
        latest: Int32Array = self._recent.values.reshape(-1, _WIDTH)
        return latest

    @one_thread()
    @torch.no_grad()
    def _arrays(self) -> State:
        network = self._network
        gru, items = dict(network.gru.named_parameters()), torch.arange(len(network.bias), device=self._device)
        named: dict[str, torch.Tensor] = {
            "vectors": network.vectors(self._factors(), items),
            "bias": network.bias[:, 0],
            "input_weights": gru["weight_ih_l0"],
            "input_bias": gru["bias_ih_l0"],
            "state_weights": gru["weight_hh_l0"],
            "state_bias": gru["bias_hh_l0"],
            "output_weights": network.output.weight,
            "output_bias": network.output.bias,
        }
        return {"recent": self._latest(), **{name: tensor.detach().cpu().numpy() for name, tensor in named.items()}}


def examples_of(latest: Int32Array, batch: Lists, drawing: np.random.Generator) -> SequenceExamples:
    """The examples of a batch.

    Args:
        latest: (users, latest) items before it, codes as in `SequenceExamples.contexts`.
        batch: What each user has in it, in order.
        drawing: Draws the place at which a user's items are cut in two, and targets where there are too many.
    """
    lengths, starts = batch.lengths, batch.offsets[:-1]
    before, cut = np.flatnonzero((lengths > 0) & (latest[:, 0] > 0)), np.flatnonzero(lengths > 1)
    heads = drawing.integers(1, lengths[cut]) if len(cut) else np.zeros(0, np.int64)
    within = latest[cut]
    put_first(within, *Lists.of(heads, batch.items[ragged_ranges(starts[cut], heads)]))
    begins = np.concatenate([starts[before], starts[cut] + heads])
    counts = np.concatenate([lengths[before], lengths[cut] - heads])
    asked = Lists.of(counts, batch.items[ragged_ranges(begins, counts)])
    order = np.lexsort((drawing.random(len(asked.items)), asked.owners))
    places = np.arange(len(order)) - asked.offsets[asked.owners]
    targets = np.zeros((len(counts), _TARGETS), np.int32)
    some = places < _TARGETS
    targets[asked.owners[some], places[some]] = asked.items[order[some]] + 1
    return SequenceExamples(np.concatenate([latest[before], within]), targets)


def softmax_items(targets: Int32Array, items: int, drawing: np.random.Generator) -> tuple[IntArray, Float32Array]:
    """The items over which a softmax is summed up: all, or those asked for and a sample of the others.

    Args:
        targets: (n, most) codes as in `SequenceExamples`.
        items: How many there are.
        drawing: Draws the sample.

    Returns:
        Items (c,), ascending, and what is added to their logits (c,), so that each of the sample stands for all those
        of which it is one.
    """
    if items <= _SAMPLED:
        return np.arange(items), np.zeros(items, np.float32)
    asked = np.unique(targets[targets > 0]).astype(np.int64) - 1
    found = np.union1d(asked, drawing.choice(items, _SAMPLED, replace=False))
    shifts = np.full(len(found), np.log(items / _SAMPLED), np.float32)
    shifts[np.searchsorted(found, asked)] = 0
    return found, shifts
