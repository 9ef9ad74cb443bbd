"""What the prequential bench says of its figures: means over batches, ratios, and the best half-life."""

import numpy as np
import pandas as pd
import pytest

from bench.harness import prequential_report as report
from bench.harness.prequential_methods import HALF_LIVES


def test_means_weigh_users_within_a_batch_and_batches_alike() -> None:
    columns = ["method", "batch", "group", "users", "ndcg", "recall"]
    rows = [
        (name, *row[:3], factor * row[3], factor * row[4])
        for name, factor in (("mixture", 1), ("als", 0.5), ("trend", 0.8), ("popularity", 0.25), ("mixture, frozen", 0))
        for row in ((3, "cold", 10, 0.4, 0.8), (3, "< 20 interactions", 30, 0.8, 0.4), (4, "cold", 2, 0.1, 0.2))
    ]
    outcome = report.Outcome("t", pd.DataFrame(rows, columns=columns), {}, ["als", "trend"], 1, 7.0, 20)
    means = outcome.means
    assert means.loc["mixture", ("NDCG", "all")] == pytest.approx((0.7 + 0.1) / 2)
    assert means.loc["mixture", ("recall", "all")] == pytest.approx((0.5 + 0.2) / 2)
    assert means.loc["als", ("NDCG", "cold")] == pytest.approx(0.5 * (0.4 + 0.1) / 2)
    assert means.loc["als", ("NDCG", "< 20 interactions")] == pytest.approx(0.4)
    assert outcome.ratios == pytest.approx(
        {"mixture_vs_best_member": 1.25, "mixture_vs_popularity": 4.0, "mixture_vs_static": np.inf}
    )


def test_each_group_has_its_best_member_and_the_noise_between() -> None:
    columns = ["method", "batch", "group", "users", "ndcg", "recall"]
    rows = [("mixture", 0, "cold", 5, 0.3, 0.0), ("als", 0, "cold", 5, 0.1, 0.0), ("trend", 0, "cold", 5, 0.2, 0.0)]
    for batch, (mixture, als, trend) in enumerate([(0.5, 0.4, 0.1), (0.7, 0.4, 0.5), (0.6, 0.7, 0.3)]):
        heavy = [("mixture", mixture), ("als", als), ("trend", trend)]
        rows += [(name, batch, ">= 20 interactions", 5, ndcg, 0.0) for name, ndcg in heavy]
    outcome = report.Outcome("t", pd.DataFrame(rows, columns=columns), {}, ["als", "trend"], 1, 7.0, 20)
    margins = outcome.margins
    assert margins.index.tolist() == ["cold", ">= 20 interactions"]
    cold, heavy_margin = (margins.loc[group].tolist() for group in margins.index)
    assert cold[:4] == [0.3, "trend", 0.2, pytest.approx(0.1)]
    assert np.isnan(cold[4])
    # Differences of 0.1, 0.3 and -0.1.
    error = np.sqrt((0 + 0.2**2 + 0.2**2) / 2 / 3)
    assert heavy_margin.pop(1) == "als"
    assert heavy_margin == pytest.approx([0.6, 0.5, 0.1, error, 3])
    assert len(report.table_of_margins(outcome).splitlines()) == 3


@pytest.mark.parametrize("best", [7.0, *HALF_LIVES])
def test_the_best_half_life_stands_beside_the_products_own(best: float) -> None:
    names = {"popularity": 7.0, **{f"popularity, {days:g} days": days for days in HALF_LIVES}}
    rows = [(name, 0, "cold", 1, 0.5 if days == best else 0.1, 0.0) for name, days in [*names.items(), ("als", 7.0)]]
    figures = pd.DataFrame(rows, columns=["method", "batch", "group", "users", "ndcg", "recall"])
    kept, half_life = report.with_best_popularity(figures, 7.0)
    assert half_life == best
    assert kept["method"].tolist() == ["popularity", "als", "popularity, best half-life"]
    assert kept["ndcg"].tolist()[::2] == [0.5 if best == 7 else 0.1, 0.5]
