"""The recorder of launches, for the tests beside it."""

from typing import Any

import pytest


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the ops launch; nothing runs."""
    from recorder import record

    return record(monkeypatch)
