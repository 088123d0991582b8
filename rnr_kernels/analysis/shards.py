"""Token shift as Parquet files: atomic writing, reading back, and whether a file is whole."""

from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from rnr_kernels.analysis.inputs import ShiftPrompt
from rnr_kernels.analysis.token_shift import TokenShift
from rnr_kernels.durable import AGAIN, published

COMPRESSION = "zstd"
_TOKEN_COLUMNS = ("prompt_token_ids", "base_prompt_token_ids", "response_token_ids")
_TEXT_COLUMNS = ("instruction", "response", "finish_reason")


def write_shift(path: Path, shift: TokenShift) -> None:
    """A TokenShift's rows, one column a field; top-k fields are fixed-size lists."""
    pa = _pyarrow()
    columns = {}
    for field in fields(TokenShift):
        values = getattr(shift, field.name)
        if values is not None and values.ndim == 2:
            flat = pa.array(values.reshape(-1))
            columns[field.name] = pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
        elif values is not None:
            columns[field.name] = pa.array(values)
    with published(path) as temporary:
        _write(temporary, [pa.table(columns)])


def read_shift(path: Path) -> TokenShift:
    """The rows of `write_shift`, bit for bit. ValueError for a file that is not whole."""
    table = _read(path, None, _opened(path))
    known = {field.name for field in fields(TokenShift)}
    try:
        return TokenShift(
            **{name: _values(table[name]) for name in table.column_names if name in known}
        )
    except TypeError:
        raise _broken(path, "columns are missing") from None


def _values(column: Any) -> Any:
    pa = _pyarrow()
    if not pa.types.is_fixed_size_list(column.type):
        return column.to_numpy()
    flat = np.concatenate([chunk.flatten().to_numpy() for chunk in column.chunks])
    return flat.reshape(-1, column.type.list_size)


def write_prompts(path: Path, batches: Iterator[Sequence[ShiftPrompt]]) -> None:
    """Prompts, one row group a batch; only one batch is in memory."""
    with published(path) as temporary:
        _write(temporary, map(_prompt_table, batches))


def read_prompts(path: Path) -> list[ShiftPrompt]:
    """The prompts of a file. ValueError for one that is not whole."""
    return _prompts(path, _read(path, None, _opened(path)))


class PromptFile:
    """A file of prompts, to be read batch by batch. ValueError for one that is not whole."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = _opened(path)

    def batch(self, number: int) -> list[ShiftPrompt]:
        """The prompts of a row group."""
        return _prompts(self._path, _read(self._path, number, self._file))


def _prompts(path: Path, table: Any) -> list[ShiftPrompt]:
    try:
        return [
            ShiftPrompt(
                row["index"],
                *(row[name] for name in _TEXT_COLUMNS),
                *(None if row[name] is None else tuple(row[name]) for name in _TOKEN_COLUMNS),
            )
            for row in table.to_pylist()
        ]
    except KeyError as error:
        raise _broken(path, f"the column {error} is missing") from None


def check_rows(path: Path, expected: int) -> None:
    """ValueError unless a file can be read and has as many rows as expected."""
    pq = _parquet()
    try:
        found = pq.read_metadata(path).num_rows
    except (OSError, _pyarrow().ArrowException) as error:
        raise _broken(path, f"it cannot be read ({_first_line(error)})") from None
    if found != expected:
        raise _broken(path, f"expected {expected} rows, it has {found}")


def _prompt_table(prompts: Sequence[ShiftPrompt]) -> Any:
    pa = _pyarrow()
    ids = pa.list_(pa.int32())
    columns = {"index": pa.array([prompt.index for prompt in prompts], pa.int64())}
    for name in (*_TEXT_COLUMNS, *_TOKEN_COLUMNS):
        kind = ids if name in _TOKEN_COLUMNS else pa.string()
        columns[name] = pa.array([getattr(prompt, name) for prompt in prompts], kind)
    return pa.table(columns)


def _write(path: Path, tables: Any) -> None:
    pq = _parquet()
    writer = None
    try:
        for table in tables:
            if writer is None:
                writer = pq.ParquetWriter(
                    path, table.schema, compression=COMPRESSION, write_page_checksum=True
                )
            writer.write_table(table, row_group_size=max(1, len(table)))
    finally:
        if writer is not None:
            writer.close()


def _opened(path: Path) -> Any:
    try:
        return _parquet().ParquetFile(path, page_checksum_verification=True, pre_buffer=False)
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist: the run is not finished; {AGAIN}") from None
    except (OSError, _pyarrow().ArrowException) as error:
        raise _broken(path, f"it cannot be read ({_first_line(error)})") from None


def _read(path: Path, row_group: int | None, file: Any) -> Any:
    try:
        return file.read() if row_group is None else file.read_row_group(row_group)
    except (OSError, _pyarrow().ArrowException) as error:
        raise _broken(path, f"it cannot be read ({_first_line(error)})") from None


def _broken(path: Path, why: str) -> ValueError:
    return ValueError(f"{path} is broken: {why}; remove it and {AGAIN}")


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".")


def _pyarrow() -> Any:
    try:
        import pyarrow
    except ImportError:
        raise ValueError(
            "runs of token shift are stored with pyarrow; pip install 'rnr_kernels[analysis]'"
        ) from None
    return pyarrow


def _parquet() -> Any:
    _pyarrow()
    import pyarrow.parquet

    return pyarrow.parquet
