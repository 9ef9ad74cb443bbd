"""The benches of the learner: what they count, compute and compare, against definitions that can be checked by eye."""

import os
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.harness import curves, generated_stream, limits, peers
from bench.harness.generate import draw
from bench.speed import als, incremental
from recsys.config import Settings
from recsys.contracts import StepId
from recsys.model.als.objective import Objective, training_loss
from recsys.model.recommender import OnlineModel

sparse = pytest.importorskip("scipy.sparse")

EVENTS = [(0, 1), (2, 0), (0, 1), (3, 4), (2, 1), (0, 1)]


def small_matrix() -> peers.Matrix:
    return peers.matrix_of(*np.array(EVENTS).T, 5, 6)


def random_matrix() -> peers.Matrix:
    generator = np.random.default_rng(0)
    return peers.matrix_of(generator.integers(30, size=150), generator.integers(20, size=150), 30, 20)


def factors_of(matrix: peers.Matrix, factors: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    users, items = (generator.standard_normal((rows, factors)).astype(np.float32) for rows in matrix.by_user.shape)
    return users, items


def loss_by_hand(
    matrix: peers.Matrix, users: np.ndarray, items: np.ndarray, penalties: tuple[np.ndarray, np.ndarray]
) -> float:
    """All pairs with confidence 1 + 4 * events, preferred or not."""
    counts = matrix.by_user.toarray()
    errors = (counts > 0) - users.astype(float) @ items.T
    rows = sum(
        (penalty * (side.astype(float) ** 2).sum(1)).sum()
        for penalty, side in zip(penalties, (users, items), strict=True)
    )
    return float(((1 + 4 * counts) * errors**2).sum() + rows)


def solved(counts: np.ndarray, others: np.ndarray, penalties: np.ndarray) -> np.ndarray:
    """Rows (rows, factors) that are best against the others, one by one."""
    rows = [
        np.linalg.solve(
            (others.T * (1 + 4 * own)) @ others + penalty * np.eye(others.shape[1]),
            others.T @ ((1 + 4 * own) * (own > 0)),
        )
        if own.any()
        else np.zeros(others.shape[1])
        for own, penalty in zip(counts, penalties, strict=True)
    ]
    return np.stack(rows)


def test_a_matrix_counts_events_from_both_sides() -> None:
    matrix = small_matrix()
    expected = np.zeros((5, 6))
    for user, item in EVENTS:
        expected[user, item] += 1
    assert (matrix.by_user.toarray() == expected).all()
    assert (matrix.by_item.toarray() == expected.T).all()
    assert matrix.pairs == 4
    for selection, side in zip(matrix.selections(), (expected, expected.T), strict=True):
        rows = selection.gather()
        assert rows.lengths.tolist() == selection.totals.tolist() == (side > 0).sum(1).tolist()
        owners = np.repeat(np.arange(len(side)), rows.lengths)
        assert (side[owners, rows.others] == rows.weights).all()


def test_a_generated_matrix_ends_with_the_event_that_completes_its_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "_EVENTS_AT_ONCE", 1_000)
    counts = dict[tuple[int, int], int]()
    for start in range(0, 100_000, 1_000):
        drawn = draw(1_000, 300, 80, 1, start)
        for pair in zip(drawn["user"].tolist(), drawn["item"].tolist(), strict=True):
            if len(counts) < 2_500:
                counts[pair] = counts.get(pair, 0) + 1
    matrix = peers.generated(300, 80, 2_500, seed=1)
    found = matrix.by_user.tocoo()
    assert matrix.by_user.shape == (300, 80)
    assert dict(zip(zip(found.row.tolist(), found.col.tolist(), strict=True), found.data, strict=True)) == counts


@pytest.mark.parametrize("by_ratings", [False, True])
def test_the_loss_that_is_compared_is_that_of_each_package(by_ratings: bool) -> None:
    matrix = small_matrix()
    users, items = factors_of(matrix, 3)
    objective = Objective(4.0, 0.5, exponent=0.0, offset=1.0)
    penalties = np.full(5, 0.5), np.full(6, 0.5)
    if by_ratings:
        objective = peers.with_penalty_by_ratings(objective, 0.25)
        penalties = 0.25 * np.array([1, 0, 2, 1, 0]), 0.25 * np.array([1, 2, 0, 0, 1, 0])
    loss = training_loss(*matrix.selections(), torch.from_numpy(users), torch.from_numpy(items), objective)
    assert loss == pytest.approx(loss_by_hand(matrix, users, items, penalties), rel=1e-6)


