"""The compiled mixture, against the plain one that scores everything."""

from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.serving import Lists
from recsys.serving.arrays import prefixed
from recsys.serving.mixture import MixtureScorer
from recsys.serving.ranking import DenseScores, rank_in_blocks
from recsys.serving.repeats import REPEAT_FEATURES
from recsys.serving.scorers import group_of
from tests.serving.mixture_oracle import MixtureOracle

HALF_LIVES, SEGMENTS, FACTORS, LATEST, SLOTS = 3, 1, 4, 4, 5
MEMBERS = ("als", "cooccurrence", "repeat", "sessions", "content", "sequence")


def arrays_of(seed: int, users: int, items: int, members: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Random arrays of a version: few distinct numbers, so that ties abound; cold, warm and heavy users."""
    draw = np.random.default_rng(seed)
    clock = 1000.0
    first = draw.integers(1, 900, items).astype(float)
    arrays: dict[str, Any] = {
        "trend.half_lives": np.array([20.0, 100.0, 2000.0]),
        "trend.segment_half_lives": np.array([100.0]),
        "trend.counts": draw.integers(0, 4, (HALF_LIVES, items)).astype(float),
        "trend.segment_counts": draw.integers(0, 3, (3, SEGMENTS, items)).astype(float),
        "trend.clock": np.array([clock]),
        "trend.first": first,
        "trend.last": first + draw.integers(0, 100, items),
        "trend.rows_of_users": draw.choice([0, 1, 5, 19, 20, 60], users),
        "draw": np.array([seed, int(clock)]),
        "depth": np.array([draw.integers(1, 6), draw.choice([0, 4, 20])]),
    }
    width = HALF_LIVES + SEGMENTS + 2
    if "als" in members:
        width += 2
        arrays["als.user_factors"] = draw.integers(-2, 3, (users, FACTORS)).astype(np.float32)
        arrays["als.item_factors"] = draw.integers(-2, 3, (items, FACTORS)).astype(np.float32)
        arrays["als.user_factors"][::4] = 0
    if "cooccurrence" in members:
        width += 1
        arrays["cooccurrence.recent"] = latest_of(draw, users, items)
        arrays["cooccurrence.neighbors"] = draw.integers(0, items + 1, (items, SLOTS)).astype(np.int32)
        arrays["cooccurrence.strengths"] = draw.integers(0, 4, (items, SLOTS)).astype(np.float32)
        arrays["cooccurrence.totals"] = draw.integers(0, 9, items).astype(float)
        arrays["cooccurrence.scale"], arrays["cooccurrence.fading"] = np.array([0.37]), np.array([0.9])
        arrays["cooccurrence.share"] = draw.integers(0, 5, items) / 100
    if "repeat" in members:
        width += len(REPEAT_FEATURES) + 1 + 2 * ("als" in members) + ("cooccurrence" in members)
        lengths = draw.integers(0, min(items, 5) + 1, users)
        own = [draw.permutation(items)[:length] for length in lengths]
        entries = int(lengths.sum())
        arrays["repeat.items"] = np.concatenate([np.zeros(0, dtype=np.int64), *own]).astype(np.int32)
        arrays["repeat.counts"] = draw.integers(1, 5, entries)
        arrays["repeat.lately"] = draw.random(entries)
        arrays["repeat.first"] = draw.random(entries) * 5
        arrays["repeat.last"] = arrays["repeat.first"] + draw.random(entries) * 5
        arrays["repeat.starts"], arrays["repeat.lengths"] = np.cumsum(lengths) - lengths, lengths
        arrays["repeat.occasions"] = draw.integers(0, 9, (2, items)).astype(float)
        arrays["repeat.intervals"] = draw.integers(0, 9, (3, items)).astype(float)
        arrays["repeat.baskets"], arrays["repeat.habits"] = draw.integers(5, 9, users), draw.integers(0, 9, (2, users))
        arrays["repeat.last_basket"] = draw.integers(3, 6, entries)
        arrays["repeat.first_basket"] = arrays["repeat.last_basket"] - draw.integers(0, 3, entries)
        arrays["repeat.fast"], arrays["repeat.slow"] = draw.random((2, entries))
        arrays["repeat.share"] = draw.integers(0, 5, items) / 100
        arrays["repeat.now"], arrays["repeat.half_life"] = np.array([12.0]), np.array([60.0])
    if "sessions" in members:
        width += 4
        arrays["sessions.recent"] = latest_of(draw, users, items)
        slots = [draw.permutation(items + 1)[:SLOTS] for _ in range(items)]
        arrays["sessions.others"] = np.array(slots, dtype=np.int32).reshape(items, -1)
        for side in ("after", "before"):
            arrays[f"sessions.{side}"] = draw.integers(0, 4, arrays["sessions.others"].shape).astype(np.float32)
        arrays["sessions.totals"] = draw.integers(0, 9, (2, items)).astype(float)
        arrays["sessions.scale"], arrays["sessions.fading"] = np.array([0.37]), np.array([0.5])
        arrays["sessions.share"] = draw.integers(0, 5, items) / 100
    if "content" in members:
        width += 2
        vectors = draw.integers(-3, 4, (items, FACTORS)).astype(np.int8)
        vectors[::5] = 0
        arrays["content.recent"], arrays["content.vectors"] = latest_of(draw, users, items), vectors
        arrays["content.total"] = vectors.sum(axis=0, dtype=np.int64)
        arrays["content.described"] = np.array([vectors.any(axis=1).sum()])
    if "sequence" in members:
        width += 2
        own = {"recent": latest_of(draw, users, items)}
        own["vectors"] = draw.normal(size=(items, FACTORS)).astype(np.float32)
        own["bias"] = draw.normal(size=items).astype(np.float32)
        for layer, height in (("input", 3 * FACTORS), ("state", 3 * FACTORS), ("output", FACTORS)):
            own[f"{layer}_weights"] = draw.normal(size=(height, FACTORS)).astype(np.float32)
            own[f"{layer}_bias"] = draw.normal(size=height).astype(np.float32)
        arrays |= prefixed(own, "sequence")
    # What only gives features is no ranking of its own.
    rankings = 1 + HALF_LIVES + len({*members} - {"content", "sequence"})
    # All different: the same features in another order would have sums that differ by rounding only.
    arrays["weights"] = draw.integers(-2, 3, (6, width)) * (0.25 + np.arange(width) / 97)
    arrays["chances"] = draw.dirichlet(np.ones(rankings), 6)
    arrays["calibration"] = np.stack([draw.choice([0.5, 1, 2], (6, rankings)), draw.normal(size=(6, rankings))], axis=2)
    return arrays


def latest_of(draw: np.random.Generator, users: int, items: int) -> np.ndarray:
    """Latest items of users, codes one higher, 0 for none."""
    recent = np.zeros((users, LATEST), dtype=np.int32)
    for own in recent:
        some = draw.permutation(items)[: draw.integers(0, LATEST + 1)] + 1
        own[: len(some)] = some
    return recent


def some_lists(draw: np.random.Generator, users: int, items: int, most: int) -> Lists:
    lists = [np.sort(draw.permutation(items)[: draw.integers(0, most + 1)]) for _ in range(users)]
    return Lists.of(np.array([len(one) for one in lists]), np.concatenate(lists))


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    users=st.integers(1, 9),
    items=st.integers(1, 70),
    members=st.sets(st.sampled_from(MEMBERS)),
)
def test_lists_and_ranks_are_those_of_the_plain_mixture(seed: int, users: int, items: int, members: set[str]) -> None:
    arrays = arrays_of(seed, users, items, tuple(sorted(members)))
    rows, draw = np.arange(-1, users + 1), np.random.default_rng(seed)
    oracle, scorer = MixtureOracle(arrays), MixtureScorer.of(arrays)
    plain = oracle.score(rows)
    np.testing.assert_allclose(scorer.score(rows), oracle.log_odds(rows), rtol=1e-6, atol=1e-6)
    left_out = some_lists(draw, len(rows), items, draw.choice([0, items // 2, items]))
    k, wanted = draw.integers(1, items + 4, len(rows)), some_lists(draw, len(rows), items, min(items, 6))
    fast, slow = scorer.rank(rows, k, left_out, wanted), DenseScores(plain).rank(k, left_out, wanted)
    for name in ("items", "lengths", "open_items"):
        np.testing.assert_array_equal(getattr(fast, name), getattr(slow, name), name)
    listed = np.where(fast.items < 0, 0, np.take_along_axis(scorer.score(rows), np.maximum(fast.items, 0), axis=1))
    np.testing.assert_array_equal(fast.scores, listed)
    assert (np.diff(fast.scores, axis=1)[fast.items[:, 1:] >= 0] <= 0).all()
    # Behind the candidates the plain scores are squeezed into 0 to 1, which makes some of them equal.
    exact = np.where(plain > 1, 1e9 + plain.astype(np.float64), oracle.behind(rows))
    np.testing.assert_array_equal(fast.above, DenseScores(exact).rank(k, left_out, wanted).above)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), items=st.integers(1, 70), members=st.sets(st.sampled_from(MEMBERS)))
def test_what_the_reranker_learns_from_is_that_of_the_plain_mixture(seed: int, items: int, members: set[str]) -> None:
    arrays = arrays_of(seed, 9, items, tuple(sorted(members)))
    rows = np.arange(-1, 10)
    found, oracle = MixtureScorer.of(arrays).examples(rows), MixtureOracle(arrays)
    candidates = oracle.propose(rows)
    np.testing.assert_array_equal(found.owners, candidates.owners)
    np.testing.assert_array_equal(found.items, candidates.items)
    np.testing.assert_array_equal(found.features, candidates.features)
    np.testing.assert_array_equal(found.rankings, oracle.rankings(candidates))


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    users=st.integers(1, 9),
    items=st.integers(1, 70),
    members=st.sets(st.sampled_from(["als", "cooccurrence", "sessions", "content", "sequence"])),
)
def test_running_sessions_are_scored_as_the_plain_mixture_scores_what_was_just_done(
    seed: int, users: int, items: int, members: set[str]
) -> None:
    arrays = arrays_of(seed, users, items, tuple(sorted(members)))
    rows, draw = np.arange(-1, users + 1), np.random.default_rng(seed)
    recent, scorer = some_lists(draw, len(rows), items, min(items, 3)), MixtureScorer.of(arrays)
    view, done = scorer.with_recent(rows, recent), dict(arrays)
    known = (rows >= 0) & (rows < users)
    before = np.where(known, arrays["trend.rows_of_users"][np.where(known, rows, 0)], 0)
    done["trend.rows_of_users"] = before + recent.lengths
    if "als" in members:
        done["als.user_factors"] = arrays["als.user_factors"][np.where(known, rows, 0)] * known[:, None]
    for member in {"cooccurrence", "sessions", "content", "sequence"} & members:
        latest = np.zeros((len(rows), LATEST), dtype=np.int32)
        for place, row in enumerate(rows):
            just = recent.of_users(np.array([place])).items[::-1] + 1
            past = arrays[f"{member}.recent"][row] if known[place] and (member != "sessions" or not len(just)) else []
            own = [*just, *(code for code in past if code and code not in just)]
            latest[place, : len(own[:LATEST])] = own[:LATEST]
        done[f"{member}.recent"] = latest
    own = np.arange(len(rows))
    oracle = MixtureOracle(done, group_of(before) + 3 * (recent.lengths > 0))
    np.testing.assert_allclose(view.score(own), oracle.log_odds(own, rows), rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(view.examples(own).features, oracle.propose(own).features)


@cache
def large() -> tuple[MixtureScorer, tuple[np.ndarray, np.ndarray, Lists, Lists]]:
    arrays, draw = arrays_of(1, 300, 400, MEMBERS), np.random.default_rng(1)
    rows = np.arange(-1, 300)
    asked = rows, draw.integers(1, 30, 301), some_lists(draw, 301, 400, 40), some_lists(draw, 301, 400, 5)
    return MixtureScorer.of(arrays), asked


@pytest.mark.parametrize("threads", ["1", "2", "3"])
def test_blocks_and_threads_change_nothing(threads: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer, asked = large()
    whole = scorer.rank(*asked)
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    monkeypatch.setattr("recsys.serving.ranking._LISTED_AT_ONCE", 29 * 17)
    parts = rank_in_blocks(scorer, *asked)
    for name in ("items", "scores", "lengths", "above", "open_items"):
        np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name), name)


@pytest.mark.parametrize("seed", range(5))
def test_a_list_says_which_ranking_made_it_and_how_likely_that_was(seed: int) -> None:
    arrays = arrays_of(seed, 400, 20, MEMBERS)
    rows, oracle, scorer = np.arange(-1, 400), MixtureOracle(arrays), MixtureScorer.of(arrays)
    found, groups = scorer.served_by(rows), oracle.propose(rows).groups
    assert found.names == ["reranker", "trend_20", "trend_100", "trend_2000", *MEMBERS[:-2]]
    np.testing.assert_allclose(found.chances, arrays["chances"][groups, found.choices])
    # Each ranking serves about as many users of a group as its chance says.
    expected = np.stack([arrays["chances"][group] for group in groups]).sum(axis=0)
    assert (np.abs(np.bincount(found.choices, minlength=8) - expected) < 5 * np.sqrt(expected + 1)).all()
    # And the list is that ranking's: alone, with all chances, it makes the same one.
    nothing, k = Lists.empty(len(rows)), np.full(len(rows), 5)
    lists = scorer.rank(rows, k, nothing, nothing).items
    for choice in np.unique(found.choices):
        alone = MixtureScorer.of({**arrays, "chances": np.tile(np.eye(8)[choice], (6, 1))})
        own = found.choices == choice
        np.testing.assert_array_equal(alone.rank(rows, k, nothing, nothing).items[own], lists[own])
