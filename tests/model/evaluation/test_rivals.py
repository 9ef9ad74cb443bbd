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
    first, challenger = rivals["first"], model.served()
    rivals.become({"first": served, "champion": served, "challenger": challenger})
    newest = rivals["challenger"]
    rivals.become({"first": served, "champion": challenger, "previous": served})
    assert rivals["first"] is rivals["previous"] is first
    assert rivals["champion"] is newest
    assert list(rivals) == ["first", "champion", "previous"]


def test_a_version_is_left_out_only_where_it_goes_by_no_other_name() -> None:
    model = learn(OnlineModel(SETTINGS), clustered_batches(2, 80))
    first, champion = model.served(), model.served()
    alone = Rivals({"first": first, "champion": champion})
    assert alone.without_alone("first") == {"champion": alone["champion"]}
    champions = Rivals({"first": first, "champion": first})
    assert champions.without_alone("first") == dict(champions)
    assert Rivals({"champion": champion}).without_alone("first").keys() == {"champion"}


def test_each_rival_is_measured_by_its_name() -> None:
    batches = clustered_batches(3, 80)
    model = learn(OnlineModel(SETTINGS), batches[:1])
    first = model.served()
    rivals = Rivals({"first": first})
    learn(model, batches[1:2], first=1)
    rivals.become({"first": first, "champion": model.served()})
    figures = evaluate(batches[2], model, rivals, SETTINGS, StepId(0, 2))
    assert figures["first/auc"] != figures["champion/auc"]
