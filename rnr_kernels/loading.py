"""Loads models and tokenizers: embedded ones, folders, the Hugging Face hub."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from rnr_kernels.rules.kinds import as_token_ids

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

EMBEDDED = "embedded"
"""The name under which the packaged base model goes; its tuned twins are `embedded:instruction` and
`embedded:response`."""

EMBEDDED_MODELS = Path(__file__).parent / "models"
EMBEDDED_PROMPTS = EMBEDDED_MODELS / "prompts.jsonl"
"""Questions about the embedded model's world that none of its training pages answers as such."""

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
WEIGHT_PATTERNS = ("*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin")
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "tekken.json",
    "vocab.json",
    "vocab.txt",
)


def embedded_model_path(name: str = "base") -> Path:
    """Folder of an embedded model, as `from_pretrained` takes it; ValueError for an unknown one."""
    names = sorted(path.parent.name for path in EMBEDDED_MODELS.glob("*/config.json"))
    if name not in names:
        raise ValueError(f"the embedded models are {', '.join(names) or 'missing'}, got {name!r}")
    return EMBEDDED_MODELS / name


def load_tokenizer(name: str) -> "PreTrainedTokenizerBase":
    """The tokenizer of a model by name or folder. ValueError if there is none."""
    location = model_location(name)
    if isinstance(location, Path) and not any((location / f).exists() for f in TOKENIZER_FILES):
        raise ValueError(
            f"the folder {location} holds no tokenizer: expected one of "
            f"{', '.join(TOKENIZER_FILES)}"
        )
    auto = _transformers().AutoTokenizer
    try:
        return cast("PreTrainedTokenizerBase", auto.from_pretrained(str(location)))
    except Exception as error:  # whatever a broken file makes the readers raise
        raise ValueError(_cannot_load("a tokenizer", name, error)) from error


def load_model(
    name: str, *, device: str | None = None, dtype: str | None = None
) -> "PreTrainedModel":
    """A causal language model in evaluation mode.

    `device` defaults to a GPU if there is one; `dtype` to float32 on the CPU and to the
    checkpoint's elsewhere. ValueError for a folder without config or weights, an unknown device or
    dtype, a name that cannot be fetched.
    """
    location = model_location(name)
    if isinstance(location, Path):
        if not (location / "config.json").is_file():
            raise ValueError(f"the folder {location} holds no model: config.json is missing")
        if not any(any(location.glob(pattern)) for pattern in WEIGHT_PATTERNS):
            raise ValueError(
                f"the folder {location} holds no weights: expected {' or '.join(WEIGHT_PATTERNS)}"
            )
    where = as_device(device)
    if dtype is not None and dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
    kind: torch.dtype | str = DTYPES[dtype] if dtype else "auto"
    if dtype is None and where.type == "cpu":
        kind = torch.float32
    auto = _transformers().AutoModelForCausalLM
    try:
        model = auto.from_pretrained(str(location), dtype=kind)
    except Exception as error:  # whatever a broken file makes the readers raise
        raise ValueError(_cannot_load("a causal language model", name, error)) from error
    try:
        return cast("PreTrainedModel", model.to(where).eval())
    except Exception as error:
        raise ValueError(f"cannot move the model to {where}: {_first_line(error)}") from error


def as_device(name: str | None) -> torch.device:
    """A device by name; a GPU if there is one by default. ValueError if it is not there."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"device must be cpu, cuda, cuda:1, ..., got {name!r}") from None
    if device.type == "meta":
        raise ValueError("device 'meta' holds no numbers: use cpu or cuda")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {name!r} is not there: this torch sees no CUDA GPU; use cpu")
    return device


def load_config(name: str) -> Any:
    """A model's config, without its weights. ValueError if there is none."""
    auto = _transformers().AutoConfig
    try:
        return auto.from_pretrained(str(model_location(name)))
    except Exception as error:  # whatever a broken file makes the readers raise
        raise ValueError(_cannot_load("a config", name, error)) from error


def stored_dtype(name: str) -> torch.dtype:
    """What a model's weights are stored in, as its config says; float32 where it does not."""
    config = _transformers().AutoConfig.from_pretrained(str(model_location(name)))
    dtype = getattr(config, "dtype", None)
    return dtype if isinstance(dtype, torch.dtype) else torch.float32


def end_token_ids_of(name: str) -> tuple[int, ...] | None:
    """The end-of-sequence ids in a model's generation config; None where there is none."""
    try:
        config = _transformers().GenerationConfig.from_pretrained(str(model_location(name)))
    except OSError:
        return None
    return None if config.eos_token_id is None else as_token_ids(config.eos_token_id)


def check_installed(packages: Sequence[str], what: str, extra: str) -> None:
    """ValueError that names the packages which `what` needs and which are missing."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(
            f"{what} needs {' and '.join(missing)}; pip install 'rnr_kernels[{extra}]'"
        )


def display_name(name: str) -> str:
    """A short name for tables and records: an embedded model's, a folder's last part, or as is."""
    if (embedded := _embedded(name)) is not None:
        return f"rnr-{embedded}"
    path = Path(name).expanduser()
    return path.resolve().name if path.is_dir() else name


def model_location(name: str) -> Path | str:
    """A model's folder, or its name on the Hugging Face hub. ValueError for a folder not there."""
    if (embedded := _embedded(name)) is not None:
        return embedded_model_path(embedded)
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if path.exists() or name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ValueError(
            f"model must be a folder, a Hugging Face name or {EMBEDDED!r}; "
            f"{name!r} is no folder here"
        )
    return name


def _embedded(name: str) -> str | None:
    """The folder's name of an embedded model; None for a model from elsewhere."""
    if name == EMBEDDED:
        return "base"
    prefix, separator, twin = name.partition(":")
    return twin if prefix == EMBEDDED and separator else None


def _cannot_load(what: str, name: str, error: Exception) -> str:
    return (
        f"cannot load {what} from {name!r}: {_first_line(error)}; "
        "check the name, or whether the files are whole"
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def _transformers() -> Any:
    try:
        import transformers
    except ImportError:
        raise ValueError(
            "Hugging Face models need transformers; pip install 'rnr_kernels[transformers]'"
        ) from None
    return transformers
