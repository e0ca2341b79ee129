"""The one error that a user can cause."""


class DistilkitError(Exception):
    """Say what is wrong and what to do about it, in one line, naming flags as typed."""
