"""Served versions that the live model is compared with, batch by batch."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch

from recsys.model.evaluation.metrics import ranked_by_scores
from recsys.model.frozen import FrozenModel
from recsys.model.interactions.vocab import Vocabulary
from recsys.serving import Lists, Ranked, Served

# A rival that scores all items does so for groups of at most this many scores.
_SCORES_AT_ONCE = 1 << 25


class Rivals(Mapping[str, FrozenModel]):
    """Served models by name.

    Args:
        served: See `become`.
    """

    def __init__(self, served: Mapping[str, Served]) -> None:
        self._served: dict[str, Served] = {}
        self._models: dict[str, FrozenModel] = {}
        self.become(served)

    def __getitem__(self, name: str) -> FrozenModel:
        return self._models[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._models)

    def __len__(self) -> int:
        return len(self._models)

    def become(self, served: Mapping[str, Served]) -> None:
        """Compare with these, and no others, from now on.

        Args:
            served: From `OnlineModel.served`, by name. A version with two names, such as a first version that is
                champion, is one object and is stored and evaluated once. One that is here already, by whatever name,
                is not prepared again.
        """
        models = {id(self._served[name]): model for name, model in self._models.items()}
        for version in served.values():
            if id(version) not in models:
                models[id(version)] = FrozenModel(version)
        self._served = dict(served)
        self._models = {name: models[id(version)] for name, version in served.items()}

    def without_alone(self, name: str) -> dict[str, FrozenModel]:
        """The models but the one of a name, unless it has another name, too, and is measured anyway."""
        left_out = self._models.get(name)
        others = {other: model for other, model in self._models.items() if other != name}
        return dict(self._models) if left_out in others.values() else others


class DenseRival(ABC):
    """A rival that scores all items, in order to rank some."""

    @abstractmethod
    def scores(self, user_ids: Sequence[str], items: Vocabulary) -> torch.Tensor:
        """(n, items) float32 for n users and the live items, -inf for what cannot be recommended."""

    def ranked(self, user_ids: Sequence[str], items: Vocabulary, k: int, seen: Lists, wanted: Lists) -> Ranked:
        """See `FrozenModel.ranked`."""
        size, parts = max(1, _SCORES_AT_ONCE // max(len(items), 1)), []
        for begin in range(0, len(user_ids), size):
            users = slice(begin, begin + size)
            scores, left_out = self.scores(user_ids[users], items), seen.of_users(users)
            places = (torch.from_numpy(np.asarray(part)) for part in (left_out.owners, left_out.items.astype(np.int64)))
            scores[tuple(places)] = -torch.inf
            parts.append(ranked_by_scores(scores, wanted.of_users(users), k))
        return Ranked.joined(parts)
