"""A guess about a file, told so that a person can say otherwise. Belongs here: the one value. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Guess:
    """What was taken to be so, why, and what to change where it is not."""

    what: str
    why: str
    otherwise: str