def test_implicit_computes_the_same_loss() -> None:
    pytest.importorskip("implicit")
    assert als.check_loss(small_matrix()) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("by_ratings", [False, True])
def test_our_runs_end_where_plain_alternating_least_squares_does(by_ratings: bool) -> None:
    """With as many factors as items there is one least loss, whatever the start."""
    matrix = random_matrix()
    counts = matrix.by_user.toarray().astype(float)
    objective = Objective(4.0, 0.5, exponent=0.0, offset=1.0)
    penalties = np.full(30, 0.5), np.full(20, 0.5)
    if by_ratings:
        objective = peers.with_penalty_by_ratings(objective, 0.25)
        penalties = 0.25 * (counts > 0).sum(1), 0.25 * (counts > 0).sum(0)
    users, items = factors_of(matrix, 20)
    for _ in range(200):
        users = solved(counts, items, penalties[0])
        items = solved(counts.T, users, penalties[1])
    run = peers.learn(matrix, objective, 20, 0, iterations=200, loss=np.inf)
    assert len(run.losses) == len(run.seconds) == 200
    assert (np.diff(run.seconds) > 0).all()
    assert run.losses[-1] == pytest.approx(loss_by_hand(matrix, users, items, penalties), rel=1e-3)


def test_a_run_goes_on_until_the_loss_is_reached_or_patience_ends() -> None:
    matrix = random_matrix()
    objective = Objective(4.0, 0.5, exponent=0.0, offset=1.0)
    target = peers.learn(matrix, objective, 4, 0, iterations=6, loss=np.inf).losses[-1]
    reached = peers.learn(matrix, objective, 4, 0, iterations=2, loss=target)
    assert (len(reached.losses), reached.iterations_to(target)) == (6, 6)
    never = peers.learn(matrix, objective, 4, 0, iterations=2, loss=0.0)
    assert (len(never.losses), never.iterations_to(0.0)) == (8, np.inf)


def test_implicit_is_measured_after_each_iteration_and_ends_near_us() -> None:
    pytest.importorskip("implicit")
    matrix = random_matrix()
    objective = Objective(4.0, 0.5, exponent=0.0, offset=1.0)
    theirs = peers.learn_implicit(matrix, objective, 20, 3, iterations=60)
    ours = peers.learn(matrix, objective, 20, 3, iterations=60, loss=np.inf)
    assert len(theirs.losses) == len(theirs.seconds) == 60
    assert (np.diff(theirs.losses) < 1e-3).all()
    assert theirs.losses[-1] == pytest.approx(ours.losses[-1], rel=0.01)


@given(
    spent=st.lists(st.floats(0.01, 9), min_size=1, max_size=8),
    losses=st.lists(st.integers(0, 9), min_size=8, max_size=8),
    wanted=st.integers(0, 9),
)
def test_the_first_iteration_that_is_good_enough_counts(spent: list[float], losses: list[int], wanted: int) -> None:
    run = peers.Run(np.cumsum(spent), np.array(losses[: len(spent)], dtype=float))
    for number, loss in enumerate(run.losses, start=1):
        if loss <= wanted:
            assert run.iterations_to(wanted) == number
            assert run.seconds_to(wanted) == pytest.approx(sum(spent[:number]))
            break
    else:
        assert run.iterations_to(wanted) == run.seconds_to(wanted) == np.inf


def test_the_cores_of_a_run_are_those_of_its_iterations() -> None:
    """A processor cannot do more than all of its cores at once; a single iteration of `implicit` says nothing."""
    pytest.importorskip("implicit")
    matrix, objective = random_matrix(), Objective(4.0, 0.5, exponent=0.0, offset=1.0)
    ours = peers.learn(matrix, objective, 64, 0, iterations=20, loss=np.inf)
    assert 0 < ours.cores < 1.5 * (os.cpu_count() or 1)
    assert np.isnan(peers.learn_implicit(matrix, objective, 64, 0, iterations=1).cores)


def test_only_the_last_loss_of_a_run_that_is_not_watched_is_computed() -> None:
    pytest.importorskip("implicit")
    matrix, objective = random_matrix(), Objective(4.0, 0.5, exponent=0.0, offset=1.0)
    watched, other = (peers.learn_implicit(matrix, objective, 8, 0, 4, watched=choice) for choice in (True, False))
    assert other.losses[:3].tolist() == [np.inf] * 3
    assert other.losses[3] == pytest.approx(watched.losses[3], rel=1e-4)


