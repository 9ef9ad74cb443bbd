"""What the prequential bench compares: methods that rank items for users and learn from batches."""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch

from bench.harness import peers
from recsys.config import Settings
from recsys.contracts import InteractionBatch, StepId
from recsys.evaluate import POPULARITY, Live
from recsys.model.common.arrays import offsets_of
from recsys.model.counts.popularity import Popularity
from recsys.model.evaluation.prequential import Rival
from recsys.model.evaluation.rivals import DenseRival
from recsys.model.frozen import FrozenModel
from recsys.model.interactions.decay import SECONDS_PER_DAY
from recsys.model.interactions.vocab import Vocabulary
from recsys.model.recommender import OnlineModel
from recsys.serving import Lists, Ranked

MIXTURE, NEURAL, REPEAT = "mixture", "ncf", "repeat"
# Names of methods that are not members of the mixture.
STATIC, RETRAINED, IMPLICIT = "mixture, frozen", "als, retrained", "implicit, retrained"
# Days; the product's own is tried too.
HALF_LIVES = (0.25, 1.0, 3.0, 14.0, 60.0)


class StreamingMethod(Rival, Protocol):
    """Learns from batches, too."""

    def learn(self, batch: InteractionBatch, step: StepId) -> bool:
        """Take a batch; False if it was put by."""


class Popular(DenseRival):
    """What is popular, with a half-life."""

    def __init__(self, half_life_days: float) -> None:
        self._popularity, self._items = Popularity(half_life_days * SECONDS_PER_DAY), Vocabulary()

    def learn(self, batch: InteractionBatch, step: StepId) -> bool:
        """See `StreamingMethod`."""
        codes = self._items.extend(batch.item_ids)
        self._popularity.add(codes, batch.weights, batch.times, len(self._items))
        return True

    def scores(self, user_ids: Sequence[str], items: Vocabulary) -> torch.Tensor:
        """See `DenseRival`."""
        return torch.from_numpy(self._popularity.scores().astype(np.float32)).repeat(len(user_ids), 1)


class Renewed:
    """Stays as it is from one time that it is made to the next.

    Args:
        make: Makes it from all that was learned up to a step.
        first: Number of the batch after which it is made for the first time; it is asked for no ranking before.
        every: Batches until it is made again; None: never.
    """

    def __init__(self, make: Callable[[StepId], Rival], first: int, every: int | None = None) -> None:
        self._make, self._first, self._every = make, first, every
        self._made: Rival | None = None

    def learn(self, batch: InteractionBatch, step: StepId) -> bool:
        """See `StreamingMethod`. The batch itself is not looked at."""
        past = step.batch_id - self._first
        due = past == 0 or (past > 0 and self._every is not None and past % self._every == 0)
        if due:
            self._made = self._make(step)
        return due

    def ranked(self, user_ids: Sequence[str], items: Vocabulary, k: int, seen: Lists, wanted: Lists) -> Ranked:
        """See `Rival`."""
        assert self._made is not None
        return self._made.ranked(user_ids, items, k, seen, wanted)


class Implicit(DenseRival):
    """The package `implicit`, having learned all that a model of ours has seen so far, each weight as it counts now.

    It has our number of factors, our confidences and a penalty of the size of ours.
    """

    def __init__(self, model: OnlineModel) -> None:
        from implicit.cpu.als import AlternatingLeastSquares
        from scipy import sparse

        settings, item_count = model.settings.model, len(model.items)
        rows = model.history.user_rows(np.arange(len(model.users)))
        # It takes what is disliked as a negative confidence.
        data = (np.sign(rows.weights) * (1 + settings.alpha * np.abs(rows.weights))).astype(np.float32)
        matrix = sparse.csr_matrix((data, rows.others, offsets_of(rows.lengths)), (len(rows.lengths), item_count))
        matrix.eliminate_zeros()
        # What our penalty is for a row without pairs.
        penalty = settings.regularization * item_count**settings.regularization_exponent
        with peers.one_blas_thread():
            learned = AlternatingLeastSquares(
                factors=settings.factors, regularization=penalty, random_state=model.settings.seed
            )
            learned.fit(matrix, show_progress=False)
        self._ids = model.users
        self._users, self._items = torch.from_numpy(learned.user_factors), torch.from_numpy(learned.item_factors)
        self._popularity = torch.from_numpy(model.popularity.scores().astype(np.float32))

    def scores(self, user_ids: Sequence[str], items: Vocabulary) -> torch.Tensor:
        """See `DenseRival`. Users who were not there when it learned get what was popular then."""
        codes = self._ids.lookup(user_ids)
        known = np.flatnonzero((codes >= 0) & (codes < len(self._users)))
        factors = torch.zeros(len(codes), self._users.shape[1])
        factors[torch.from_numpy(known)] = self._users[torch.from_numpy(codes[known])]
        own = torch.where(factors.any(dim=1, keepdim=True), factors @ self._items.T, self._popularity)
        return torch.cat([own, own.new_full((len(own), len(items) - own.shape[1]), -torch.inf)], dim=1)


def methods(settings: Settings, members: Sequence[str], first: int, every: int) -> dict[str, StreamingMethod]:
    """All that is compared, the mixture first: others read what it or `als` has learned, so the order counts.

    Args:
        settings: How is learned.
        members: Kinds of learners.
        first: Number of the last batch that warms up.
        every: Batches between rebuilds.
    """
    mixture, live = Live(settings, MIXTURE), {kind: Live(settings, kind) for kind in members}
    als = live["als"].model
    return {
        MIXTURE: mixture,
        **live,
        STATIC: Renewed(lambda _: FrozenModel(mixture.model.served()), first),
        RETRAINED: Renewed(als.shadow, first, every),
        IMPLICIT: Renewed(lambda _: Implicit(als), first, every),
        **{popularity_of(days): Popular(days) for days in HALF_LIVES},
    }


def popularity_of(half_life_days: float) -> str:
    """Name of the popularity with this half-life."""
    return f"{POPULARITY}, {half_life_days:g} days"
