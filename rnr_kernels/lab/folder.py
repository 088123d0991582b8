"""A lab run's folder: what it was made by, so that two ways of making are never mixed."""

import hashlib
import json
from pathlib import Path
from typing import Any

from rnr_kernels import __version__
from rnr_kernels.durable import published
from rnr_kernels.identity import model_identity
from rnr_kernels.lab.study import Study
from rnr_kernels.loading import EMBEDDED
from rnr_kernels.models.instructions import data_sets

_DESCRIPTION = "study.json"


def begin(study: Study, folder: Path) -> None:
    """Makes the folder a study's, or finds it so; ValueError if it is something else's."""
    described = _described(study)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; name a folder for the lab")
    if folder.is_dir() and any(folder.iterdir()):
        try:
            found = json.loads((folder / _DESCRIPTION).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            found = None
        if not isinstance(found, dict):
            raise ValueError(f"{folder} holds something that is no lab run; name another folder")
        if differs := [key for key, value in described.items() if found.get(key) != value]:
            raise ValueError(
                f"{folder} holds a lab run with another {' and '.join(differs)}; name another "
                "folder, or remove it"
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    with published(folder / _DESCRIPTION) as file:
        file.write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")


def _described(study: Study) -> dict[str, Any]:
    data = json.dumps(data_sets(limit=study.records)).encode()
    return {
        "version": __version__,
        "base": model_identity(EMBEDDED),
        "data": hashlib.sha256(data).hexdigest()[:16],
        "study": study.as_dict(),
    }
