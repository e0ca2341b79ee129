"""Other libraries to compare with. Without one, as on the lowest versions, the test is skipped."""

from typing import Any

import pytest


def sentence_transformers() -> Any:
    """Return sentence-transformers."""
    return pytest.importorskip("sentence_transformers")
