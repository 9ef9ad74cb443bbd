"""The gate: is a version no worse than the one that serves, on users of the batches that came after it?

A version is measured beside the champion on the same users, batch by batch. A user's differences are averaged over the
batches of the trial, so that each user counts once, whatever they do. The test is on the mean over users of

    d = NDCG of the version - (1 - tolerance) * NDCG of the champion.

The version passes when the mean is above 0 with `gate.confidence`, and is rejected when it is below 0 with the same
confidence. It is looked at after every batch, up to `gate.max_batches` times, and each look may err: so each look gets
an equal share of the error (Bonferroni, as in group-sequential tests: Pocock, "Group sequential methods in the design
and analysis of clinical trials", Biometrika 1977). By the union bound the error over all looks stays below
1 - confidence whichever look ends the trial, however the looks depend on one another; they share most of their users.

The interval of one look is that of a mean over independent users. NDCG is skewed and mostly 0, so the quantiles are
corrected for skewness to second order, as a bootstrap would, but without its random numbers (Hall, "On the removal of
skewness by transformation", JRSS B 1992). Two made-up users, one with each extreme, are added, so that agreement on a
few users proves nothing.

Users whom the champion knows decide: a crowd of accounts that appears with an attack has no vote. Those it does not
know can only keep a version from being promoted.

After a promotion the champion is watched beside the version that it replaced, by the same test: a version that did well
only for as long as it was on trial is sent back.
"""

from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Literal

import numpy as np
import numpy.typing as npt

from recsys.config.sections import Gate
from recsys.model.common.arrays import FloatArray, IntArray
from recsys.words import count

PASSED: Literal["passed"] = "passed"
REJECTED: Literal["rejected"] = "rejected"
EXPIRED: Literal["expired"] = "expired"
UNDECIDED: Literal["undecided"] = "undecided"
Verdict = Literal["passed", "rejected", "expired", "undecided"]


@dataclass(frozen=True)
class GateResult:
    """The verdict on a version after a look.

    Attributes:
        verdict: `passed`, `rejected`, `expired` (not decided after the last look), or `undecided` so far.
        reasons: why, one line each.
        figures: `estimate`, `lower` and `upper` of the mean of d; mean NDCG of the `version`, of the `champion` and of
            `popularity` on the panel; `users` on it, and `batches` measured; `coverage` as a share of the champion's
            and `user_seconds` to rank for a user, where they were measured.
    """

    verdict: Verdict
    reasons: tuple[str, ...]
    figures: dict[str, float] = field(default_factory=dict)

    @property
    def decided(self) -> bool:
        """Whether the trial is over."""
        return self.verdict != UNDECIDED


@dataclass(frozen=True)
class Evidence:
    """What a trial has measured so far: n entries, one for each evaluated user and batch.

    Attributes:
        users: (n,) int64, a number for each user.
        batches: number of batches measured.
        version: (n,) NDCG of the version on trial.
        champion: (n,) NDCG of what it is measured against; None without a champion.
        popularity: (n,) NDCG of the most popular items.
        known: (n,) bool, whether the champion knew the user; without a champion, whether the version did.
        coverage: coverage of the version as a share of the champion's; None: not measured.
        user_seconds: time to rank for a user; None: not measured.
    """

    users: IntArray
    batches: int
    version: FloatArray
    champion: FloatArray | None
    popularity: FloatArray
    known: npt.NDArray[np.bool_]
    coverage: float | None = None
    user_seconds: float | None = None


@dataclass(frozen=True)
class Interval:
    """A mean over users, with a lower and an upper bound, each of which holds with one minus the error."""

    estimate: float
    lower: float
    upper: float


@dataclass(frozen=True)
class _Floor:
    """Something else that a version has to hold.

    Attributes:
        text: what was measured, for people.
        holds: whether it holds, by the point estimate.
        broken: whether it is shown not to hold, with the confidence of the test.
    """

    text: str
    holds: bool
    broken: bool


