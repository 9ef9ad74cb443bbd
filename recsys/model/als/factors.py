"""The factor vectors of one side (users or items) with their Gram matrix."""

import numpy as np
import numpy.typing as npt
import torch

# The Gram matrix is recomputed when more than this share of the rows changes at once, and after this many
# corrections, so that rounding errors do not accumulate.
_EXACT_SHARE = 0.25
_EXACT_EVERY = 50
_BLOCK_ROWS = 1 << 13


class FactorTable:
    """Factors (rows, factors) in float32 on a device and their Gram matrix in float64 on the CPU.

    Replacing k rows corrects the Gram matrix by new' * new - old' * old, at a cost that follows k, not the table.

    Args:
        values: (rows, factors) float32.
        device: Where the factors live.
    """

    def __init__(self, values: npt.NDArray[np.float32], device: torch.device) -> None:
        self._buffer = torch.from_numpy(values.copy()).to(device)
        self._rows = len(values)
        self._corrections = 0
        self.gram = self._exact_gram()

    @classmethod
    def from_state(
        cls, values: npt.NDArray[np.float32], gram: npt.NDArray[np.float64], corrections: int, device: torch.device
    ) -> "FactorTable":
        """A table from its arrays, its Gram matrix and the number of corrections in it."""
        table = cls(values[:0], device)
        table._buffer, table._rows = torch.from_numpy(values.copy()).to(device), len(values)
        table.gram, table._corrections = torch.from_numpy(gram.copy()), corrections
        return table

    def __len__(self) -> int:
        return self._rows

    @property
    def values(self) -> torch.Tensor:
        """(rows, factors), as a view."""
        return self._buffer[: self._rows]

    @property
    def corrections(self) -> int:
        """Corrections of the Gram matrix since it was last computed from all rows."""
        return self._corrections

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self._buffer.nbytes

    def append(self, rows: npt.NDArray[np.float32]) -> None:
        """Add rows (n, factors)."""
        added = torch.from_numpy(rows).to(self._buffer.device)
        count = self._rows + len(added)
        if count > len(self._buffer):
            grown = self._buffer.new_zeros(max(count, 2 * len(self._buffer)), self._buffer.shape[1])
            grown[: self._rows] = self.values
            self._buffer = grown
        self._buffer[self._rows : count] = added
        self._rows = count
        self.gram += gram_of(added)

    def keep(self, rows: npt.NDArray[np.int64]) -> None:
        """Have only rows (n,), without spare room."""
        self._buffer = self._buffer[torch.from_numpy(rows).to(self._buffer.device)]
        self._rows, self._corrections = len(rows), 0
        self.gram = self._exact_gram()

    def replace(self, rows: npt.NDArray[np.int64], values: torch.Tensor) -> None:
        """Set distinct rows (n,) to values (n, factors)."""
        at = torch.from_numpy(rows).to(self._buffer.device)
        self._corrections += 1
        if len(rows) > _EXACT_SHARE * len(self) or self._corrections >= _EXACT_EVERY:
            self.values[at] = values
            self.gram = self._exact_gram()
            self._corrections = 0
        else:
            self.gram += gram_of(values) - gram_of(self.values[at])
            self.values[at] = values

    def _exact_gram(self) -> torch.Tensor:
        return gram_of(self.values)


def gram_of(rows: torch.Tensor) -> torch.Tensor:
    """rows' * rows in float64, (factors, factors) on the CPU, for rows (n, factors)."""
    total = torch.zeros(rows.shape[1], rows.shape[1], dtype=torch.float64)
    for block in torch.split(rows, _BLOCK_ROWS):
        wide = block.double()
        total += (wide.T @ wide).cpu()
    return total


def take_rows(factors: torch.Tensor, codes: npt.NDArray[np.int64]) -> torch.Tensor:
    """Rows of factors (n, factors) by code (n,), zero for code -1 and for codes past the end."""
    taken = factors.new_zeros(len(codes), factors.shape[1])
    known = np.flatnonzero((codes >= 0) & (codes < len(factors)))
    places = torch.from_numpy(known).to(factors.device)
    taken[places] = factors[torch.from_numpy(codes[known]).to(factors.device)]
    return taken
