"""What is compiled is kept where that is possible, and works where it is not."""

from recsys.serving.jit import compiled, compiled_fast


def test_code_that_lies_in_no_file_is_compiled_without_being_kept() -> None:
    space: dict[str, object] = {}
    exec("def doubled(number):\n    return 2 * number\n", space)
    for compile_it in (compiled, compiled_fast):
        assert compile_it(space["doubled"])(4) == 8  # type: ignore[type-var, operator]
