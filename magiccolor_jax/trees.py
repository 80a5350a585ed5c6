"""The one policy helper: ordered (regex, action) tables over parameter paths.

Sharding, freezing, learning rates, weight decay and dtypes are such tables. The first row whose
regex matches the whole path wins; a path that no row matches is an error.
"""

import re
from collections.abc import Iterable, Sequence
from typing import TypeVar

Action = TypeVar("Action")


def decide(
    table: Sequence[tuple[str, Action]], paths: Iterable[str], what: str
) -> dict[str, Action]:
    """The action of each path.

    Args:
        table: (regex, action) in order of precedence; paths are `a/0/kernel`.
        what: names the policy in the error.

    Raises:
        ValueError: one report of every path that no row matches.
    """
    rows = [(re.compile(pattern), action) for pattern, action in table]
    decided, lost = {}, []
    for path in paths:
        for pattern, action in rows:
            if pattern.fullmatch(path):
                decided[path] = action
                break
        else:
            lost.append(path)
    if lost:
        shown = "\n  ".join(lost[:20] + [f"and {len(lost) - 20} more"] * (len(lost) > 20))
        raise ValueError(
            f"{what}: every parameter must match a row of the table; expected one of "
            f"{[pattern for pattern, _ in table]}, but none matches\n  {shown}\nAdd a row for them."
        )
    return decided
