"""Functions in a new process."""

import os

import pytest

from distilkit.errors import DistilkitError
from distilkit.runtimes.fresh import call_in_new_process


def test_a_result_comes_back_from_another_process() -> None:
    """Arguments and results are JSON values."""
    assert call_in_new_process("os:getpid") != os.getpid()
    assert call_in_new_process("math:hypot", 3, 4) == 5.0


def test_its_errors_are_ours() -> None:
    """A DistilkitError has the same text. Anything else is one line with the last line of the traceback."""
    with pytest.raises(DistilkitError, match="no recipe 'nosuch'"):
        call_in_new_process("distilkit.options.recipes:recipe_text", "nosuch")
    with pytest.raises(DistilkitError, match=r"a new process failed \(ZeroDivisionError.*\): please report this"):
        call_in_new_process("operator:truediv", 1, 0)
