"""The check that the configs of data augmentation share."""

Number = int | float


def check_range(
    field: str, value: Number | tuple[Number, Number], low: Number, high: Number
) -> None:
    """Raises ValueError unless a number, or both ends of a (low, high) range, lie in order in
    [low, high].

    Args:
        field: `Class.field`, for the error.
    """
    ends = value if isinstance(value, tuple) else (value,)
    if list(ends) != sorted(ends) or not (low <= ends[0] and ends[-1] <= high):
        kind = "low <= high, both" if len(ends) == 2 else "a number"
        raise ValueError(f"{field}: expected {kind} in [{low}, {high}], got {value}")
