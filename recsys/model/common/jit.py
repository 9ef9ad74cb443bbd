"""How loops are compiled, see `recsys.serving.jit`: what travels inside a version is compiled in the same way."""

from recsys.serving.jit import compiled, compiled_fast, compiled_parallel

__all__ = ["compiled", "compiled_fast", "compiled_parallel"]
