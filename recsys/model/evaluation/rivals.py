"""What the learning model is measured against, batch by batch: versions as they are served."""

from collections.abc import Iterator, Mapping

from recsys.model.frozen import FrozenModel
from recsys.model.learner import State


class Rivals(Mapping[str, FrozenModel]):
    """Served models by name.

    Args:
        served: What `enter` takes in.
    """

    def __init__(self, served: Mapping[str, State]) -> None:
        self._models: dict[str, FrozenModel] = {}
        self.enter(served)

    def __getitem__(self, name: str) -> FrozenModel:
        return self._models[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._models)

    def __len__(self) -> int:
        return len(self._models)

    def enter(self, served: Mapping[str, State]) -> None:
        """Measure against these from now on, each in place of the one of that name before.

        Args:
            served: What `OnlineModel.served` returned, by name. A version that goes by two names, as the first one does
                while it is champion, is one object and is held and measured once.
        """
        models = {id(version): FrozenModel(version) for version in served.values()}
        self._models |= {name: models[id(version)] for name, version in served.items()}
