"""Incremental neural collaborative filtering."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from recsys.config import Settings
from recsys.contracts import StepId
from recsys.model.als.factors import take_rows
from recsys.model.als.incremental_als import IncrementalAls
from recsys.model.common.arrays import FloatArray, GrowingArray, IntArray
from recsys.model.common.device import resolve_device
from recsys.model.common.randomness import Purpose, generator
from recsys.model.drift.surprise import Decision
from recsys.model.interactions.history import History
from recsys.model.interactions.keeping import Kept
from recsys.model.learner import CodedBatch, State
from recsys.model.neural.calibration import Calibration
from recsys.model.neural.candidates import two_stage
from recsys.model.neural.examples import LabeledPairs, labeled
from recsys.model.neural.held_out import HeldOut
from recsys.model.neural.negatives import NegativeSampler
from recsys.model.neural.network import TABLES, NeuMf, WarmStart
from recsys.model.neural.peers import Peers
from recsys.model.neural.replay_buffer import Pairs, ReplayBuffer, history_of, of_batch, of_history, sample
from recsys.model.neural.training import Pace, Trainer
from recsys.serving.arrays import part, prefixed

# Number of unseen items among which each held-out pair is ranked.
_MEASURED_NEGATIVES = 50
# The calibration is fitted to at least this many held-out pairs.
_CALIBRATED_PAIRS = 100


class TrainElsewhere(Protocol):
    """Trains the network of a learner in other processes, which call `NeuralCf.train_with`."""

    def __call__(self, learner: State, history: State, step: StepId) -> tuple[State, dict[str, float]]:
        """Take the states of learner and history; return that of the trained network, and the metrics of `refit`."""


class NeuralCf:
    """NeuMF that follows a stream of batches; a `Learner`.

    The network trains on the pairs of a batch and on older pairs from a replay buffer, each with unseen items as
    negatives. Embeddings are updated with every batch, the layers every few batches (Liu et al., "Monolith" 2022,
    section 2.2). Scores come from a moving average of the weights. With a teacher, which is an `als` model of its own,
    the network learns a correction to the teacher's factors, and its targets are partly the teacher's predictions
    (distillation). The teacher also generates the candidates that the network ranks.

    A hash decides which pairs are held out and never trained on. The loss on them decides when a rebuild, or the passes
    over a batch, stop. In a rebuild the teacher that the network trains with has not seen them either. Between rebuilds
    it has, so there the loss is slightly too optimistic.

    Args:
        settings: The section model (mainly model.neural) and the keys device and seed are used.

    Attributes:
        elsewhere: Where `refit` trains the network; None: in this process.

    Raises:
        ConfigError: the device is not there.
    """

    rehearsal = 0

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.device = resolve_device(settings.device)
        self._neural = settings.model.neural
        self.teacher = IncrementalAls(settings) if self._neural.teacher else None
        # Whether the teacher is somebody else's, who updates and stores it.
        self._borrowed = False
        self._buffer = ReplayBuffer(self._neural.replay_recent, self._neural.replay_reservoir)
        # Pairs of each user. There are as many more candidates, since items that a user has interacted with rank high.
        self._lengths = GrowingArray((), np.int64)
        self._batches = 0
        self.elsewhere: TrainElsewhere | None = None
        self._calibration = Calibration.prior(self._neural.negatives)
        self._held_out = HeldOut(settings, self.device)
        self._trainer = self._new_trainer(generator(settings.seed, None, Purpose.NCF_REFIT))

    def borrow(self, teacher: IncrementalAls) -> None:
        """Take a teacher that learns the same batches before this learner does; nothing where it trains without one."""
        if self._neural.teacher:
            self.teacher, self._borrowed = teacher, True

    def update(self, batch: CodedBatch, history: History, step: StepId, decision: Decision) -> dict[str, float]:
        """Learn from one batch.

        Args:
            batch: The batch; an empty one changes nothing.
            history: Everything seen, the batch included.
            step: Its generation and number.
            decision: Its learning rate multiplies that of the network; the rest applies to the teacher.

        Returns:
            `learning_loss`: mean loss of a pair; `learned_pairs`: pairs trained on, without negatives; `passes`;
            `held_out_loss`: see `refit`, absent without held-out pairs; with a teacher also its metrics.

        Raises:
            SolveError: the teacher's equations have no finite solution.
        """
        if not len(batch):
            return {}
        own = self._own_teacher
        figures = {} if own is None else own.update(batch, history, step, decision)
        generator = self._generator(step, Purpose.NCF_UPDATE)
        older = self._buffer.draw(int(self._neural.replay * (batch.weights > 0).sum()), generator)
        self._take_in(batch, step, generator)
        pairs = self._held_out.learnable(of_batch(batch).joined(older))
        layers = self._batches % self._neural.towers_every_batches == 0
        pace = Pace(layers, decision.learning_rate, tuple(self._neural.frozen))
        self._batches += 1
        measured = self._held_out.measured(self._buffer.recent(), generator)
        reached = np.inf
        for number in range(self._neural.passes):
            loss = self._learn(pairs, history, generator, pace)
            figures |= {"learning_loss": loss, "learned_pairs": float(len(pairs)), "passes": number + 1.0}
            if not len(measured):
                continue
            before, figures["held_out_loss"] = reached, self._held_out_loss(history, measured, step)
            reached = figures["held_out_loss"]
            if reached >= before:
                break
        return figures

    def absorb(self, batch: CodedBatch, history: History, step: StepId) -> None:
        """Make room for a batch's users and items, and fill the replay buffer."""
        if self._own_teacher is not None:
            self._own_teacher.absorb(batch, history, step)
        self._take_in(batch, step, self._generator(step, Purpose.NCF_UPDATE))

    def keep(self, kept: Kept, history: History) -> None:
        """See `Learner`."""
        if self._own_teacher is not None:
            self._own_teacher.keep(kept, history)
        self._trainer.keep(kept)
        self._held_out.keep(kept)
        self._buffer.keep(kept)
        self._lengths.keep(kept.users.codes)
        if self.settings.recommend.exclude_seen:
            # Pairs that have faded are unseen again.
            self._lengths.values[:] = history.by_user.lists.lengths

    def refit(self, history: History, step: StepId) -> dict[str, float]:
        """Retrain the network from the whole history.

        Returns:
            `epochs`: number of epochs; `learning_loss`: mean loss of a pair in the last one; `held_out_loss`: mean -log
            of the softmax probability of a held-out item among unseen items, at the best epoch; with a teacher also its
            metrics.

        Raises:
            SolveError: the teacher's equations have no finite solution.
        """
        generator = self._generator(step, Purpose.NCF_REFIT)
        everything = of_history(history)
        learned = self._held_out.learnable(everything)
        measured = self._held_out.measured(everything, generator)
        borrowed = self.teacher if self._borrowed else None
        if self.teacher is not None:
            if borrowed is not None:
                self.teacher = IncrementalAls.from_state(self.settings, borrowed.state())
            self.teacher.refit(history_of(learned, history), step)
            self._calibration = self._calibrated(self.teacher, measured, history, step)
        users, items = self._network.users, self._network.items
        self._trainer = self._new_trainer(generator)
        self._grow(users, items, step)
        if self.elsewhere is None:
            figures = self._epochs(learned, measured, history, (generator, generator), step)
        else:
            trained, figures = self.elsewhere(self.state(), history.state(), step)
            self._trainer.load(trained)
        if borrowed is not None:
            self.teacher = borrowed
            return figures
        return figures if self.teacher is None else figures | self.teacher.refit(history, step)

    def train_with(self, peers: Peers, history: History, step: StepId) -> tuple[State, dict[str, float]]:
        """Do the part of `refit` that `elsewhere` does, together with other processes that call this with the same.

        Returns:
            See `TrainElsewhere`; the `learning_loss` is that of this process's share.
        """
        common, own = (self._generator(step, Purpose.NCF_REFIT, place) for place in (0, 1 + peers.rank))
        everything = of_history(history)
        learned, measured = self._held_out.learnable(everything), self._held_out.measured(everything, common)
        self._trainer.peers = peers
        figures = self._epochs(learned, measured, history, (common, own), step)
        peers.check_same(self._network.parameters())
        return self._trainer.state(), figures

    def _epochs(
        self,
        learned: Pairs,
        measured: Pairs,
        history: History,
        generators: tuple[np.random.Generator, np.random.Generator],
        step: StepId,
    ) -> dict[str, float]:
        """Train with early stopping on the held-out loss; keep the best weights.

        The first generator draws the pairs of an epoch, for all processes; the second one what each does with its own.
        """
        common, own = generators
        peers = self._trainer.peers
        figures: dict[str, float] = {}
        best, best_loss, since = None, np.inf, 0
        for epoch in range(self._neural.rebuild_epochs):
            chosen = sample(learned, self._neural.rebuild_pairs, common)
            chosen = chosen if peers is None else peers.share(chosen)
            figures |= {"learning_loss": self._learn(chosen, history, own, Pace()), "epochs": epoch + 1.0}
            if not len(measured):
                continue
            loss = self._held_out_loss(history, measured, step)
            loss = loss if peers is None else peers.agreed(loss)
            since += 1
            if loss < best_loss:
                best, best_loss, since = {name: array.copy() for name, array in self._trainer.state().items()}, loss, 0
            if since == self._neural.patience:
                break
        if best is not None:
            self._trainer.load(best)
            figures["held_out_loss"] = best_loss
        return figures

    def score(self, users: IntArray) -> torch.Tensor:
        """Rank candidates by the network and the others below them, (n, items) float32 on the device; see `Learner`.

        The candidates are the items with the highest inner products of factors: the teacher's, or an approximation of
        the logits. Their number is a setting, plus the number of items that the user has interacted with where those
        are not recommended. Candidates score their logits. The others rank below them, in the order of their products.
        """
        first = self._first_stage(users)
        scores = torch.zeros_like(first)
        known = np.flatnonzero(first.any(dim=1).cpu().numpy())
        if not len(known):
            return scores
        counts = np.minimum(self._neural.candidates + self._lengths.values[users[known]], first.shape[1])
        places = torch.from_numpy(known).to(self.device)
        scores[places] = two_stage(users[known], first[places], counts, self._logits)
        return scores

    def score_pairs(self, users: IntArray, items: IntArray) -> FloatArray:
        """Logits (n,) of pairs of known users and items (n,)."""
        rows = torch.from_numpy(users).to(self.device), torch.from_numpy(items).to(self.device)[:, None]
        found: FloatArray = self._logits(*rows)[:, 0].double().cpu().numpy()
        return found

    def _logits(self, users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        """Logits (b, n) of items (b, n) for users (b,)."""
        logits: torch.Tensor = self._network(users, items, self._warm_start())[0]
        return logits

    def _first_stage(self, users: IntArray) -> torch.Tensor:
        """Inner products of factors, (n, items); zeros for unknown users."""
        if self.teacher is not None:
            return self.teacher.score(users)
        user_factors, item_factors = self._near_factors()
        return take_rows(user_factors, users) @ item_factors.T

    def _near_factors(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self._network.near_factors(self._trainer.average.touched_users())

    def _take_in(self, batch: CodedBatch, step: StepId, generator: np.random.Generator) -> None:
        """Make room for a batch's users and items, and add its pairs to the replay buffer."""
        self._grow(batch.user_count, batch.item_count, step)
        self._lengths.resize(batch.user_count)
        if self.settings.recommend.exclude_seen:
            np.add.at(self._lengths.values, batch.users, batch.new_pairs)
        pairs = of_batch(batch)
        self._buffer.add(pairs.take(pairs.weights > 0), generator)

    def _grow(self, users: int, items: int, step: StepId) -> None:
        """Have this many users and items."""
        self._held_out.grow(users, items)
        generators = {name: self._generator(step, Purpose.NCF_NEW_ROWS, place) for place, name in enumerate(TABLES)}
        self._trainer.grow(users, items, generators)
        self._trainer.average.grow(self._trainer.live)

    def _learn(self, pairs: Pairs, history: History, generator: np.random.Generator, pace: Pace) -> float:
        """Train on pairs once, in random order; the mean loss of a pair, 0 without pairs."""
        dropping = torch.Generator(self.device).manual_seed(int(generator.integers(2**62)))
        shuffled = pairs.take(generator.permutation(len(pairs)))
        total = self._trainer.learn(self._gradients(shuffled, history, generator), self._warm_start(), pace, dropping)
        return total / max(len(pairs), 1)

    def _gradients(self, pairs: Pairs, history: History, generator: np.random.Generator) -> Iterator[LabeledPairs]:
        """Pairs, in their order, with unseen items as negatives and with the targets of distillation."""
        sampler = NegativeSampler(history, self._network.items, self._neural.negatives_exponent)
        for examples in labeled(pairs, sampler, self._neural, self.device, generator):
            yield replace(examples, targets=self._taught(examples.users, examples.items, examples.targets))

    def _taught(self, users: torch.Tensor, items: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Targets (b, n): labels mixed with the teacher's predictions.

        Cross-entropy is linear in its target, so this is a weighted sum of the loss on the labels and the loss on the
        predictions (Hinton et al., "Distilling the knowledge in a neural network" 2015).
        """
        if self.teacher is None or not self._neural.distillation:
            return labels
        taught = self._calibration.chances(_pair_scores(self.teacher, users, items))
        return torch.lerp(labels, taught, self._neural.distillation)

    def _calibrated(self, teacher: IncrementalAls, measured: Pairs, history: History, step: StepId) -> Calibration:
        """Fit the calibration to pairs that the teacher has not seen, and to negatives, if there are enough pairs."""
        if len(measured) < _CALIBRATED_PAIRS:
            return self._calibration
        users, items, valid = self._held_out.against_negatives(
            measured, self._neural.negatives, history, self._network.items, step
        )
        labels = torch.zeros_like(items, dtype=torch.float64)
        labels[:, 0] = 1
        return self._calibration.fitted(_pair_scores(teacher, users, items)[valid], labels[valid])

    def _held_out_loss(self, history: History, pairs: Pairs, step: StepId) -> float:
        """Mean -log of the softmax probability of a pair's item among seeded unseen items."""
        users, items, valid = self._held_out.against_negatives(
            pairs, _MEASURED_NEGATIVES, history, self._network.items, step
        )
        chances = torch.where(valid, self._logits(users, items), -torch.inf).log_softmax(dim=1)
        return -float(chances[:, 0].mean())

    def _new_trainer(self, generator: np.random.Generator) -> Trainer:
        bias = -np.log(self._neural.negatives) if self.teacher is None else self._calibration.intercept
        return Trainer(self._neural, self.settings.model.factors, self.device, float(bias), generator)

    def _warm_start(self) -> WarmStart | None:
        """The teacher's current factors."""
        if self.teacher is None:
            return None
        return WarmStart(self.teacher.user_factors, self.teacher.item_factors, self._calibration.slope)

    @property
    def _network(self) -> NeuMf:
        """The network that scores: the moving average of the weights."""
        return self._trainer.average.network

    def _generator(self, step: StepId, purpose: Purpose, *place: int) -> np.random.Generator:
        return generator(self.settings.seed, step, purpose, *place)

    def state(self) -> State:
        """See `Learner`."""
        state: State = {
            "lengths": self._lengths.values,
            "batches": np.array([self._batches]),
            "calibration": self._calibration.array(),
        }
        state |= prefixed(self._buffer.state(), "buffer") | prefixed(self._trainer.state(), "network")
        state |= prefixed(self._held_out.state(), "held_out")
        own = self._own_teacher
        return state if own is None else state | prefixed(own.state(), "teacher")

    @property
    def _own_teacher(self) -> IncrementalAls | None:
        return None if self._borrowed else self.teacher

    @classmethod
    def from_state(cls, settings: Settings, state: Mapping[str, npt.NDArray[Any]]) -> "NeuralCf":
        """See `Learner`."""
        learner = cls(settings)
        learner._lengths = GrowingArray(state["lengths"], np.int64)
        learner._batches = int(state["batches"][0])
        learner._calibration = Calibration(*state["calibration"].tolist())
        learner._buffer = ReplayBuffer.from_state(part(state, "buffer"))
        learner._held_out = HeldOut(settings, learner.device, part(state, "held_out"))
        learner._trainer.load(part(state, "network"))
        taught = part(state, "teacher")
        if learner.teacher is not None and taught:
            learner.teacher = IncrementalAls.from_state(settings, taught)
        return learner

    def served(self, history: History) -> State:
        """The arrays of `NeuralScorer`: weights, and the factors that generate candidates.

        Raises:
            SolveError: the teacher's equations have no finite solution.
        """
        weights = {name: array.copy() for name, array in self._network.arrays().items()}
        if self.teacher is None:
            users, items = self._near_factors()
            factors = {"user_factors": users.cpu().numpy(), "item_factors": items.cpu().numpy()}
        else:
            factors = self.teacher.served(history)
            users, items = (torch.from_numpy(factors[f"{side}_factors"]) for side in ("user", "item"))
            warm = WarmStart(users, items, self._calibration.slope)
            for side in ("user", "item"):
                weights[f"{side}_gmf"] += warm.embeddings(side).numpy()
        return {**factors, **prefixed(weights, "neural"), "candidates": self._neural.candidates + self._lengths.values}


def _pair_scores(teacher: IncrementalAls, users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
    """The teacher's scores (b, n) of items (b, n) for users (b,)."""
    return torch.einsum("bf,bnf->bn", teacher.user_factors[users], teacher.item_factors[items])
