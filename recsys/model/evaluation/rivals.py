"""Served versions that the live model is compared with, batch by batch."""

from collections.abc import Iterator, Mapping

from recsys.model.frozen import FrozenModel
from recsys.serving import Served


class Rivals(Mapping[str, FrozenModel]):
    """Served models by name.

    Args:
        served: See `enter`.
    """

    def __init__(self, served: Mapping[str, Served]) -> None:
        self._models: dict[str, FrozenModel] = {}
        self.enter(served)

    def __getitem__(self, name: str) -> FrozenModel:
        return self._models[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._models)

    def __len__(self) -> int:
        return len(self._models)

    def enter(self, served: Mapping[str, Served]) -> None:
        """Compare with these from now on; each replaces the rival of the same name.

        Args:
            served: From `OnlineModel.served`, by name. A version with two names, such as a first version that is
                champion, is one object and is stored and evaluated once.
        """
        models = {id(version): FrozenModel(version) for version in served.values()}
        self._models |= {name: models[id(version)] for name, version in served.items()}
