"""The stream: the stages of a micro-batch (start with `pipeline`), and the jobs around it.

In a notebook, `recsys.stream(...)` runs it in the background: the package itself can be called, see `recsys.notebook`.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    def __call__(self, *given: Any, **named: Any) -> Any:
        from recsys.notebook import stream

        return stream(*given, **named)

    def __reduce__(self) -> Any:
        return import_module, (self.__name__,)  # By name, as Spark's pickler does with every other module.


sys.modules[__name__].__class__ = _Callable
