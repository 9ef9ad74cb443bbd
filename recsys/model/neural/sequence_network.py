"""The network of the sequence encoder: vectors of items, a recurrent unit over them, and a softmax over a sample."""

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional
from torch.nn.utils.rnn import PackedSequence

from recsys.model.common.arrays import Float32Array, Int32Array, IntArray
from recsys.model.learner import State
from recsys.model.neural.sequence_examples import SequenceExamples

DIMENSIONS = 64
# Parameters with a row for each item.
TABLES = ("residual", "bias")
_DROPOUT, _PENALTY = 0.3, 1e-5
# How much of the target of a replayed example is what the former network said.
_DISTILLED = 0.5
# Items, beside those that a group of examples is about, over which a softmax is summed up.
_SAMPLED = 512


class SequenceNetwork(torch.nn.Module):
    """Vectors of items, a gated recurrent unit (GRU) over those of a user's latest items, and a linear map behind it.

    The vector of an item is a linear map of its factors, at first the identity, plus a correction of its own. It is
    both what the network reads and what its output is multiplied with. Gradients of the tables are sparse: a step
    touches the rows of a sample of the items only.

    Args:
        factors: Length of the items' factors; 0: they have none.
        drawing: What the weights are drawn from.
    """

    def __init__(self, factors: int, drawing: np.random.Generator) -> None:
        super().__init__()
        self.projection = torch.nn.Parameter(torch.eye(DIMENSIONS, factors))
        self.residual = torch.nn.Parameter(torch.zeros(0, DIMENSIONS))
        self.bias = torch.nn.Parameter(torch.zeros(0, 1))
        # Not initialized by the global generator of torch.
        with torch.device("meta"):
            gru, output = torch.nn.GRU(DIMENSIONS, DIMENSIONS), torch.nn.Linear(DIMENSIONS, DIMENSIONS)
        self.gru: torch.nn.GRU = gru.to_empty(device="cpu")
        self.output: torch.nn.Linear = output.to_empty(device="cpu")
        with torch.no_grad():
            for weights in (*self.gru.parameters(), *self.output.parameters()):
                drawn = drawing.uniform(-(DIMENSIONS**-0.5), DIMENSIONS**-0.5, weights.shape)
                weights.copy_(torch.from_numpy(drawn.astype(np.float32)))

    def vectors(self, factors: torch.Tensor) -> torch.Tensor:
        """(items, d) vectors of all items, which have some factors (items, f)."""
        return functional.linear(factors, self.projection) + self.residual

    @torch.no_grad()
    def arrays(self, factors: torch.Tensor) -> State:
        """What `SequenceScorer` takes of the network, for items that have some factors (items, f)."""
        gru = dict(self.gru.named_parameters())
        named: dict[str, torch.Tensor] = {
            "vectors": self.vectors(factors),
            "bias": self.bias[:, 0],
            "input_weights": gru["weight_ih_l0"],
            "input_bias": gru["bias_ih_l0"],
            "state_weights": gru["weight_hh_l0"],
            "state_bias": gru["bias_hh_l0"],
            "output_weights": self.output.weight,
            "output_bias": self.output.bias,
        }
        return {name: tensor.detach().cpu().numpy() for name, tensor in named.items()}

    def loss(
        self,
        examples: SequenceExamples,
        factors: torch.Tensor,
        drawing: np.random.Generator,
        dropping: torch.Generator,
        former: tuple["SequenceNetwork", npt.NDArray[np.bool_]] | None = None,
    ) -> torch.Tensor:
        """Mean cross-entropy of n examples, in each of which all targets count alike, and a penalty on corrections.

        Args:
            examples: The examples, those with the longest contexts first.
            factors: (all items, f).
            drawing: Draws the sample of items.
            dropping: Draws what is dropped of what the network reads.
            former: A network whose probabilities are half of the target of some examples (n,), as in ADER.
        """
        device = factors.device
        items, shifts = softmax_items(examples, len(self.bias), drawing)
        logs, corrections = self._logs(examples, items, shifts, factors, dropping)
        owners, places = np.nonzero(examples.targets)
        asked = np.searchsorted(items, examples.targets[owners, places] - 1)
        weights = 1 / np.bincount(owners)
        told = torch.zeros((), device=device)
        if former is not None and former[1].any():
            network, some = former
            weights[some] *= 1 - _DISTILLED
            with torch.no_grad():
                known, _ = network._logs(examples.take(some), items, shifts, factors, None)
            told = _DISTILLED * (known.exp() * logs[torch.from_numpy(some).to(device)]).sum()
        found = logs[torch.from_numpy(owners).to(device), torch.from_numpy(asked).to(device)]
        hit = (found * torch.from_numpy(weights[owners].astype(np.float32)).to(device)).sum()
        return -(hit + told) / len(examples) + _PENALTY * corrections.square().sum()

    def _logs(
        self,
        examples: SequenceExamples,
        items: IntArray,
        shifts: Float32Array,
        factors: torch.Tensor,
        dropping: torch.Generator | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Logarithms of the probabilities (n, c) of items (c,) after n contexts, and the items' corrections (c, d)."""
        device = factors.device
        rows = torch.from_numpy(items).to(device)
        corrections = functional.embedding(rows, self.residual, sparse=True)
        vectors = functional.linear(factors[rows], self.projection) + corrections
        levels = functional.embedding(rows, self.bias, sparse=True)[:, 0] + torch.from_numpy(shifts).to(device)
        read, together = oldest_first(examples)
        taken = functional.embedding(torch.from_numpy(np.searchsorted(items, read)).to(device), vectors)
        if dropping is not None:
            kept = torch.rand(taken.shape, generator=dropping, device=device) >= _DROPOUT
            taken = taken * kept / (1 - _DROPOUT)
        _, last = self.gru(PackedSequence(taken, torch.from_numpy(together)))
        return torch.log_softmax(torch.addmm(levels, self.output(last[0]), vectors.T), dim=1), corrections


def oldest_first(examples: SequenceExamples) -> tuple[IntArray, IntArray]:
    """The items of contexts as a packed sequence: all oldest ones, then all second ones, and so on.

    Args:
        examples: Those with the longest contexts first.

    Returns:
        Items (c,), and the number of them at each place, (longest context,).
    """
    lengths = examples.lengths
    ages = lengths - 1 - np.arange(lengths.max(initial=0))[:, None]
    places, owners = np.nonzero(ages >= 0)
    read: IntArray = examples.contexts[owners, ages[places, owners]].astype(np.int64) - 1
    return read, np.bincount(places)


def softmax_items(
    examples: SequenceExamples, items: int, drawing: np.random.Generator
) -> tuple[IntArray, Float32Array]:
    """The items over which a softmax is summed up: those that examples are about, and a sample of the others.

    Args:
        examples: The examples.
        items: How many there are.
        drawing: Draws the sample.

    Returns:
        Items (c,), ascending, and what is added to their logits (c,), so that each of the sample stands for all those
        of which it is one: the logarithm of one over the probability to be drawn.
    """
    codes: Int32Array = np.concatenate([examples.contexts.ravel(), examples.targets.ravel()])
    own = np.unique(codes[codes > 0]).astype(np.int64) - 1
    sampled = min(_SAMPLED, items)
    found = np.union1d(own, drawing.choice(items, sampled, replace=False))
    shifts = np.full(len(found), np.log(items / sampled), np.float32)
    shifts[np.searchsorted(found, own)] = 0
    return found, shifts
