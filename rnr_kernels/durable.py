"""Files that are there whole, on the disk, or not at all."""

import glob
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TEMPORARY = ".tmp"
AGAIN = "give the same command again"


@contextmanager
def published(path: Path) -> Iterator[Path]:
    """A name to write a file under, which becomes `path` when it is whole and on the disk.

    OSError in words where that fails; `path` is then as it was.
    """
    temporary = path.with_name(f"{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        _make(path.parent)
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OSError(
            f"cannot write {path}: {error.strerror or error}; make room or see to the disk, then "
            f"{AGAIN}: what is finished is kept"
        ) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def remove_unpublished(path: Path) -> None:
    """Removes what kills have left of attempts to publish a file; no other process may be at it."""
    for left in path.parent.glob(f"{glob.escape(path.name)}.*{TEMPORARY}"):
        if left.name[len(path.name) + 1 : -len(TEMPORARY)].isdigit():
            left.unlink(missing_ok=True)


def _make(folder: Path) -> None:
    if not folder.is_dir():
        _make(folder.parent)
        folder.mkdir(exist_ok=True)
        sync(folder.parent)


@contextmanager
def locked(path: Path, refusal: str, *, wait: bool = False) -> Iterator[None]:
    """Keeps other processes out while a lock file is held; a killed one leaves nothing locked.

    ValueError with `refusal` if another holds it and this one is not to `wait`.
    """
    import fcntl  # which not every system has

    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise ValueError(refusal) from None
        yield
    finally:
        os.close(file)


def sync(path: Path) -> None:
    """Returns when a file, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