def judge(evidence: Evidence, gate: Gate, last: bool = False) -> GateResult:
    """Look at a version on trial.

    Args:
        evidence: what was measured, up to the batch of this look.
        gate: the settings.
        last: whether this is the last look: after `gate.max_batches`, or at the end of a stream without a champion.

    Returns:
        Passed if the test says so, and every floor holds by its point estimate. Rejected if the test, or that of a
        floor, says that it is worse. Otherwise undecided, or expired at the last look. A version without a champion is
        tested against popularity; at the last look it passes unless it was measured below, on however few users.
    """
    panel = _panel(evidence, gate, last)
    users = len(np.unique(evidence.users[panel]))
    figures = {"users": float(users), "batches": float(evidence.batches)}
    first = evidence.champion is None
    if first and last and not users:
        return GateResult(PASSED, ("there is no champion, and no batch to measure it on",), figures)
    if users < gate.min_users and not (first and last):
        why = f"measured on {users} users whom the champion knows, and gate.min_users is {gate.min_users}"
        return GateResult(EXPIRED if last else UNDECIDED, (why,), figures)
    reference = evidence.popularity if evidence.champion is None else evidence.champion
    tested = _compared(evidence, reference, panel, gate, gate.max_batches)
    figures |= _figures(evidence, tested, panel)
    floors = [] if first else _floors(evidence, panel, gate)
    floors += _limits(evidence, gate)
    line = _line(figures, "popularity" if first else "the champion")
    broken = [floor.text for floor in floors if floor.broken]
    missed = [floor.text for floor in floors if not floor.holds]
    if tested.upper < 0 or broken:
        return GateResult(REJECTED, (line, *broken), figures)
    if tested.lower >= 0 and not missed:
        return GateResult(PASSED, (line,), figures)
    if last and first and tested.estimate >= 0 and not missed:
        return GateResult(PASSED, (f"there is no champion, and it was not measured below popularity: {line}",), figures)
    return GateResult(EXPIRED if last else UNDECIDED, (line, *missed), figures)


def watch(evidence: Evidence, gate: Gate, last: bool = False) -> GateResult:
    """Look at a champion that is watched.

    Args:
        evidence: what was measured since the promotion: of the champion as the `version`, of what it replaced as the
            `champion`. The users whom the champion knows count.
        gate: the settings.
        last: whether this is the last look, after `gate.watch_batches`.

    Returns:
        Rejected if the test says that it is worse. Otherwise undecided, or passed at the last look.
    """
    assert evidence.champion is not None
    panel = evidence.known
    users = len(np.unique(evidence.users[panel]))
    figures = {"users": float(users), "batches": float(evidence.batches)}
    end: Verdict = PASSED if last else UNDECIDED
    if users < gate.min_users:
        return GateResult(end, (f"measured on {users} users, and gate.min_users is {gate.min_users}",), figures)
    tested = _compared(evidence, evidence.champion, panel, gate, gate.watch_batches)
    figures |= _figures(evidence, tested, panel)
    line = _line(figures, "the version before")
    return GateResult(REJECTED if tested.upper < 0 else end, (line,), figures)


def interval(values: FloatArray, error: float) -> Interval:
    """Bounds of the mean of values between -1 and 1, one for each user, corrected for skewness.

    Args:
        values: (users,), at least one.
        error: probability that the lower bound is too high; the same for the upper one.
    """
    padded = np.append(values, [-1.0, 1.0])
    n, mean, deviation = len(padded), float(padded.mean()), float(padded.std(ddof=1))
    skewness = float(np.mean((padded - mean) ** 3)) / deviation**3
    quantile = NormalDist().inv_cdf(1 - error)
    scale = deviation / n**0.5
    return Interval(
        float(values.mean()),
        mean - scale * _corrected(quantile, skewness, n),
        mean - scale * _corrected(-quantile, skewness, n),
    )


