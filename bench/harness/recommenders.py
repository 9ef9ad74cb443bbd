"""What is compared: each function learns from events and returns the scores it then gives.

`implicit` and scipy are needed by this bench alone, so they are imported where they are used.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bench.harness.protocols import Events, Scorer, Scores
from recsys.config import Settings
from recsys.contracts import StepId
from recsys.frames import WeighedEvents
from recsys.model.common.arrays import IntArray
from recsys.model.recommender import OnlineModel

if TYPE_CHECKING:
    from scipy import sparse

FACTORS = 64
# Without factors to begin at, a network learns faster and longer, and ranks all items: nothing finds good candidates.
ALONE = {"learning_rate": 0.003, "rebuild_epochs": 20, "negatives_exponent": 0.0, "candidates": 100_000}
_EVENTS_PER_BATCH = 20_000
_ITEMS_AT_ONCE = 1_000
_SEED = 0
_DAY = 86_400


def popularity(train: Events, half_life_days: float | None = None) -> Scorer:
    """How many users interacted with an item; with a half-life, each counts less the longer it is ago."""
    weights = np.ones(len(train))
    if half_life_days is not None:
        weights = 2 ** ((train.times - train.times[-1]) / _DAY / half_life_days)
    sums = np.bincount(train.items, weights=weights, minlength=train.item_count).astype(np.float32)
    return lambda users: np.tile(sums, (len(users), 1))


def item_knn(train: Events, neighbors: int, shrink: float) -> Scorer:
    """Sum of an item's similarities to those of the user's items that are among its nearest.

    The similarity of two items is users(both) / (sqrt(users(one) users(other)) + shrink).

    Args:
        train: What is learned.
        neighbors: How many items an item is compared with.
        shrink: The larger, the less a few common users count.
    """
    from scipy import sparse

    pairs = _matrix(train)
    by_item = pairs.T.tocsr()
    norms = torch.from_numpy(np.sqrt(np.bincount(train.items, minlength=train.item_count)).astype(np.float32))
    count = min(neighbors, train.item_count)
    blocks = []
    for begin in range(0, train.item_count, _ITEMS_AT_ONCE):
        end = min(begin + _ITEMS_AT_ONCE, train.item_count)
        similarity = torch.from_numpy((by_item[begin:end] @ pairs).toarray())
        # Items without users have no common ones: their quotient is 0 whatever it is divided by.
        similarity /= (torch.outer(norms[begin:end], norms) + shrink).clamp(min=1e-9)
        similarity[torch.arange(end - begin), torch.arange(begin, end)] = 0
        values, columns = (found.ravel().numpy() for found in similarity.topk(count, sorted=False))
        offsets = np.arange(0, len(values) + 1, count)
        blocks.append(sparse.csr_matrix((values, columns, offsets), shape=(end - begin, train.item_count)))
    to_item = sparse.vstack(blocks).T.tocsr()
    to_item.eliminate_zeros()
    return lambda users: (pairs[users] @ to_item).toarray()


def implicit_als(train: Events, **settings: float) -> Scorer:
    """The model of the package `implicit`, on the processor.

    Args:
        train: What is learned.
        **settings: Arguments of `AlternatingLeastSquares`; what is not given has the package's default.
    """
    from implicit.als import AlternatingLeastSquares
    from threadpoolctl import threadpool_limits

    # As its documentation asks: threads of the linear algebra would fight with its own.
    with threadpool_limits(1, "blas"):
        model = AlternatingLeastSquares(factors=FACTORS, use_gpu=False, random_state=_SEED, **settings)
        model.fit(_matrix(train), show_progress=False)
    items = model.item_factors
    return lambda users: model.user_factors[users] @ items.T


def incremental_als(train: Events, half_life_days: float | None = None, **settings: float) -> Scorer:
    """The factors of this package: all batches taken in, then learned as in a rebuild.

    Args:
        train: What is learned.
        half_life_days: Of the events' weights; None: they do not age.
        **settings: Keys of the section `model`; what is not given has this package's default.
    """
    model, user_ids, item_ids = _rebuilt(train, half_life_days, {"kind": "als", **settings})
    users = _by_code(model.als.user_factors, model.users.lookup(user_ids))
    items = _by_code(model.als.item_factors, model.items.lookup(item_ids))

    def scores(codes: IntArray) -> Scores:
        return (users[torch.from_numpy(codes).to(users.device)] @ items.T).cpu().numpy()

    return scores


def neural(train: Events, teacher: bool = True, **settings: float) -> Scorer:
    """The neural model of this package: all batches taken in, then learned as in a rebuild.

    Args:
        train: What is learned.
        teacher: Whether it adds to factors and learns from them, or from the events alone.
        **settings: Keys of the section `model`; what is not given has this package's default.
    """
    alone = {} if teacher else ALONE
    kind = {"kind": "ncf", "neural": {"teacher": teacher, **alone}}
    model, user_ids, item_ids = _rebuilt(train, None, {**kind, **settings})
    users, items = model.users.lookup(user_ids), model.items.lookup(item_ids)
    known = np.flatnonzero(items >= 0)

    def scores(codes: IntArray) -> Scores:
        found = np.full((len(codes), len(items)), -np.inf, dtype=np.float32)
        found[:, known] = model.score(users[codes])[:, items[known]].cpu().numpy()
        return found

    return scores


def _rebuilt(
    train: Events, half_life_days: float | None, section: dict[str, Any]
) -> tuple[OnlineModel, list[str], list[str]]:
    """A model with this section `model` that has learned the events, and the ids of all users and items by code."""
    sections = {"model": {"factors": FACTORS, **section}, "decay": {"half_life_days": half_life_days}}
    model = OnlineModel(Settings.model_validate({**sections, "seed": _SEED}))
    user_ids, item_ids = _ids(train.user_count), _ids(train.item_count)
    weighed = WeighedEvents(user_ids, item_ids, train.users, train.items, np.ones(len(train)), train.times)
    step = StepId(0, 0)
    for number, begin in enumerate(range(0, len(train), _EVENTS_PER_BATCH)):
        step = StepId(0, number)
        model.absorb(weighed.batch(begin, begin + _EVENTS_PER_BATCH), step)
    model.refit(step)
    return model, user_ids, item_ids


def _by_code(factors: torch.Tensor, rows: IntArray) -> torch.Tensor:
    """Factors (codes, factors) from rows (codes,) of the model, zero where the model has none (-1)."""
    padded = torch.cat([factors, factors.new_zeros(1, factors.shape[1])])
    return padded[torch.from_numpy(rows).to(factors.device)]


def _ids(count: int) -> list[str]:
    """Ids that sort like their codes."""
    return [f"{code:08d}" for code in range(count)]


def _matrix(train: Events) -> "sparse.csr_matrix":
    """(users, items) float32, 1 for each pair."""
    from scipy import sparse

    ones = np.ones(len(train), dtype=np.float32)
    return sparse.csr_matrix((ones, (train.users, train.items)), shape=(train.user_count, train.item_count))
