"""Hyperparameters: the published recipes, and a sentence for every value that makes no sense."""

from dataclasses import asdict, replace
from typing import Any

import pytest

from rnr_kernels.tuning.settings import Lora, Settings, recipe


def test_the_papers_recipe() -> None:
    assert asdict(recipe("paper", "instruction")) == {
        "epochs": 15,
        "learning_rate": 1e-5,
        "schedule": "cosine",
        "warmup": 0.1,
        "batch_size": 64,
        "device_batch_size": 1,
        "weight_decay": 0.0,
        "max_length": 2048,
        "dtype": "float32",
        "seed": 1,
        "lora": None,
    }


def test_the_released_scripts_differ_in_schedule_warmup_and_dtype() -> None:
    released = recipe("released", "instruction")
    assert (released.schedule, released.warmup, released.dtype) == ("linear", 0.03, "bfloat16")
    paper = replace(released, schedule="cosine", warmup=0.1, dtype="float32")
    assert paper == recipe("paper", "instruction")


@pytest.mark.parametrize(("mode", "epochs"), [("instruction", 15), ("response", 5), ("task", 15)])
@pytest.mark.parametrize("name", ["paper", "released"])
def test_epochs_by_mode(name: str, mode: str, epochs: int) -> None:
    assert recipe(name, mode).epochs == epochs


def test_unknown_names() -> None:
    with pytest.raises(ValueError, match=r"^recipe must be paper or released, got 'lima'$"):
        recipe("lima", "instruction")
    with pytest.raises(ValueError, match=r"^mode must be one of instruction, response, task, got"):
        recipe("paper", "both")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"device_batch_size": -1}, "device_batch_size must be at least 1, got -1"),
        ({"max_length": 0}, "max_length must be at least 1, got 0"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0 and finite, got 0.0"),
        ({"learning_rate": float("nan")}, "learning_rate must be above 0 and finite, got nan"),
        ({"learning_rate": float("inf")}, "learning_rate must be above 0 and finite, got inf"),
        ({"schedule": "constant"}, "schedule must be cosine or linear, got 'constant'"),
        ({"warmup": 1.0}, "warmup must be a share of the steps below 1, got 1.0"),
        ({"warmup": -0.1}, "warmup must be a share of the steps below 1, got -0.1"),
        ({"weight_decay": -1.0}, "weight_decay must be 0 or more, got -1.0"),
        ({"weight_decay": float("nan")}, "weight_decay must be 0 or more, got nan"),
        ({"seed": -1}, "seed must be from 0 to 2**32 - 1, got -1"),
        ({"seed": 2**32}, "seed must be from 0 to 2**32 - 1, got 4294967296"),
        ({"dtype": "int8"}, "dtype must be one of float32, bfloat16, float16, got 'int8'"),
        (
            {"batch_size": 6, "device_batch_size": 4},
            "batch_size 6 must be a multiple of device_batch_size 4: an optimiser step takes whole "
            "forward passes",
        ),
    ],
    ids=str,
)
def test_a_bad_value_is_named(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError) as error:
        Settings(**changes)
    assert str(error.value) == words


@pytest.mark.parametrize("values", [(0, 32, 0.0), (16, 0, 0.0), (16, 32, 1.0), (16, 32, -0.1)])
def test_a_bad_value_of_lora(values: tuple[int, int, float]) -> None:
    rank, alpha, dropout = values
    with pytest.raises(ValueError) as error:
        Lora(*values)
    assert str(error.value) == (
        "LoRA needs a rank and an alpha of at least 1 and a dropout of 0 to under 1, "
        f"got {rank}, {alpha}, {dropout}"
    )


def test_settings_as_json_takes_them() -> None:
    found = Settings(lora=Lora(8)).as_dict()
    assert found["lora"] == {"rank": 8, "alpha": 32, "dropout": 0.0}
