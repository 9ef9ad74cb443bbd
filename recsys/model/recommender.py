"""The model as a whole: ids, history, popularity, and the learner that the settings name."""

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from recsys.config import Settings
from recsys.contracts import InteractionBatch, StepId
from recsys.model.als.incremental_als import IncrementalAls
from recsys.model.common.arrays import IntArray, offsets_of
from recsys.model.common.device import one_thread
from recsys.model.common.ragged import order_in_rows
from recsys.model.common.randomness import Purpose, generator
from recsys.model.common.sampling import of_sampled_users
from recsys.model.counts.counting import CountingLearner
from recsys.model.counts.popularity import Popularity
from recsys.model.drift.surprise import AS_USUAL, DriftController, measure_surprise
from recsys.model.frozen import FrozenModel
from recsys.model.interactions.damping import to_learn
from recsys.model.interactions.decay import SECONDS_PER_DAY
from recsys.model.interactions.forgetting import LastSeen, idle_before
from recsys.model.interactions.history import History
from recsys.model.interactions.vocab import Vocabulary
from recsys.model.learner import CodedBatch, Learner, State
from recsys.model.mixture.content import Content
from recsys.model.mixture.live import live_scorer
from recsys.model.mixture.mixture import MEMBERS, Mixture
from recsys.model.neural.sequence import SequenceEncoder
from recsys.serving import FallbackScorer, Lists, Served
from recsys.serving.arrays import part, prefixed
from recsys.serving.ids import pack_ids, unpack_ids
from recsys.serving.ranking import Scorer

LEARNERS: dict[str, type[Learner]] = {**MEMBERS, "mixture": Mixture}


