"""The errors that a user can cause."""


class DistilkitError(Exception):
    """What is wrong and what to do about it, in one line, with flags named as typed."""


class OptionError(DistilkitError):
    """An option has a value that it does not take: wrong usage on the command line."""


class UnwritableError(DistilkitError):
    """A file or a stream cannot be written: the disk is full, the place is gone, or it may not be written."""


class DivergedError(DistilkitError):
    """The loss of a training run is not finite. Other runs of the same command continue."""
