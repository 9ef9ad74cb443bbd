"""What the sequence encoder learns from: what users had, and what they had next."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from recsys.model.common.arrays import Int32Array, IntArray
from recsys.serving import Lists
from recsys.serving.arrays import ragged_ranges
from recsys.serving.walks import put_first

# Latest items of a user that are read, and items that an example asks for, at most.
WIDTH = TARGETS = 20


@dataclass(frozen=True)
class SequenceExamples:
    """What users had, and what they had next.

    Attributes:
        contexts: (n, latest) int32 codes, one higher, newest first, 0 for none; at least one each.
        targets: (n, most) int32 codes, one higher, in no particular order, then 0 for none; at least one each.
    """

    contexts: Int32Array
    targets: Int32Array

    def __len__(self) -> int:
        return len(self.contexts)

    @property
    def lengths(self) -> IntArray:
        """(n,) how many items a user had."""
        lengths: IntArray = (self.contexts > 0).sum(axis=1)
        return lengths

    def take(self, places: IntArray | npt.NDArray[np.bool_] | slice) -> "SequenceExamples":
        """Those at some places."""
        return SequenceExamples(self.contexts[places], self.targets[places])

    def joined(self, other: "SequenceExamples") -> "SequenceExamples":
        """These, then the others."""
        pairs = ((self.contexts, other.contexts), (self.targets, other.targets))
        return SequenceExamples(*(np.concatenate(pair) for pair in pairs))

    def drawn(self, size: int, drawing: np.random.Generator) -> Iterator[IntArray]:
        """Places of all of them in random order, `size` at a time, those of the longest contexts first.

        Contexts of about one length come together, so that a network that reads them side by side takes few steps.
        """
        order = drawing.permutation(len(self))
        order = order[np.argsort(-self.lengths[order], kind="stable")]
        begins = np.arange(0, len(order), size)
        return (order[begin : begin + size] for begin in drawing.permutation(begins).tolist())


def no_examples() -> SequenceExamples:
    """None yet."""
    return SequenceExamples(np.zeros((0, WIDTH), np.int32), np.zeros((0, TARGETS), np.int32))


def examples_of(latest: Int32Array, batch: Lists, drawing: np.random.Generator) -> SequenceExamples:
    """The examples of a batch.

    Args:
        latest: (users, latest) items before it, codes as in `SequenceExamples.contexts`.
        batch: What each user has in it, in order.
        drawing: Draws the place at which a user's items are cut in two, and targets where there are too many.
    """
    lengths, starts = batch.lengths, batch.offsets[:-1]
    before, cut = np.flatnonzero((lengths > 0) & (latest[:, 0] > 0)), np.flatnonzero(lengths > 1)
    heads = drawing.integers(1, lengths[cut]) if len(cut) else np.zeros(0, np.int64)
    within = latest[cut]
    put_first(within, *Lists.of(heads, batch.items[ragged_ranges(starts[cut], heads)]))
    begins = np.concatenate([starts[before], starts[cut] + heads])
    counts = np.concatenate([lengths[before], lengths[cut] - heads])
    asked = Lists.of(counts, batch.items[ragged_ranges(begins, counts)])
    order = np.lexsort((drawing.random(len(asked.items)), asked.owners))
    places = np.arange(len(order)) - asked.offsets[asked.owners]
    targets = np.zeros((len(counts), TARGETS), np.int32)
    some = places < TARGETS
    targets[asked.owners[some], places[some]] = asked.items[order[some]] + 1
    return SequenceExamples(np.concatenate([latest[before], within]), targets)
