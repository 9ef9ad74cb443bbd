"""Ids of lists, and click-through rates with their intervals, against simulated users whose rates are known."""

import numpy as np
import pytest

from recsys.exposure import MIN_USERS, ClickRate, Origin, Shown, click_rate

TOKEN = "0123456789abcdef"
RANKINGS = ("reranker", "trend_0.5", "als")


def test_a_list_id_says_where_the_list_comes_from() -> None:
    assert Origin.of(f"main.shop/recsys: a/b/12:trend_0.5:3.125000e-02:{TOKEN}") == Origin(
        "main.shop/recsys: a/b", "12", "trend_0.5", 0.03125
    )


@pytest.mark.parametrize("propensity", [1.0, 0.5, 1e-4, 0.03125, 1 / 3])
def test_an_origin_is_read_from_its_list_id(propensity: float) -> None:
    origin = Origin("main.shop/recsys: a/b", "12", "trend_0.5", propensity)
    ids = [origin.list_id(made) for made in ("u1\ni1", "u2\ni1", "u1\ni1")]
    assert ids[0] == ids[2] != ids[1]
    found = Origin.of(ids[0])
    assert found is not None
    assert found == Origin(*(origin.model_name, origin.model_version, origin.ranking), found.propensity)
    assert found.propensity == pytest.approx(propensity, rel=1e-6)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "12",
        f"recsys/12:als:1.0:{TOKEN}0",
        f"recsys/12:als:2:{TOKEN}",
        f"recsys/12:als:nan:{TOKEN}",
        f"recsys/12:als:0:{TOKEN}",
        f"recsys/12:als:-1:{TOKEN}",
        f"recsys/12:als:x:{TOKEN}",
        f"/12:als:1:{TOKEN}",
    ],
)
def test_a_text_that_is_no_list_id_of_ours_says_nothing(text: str) -> None:
    assert Origin.of(text) is None


def simulated(seed: int, users: int = 4_000) -> tuple[Shown, dict[str, float]]:
    """Users of two groups with chances of their own, several lists each; what each ranking would do for everybody.

    In the group in which a ranking is drawn often, everybody clicks more, so what is observed misleads.
    """
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 2, users)
    chances = np.array([[0.7, 0.2, 0.1], [0.15, 0.25, 0.6]])[group]
    appeal = np.array([[0.30, 0.22, 0.26], [0.06, 0.03, 0.08]])[group] * rng.beta(2, 2, users)[:, None]
    lists, of_user = rng.integers(1, 4, users), np.repeat(np.arange(users), 3)
    kept = np.tile(np.arange(3), users) < np.repeat(lists, 3)
    of_user = of_user[kept]
    drawn = (rng.random(users)[:, None] > np.cumsum(chances, axis=1)).sum(axis=1)[of_user]
    impressions = rng.integers(1, 11, len(of_user))
    clicks = rng.binomial(impressions, appeal[of_user, drawn])
    shown = Shown(
        of_user,
        ["recsys/3"] * len(of_user),
        [RANKINGS[one] for one in drawn],
        chances[of_user, drawn],
        impressions,
        clicks,
    )
    # Of the population that the users are drawn from: groups alike, and a mean appetite of one half.
    truth = {name: (a + b) / 4 for name, a, b in zip(RANKINGS, (0.30, 0.22, 0.26), (0.06, 0.03, 0.08), strict=True)}
    return shown, truth


def test_estimates_for_everybody_cover_the_truth_where_what_is_observed_misleads() -> None:
    """Nineteen of twenty intervals on 200 simulated streams; the naive rate of the re-ranker is far outside."""
    covered, naive = np.zeros(len(RANKINGS)), 0
    for seed in range(200):
        shown, truth = simulated(seed)
        for place, found in enumerate(sorted(shown.rates(), key=lambda one: RANKINGS.index(one.ranking))):
            assert found.for_all is not None
            assert found.observed is not None
            covered[place] += found.for_all.lower <= truth[found.ranking] <= found.for_all.upper
            naive += found.ranking == "reranker" and found.observed.lower <= truth["reranker"] <= found.observed.upper
    # Within three standard errors of 95 %.
    assert (np.abs(covered / 200 - 0.95) < 3 * np.sqrt(0.95 * 0.05 / 200)).all(), covered
    assert naive == 0


def test_rates_are_those_of_the_definition() -> None:
    shown, _ = simulated(1, users=2_000)
    (found,) = (one for one in shown.rates() if one.ranking == "als")
    own = np.array(shown.rankings) == "als"
    assert (found.users, found.impressions, found.clicks) == (
        len(set(shown.users[own].tolist())),
        shown.impressions[own].sum(),
        shown.clicks[own].sum(),
    )
    totals: dict[int, list[float]] = {}
    for user, propensity, impressions, clicks in zip(
        *(column[own].tolist() for column in (shown.users, shown.propensities, shown.impressions, shown.clicks)),
        strict=True,
    ):
        mine = totals.setdefault(user, [0.0, 0.0])
        mine[0] += impressions / propensity
        mine[1] += clicks / propensity
    all_shown, all_clicked = (sum(each[place] for each in totals.values()) for place in (0, 1))
    assert found.for_all is not None
    assert found.for_all.rate == pytest.approx(all_clicked / all_shown)
    squares = sum(mine[0] ** 2 for mine in totals.values())
    assert found.for_all.effective_users == pytest.approx(all_shown**2 / squares)


def test_few_users_or_nothing_shown_give_no_estimate() -> None:
    enough = np.arange(MIN_USERS)
    ones, none = np.ones(MIN_USERS, dtype=np.int64), np.zeros(MIN_USERS, dtype=np.int64)
    assert click_rate(enough, ones, none) == ClickRate(0.0, 0.0, pytest.approx(0.0369, abs=1e-4), MIN_USERS)
    assert click_rate(enough[1:], ones[1:], none[1:]) is None
    assert click_rate(enough // 2, ones, ones) is None, "a user counts once"
    assert click_rate(enough, ones, ones, np.append(np.ones(MIN_USERS - 1), 0.001)) is None, "one user outweighs all"
    assert click_rate(enough, none, none) is None


def test_lists_of_unknown_origin_belong_to_no_version() -> None:
    shown = Shown(np.arange(2), ["", "recsys/3"], ["", "als"], np.ones(2), np.ones(2, np.int64), np.ones(2, np.int64))
    assert [(one.version, one.users, one.observed) for one in shown.rates()] == [("recsys/3", 1, None)]
