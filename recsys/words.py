"""Numbers of things as text."""


def count(number: int, one: str, many: str | None = None) -> str:
    """A number of things: 1,200 events, 1 batch, 0 users."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
