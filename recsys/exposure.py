"""What users were shown and what they clicked: which lists, and click-through rates with intervals.

A list of recommendations has an id that says which version made it, by which ranking, and with which chance that
ranking was drawn. An application sends it back with its events, so a click is credited without any lookup, long after
the list was replaced.
"""

import hashlib
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

# Estimates that rest on fewer users, or users' worth, are not given.
MIN_USERS = 100
# So rarely nothing is drawn that would be worth measuring; an id that says so is damaged, or forged.
LEAST_PROPENSITY = 1e-4
# At the end of the id of a list with an explored place, and of a control: the mark, and so many hexadecimal digits of
# the SHA-256 of the item in the place.
EXPLORED_MARK, CONTROL_MARK, ITEM_DIGITS = "+", "=", 16
_CONFIDENCE = 0.95
_LIST_ID = re.compile(
    r"(?P<name>.+)/(?P<version>[^/:]+):(?P<ranking>[^:]+):(?P<propensity>[^:]+):[0-9a-f]{16}([+=][0-9a-f]{16})?",
    re.DOTALL,
)


@dataclass(frozen=True)
class Origin:
    """Where a list of recommendations comes from.

    Attributes:
        model_name: the registered model.
        model_version: its version.
        ranking: the ranking that served the user.
        propensity: with which chance it was drawn, from `LEAST_PROPENSITY` to 1.
    """

    model_name: str
    model_version: str
    ranking: str
    propensity: float

    @classmethod
    def of(cls, list_id: str) -> "Origin | None":
        """What a `list_id` says; None for a text that is none of ours."""
        found = _LIST_ID.fullmatch(list_id)
        if found is None:
            return None
        try:
            propensity = float(found["propensity"])
        except ValueError:
            return None
        if not LEAST_PROPENSITY <= propensity <= 1:
            return None
        return cls(found["name"], found["version"], found["ranking"], propensity)

    def list_id(self, made: str) -> str:
        """An id that says this, for a list.

        Args:
            made: What tells the list from others of this origin.
        """
        token = hashlib.sha256(made.encode()).hexdigest()[:16]
        return f"{self.model_name}/{self.model_version}:{self.ranking}:{self.propensity:.6e}:{token}"


@dataclass(frozen=True)
class ClickRate:
    """Clicks per impression, with a confidence interval (95 %).

    Attributes:
        rate: the estimate; lower, upper: the interval.
        effective_users: how many users of equal weight would tell as much (Kish 1965).
    """

    rate: float
    lower: float
    upper: float
    effective_users: float


def click_rate(
    users: IntArray, impressions: IntArray, clicks: IntArray, propensities: FloatArray | None = None
) -> ClickRate | None:
    """Estimate clicks per impression.

    With propensities it is the self-normalized inverse-propensity estimate (SNIPS; Swaminathan & Joachims 2015, "The
    Self-Normalized Estimator for Counterfactual Learning"): what the rate would be if the ranking that these lists were
    made by served every user, not only those for whom it was drawn.

    A user's lists are not independent of one another, so the variance is that of a ratio of sums over users (the delta
    method), and the interval is symmetric in the logarithm of the rate, because rates are small and above 0.

    Args:
        users: (n,) code of each list's user.
        impressions: (n,) items of each list that were shown.
        clicks: (n,) clicks on them.
        propensities: (n,) above 0; None: the rate among those who were shown these lists.

    Returns:
        None where the users are worth fewer than `MIN_USERS`, or nothing was shown.
    """
    weights = np.ones(len(users)) if propensities is None else 1 / propensities
    _, codes = np.unique(users, return_inverse=True)
    shown, clicked = np.bincount(codes, weights * impressions), np.bincount(codes, weights * clicks)
    total = float(shown.sum())
    if not total:
        return None
    effective = total**2 / float((shown**2).sum())
    if not effective >= MIN_USERS:
        return None
    rate = float(clicked.sum()) / total
    deviate = NormalDist().inv_cdf((1 + _CONFIDENCE) / 2)
    if not rate:
        # No click among so many: the largest rate at which that is still likely enough.
        return ClickRate(0.0, 0.0, -math.log((1 - _CONFIDENCE) / 2) / effective, effective)
    variance = float(((clicked - rate * shown) ** 2).sum()) * len(shown) / (len(shown) - 1)
    spread = math.exp(deviate * math.sqrt(variance) / (total * rate))
    return ClickRate(rate, rate / spread, rate * spread, effective)


@dataclass(frozen=True)
class GroupRates:
    """How the lists of a group of users did.

    Attributes:
        users: who were shown a list.
        impressions, clicks: of their lists.
        observed: the click-through rate.
    """

    users: int
    impressions: int
    clicks: int
    observed: ClickRate | None


def rates_by_group(
    groups: IntArray, number: int, users: IntArray, impressions: IntArray, clicks: IntArray
) -> list[GroupRates]:
    """Click-through rates of groups of users, such as the arms of an experiment.

    Args:
        groups: (n,) group of each list's user, from 0.
        number: number of groups.
        users: (n,) code of each list's user.
        impressions, clicks: (n,) of each list.
    """
    found = []
    for group in range(number):
        own = groups == group
        counts = users[own], impressions[own], clicks[own]
        sums = int(impressions[own].sum()), int(clicks[own].sum())
        found.append(GroupRates(len(np.unique(users[own])), *sums, click_rate(*counts)))
    return found


@dataclass(frozen=True)
class Shown:
    """n lists that were shown, with what became of them.

    Attributes:
        users: (n,) code of each list's user.
        versions: n names of versions, `name/number`; empty for lists of unknown origin. A version is known only by the
            users whose lists it has changed.
        rankings: n names of rankings.
        propensities: (n,) float64.
        impressions, clicks: (n,) int64.
    """

    users: IntArray
    versions: list[str]
    rankings: list[str]
    propensities: FloatArray
    impressions: IntArray
    clicks: IntArray

    def rates(self) -> Iterator["RankingRates"]:
        """Of each version and each of its rankings, by name; lists of unknown origin are left out."""
        origins = sorted({one for one in zip(self.versions, self.rankings, strict=True) if one[0]})
        version_of, ranking_of = np.array(self.versions, dtype=object), np.array(self.rankings, dtype=object)
        for version, ranking in origins:
            own = (version_of == version) & (ranking_of == ranking)
            counts = self.users[own], self.impressions[own], self.clicks[own]
            yield RankingRates(
                version,
                ranking,
                len(np.unique(self.users[own])),
                int(self.impressions[own].sum()),
                int(self.clicks[own].sum()),
                click_rate(*counts),
                click_rate(*counts, self.propensities[own]),
            )


@dataclass(frozen=True)
class RankingRates:
    """How the lists of a version did that one of its rankings made.

    Attributes:
        version: `name/number`.
        ranking: name of the ranking.
        users: who were shown such a list.
        impressions, clicks: of them.
        observed: the click-through rate among these users.
        for_all: what it would be if the ranking served everybody whose list the version has changed.
    """

    version: str
    ranking: str
    users: int
    impressions: int
    clicks: int
    observed: ClickRate | None
    for_all: ClickRate | None
