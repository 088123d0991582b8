"""The addresses of a program's and a state's tables, which kernels in C++ take."""

import copy
import pickle

import pytest
import torch

from rnr_kernels.layout import ProgramTensors, StateTensors
from rnr_kernels.rules.kinds import TokenBias
from rnr_kernels.testing import admitted


@pytest.fixture
def tables() -> tuple[ProgramTensors, StateTensors]:
    program, state = admitted([TokenBias({3: 2.0})], 40, slots=2, max_bias=5)
    return program.tensors, state.tensors


def test_addresses_are_the_device_and_each_tables_pointer_and_sizes(
    tables: tuple[ProgramTensors, StateTensors],
) -> None:
    _, state = tables
    assert state.addresses.dtype == torch.int64
    pointers = [table.data_ptr() for table in state]
    assert state.addresses.tolist() == [
        -1,
        *(pointers[0], 2, 4),
        *(pointers[1], 2, 4),
        *(pointers[2], 2, 5),
        *(pointers[3], 2, 5),
        *(pointers[4], 2, 4),
        *(pointers[5], 2, 2),
    ]
    assert state.addresses is state.addresses


@pytest.mark.parametrize("which", [0, 1], ids=["program", "state"])
def test_a_copy_has_addresses_of_its_own(
    tables: tuple[ProgramTensors, StateTensors], which: int
) -> None:
    original = tables[which]
    before = original.addresses
    for other in (copy.deepcopy(original), pickle.loads(pickle.dumps(original))):
        assert type(other) is type(original)
        assert vars(other) == {}
        assert other.addresses[1] == other[0].data_ptr() != before[1]
    assert original.addresses is before


def test_addresses_are_on_the_cpu_whatever_torchs_default_device(
    tables: tuple[ProgramTensors, StateTensors],
) -> None:
    with torch.device("meta"):
        addresses = [found.addresses for found in tables]
    assert [found.device.type for found in addresses] == ["cpu", "cpu"]


def test_tables_that_moved_are_found_again(tables: tuple[ProgramTensors, StateTensors]) -> None:
    for moved in tables:
        before = moved.addresses
        for table in moved:
            table.share_memory_()
        assert moved.addresses[1] == moved[0].data_ptr() != before[1]


def test_tables_that_kernels_cannot_read_are_refused(
    tables: tuple[ProgramTensors, StateTensors],
) -> None:
    program, state = tables
    strided = state._replace(rng=torch.zeros(2, 2, dtype=torch.int64).T)
    with pytest.raises(ValueError, match=r"table rng must be contiguous torch.int64 on cpu, got"):
        _ = strided.addresses
    other = program._replace(penalties=program.penalties.double())
    with pytest.raises(ValueError, match=r"table penalties must be .* got torch.float64"):
        _ = other.addresses
    elsewhere = state._replace(used_bitmask=state.used_bitmask.to("meta"))
    with pytest.raises(ValueError, match=r"table used_bitmask must be .* on meta"):
        _ = elsewhere.addresses
