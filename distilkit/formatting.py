"""Format numbers for people: durations, sizes, counts and percentages; show control characters in texts."""

import math


def printable(text: str, *, newlines: bool = False) -> str:
    """Return text with escapes for control characters and other invisible ones; `newlines` leaves line breaks."""
    return "".join(
        letter if letter.isprintable() or (newlines and letter == "\n") else ascii(letter)[1:-1] for letter in text
    )


def shorten(text: str, length: int = 1000) -> str:
    """Return a text cut in the middle to at most `length` characters: names in it may be thousands of letters long."""
    return text if len(text) <= length else f"{text[: length // 2]}…{text[-length // 2 :]}"


def format_duration(seconds: float) -> str:
    """Format a time in its two largest units: "36 min 12 s"."""
    if not math.isfinite(seconds):
        return "an unknown time"
    whole = round(seconds)
    for name, size, smaller, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size} {name} {whole % size // part} {smaller}"
    return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"


def format_gibibytes(value: float) -> str:
    """Format bytes in GiB."""
    return f"{value / 2**30:.1f}" if value >= 2**30 else f"{value / 2**30:.2f}"


def format_number(value: float | str | None) -> str:
    """Format a number: whole ones with thousands separators, others to 6 digits."""
    if not isinstance(value, (int, float)):
        return printable(value or "")
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.6g}"


def format_score(value: float) -> str:
    """Format a score: SQuAD's are percentages in the records, all others shares."""
    return f"{value:.3f}" if abs(value) <= 1 else f"{value:.2f}"


def format_percent(share: float) -> str:
    """Format a share as a percentage."""
    return f"{share:.1%}"


def format_millions(count: float) -> str:
    """Format a number of parameters in millions."""
    return f"{count / 1e6:,.1f}M"
