"""Other people's data, which tests read where RNR_TEST_DATA says it lies."""

import os
from pathlib import Path

import pytest


def real_input(name: str) -> Path:
    """A file or folder of the real inputs; skips the test, and says why, where it is not there."""
    data = os.environ.get("RNR_TEST_DATA")
    if not data:
        pytest.skip(f"RNR_TEST_DATA is not set: it names the folder with {name}")
    path = Path(data) / name
    if not path.exists():
        pytest.skip(f"RNR_TEST_DATA has no {name}: {path}")
    return path
