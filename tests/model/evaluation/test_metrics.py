"""Ranking figures against their definitions, computed user by user and item by item."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.model.evaluation.metrics import RankingFigures, Relevant, coverage, ranked_by_scores, ranking_figures
from recsys.serving import ranking


def relevant_of(lists: list[list[int]], unknown: list[int]) -> Relevant:
    lengths = [len(items) for items in lists]
    flat = np.array([item for items in lists for item in items], dtype=np.int64)
    return Relevant(np.concatenate([[0], np.cumsum(lengths)]), flat, np.array(unknown, dtype=np.int64))


def figures_of(scores: torch.Tensor, relevant: Relevant, k: int) -> RankingFigures:
    return ranking_figures(ranked_by_scores(scores, relevant.lists, k + 1), relevant, k)


def slow_figures(scores: list[float], items: list[int], unknown: int, k: int) -> dict[str, float]:
    """One user's figures by the definitions, ties counted as misses."""
    ranks = {
        item: 1 + sum(1 for other, score in enumerate(scores) if other != item and score >= scores[item])
        for item in items
    }
    total = len(items) + unknown
    hits = [item for item in items if ranks[item] <= k and scores[item] != -np.inf]
    wrong = [j for j, score in enumerate(scores) if j not in items and score != -np.inf]
    right_pairs = sum(
        sum(scores[item] > scores[other] for other in wrong) / len(wrong) if wrong else 1.0
        for item in items
        if scores[item] != -np.inf
    )
    recall, precision = len(hits) / total, len(hits) / k
    return {
        "recall": recall,
        "precision": precision,
        "f1": 2 * recall * precision / (recall + precision) if hits else 0.0,
        "ndcg": sum(1 / np.log2(1 + ranks[item]) for item in hits)
        / sum(1 / np.log2(1 + rank) for rank in range(1, min(total, k) + 1)),
        "auc": right_pairs / total,
    }


@settings(max_examples=200)
@given(st.data())
def test_figures_equal_the_definitions(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 12))
    k = data.draw(st.integers(1, 15))
    # Few distinct values, so that ties abound.
    score = st.sampled_from([-np.inf, -1.0, 0.0, 0.5, 2.0])
    users = data.draw(st.integers(1, 4))
    scores = [data.draw(st.lists(score, min_size=count, max_size=count)) for _ in range(users)]
    lists = [data.draw(st.lists(st.integers(0, count - 1), unique=True)) for _ in range(users)]
    unknown = [data.draw(st.integers(0 if items else 1, 3)) for items in lists]
    fast = figures_of(torch.tensor(scores), relevant_of(lists, unknown), k)
    for user in range(users):
        for name, value in slow_figures(scores[user], lists[user], unknown[user], k).items():
            assert getattr(fast, name)[user] == pytest.approx(value, abs=1e-12), name


def test_the_auc_may_be_that_of_some_users_only() -> None:
    generator, k, some = np.random.default_rng(0), 5, np.array([1, 3])
    scores = torch.from_numpy(generator.integers(0, 9, (4, 30)).astype(np.float32))
    relevant = relevant_of([generator.choice(30, 6, replace=False).tolist() for _ in range(4)], [0, 1, 2, 0])
    every = figures_of(scores, relevant, k)
    found = ranking_figures(ranked_by_scores(scores, relevant.lists_of(some), k + 1), relevant, k, some)
    np.testing.assert_array_equal(found.auc, np.where(np.isin(np.arange(4), some), every.auc, np.nan))
    for name in ("recall", "precision", "f1", "ndcg", "recommended"):
        np.testing.assert_array_equal(getattr(found, name), getattr(every, name), err_msg=name)


def test_a_perfect_ranking_scores_one_and_constant_scores_score_nothing(torch_device: str) -> None:
    relevant = relevant_of([[4, 2]], [0])
    perfect = figures_of(torch.tensor([[0.1, 0.2, 8.0, 0.3, 9.0]], device=torch_device), relevant, k=2)
    assert [perfect.ndcg[0], perfect.recall[0], perfect.precision[0], perfect.f1[0], perfect.auc[0]] == [1] * 5
    constant = figures_of(torch.zeros(1, 5, device=torch_device), relevant, k=2)
    assert [constant.ndcg[0], constant.recall[0], constant.auc[0]] == [0] * 3


def test_lists_are_best_first_and_leave_masked_items_out(torch_device: str) -> None:
    scores = torch.tensor([[1.0, -torch.inf, 3.0], [-torch.inf] * 3], device=torch_device)
    figures = figures_of(scores, relevant_of([[0], [1]], [0, 0]), k=4)
    assert figures.recommended.tolist() == [[2, 0, -1, -1], [-1, -1, -1, -1]]
    assert figures.recall.tolist() == [1.0, 0.0]


def test_coverage_counts_distinct_items() -> None:
    assert coverage(np.array([[0, 1], [1, -1]]), items=4) == 0.5
    assert coverage(np.array([[-1]]), items=4) == 0.0


def test_the_figures_do_not_depend_on_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = torch.from_numpy(np.random.default_rng(0).normal(size=(30, 50)).astype(np.float32))
    relevant = relevant_of([[u % 50, (u * 7 + 1) % 50] for u in range(2, 32)], [0] * 30)
    whole = figures_of(scores, relevant, 5)
    monkeypatch.setattr(ranking, "_COMPARISONS_AT_ONCE", 50)
    assert (figures_of(scores, relevant, 5).ndcg == whole.ndcg).all()