def _corrected(quantile: float, skewness: float, n: int) -> float:
    """Hall's cubic transformation of a studentized mean, inverted: the quantile under this skewness."""
    bend = skewness / 3
    if abs(bend) < 1e-9:
        return quantile
    inner = 1 + 3 * bend / n**0.5 * (quantile - skewness / (6 * n**0.5))
    return float(n**0.5 * (np.cbrt(inner) - 1) / bend)


def _panel(evidence: Evidence, gate: Gate, last: bool) -> npt.NDArray[np.bool_]:
    """Entries that decide: users whom the champion knows; at the last look all, where those are too few."""
    known = evidence.known
    if last and len(np.unique(evidence.users[known])) < gate.min_users:
        return np.ones(len(known), dtype=bool)
    return known


def _compared(
    evidence: Evidence, reference: FloatArray, entries: npt.NDArray[np.bool_], gate: Gate, looks: int
) -> Interval:
    """The interval of the mean of d over the users of some entries, for one of so many looks."""
    difference = evidence.version - (1 - gate.tolerance) * reference
    error = (1 - gate.confidence) / looks
    return interval(_per_user(evidence.users[entries], difference[entries]), error)


def _floors(evidence: Evidence, panel: npt.NDArray[np.bool_], gate: Gate) -> list[_Floor]:
    """Popularity, by the users of the panel; and the champion, by the users whom it does not know."""
    assert evidence.champion is not None
    popular = _compared(evidence, evidence.popularity, panel, gate, gate.max_batches)
    floors = [_Floor(f"against popularity {_shown(popular)}", popular.estimate >= 0, popular.upper < 0)]
    unknown = ~evidence.known
    if len(np.unique(evidence.users[unknown])) >= gate.min_users:
        cold = _compared(evidence, evidence.champion, unknown, gate, gate.max_batches)
        text = f"on users whom the champion does not know {_shown(cold)}"
        floors.append(_Floor(text, cold.estimate >= 0, cold.upper < 0))
    return floors


def _limits(evidence: Evidence, gate: Gate) -> list[_Floor]:
    """Limits of what is measured without an error to speak of: a version that misses one may still hold it later."""
    limits = []
    if evidence.coverage is not None:
        text = f"coverage {evidence.coverage:.2f} of the champion's, gate.min_coverage is {gate.min_coverage:g}"
        limits.append(_Floor(text, evidence.coverage >= gate.min_coverage, False))
    if evidence.user_seconds is not None:
        text = f"{evidence.user_seconds:.4f} s for a user, gate.max_user_seconds is {gate.max_user_seconds:g}"
        limits.append(_Floor(text, evidence.user_seconds <= gate.max_user_seconds, False))
    return limits


def _figures(evidence: Evidence, tested: Interval, panel: npt.NDArray[np.bool_]) -> dict[str, float]:
    ndcg = {"version": evidence.version, "champion": evidence.champion, "popularity": evidence.popularity}
    figures = {"estimate": tested.estimate, "lower": tested.lower, "upper": tested.upper}
    for name, values in ndcg.items():
        if values is not None:
            figures[name] = float(_per_user(evidence.users[panel], values[panel]).mean())
    limits = {"coverage": evidence.coverage, "user_seconds": evidence.user_seconds}
    return figures | {name: value for name, value in limits.items() if value is not None}


def _per_user(users: IntArray, values: FloatArray) -> FloatArray:
    """The mean of each user's values."""
    _, places, counts = np.unique(users, return_inverse=True, return_counts=True)
    means: FloatArray = np.bincount(places, weights=values) / counts
    return means


def _line(figures: dict[str, float], other: str) -> str:
    named = "popularity" if "champion" not in figures else "champion"
    tested = Interval(figures["estimate"], figures["lower"], figures["upper"])
    users, batches = count(int(figures["users"]), "user"), count(int(figures["batches"]), "batch", "batches")
    return f"NDCG {figures['version']:.4f} beside {figures[named]:.4f} of {other}, {users}, {batches}: {_shown(tested)}"


def _shown(tested: Interval) -> str:
    return f"{tested.estimate:+.4f} in [{tested.lower:+.4f}, {tested.upper:+.4f}] above the tolerance"
