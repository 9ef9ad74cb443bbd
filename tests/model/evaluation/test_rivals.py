"""Who a batch is measured against, beside the learning model."""

from recsys.contracts import StepId
from recsys.model.evaluation.prequential import evaluate
from recsys.model.evaluation.rivals import Rivals
from recsys.model.recommender import OnlineModel
from tests.model.als.test_incremental_als import learn
from tests.model.helpers import clustered_batches, make_settings

SETTINGS = make_settings(recommend={"k": 2, "exclude_seen": False})


def test_a_version_of_two_names_is_held_once_until_another_takes_one_of_them() -> None:
    model = learn(OnlineModel(SETTINGS), clustered_batches(2, 80))
    served = model.served()
    rivals = Rivals({"first": served, "champion": served})
    assert rivals["first"] is rivals["champion"]
    first = rivals["first"]
    rivals.enter({"champion": model.served()})
    assert rivals["first"] is first
    assert rivals["champion"] is not first
    assert list(rivals) == ["first", "champion"]
    rivals.enter({})
    assert len(rivals) == 2


def test_each_rival_is_measured_by_its_name() -> None:
    batches = clustered_batches(3, 80)
    model = learn(OnlineModel(SETTINGS), batches[:1])
    rivals = Rivals({"first": model.served()})
    learn(model, batches[1:2], first=1)
    rivals.enter({"champion": model.served()})
    figures = evaluate(batches[2], model, rivals, SETTINGS, StepId(0, 2))
    assert figures["first/auc"] != figures["champion/auc"]
