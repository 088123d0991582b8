"""Sampling: what it accepts, and the numbers that kernels read."""

import math
from typing import Any

import pytest

from rnr_kernels.sampling import GREEDY, Sampling, check_sampling


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -0.1}, "temperature must be 0"),
        ({"temperature": math.nan}, "temperature must be 0"),
        ({"temperature": math.inf}, "temperature must be 0"),
        ({"temperature": 1e31}, "temperature must be 0"),
        ({"temperature": 1e-5}, "temperature must be 0"),
        ({"top_p": 0.0}, "top_p must be above 0"),
        ({"top_p": -0.5}, "top_p must be above 0"),
        ({"top_p": math.nan}, "top_p must be above 0"),
        ({"min_p": 1.01}, "min_p must be at most 1"),
        ({"min_p": math.nan}, "min_p must be at most 1"),
        ({"seed": 2**63}, "seed must be in"),
        ({"seed": -(2**63) - 1}, "seed must be in"),
    ],
)
def test_values_out_of_range_are_value_errors(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sampling(**options)


@pytest.mark.parametrize("options", [{"top_k": 1.5}, {"top_k": True}, {"seed": 0.5}, {"seed": "1"}])
def test_values_of_another_type_are_type_errors(options: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="must be an int"):
        Sampling(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": "hot"}, r"temperature must be a number \(0 is greedy\), got str 'hot'"),
        ({"temperature": True}, "temperature must be a number .* got bool True"),
        ({"top_p": None}, r"top_p must be a number \(1 is off\), got NoneType None"),
        ({"top_p": False}, "top_p must be a number .* got bool False"),
        ({"min_p": [0.1]}, r"min_p must be a number \(0 is off\), got list"),
    ],
)
def test_what_is_no_number_is_a_type_error_in_words(options: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        Sampling(**options)


def test_a_number_in_place_of_a_sampling_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="sampling must be a Sampling, got float; pass Sampling"):
        check_sampling(0.8)
    check_sampling(GREEDY)


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0},
        {"temperature": 1e-4},
        {"temperature": 1e30},
        {"top_k": -1},
        {"top_p": 2.0},
        {"top_p": 1e-300},
        {"min_p": -1.0},
        {"min_p": 1},
        {"seed": 2**63 - 1},
        {"seed": -(2**63)},
    ],
)
def test_values_at_the_limits_are_accepted(options: dict[str, Any]) -> None:
    assert all(getattr(Sampling(**options), name) == value for name, value in options.items())


def test_only_temperature_zero_is_greedy() -> None:
    assert GREEDY.is_greedy
    assert not Sampling().is_greedy
    assert not Sampling(temperature=1e-4).is_greedy


@pytest.mark.parametrize(
    ("sampling", "expected"),
    [
        (Sampling(), (1.0, 1.4426950408889634, 1.0, -math.inf)),
        (Sampling(temperature=2.0, top_p=0.9), (2.0, 0.7213475204444817, 0.9, -math.inf)),
        (Sampling(temperature=2.0, min_p=0.5), (2.0, 0.7213475204444817, 1.0, -1.3862943611198906)),
        (Sampling(min_p=1.0), (1.0, 1.4426950408889634, 1.0, 0.0)),
        # Greedy ignores the filters.
        (Sampling(temperature=0.0, top_p=0.5, min_p=0.5), (0.0, 0.0, 1.0, -math.inf)),
        # A float32 that is not 0.
        (Sampling(top_p=1e-300), (1.0, 1.4426950408889634, 2.0**-100, -math.inf)),
    ],
)
def test_device_parameters(sampling: Sampling, expected: tuple[float, float, float, float]) -> None:
    assert sampling.device_parameters() == expected
