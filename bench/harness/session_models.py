"""The mixture and its members, asked about running sessions as consumers of a registered version ask."""

from collections.abc import Mapping, Sequence

import numpy as np

from bench.harness.sessions import K, Question, SessionEvents
from bench.harness.streams import batches
from recsys.config import Settings
from recsys.contracts import StepId
from recsys.evaluate import Live
from recsys.model.common.arrays import IntArray
from recsys.model.mixture.mixture import Mixture
from recsys.serving import Served
from recsys.serving.answers import Answers
from recsys.serving.arrays import Arrays, part
from recsys.serving.ranker import Ranker
from recsys.serving.version import SHARED

MIXTURE, RERANKER = "mixture", "re-ranker"


class MixtureInSessions:
    """Learns a stream batch by batch, and answers as it is served.

    Args:
        settings: How is learned.
        events: The stream.
    """

    def __init__(self, settings: Settings, events: SessionEvents) -> None:
        self._live, self._events = Live(settings, MIXTURE), events
        self._learned, self._batches = 0, 0

    def learn(self, end: int, size: int) -> None:
        """Learn what has not been learned of the first events, up to number `end`, so many at a time."""
        for batch in batches(self._events.frame.iloc[self._learned : end], size):
            self._live.learn(batch, StepId(0, self._batches))
            self._batches += 1
        self._learned = end

    def above(self, questions: Sequence[Question]) -> dict[str, IntArray]:
        """(questions,) how many items each method lists before the target, -1 where it is not listed; ties are misses.

        Methods: the mixture, its re-ranker alone, and its members.
        """
        served, learner = self._live.model.served(), self._live.model.learner
        assert isinstance(learner, Mixture)
        shared = {name: array for name, array in served.arrays.items() if name in SHARED}
        only_first = np.zeros_like(served.arrays["chances"])
        only_first[:, 0] = 1
        arrays = {MIXTURE: served.arrays, RERANKER: {**served.arrays, "chances": only_first}}
        arrays |= {name: {**part(served.arrays, name), **shared} for name in learner.members}
        kinds = {name: name if name in learner.members else MIXTURE for name in arrays}
        return {name: self._above(questions, served, kinds[name], own) for name, own in arrays.items()}

    def _above(self, questions: Sequence[Question], served: Served, kind: str, arrays: Arrays) -> IntArray:
        packed = Served(kind, served.user_ids, served.item_ids, arrays).packed()
        answers = Answers(Ranker(packed), K + 1, self._live.model.settings.recommend.exclude_seen, {})
        ids = self._events.item_ids
        asked: Mapping[str, list[object]] = {
            "user_id": [self._events.user_ids[question.user] for question in questions],
            "recent_items": [[ids[item] for item in question.given.tolist()] for question in questions],
        }
        answer = answers.recommend(asked)
        above = np.full(len(questions), -1)
        lists = zip(questions, answer["item_ids"], answer["scores"], strict=True)
        for place, (question, items, scores) in enumerate(lists):
            if ids[question.target] in items:
                own = scores[items.index(ids[question.target])]
                above[place] = (np.array(scores) >= own).sum() - 1
        return above
