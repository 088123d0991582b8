"""The manifest of a token-shift run: everything that its numbers depend on, and its batches."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Self

import torch

from rnr_kernels import backends
from rnr_kernels.analysis.settings import ShiftSettings, smallest_of
from rnr_kernels.durable import published
from rnr_kernels.identity import file_digest, model_identity, rules_digest
from rnr_kernels.loading import EMBEDDED, EMBEDDED_PROMPTS
from rnr_kernels.templates import PromptTemplate, TextTemplate

FORMAT = 1
LIBRARIES = ("rnr-kernels", "torch", "transformers", "tokenizers", "numpy", "pyarrow")


class UnknownFormat(ValueError):
    """Another version of the package has written it."""


@dataclass(frozen=True)
class Manifest:
    """Fixed before any work; the same settings give the same manifest."""

    settings: Mapping[str, Any]
    """See `describe`; a run with others is another run."""
    threads: int
    """Of torch on the CPU: sums depend on them, so a run keeps those that it was begun with."""
    eos_token_ids: tuple[int, ...]
    """What ends a response."""
    num_skipped: int
    batches: tuple[tuple[int, ...], ...]
    """The prompts of each, as ShiftPrompt.index has them, ascending."""
    format: int = FORMAT

    @property
    def num_prompts(self) -> int:
        return sum(map(len, self.batches))

    @property
    def aligned(self) -> str:
        """The aligned side's short name."""
        return str(self.settings["aligned"]["name"])

    @property
    def bases(self) -> tuple[str, ...]:
        """Short names."""
        return tuple(str(base["name"]) for base in self.settings["bases"].values())

    @property
    def top_k(self) -> int:
        return int(self.settings["top_k"])

    def write(self, path: Path) -> None:
        """As JSON, durably."""
        with published(path) as temporary:
            temporary.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Self:
        """ValueError for a file that is no manifest."""
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            known = found.pop("format")
            if known != FORMAT:
                raise UnknownFormat(
                    f"{path} has format {known}, this version reads {FORMAT}; use the version of "
                    "rnr_kernels that wrote it"
                )
            eos, batches = found.pop("eos_token_ids"), found.pop("batches")
            manifest = cls(
                eos_token_ids=tuple(eos), batches=tuple(map(tuple, batches)), format=known, **found
            )
        except UnknownFormat:
            raise
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise ValueError(
                f"{path} is no manifest of a token-shift run; name the --out folder of one"
            ) from None
        return manifest


def describe(settings: ShiftSettings) -> dict[str, Any]:
    """What the numbers of a run depend on, in JSON's types; without paths and places.

    ValueError for a model, a template, rules or a device that are not there.
    """
    rules = settings.rules
    aligned: dict[str, Any] = model_identity(settings.aligned_model)
    if rules is not None:
        aligned |= {"name": settings.aligned_name, "rules": rules_digest(rules)}
    template, base_template = settings.templates
    path = Path(settings.prompts)
    if not path.is_file():
        raise ValueError(f"the prompts file {path} does not exist; check its name")
    embedded = path == EMBEDDED_PROMPTS
    return {
        "aligned": aligned,
        "bases": {str(n): model_identity(name) for n, name in enumerate(settings.bases)},
        "prompts": {
            "name": EMBEDDED if embedded else path.name,
            "sha256": file_digest(path, whole=True),
            "limit": settings.limit,
        },
        "template": _template(template),
        "base_template": None if base_template is None else _template(base_template),
        "top_k": settings.top_k,
        "max_new_tokens": settings.max_new_tokens,
        "batch_tokens": settings.batch_tokens,
        "device": settings.device_type,
        "dtype": settings.dtype or ("float32" if settings.device_type == "cpu" else "stored"),
        "backend": _backend(settings),
        "processor": _processor(settings),
        "versions": _versions(),
    }


def _template(template: PromptTemplate) -> dict[str, str]:
    text = {"text": template.pattern} if isinstance(template, TextTemplate) else {}
    return {"name": template.name, **text}


def _backend(settings: ShiftSettings) -> str:
    """What serves the statistics: floats of two backends may differ in their last bits."""
    device, size = torch.device(settings.device_type), smallest_of(settings)[1]
    serving = backends.find("shift_stats", device, torch.float32, size)
    return next(each.name for each in backends.BACKENDS if serving in each.functions.values())


def _versions() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def check_same(path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """ValueError that names the settings in which the run at `path` differs from the one wanted."""
    if different := differences(found, wanted):
        raise ValueError(
            f"{path} holds another run: {different}; go on with its settings, or name another "
            "folder"
        )


def differences(
    found: Mapping[str, Any],
    wanted: Mapping[str, Any],
    places: tuple[str, str] = ("there", "here"),
) -> str:
    """In words, the keys whose values differ."""
    one, other = _flat(found), _flat(wanted)
    return ", ".join(
        f"{key} is {_shown(one.get(key))} {places[0]} and {_shown(other.get(key))} {places[1]}"
        for key in {**one, **other}
        if one.get(key) != other.get(key)
    )


def _flat(table: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{where}{key}.")
        else:
            flat[f"{where}{key}"] = value
    return flat


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 48 else f"{text[:45]}..."


def _processor(settings: ShiftSettings) -> str:
    """What computes: others round otherwise."""
    if settings.device_type == "cuda":
        return torch.cuda.get_device_name(settings.device)
    return torch.backends.cpu.get_cpu_capability()