@pytest.mark.parametrize(
    ("busy", "verdict"),
    [(0.0, "other processes kept 0.00"), (0.95, "NOT COMPARABLE: other processes kept 0.95"), (np.nan, "unknown")],
)
def test_what_other_processes_took_is_said(monkeypatch: pytest.MonkeyPatch, busy: float, verdict: str) -> None:
    clock = iter([100.0, 110.0])
    others = iter([40.0, 40.0 + 10 * busy])
    monkeypatch.setattr(peers.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(peers, "_others_seconds", lambda: next(others))
    assert peers.Neighbors().verdict().startswith(verdict)


def test_the_work_of_another_process_is_that_of_others() -> None:
    if not Path("/proc/stat").is_file():
        pytest.skip("the system does not tell")
    program = "import time\nwhile time.process_time() < 1.0: pass"
    before = peers._others_seconds()
    subprocess.run([sys.executable, "-c", program], check=True)
    assert peers._others_seconds() - before >= 0.9


def test_confidences_leave_the_counts_as_they_were() -> None:
    matrix = small_matrix()
    found = peers.confidences(matrix.by_user, 4.0)
    assert sorted(found.data.tolist()) == [5, 5, 5, 13]
    assert sorted(matrix.by_user.data.tolist()) == [1, 1, 1, 3]


@pytest.mark.parametrize(
    ("users", "items", "pairs", "factors", "gflop", "gigabytes"),
    [
        (6_040, 3_706, 1_000_209, 64, 2.45, 2.0),
        (6_040, 3_706, 1_000_209, 128, 5.7, 4.1),
        (943, 1_682, 100_000, 64, 0.31, 0.20),
    ],
)
def test_limits_for_data_of_known_size(
    users: int, items: int, pairs: int, factors: int, gflop: float, gigabytes: float
) -> None:
    both = limits.HalfStep(users, items, pairs, factors), limits.HalfStep(items, users, pairs, factors)
    assert sum(half.operations for half in both) / 1e9 == pytest.approx(gflop, rel=0.03)
    assert sum(half.bytes_read for half in both) / 1e9 == pytest.approx(gigabytes, rel=0.03)
    # The slower of the two decides.
    assert both[0].least_seconds(1e9, 1e15) == pytest.approx(both[0].operations / 1e9)
    assert both[0].least_seconds(1e15, 1e9) == pytest.approx(both[0].bytes_read / 1e9)


def test_a_comparison_takes_medians_against_the_peer_of_the_same_repeat() -> None:
    def runs(spent: list[float], losses: list[list[float]]) -> list[peers.Run]:
        return [
            peers.Run(np.cumsum([one] * len(row)), np.array(row, dtype=float))
            for one, row in zip(spent, losses, strict=True)
        ]

    ours = runs([1, 2, 4], [[9, 5, 1], [9, 7, 3], [9, 2, 1]])
    theirs = runs([3, 3, 6], [[9, 8, 7, 6], [9, 8, 7, 7], [9, 8, 7, 1]])
    comparison = als.Comparison("data", small_matrix(), 4, "implicit", 0.5, ours, theirs)
    # Reached after 2, 2 and 3 iterations: 2, 4 and 12 seconds, against 12, 12 and 24.
    assert comparison.medians() == (2, 4, 12)
    assert comparison.ratio == pytest.approx(1 / 3)
    panel = als.panel(comparison)
    assert [line.name for line in panel.lines] == ["implicit", "ours"]
    assert panel.lines[1].y.tolist() == [8, 4, 0]
    assert panel.lines[0].x.tolist() == [3, 6, 9, 12]
    assert panel.level == panel.lines[0].y[-1] == 5


@settings(deadline=None)
@given(events=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 9)), min_size=1, max_size=30))
def test_a_batch_sums_the_events_of_a_pair(events: list[tuple[int, int, int]]) -> None:
    expected: dict[tuple[str, str], list[int]] = {}
    for user, item, moment in events:
        expected.setdefault((f"u{user:07d}", f"i{item:07d}"), []).append(moment)
    users, items, times = np.array(events).T
    batch = generated_stream.to_batch(
        users, items, times.astype(float), generated_stream.numbered("u", 4), generated_stream.numbered("i", 5)
    )
    pairs = list(zip(batch.user_ids, batch.item_ids, strict=True))
    assert pairs == sorted(expected)
    assert batch.events.tolist() == batch.weights.tolist() == [len(expected[pair]) for pair in pairs]
    assert batch.times.tolist() == [max(expected[pair]) for pair in pairs]


