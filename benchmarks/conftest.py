"""Options and fixtures of the benchmarks; `make test` does not collect them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import results
from benchmarks.timing import FULL, QUICK, Effort, settle_process

RECORDS = pytest.StashKey[dict[str, results.Record]]()
WRITTEN = pytest.StashKey[Path]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("rnr_kernels")
    group.addoption("--quick", action="store_true", help="three rounds, to see that all works")
    group.addoption("--results", type=Path, metavar="FOLDER", help="keeps this machine's records")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[RECORDS] = {}
    # torch.compile warns of what is not ours to mend; in the tests a warning is an error.
    config.addinivalue_line("filterwarnings", "default")


def pytest_sessionfinish(session: pytest.Session) -> None:
    records, folder = session.config.stash[RECORDS], session.config.getoption("--results")
    if folder is not None and records:
        path = results.write(records, folder)
        session.config.stash[WRITTEN] = path


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if WRITTEN in config.stash:
        terminalreporter.write_line(f"wrote {config.stash[WRITTEN]}")


@pytest.fixture(scope="session", autouse=True)
def settled() -> None:
    settle_process()


@pytest.fixture
def effort(request: pytest.FixtureRequest) -> Effort:
    return QUICK if request.config.getoption("--quick") else FULL


@pytest.fixture
def records(request: pytest.FixtureRequest) -> Iterator[dict[str, results.Record]]:
    """By case; what a benchmark adds goes to the results file."""
    yield request.config.stash[RECORDS]
