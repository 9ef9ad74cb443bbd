"""Log-odds out of values of rankings."""

import numpy as np
import pytest

from recsys.contracts import StepId
from recsys.model.mixture.calibration import RankingCalibration
from recsys.model.mixture.mixture import Mixture
from recsys.model.recommender import OnlineModel
from tests.model.helpers import clustered_batches, make_settings


def chances(odds: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-odds))


def test_the_line_that_made_the_labels_is_found():
    draw = np.random.default_rng(0)
    calibration = RankingCalibration.new(["reranker", "cooccurrence"], groups=2, forgetting=0.01)
    for _ in range(20):
        preference, chance = draw.normal(-1, 1, 4_000), draw.random(4_000)
        relevant = draw.random(4_000) < chances(1.5 * preference - 2)
        calibration.learn(1, np.column_stack([preference, chance]), relevant)
    np.testing.assert_allclose(calibration.lines[1, 0], [1.5, -2], atol=0.1)
    # A chance that says nothing about the labels: no slope is left, and the order stays.
    assert 0 < calibration.lines[1, 1, 0] < 0.1
    np.testing.assert_array_equal(calibration.lines[0], [[1, 0], [1, 0]])


def test_a_ranking_that_is_upside_down_keeps_its_order():
    draw = np.random.default_rng(0)
    calibration = RankingCalibration.new(["reranker"], groups=1, forgetting=0.01)
    for _ in range(5):
        values = draw.normal(size=2_000)
        calibration.learn(0, values[:, None], draw.random(2_000) < chances(-2 * values - 2))
    assert 0 < calibration.lines[0, 0, 0] < 0.01


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_predicted_odds_are_those_of_the_next_batch(exclude_seen: bool):
    """The sum of the predicted chances of candidates is about the number of hits, and more likely ones hit more."""
    settings = make_settings(model={"kind": "mixture"}, recommend={"exclude_seen": exclude_seen})
    model, expected, hits, odds = OnlineModel(settings), [], [], []
    for number, batch in enumerate(clustered_batches(30, 400)):
        if number >= 15:
            new = np.ones(len(batch), dtype=bool)
            users, items = model.users.lookup(batch.user_ids), model.items.lookup(batch.item_ids)
            if exclude_seen:
                new[(users >= 0) & (items >= 0)] = ~model.history.has_pairs(
                    users[(users >= 0) & (items >= 0)], items[(users >= 0) & (items >= 0)]
                )
            known = np.unique(users[new & (users >= 0)])
            assert isinstance(model.learner, Mixture)
            candidates = model.learner.scorer().examples(known)
            scores = model.learner.scorer().score(known)[candidates.owners, candidates.items]
            open_ = np.ones(len(scores), dtype=bool)
            if exclude_seen:
                open_ = ~model.history.has_pairs(known[candidates.owners], candidates.items)
            wanted = set(zip(users.tolist(), items.tolist(), strict=True))
            pairs = zip(known[candidates.owners].tolist(), candidates.items.tolist(), strict=True)
            hit = np.array([pair in wanted for pair in pairs])
            odds.append(scores[open_])
            hits.append(hit[open_])
        model.update(batch, StepId(0, number))
    predicted, found = chances(np.concatenate(odds)), np.concatenate(hits)
    assert predicted.sum() == pytest.approx(found.sum(), rel=0.4)
    expected = np.array_split(np.argsort(predicted), 5)
    rates = [found[part].mean() for part in expected]
    assert rates[-1] > 3 * max(rates[0], 1e-4)
    for part in expected:
        assert predicted[part].mean() == pytest.approx(found[part].mean(), rel=0.6, abs=0.02)
