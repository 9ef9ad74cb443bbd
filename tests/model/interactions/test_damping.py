"""What one user can do to the model in one batch is bounded; what ordinary users do is not touched."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from recsys.config import Settings
from recsys.contracts import WEIGHT_PARTS, InteractionBatch, StepId
from recsys.model.evaluation.prequential import evaluate
from recsys.model.interactions.damping import share_that_counts, to_learn
from recsys.model.recommender import OnlineModel
from tests.model.helpers import clustered_batches, make_settings

DEFAULT = Settings()
ROWS = st.dictionaries(
    st.tuples(st.sampled_from("abc"), st.sampled_from("wxyz")),
    st.tuples(st.integers(-(10**13), 10**13).map(lambda parts: parts / WEIGHT_PARTS), st.integers(1, 10**6)),
    min_size=1,
)


def batch_of(rows: Sequence[tuple[str, str, float, int]]) -> InteractionBatch:
    """Rows of user, item, weight and number of events."""
    users, items, weights, events = (list(column) for column in zip(*sorted(rows), strict=True))
    return InteractionBatch(users, items, np.array(weights), np.array(events), np.zeros(len(users)))


def test_an_ordinary_batch_is_learned_as_it_is() -> None:
    draw = np.random.default_rng(0)
    for _ in range(5):
        # Some users do ten times what others do, and some items are a hundred times as popular.
        users, items = (1_500 * draw.random(20_000) ** 1.5).astype(int), draw.geometric(0.005, size=20_000)
        pairs = Counter(zip(users.tolist(), items.tolist(), strict=True))
        kinds = draw.choice([1.0, 2.0, 4.0, -4.0], size=len(pairs)).tolist()
        batch = batch_of(
            [
                (f"u{user}", f"i{item}", kind * events, events)
                for ((user, item), events), kind in zip(pairs.items(), kinds, strict=True)
            ]
        )
        counted, figures = to_learn(batch, DEFAULT)
        assert counted is batch
        assert figures == {"damped_pairs": 0, "damped_weight_share": 0}
    most = batch_of([("a", f"i{number}", 8.0, 8) for number in range(200)] + [("b", "x", 80.0, 20)])
    assert to_learn(most, DEFAULT)[0] is most, "right at the bounds"


def test_a_million_purchases_count_as_twenty() -> None:
    batch = batch_of([("bot", "x", 4e6, 10**6), ("ann", "x", 4.0, 1), ("bot", "y", 4.0, 1)])
    counted, figures = to_learn(batch, DEFAULT)
    assert counted.weights.tolist() == pytest.approx([4.0, 80.0, 4.0])
    assert counted.events.tolist() == [1, 20, 1]
    assert figures["damped_pairs"] == 1
    assert figures["damped_weight_share"] == pytest.approx(1 - 80 / 4e6, rel=1e-4)
    assert batch.weights[1] == 4e6, "the batch itself stays"


def test_the_repeats_of_a_user_are_bounded_together_and_single_events_are_not() -> None:
    repeats = [("bot", f"i{number}", 40.0, 10) for number in range(100)]
    single = [("cat", f"i{number}", 4.0, 1) for number in range(1_000)]
    counted, _ = to_learn(batch_of(repeats + single), DEFAULT)
    assert counted.weights[:100].tolist() == pytest.approx([4.0 * (1 + 200 / 100)] * 100)
    assert counted.weights[100:].tolist() == [4.0] * 1_000


def test_dislikes_and_events_that_cancel_out_are_bounded_alike() -> None:
    counted, _ = to_learn(batch_of([("bot", "x", -4e5, 10**5), ("bot", "y", 0.0, 10**5)]), DEFAULT)
    assert counted.weights.tolist() == pytest.approx([-80.0, 0.0])
    assert counted.events.tolist() == [20, 80]


def test_bounds_rise_with_the_batch_but_not_with_a_flood() -> None:
    honest = [(f"u{number:06}", "x", 4.0, 1) for number in range(80_000)]
    flood = ("bot", "x", 4e6, 10**6)
    assert to_learn(batch_of([*honest, flood]), DEFAULT)[0].weights[0] == pytest.approx(2 * 80, rel=1e-3)
    assert to_learn(batch_of([flood]), DEFAULT)[0].weights[0] == 80


def test_bounds_can_be_set_and_switched_off() -> None:
    flood = batch_of([("bot", "x", 4e6, 10**6)])
    off = Settings.model_validate({"robustness": {"events_per_pair": None, "repeats_per_user": None}})
    assert to_learn(flood, off)[0] is flood
    five = Settings.model_validate({"robustness": {"events_per_pair": 5}, "weights": {"purchase": 0.5}})
    assert to_learn(flood, five)[0].weights.tolist() == [2.5]
    assert five.fingerprint() != Settings.model_validate({"weights": {"purchase": 0.5}}).fingerprint()


@hypothesis_settings(deadline=None)
@given(ROWS)
def test_damping_keeps_signs_and_never_adds(rows: dict[tuple[str, str], tuple[float, int]]) -> None:
    batch = batch_of([(*pair, *found) for pair, found in rows.items()])
    share = share_that_counts(batch, DEFAULT)
    assert ((share > 0) & (share <= 1)).all()
    counted, _ = to_learn(batch, DEFAULT)
    assert (np.sign(counted.weights) == np.sign(batch.weights)).all()
    assert (np.abs(counted.weights) <= np.abs(batch.weights)).all()
    assert (counted.events >= 1).all()
    assert (counted.events <= batch.events).all()


def test_a_client_with_a_million_purchases_does_not_set_what_new_users_see() -> None:
    settings = make_settings()
    batches = clustered_batches(batches=4, events=1_000)
    model, undisturbed = OnlineModel(settings), OnlineModel(settings)
    flood = batch_of([("client", "dear", 4e6, 10**6)])
    for number, batch in enumerate(batches):
        for one in (model, undisturbed):
            one.update(batch, StepId(0, number))
    model.update(flood, StepId(0, 4))
    seen = [item for item, _ in model.recommend(["nobody"], 10)[0] if item != "dear"]
    assert seen == [item for item, _ in undisturbed.recommend(["nobody"], 10)[0]][: len(seen)]
    assert model.recommend(["nobody"], 1)[0][0][0] != "dear"
    assert evaluate(flood, model, {}, settings, StepId(0, 5))["cold_event_share"] == 0


def test_a_rebuild_learns_what_the_stream_has_learned() -> None:
    settings = make_settings()
    log = [(StepId(0, number), batch) for number, batch in enumerate(clustered_batches(batches=3, events=500))]
    log.append((StepId(0, 3), batch_of([("client", "dear", 4e6, 10**6)])))
    streamed, rebuilt = OnlineModel(settings), OnlineModel(settings)
    for step, batch in log:
        streamed.update(batch, step)
    rebuilt.rebuild(log, StepId(1, 3))
    np.testing.assert_array_equal(streamed.popularity.scores(), rebuilt.popularity.scores())
