"""Prompts for models that judge or write: text files with {fields}, which users copy and edit."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path


def read_prompt(path: Path, title: str) -> str:
    """The text of a prompt; ValueError where there is no such text calls it by its `title`."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{title} {path} is not UTF-8 text: {error.reason}") from None
    except OSError as error:
        raise ValueError(f"cannot read {title} {path}: {error.strerror}") from None


def check_fields(prompt: str, needed: Iterable[str], title: str) -> None:
    """ValueError that names the fields which a prompt lacks."""
    missing = [f"{{{field}}}" for field in needed if f"{{{field}}}" not in prompt]
    if missing:
        raise ValueError(f"{title} lacks {', '.join(missing)}; put it in")


def fill_in(prompt: str, texts: Mapping[str, str]) -> str:
    """The prompt with `texts` in place of their fields; other braces stay as they are."""
    # In one pass: a text may contain the name of a field.
    fields = re.compile(r"\{(" + "|".join(map(re.escape, texts)) + r")\}")
    return fields.sub(lambda field: texts[field[1]], prompt)


def mark_of(texts: Mapping[str, str]) -> str:
    """A mark for the tags around `texts`, made of them: none of them can know the tags that end
    it."""
    return hashlib.sha256("\0".join(texts.values()).encode()).hexdigest()[:12]
