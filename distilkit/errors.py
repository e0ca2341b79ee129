"""The one error that a user can cause."""


class DistilkitError(Exception):
    """Say what is wrong and what to do about it, in one line, naming flags as typed."""


class DivergedError(DistilkitError):
    """Say that a training run came to numbers that are none, so that the other runs of several may go on."""