def test_a_stream_goes_on_where_it_was() -> None:
    stream = generated_stream.GeneratedStream(50, 80, seed=0, drift=0.2)
    first, second = stream.take(300), stream.take(200)
    assert stream.taken == first.events.sum() + second.events.sum() == 500
    assert first.times.max() < second.times.min()
    assert second.times.max() - first.times.max() == 100


def test_changed_rows_are_those_that_moved_or_are_new() -> None:
    before = torch.arange(12.0).reshape(4, 3)
    after = torch.cat([before.clone(), torch.ones(2, 3)])
    after[2, 1] += 1
    assert incremental.changed_rows(before, after).tolist() == [2, 4, 5]


def test_the_peer_holds_every_row_that_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch whose users and items are all new: `implicit` would read behind the end of its arrays."""
    pytest.importorskip("implicit")
    model = OnlineModel(Settings.model_validate({"device": "cpu", "model": {"factors": 8}}))
    ids = [generated_stream.numbered(prefix, 40) for prefix in ("u", "i")]
    old, new = np.repeat(np.arange(20), 3), np.repeat(np.arange(20, 40), 3)
    model.absorb(generated_stream.to_batch(old, old, np.zeros(60), *ids), StepId(0, 0))
    model.refit(StepId(0, 0))
    peer = incremental.peer_of(model)
    held = []

    def fit(kind: str) -> None:
        wanted = getattr(peer, kind)

        def checked(rows: np.ndarray, matrix: sparse.csr_matrix) -> None:
            others = peer.item_factors if kind == "partial_fit_users" else peer.user_factors
            held.append((matrix.shape[1], len(others)))
            wanted(rows, matrix)

        monkeypatch.setattr(peer, kind, checked)

    fit("partial_fit_users")
    fit("partial_fit_items")
    model.update(generated_stream.to_batch(new, new, np.ones(60), *ids), StepId(0, 1))
    incremental.partial_fit_seconds(peer, model, np.arange(40), np.arange(40))
    assert held == [(40, 40), (40, 40)]
    assert np.isfinite(peer.user_factors).all()
    assert np.isfinite(peer.item_factors).all()


def test_every_line_is_drawn(tmp_path) -> None:
    lines = [
        curves.Line(name, color, np.array([1.0, 10, 100]), height * np.array([1.0, 2, 3]))
        for name, color, height in (("one", curves.OURS, 1), ("two", curves.THEIRS, 4), ("three", curves.THIRD, 9))
    ]
    panels = [curves.Panel(title, "across", "up", lines, level=2.0) for title in ("left", "right")]
    picture = matplotlib.image.imread(curves.draw_panels(panels, tmp_path / "deep" / "lines.png"))
    for color in (curves.OURS, curves.THEIRS, curves.THIRD):
        wanted = np.array([int(color[at : at + 2], 16) for at in (1, 3, 5)]) / 255
        assert (np.abs(picture[..., :3] - wanted).max(axis=-1) < 0.02).sum() > 500


@pytest.mark.parametrize("bench", ["als", "incremental"])
def test_the_benches_run_to_their_last_line(bench: str, tmp_path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    pytest.importorskip("implicit")
    plot = tmp_path / "plot.png"
    monkeypatch.setattr(als, "QUICK", als.MatrixSize(300, 80, 2_000, (64, 128)))
    monkeypatch.setattr(incremental, "QUICK", incremental.HistorySize(300, 80, (2_000, 4_000)))
    monkeypatch.setattr(incremental, "BATCH", 100)
    monkeypatch.setattr(incremental, "JUDGED", 500)
    curve = tmp_path / "curve.png"
    own = {"als": ["--no-mllib"], "incremental": ["--curve", "--curve-plot", str(curve)]}
    monkeypatch.setattr(incremental, "CURVE_JUDGED", 500)
    monkeypatch.setattr(incremental, "CURVE_BUDGETS", (5.0, 40.0))
    words = [bench, "--quick", "--plot", str(plot), *own[bench]]
    monkeypatch.setattr(sys, "argv", words)
    {"als": als, "incremental": incremental}[bench].main()
    assert plot.stat().st_size > 10_000
    assert bench == "als" or curve.stat().st_size > 10_000
    last = dict(word.split("=") for word in capsys.readouterr().out.splitlines()[-1].split())
    expected = {
        "als": ["als_vs_implicit_f64", "als_vs_implicit_f128", "als_vs_mllib_f64"],
        "incremental": ["incremental_vs_sweep", "incremental_vs_implicit", "ndcg_vs_retrain"],
    }
    assert list(last) == expected[bench]
    assert last.pop("als_vs_mllib_f64", "nan") == "nan"
    assert all(float(figure) > 0 for figure in last.values())
