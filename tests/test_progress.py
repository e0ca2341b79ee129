"""progress: quiet lines when piped, nothing when told so; never on stdout."""

import pytest

from distilkit.progress import LINES, track


def test_a_piped_run_prints_ten_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """Each with the count, the rate and the time left; the last says that all is done."""
    with track("work", 40, unit="rows") as advance:
        for number in range(40):
            advance(1, f"loss {number}")
    captured = capsys.readouterr()
    lines = captured.err.splitlines()

    assert captured.out == ""
    assert len(lines) == LINES
    assert lines[0].startswith("work: 4/40 rows, ")
    assert lines[-1].startswith("work: 40/40 rows, ")
    assert lines[-1].endswith("0 s left, loss 39")


def test_a_resumed_run_counts_what_was_done(capsys: pytest.CaptureFixture[str]) -> None:
    """The count goes on from there, in fewer lines."""
    with track("work", 40, done=20) as advance:
        advance(10)
        advance(10)

    assert [line.split()[1] for line in capsys.readouterr().err.splitlines()] == ["30/40", "40/40"]


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """As every process but the main one."""
    with track("work", 2, quiet=True) as advance:
        advance(2, "text")

    assert capsys.readouterr().err == ""


def test_work_inside_work_prints_no_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """A run that scores its model now and then still prints ten lines."""
    with track("outer", 1) as advance:
        with track("inner", 1) as inner:
            inner()
        advance()
    with track("after", 1) as advance:
        advance()

    assert [line.split(":")[0] for line in capsys.readouterr().err.splitlines()] == ["outer", "after"]


def test_without_a_total_lines_come_each_time_the_count_has_doubled(capsys: pytest.CaptureFixture[str]) -> None:
    """They say how many and how fast, and no time left."""
    with track("work", None, unit="rows") as advance:
        for _ in range(9):
            advance(1)
    lines = capsys.readouterr().err.splitlines()

    assert [line.split(",")[0] for line in lines] == ["work: 1 rows", "work: 2 rows", "work: 4 rows", "work: 8 rows"]
    assert not any("left" in line for line in lines)
