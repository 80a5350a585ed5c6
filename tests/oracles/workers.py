"""What other processes do in the place of drawing; they import nothing for it."""

import os


def refuses(subject, side: int) -> str:
    return f"{subject.id} refused at {side}"


def dies(subject, side: int) -> str:
    os._exit(1)
