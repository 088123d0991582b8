"""The prompts of a build: text files in the package, which a user copies and edits."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from rnr_kernels.prompt_files import check_fields, fill_in, mark_of, read_prompt
from rnr_kernels.roles.judge import JUDGE_PROMPT
from rnr_kernels.roles.judge import NEEDED_FIELDS as JUDGE_FIELDS

PACKAGED = Path(__file__).parent / "prompts"

FIELDS: Mapping[str, tuple[str, ...]] = {
    "role": ("conversation",),
    "role_elsewhere": ("conversation",),
    "requirements": ("role", "requirements", "conversation", "count"),
    "conflict": ("role", "requirements", "conversation"),
    "response": ("system",),
    "decline": ("system",),
    "repair": ("failures",),
    "again": ("problem",),
    "judge": JUDGE_FIELDS,
}
"""What each prompt must have in braces."""


class Prompts:
    """One text a step, by the names in `FIELDS`."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        """ValueError for a prompt that is missing, or lacks a field."""
        for name, fields in FIELDS.items():
            if name not in texts:
                raise ValueError(f"the prompt {name!r} is missing; there are {', '.join(FIELDS)}")
            check_fields(texts[name], fields, f"the prompt {name}.txt")
        self._texts = {name: texts[name] for name in FIELDS}

    @classmethod
    def read(cls, folder: Path | None = None) -> Self:
        """The packaged prompts, those in `folder` in their place; ValueError for a folder with
        other files than `write` makes, or none of them."""
        texts = {name: read_prompt(_packaged(name), f"the prompt {name}") for name in FIELDS}
        if folder is None:
            return cls(texts)
        if not folder.is_dir():
            raise ValueError(f"the folder of prompts {folder} does not exist")
        names = sorted(path.name for path in folder.glob("*.txt"))
        known = [f"{name}.txt" for name in FIELDS]
        for name in names:
            if name not in known:
                raise ValueError(f"{folder / name} is no prompt; there are {', '.join(known)}")
        if not names:
            raise ValueError(f"{folder} has no prompt; there are {', '.join(known)}")
        for name in names:
            texts[name.removesuffix(".txt")] = read_prompt(folder / name, "the prompt")
        return cls(texts)

    def write(self, folder: Path) -> list[Path]:
        """Writes them as files to edit; ValueError if one is there already."""
        paths = [folder / f"{name}.txt" for name in FIELDS]
        for path in paths:
            if path.exists():
                raise ValueError(f"{path} exists; name another folder")
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in zip(paths, self._texts.values(), strict=True):
            path.write_text(text, encoding="utf-8")
        return paths

    def filled(self, name: str, **texts: str) -> str:
        """A prompt with its fields filled in, and {mark}, which none of `texts` can know."""
        return fill_in(self._texts[name], texts | {"mark": mark_of(texts)}).strip("\n")

    def __getitem__(self, name: str) -> str:
        return self._texts[name]

    def digest(self) -> str:
        """Of all texts."""
        return hashlib.sha256("\0".join(self._texts.values()).encode()).hexdigest()


def _packaged(name: str) -> Path:
    return JUDGE_PROMPT if name == "judge" else PACKAGED / f"{name}.txt"