class OnlineModel:
    """Learns from a stream of batches and scores items for users.

    The state is a function of the batches learned and the settings: the same batches give the same arrays to the last
    bit, also when a snapshot is taken and loaded in between, and with any number of threads (on one kind of machine).

    Args:
        settings: The sections weights, model, decay, robustness, staleness, concept_drift, evaluation (half-life of the
            popularity), and the keys device and seed are used.

    Raises:
        ConfigError: the device is not there.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.step: StepId | None = None
        self.users, self.items = Vocabulary(), Vocabulary()
        self.history = History(settings.decay.half_life_days)
        self.last_seen = LastSeen()
        self.popularity = Popularity(settings.evaluation.popularity_half_life_days * SECONDS_PER_DAY)
        self.learner: Learner = LEARNERS[settings.model.kind](settings)
        self.drift_controller = DriftController(settings.concept_drift)
        # How the last batch was learned.
        self.decision = AS_USUAL

    @property
    def als(self) -> IncrementalAls:
        """The factors of users and items: the learner itself, or a member of it.

        Raises:
            LookupError: it has none.
        """
        learner = self.learner.members.get("als") if isinstance(self.learner, Mixture) else self.learner
        if not isinstance(learner, IncrementalAls):
            raise LookupError(f"a learner of kind '{self.settings.model.kind}' has no factors of that kind")
        return learner

    @property
    def content(self) -> Content:
        """The vectors of items: the learner itself, or a member of it.

        Raises:
            LookupError: it has none.
        """
        learner = self.learner.members.get("content") if isinstance(self.learner, Mixture) else self.learner
        if not isinstance(learner, Content):
            raise LookupError(f"a learner of kind '{self.settings.model.kind}' has no vectors of items")
        return learner

    @one_thread()
    def update(self, batch: InteractionBatch, step: StepId) -> dict[str, float]:
        """Learn from one batch.

        Args:
            batch: The batch; an empty one only moves `step`.
            step: Its generation and number, larger than the last one.

        Returns:
            Figures for the ledger: `new_users`, `new_items`, those of `to_learn`, the metrics of the learner, and how
            the batch was learned: its `surprise`, unless there were too few known pairs to measure it, `effort`,
            `learning_rate`, `halvings`. With `model.forget_after_days` also `forgotten_users`, `forgotten_items` and
            `forgotten_pairs`, those that went before the batch was learned.
            The attribute `decision` gives the reasons.

        Raises:
            ValueError: the step is not larger than the last one learned.
            SolveError: the equations have no finite solution.
        """
        batch, damped = to_learn(batch, self.settings)
        forgotten = self._begin(batch, step)
        known = len(self.users), len(self.items)
        users, items = self._enter(batch)
        decided = self._decide(batch, users, items, known, step) if len(batch) else {}
        coded = self._take_in(batch, users, items)
        figures = self.learner.update(coded, self.history, step, self.decision)
        new = {"new_users": coded.user_count - known[0], "new_items": coded.item_count - known[1]}
        return {**{name: float(count) for name, count in new.items()}, **forgotten, **damped, **decided, **figures}

    @one_thread()
    def absorb(self, batch: InteractionBatch, step: StepId) -> None:
        """Add a batch to everything but what `refit` retrains.

        Raises:
            ValueError: the step is not larger than the last one learned.
        """
        batch, _ = to_learn(batch, self.settings)
        self._begin(batch, step)
        self.learner.absorb(self._take_in(batch, *self._enter(batch)), self.history, step)

    @one_thread()
    def refit(self, step: StepId) -> dict[str, float]:
        """Retrain from the whole history; the drift detector starts over.

        Args:
            step: The step that the model has from now on: it may begin a generation, so it may be any that is larger.

        Returns:
            The metrics of the learner.

        Raises:
            ValueError: the step is smaller than that of the last batch.
            SolveError: the equations have no finite solution.
        """
        self._restart(step)
        return self.learner.refit(self.history, step)

    def rebuild(self, batches: Iterable[tuple[StepId, InteractionBatch]], step: StepId) -> None:
        """Rebuild from a whole log, at less cost than updating batch by batch.

        Args:
            batches: All batches of the log, in order.
            step: The step that the model has from now on.

        Raises:
            ValueError: a step is not larger than the one before it.
            SolveError: the equations have no finite solution.
        """
        last = deque[tuple[StepId, InteractionBatch]]()
        for one in batches:
            last.append(one)
            if len(last) > self.learner.rehearsal:
                early, batch = last.popleft()
                self.absorb(batch, early)
        if last and self.step is not None:
            self.refit(self.step)
        for late, batch in last:
            self.update(batch, late)
        self.refit(step)

    def adopt(self, learner: Learner, step: StepId) -> None:
        """Continue with a learner that was trained elsewhere on all that this model has absorbed; as after `refit`.

        Raises:
            ValueError: the step is smaller than that of the last batch.
        """
        self._restart(step)
        self.learner = learner

    @one_thread()
    def shadow(self, step: StepId) -> FrozenModel:
        """What `refit` would make of the history, to be measured beside this model, which stays as it is.

        Args:
            step: Seeds the start.

        Raises:
            SolveError: the equations have no finite solution.
        """
        learner = type(self.learner).from_state(self.settings, self.learner.state())
        learner.refit(self.history, step)
        return FrozenModel(self._served(learner))

    def score(self, users: IntArray) -> torch.Tensor:
        """Score all items.

        Args:
            users: (n,) codes, -1 for unknown users.

        Returns:
            (n, items) float32, higher is better; the popularity for users about whom the learner knows nothing.
        """
        scores = self.learner.score(users)
        popularity = torch.from_numpy(self.popularity.scores().astype(np.float32)).to(scores.device)
        return torch.where((scores == 0).all(dim=1, keepdim=True), popularity, scores)

    def scorer(self) -> FallbackScorer:
        """Ranks items for users by their codes, with the model as it is now; the popularity as in `score`."""
        own: Scorer
        if isinstance(self.learner, Mixture | CountingLearner | SequenceEncoder):
            own = self.learner.scorer()
        else:
            own = live_scorer(self.learner, len(self.items))
        return FallbackScorer(own, self.popularity.scores().astype(np.float32))

    def seen(self, users: IntArray) -> Lists:
        """The items that users (n,) have interacted with, ascending; none for code -1."""
        known, lengths = np.flatnonzero(users >= 0), np.zeros(len(users), dtype=np.int64)
        seen = self.history.user_rows(users[known])
        lengths[known] = seen.lengths
        return Lists.of(lengths, seen.others[order_in_rows(seen.lengths, seen.others)])

    def recommend(self, user_ids: Sequence[str], k: int) -> list[list[tuple[str, float]]]:
        """The best items of the live model; with `recommend.exclude_seen`, the best unseen ones.

        Args:
            user_ids: n ids, known or not.
            k: Length of the lists, at least 1; they are shorter where fewer items are left.

        Returns:
            n lists of item ids and scores, best first; of equal scores the item that appeared first.
        """
        users = self.users.lookup(user_ids)
        if not len(self.items):
            return [[] for _ in users]
        nothing = Lists.empty(len(users))
        seen = self.seen(users) if self.settings.recommend.exclude_seen else nothing
        ranked = self.scorer().rank(users, np.full(len(users), k), seen, nothing)
        ids = self.items.ids
        lists = zip(ranked.items.tolist(), ranked.scores.tolist(), ranked.lengths.tolist(), strict=True)
        return [
            [(ids[code], score) for code, score in zip(codes[:length], scores[:length], strict=True)]
            for codes, scores, length in lists
        ]

    @one_thread()
    def served(self) -> Served:
        """The model as a registered version carries it; its arrays are listed in `recsys.serving.version`."""
        return self._served(self.learner)

    def state(self) -> State:
        """All arrays of the model; `from_state` continues from them as if nothing had happened."""
        state: State = prefixed(self.history.state(), "history") | prefixed(self.learner.state(), "learner")
        state |= prefixed(self.drift_controller.state(), "drift_controller")
        state |= prefixed(self.popularity.state, "popularity") | prefixed(self.last_seen.state, "last_seen")
        for name, vocabulary in (("users", self.users), ("items", self.items)):
            state[f"{name}.bytes"], state[f"{name}.offsets"] = pack_ids(vocabulary.ids)
        return state

    @classmethod
    def from_state(
        cls, settings: Settings, state: Mapping[str, npt.NDArray[Any]], step: StepId | None
    ) -> "OnlineModel":
        """A model from what `state` returned, and the step it had learned last."""
        model = cls(settings)
        model.step = step
        model.history = History.from_state(settings.decay.half_life_days, part(state, "history"))
        half_life = settings.evaluation.popularity_half_life_days * SECONDS_PER_DAY
        model.popularity = Popularity(half_life, part(state, "popularity"))
        model.last_seen = LastSeen(part(state, "last_seen"))
        model.users, model.items = (
            Vocabulary(unpack_ids(state[f"{name}.bytes"], state[f"{name}.offsets"])) for name in ("users", "items")
        )
        model.learner = type(model.learner).from_state(settings, part(state, "learner"))
        model.drift_controller = DriftController.from_state(settings.concept_drift, part(state, "drift_controller"))
        return model

    def _restart(self, step: StepId) -> None:
        """Go to a step at which a generation may begin."""
        if self.step is not None and step < self.step:
            raise ValueError(f"step {step} comes before {self.step}")
        self.step = step
        self.drift_controller = DriftController(self.settings.concept_drift)

    def _begin(self, batch: InteractionBatch, step: StepId) -> dict[str, float]:
        """Go to the step of a batch, and forget what it finds idle (see `forgetting`); figures for the ledger."""
        if self.step is not None and step <= self.step:
            raise ValueError(f"step {step} does not come after {self.step}")
        self.step, self.decision = step, AS_USUAL
        days, history = self.settings.model.forget_after_days, self.history
        if days is None:
            return {}
        before = len(self.users), len(self.items), len(history)
        since = idle_before(days, history.latest_time, batch.times)
        if since is not None:
            known = (ids.lookup(own) for ids, own in ((self.users, batch.user_ids), (self.items, batch.item_ids)))
            kept = self.last_seen.kept(since, *known)
            slots = history.lasting(kept)
            if (len(kept.users), len(kept.items), len(slots)) != before:
                history.keep(kept, slots)
                # Others tell by the new vocabulary that codes have changed.
                self.users, self.items = self.users.kept(kept.users), self.items.kept(kept.items)
                self.last_seen.keep(kept)
                self.popularity.keep(kept.items)
                self.learner.keep(kept, history)
        gone = zip(("users", "items", "pairs"), before, (len(self.users), len(self.items), len(history)), strict=True)
        return {f"forgotten_{what}": float(old - new) for what, old, new in gone}

    def _enter(self, batch: InteractionBatch) -> tuple[IntArray, IntArray]:
        """The codes of the batch's users and items; new ones are added."""
        return self.users.extend(batch.user_ids), self.items.extend(batch.item_ids)

    def _decide(
        self, batch: InteractionBatch, users: IntArray, items: IntArray, known: tuple[int, int], step: StepId
    ) -> dict[str, float]:
        """Decide how a batch is learned, before it enters the history, and age the history as decided."""
        sampled = of_sampled_users(users, batch.weights, self.settings, step) & (batch.weights > 0)
        rows = np.flatnonzero(sampled & (users < known[0]) & (items < known[1]))
        drawing = generator(self.settings.seed, step, Purpose.SURPRISE)
        surprise = measure_surprise(self.learner.score_pairs, users[rows], items[rows], known[1], drawing)
        self.decision = self.drift_controller.observe(surprise)
        self.history.age(self.decision.halvings)
        return {
            **({} if math.isnan(surprise) else {"surprise": surprise}),
            "effort": self.decision.effort,
            "learning_rate": self.decision.learning_rate,
            "halvings": float(self.decision.halvings),
        }

    def _take_in(self, batch: InteractionBatch, users: IntArray, items: IntArray) -> CodedBatch:
        """Add a batch of users (n,) and items (n,) to everything but the learner."""
        self.history.add_rows(len(self.users), len(self.items))
        new_pairs = ~self.history.has_pairs(users, items)
        self.history.add(users, items, batch.weights, batch.times)
        self.last_seen.see(users, items, batch.times, len(self.users), len(self.items))
        self.popularity.add(items, batch.weights, batch.times, len(self.items))
        left = self.users.lookup(batch.left.user_ids), self.items.lookup(batch.left.item_ids)
        known = (left[0] >= 0) & (left[1] >= 0)
        described = self.items.lookup(batch.contents.item_ids)
        return CodedBatch(
            users,
            items,
            batch.weights,
            batch.events,
            batch.times,
            new_pairs,
            len(self.users),
            len(self.items),
            left[0][known],
            left[1][known],
            described[described >= 0],
            batch.contents.vectors[described >= 0],
        )

    def _served(self, learner: Learner) -> Served:
        seen = self.history.user_rows(np.arange(len(self.users)))
        order = order_in_rows(seen.lengths, seen.others)
        own = learner.served(self.history)
        folds_in = any(name.endswith("objective") for name in own)
        arrays = {
            **own,
            **({"seen_weights": seen.weights[order].astype(np.float32)} if folds_in else {}),
            "item_popularity": self.popularity.scores().astype(np.float32),
            "seen_offsets": offsets_of(seen.lengths),
            "seen_items": seen.others[order].astype(np.int32),
        }
        return Served(self.settings.model.kind, self.users.ids, self.items.ids, arrays)
