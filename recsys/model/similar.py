"""What a live model compares items by."""

from collections.abc import Mapping

from recsys.model.als.incremental_als import IncrementalAls
from recsys.model.learner import Learner, State
from recsys.model.mixture.mixture import Mixture
from recsys.model.neural.ncf import NeuralCf
from recsys.model.recommender import OnlineModel
from recsys.serving.similar import COMPARING


def item_arrays(model: OnlineModel) -> State:
    """What `nearest_items` reads, of a live model; nothing if its kind compares no items."""
    learner = model.learner
    members: Mapping[str, Learner] = learner.members if isinstance(learner, Mixture) else {"": learner}
    member = next((members[name] for name in COMPARING if name in members), members.get(""))
    als = member.teacher if isinstance(member, NeuralCf) else member
    if isinstance(als, IncrementalAls):
        # What is served solves all users, too.
        return {"item_factors": als.item_factors.cpu().numpy()}
    return {} if member is None else member.served(model.history)
