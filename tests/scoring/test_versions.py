"""Rules on the order of real versions, of every kind."""

import numpy as np
import pytest

from recsys.model.recommender import OnlineModel
from recsys.scoring import composition
from recsys.scoring.composition import Ordered, Rules, compose
from recsys.scoring.similarity import similarity_of
from recsys.serving import Ranker
from recsys.serving.arrays import Lists
from tests.model.als.test_incremental_als import learn
from tests.model.helpers import clustered_batches, make_settings


@pytest.mark.parametrize("kind", ["mixture", "als", "ncf", "cooccurrence", "trend", "repeat", "sequence"])
def test_a_filtered_list_is_the_whole_order_without_what_is_left_out(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However deep an order is asked for, it begins the same, and so does one of few items; unknown users too."""
    settings = make_settings(model={"kind": kind, "factors": 4}, recommend={"exclude_seen": True, "k": 3})
    ranker = Ranker(learn(OnlineModel(settings), clustered_batches(3, 120)).served().packed())
    rows = np.append(np.arange(ranker.users), -1)
    whole = ranker.rank(rows, np.full(len(rows), ranker.items), np.full(len(rows), True))
    allowed = np.arange(ranker.items) % 3 == 0
    wanted = [[item for item in order if allowed[item]][:3] for order in lists_of(whole)]
    for few in (ranker.items + 1, 1):
        monkeypatch.setattr(composition, "_FEW", few)
        assert lists_of(compose(ranker, rows, True, Lists.empty(len(rows)), Rules(3, allowed))) == wanted
    assert (similarity_of(ranker.arrays) is None) == (kind in ("trend", "repeat", "sequence"))


def lists_of(ranked: Ordered) -> list[list[int]]:
    return [own.tolist() for own in np.split(ranked.items, np.cumsum(ranked.lengths)[:-1])]
