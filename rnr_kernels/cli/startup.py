"""A quicker start of the command line."""

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager


def quiet_transformers() -> None:
    """No progress bars and warnings of transformers between the command's own lines."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()


@contextmanager
def collection_paused() -> Iterator[None]:
    """No garbage collection inside, and none later of what was made inside.

    Importing transformers makes a million objects that stay, and looking through them again and
    again is half a second of the three to the first token.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        # Extension modules report objects that are still frozen at exit as leaks.
        atexit.register(gc.unfreeze)
        gc.enable()
