"""Columns of a report in literal bytes, and what they cannot hold."""

import base64
import gzip
import json
from typing import Any

import numpy as np
import pytest

from rnr_kernels.analysis.columns import (
    NATS_BITS,
    TOP_BITS,
    Column,
    column,
    falling,
    json_column,
    nats,
)


def unpacked(packed: Column) -> Any:
    """What the page makes of a column."""
    data = gzip.decompress(base64.b64decode(packed.text))
    if packed.kind == "json":
        return json.loads(data)
    width = int(packed.kind[1])
    planes = np.frombuffer(data, np.uint8).reshape(width, -1)
    return np.ascontiguousarray(planes.T).view(f"<u{width}").reshape(-1)


def test_a_column_is_planes_of_bytes() -> None:
    packed = column("rank", np.array([1, 258, 65535]))
    assert (packed.name, packed.kind) == ("rank", "u2")
    assert gzip.decompress(base64.b64decode(packed.text)) == bytes([1, 2, 255, 0, 1, 255])
    assert unpacked(packed).tolist() == [1, 258, 65535]


@pytest.mark.parametrize(
    ("values", "kind"),
    [([], "u1"), ([0, 255], "u1"), ([256], "u2"), ([65536], "u4"), ([2**32 - 1, 0], "u4")],
)
def test_the_fewest_bytes_are_taken(values: list[int], kind: str) -> None:
    packed = column("x", np.array(values, dtype=np.int64))
    assert packed.kind == kind
    assert unpacked(packed).tolist() == values


@pytest.mark.parametrize("value", [-1, 2**32])
def test_other_integers_are_refused(value: int) -> None:
    with pytest.raises(ValueError, match="column rank: its integers must be 0 to 4294967295"):
        column("rank", np.array([1, value]))


def test_rows_of_a_table_follow_each_other() -> None:
    assert unpacked(column("top", np.array([[1, 2], [3, 4]]))).tolist() == [1, 2, 3, 4]
    assert unpacked(column("top", np.array([[1, 2], [3, 4]]).T)).tolist() == [1, 3, 2, 4]


def test_json_keeps_every_character() -> None:
    texts = ["</script>", "\U0001f600", "\udc80", " \u2028\x00"]
    assert unpacked(json_column("pieces", texts)) == texts


def test_nats_are_steps() -> None:
    assert (NATS_BITS, TOP_BITS) == (14, 10)
    values = [0.0, 1.0, 2**-14, 12.3456, -1e-7, np.inf, 1e9]
    stored = nats(values)
    assert stored.dtype == np.uint32
    assert stored.tolist() == [0, 16384, 1, 202270, 0, 2**32 - 1, 2**32 - 2]


def test_top_log_probabilities_are_steps_down() -> None:
    stored = falling([[0.0, -1.0, -1.0, -3.5], [-0.25, -70.0, -np.inf, -np.inf]])
    assert stored.dtype == np.uint16
    assert stored.tolist() == [[0, 1024, 0, 2560], [256, 65278, 1, 0]]
    sums = stored.cumsum(axis=1) % 2**16
    assert sums.tolist() == [[0, 1024, 1024, 3584], [256, 65534, 65535, 65535]]


def test_what_is_no_number_is_refused() -> None:
    with pytest.raises(ValueError, match="holds NaN"):
        nats([1.0, np.nan])
