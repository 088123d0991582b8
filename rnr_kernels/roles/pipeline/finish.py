"""From the outcomes of all instructions to the files of the data set, in the input's order."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rnr_kernels.durable import published
from rnr_kernels.roles.example import Example
from rnr_kernels.roles.pipeline.duplicates import NearDuplicates
from rnr_kernels.roles.pipeline.folder import BuildFolder
from rnr_kernels.roles.pipeline.outcome import Outcome
from rnr_kernels.roles.pipeline.settings import BuildSettings
from rnr_kernels.roles.pipeline.sources import Source
from rnr_kernels.roles.pipeline.tally import DUPLICATE, Tally

if TYPE_CHECKING:
    import pyarrow

ROWS_AT_ONCE = 1000


def same_instructions(sources: Sequence[Source], likeness: float) -> dict[int, int]:
    """By the index of a source whose conversation is nearly an earlier one's: the earlier index."""
    seen: NearDuplicates[int] = NearDuplicates(likeness)
    found = {}
    for source in sources:
        text = "\n".join(message["content"] for message in source.messages)
        if (first := seen.add_unless_like(source.index, text)) is not None:
            found[source.index] = first
    return found


def same_instruction(source: Source, first: Source) -> Outcome:
    """The outcome of a source that is left out as the near duplicate of another."""
    example = Example(f"{source.index:06d}", None, (), source.messages)
    return Outcome(
        source.index, example, DUPLICATE, f"its instruction is nearly that of {first.where}"
    )


class NothingOfUseError(ValueError):
    """There is no example, because no model gave anything of use."""


class _RunDuplicates:
    """Takes out, in the input's order, what is nearly the same as in earlier examples."""

    def __init__(self, sources: Sequence[Source], settings: BuildSettings) -> None:
        self._where = {source.index: source.where for source in sources}
        self._most_alike = settings.most_alike
        self._written: NearDuplicates[tuple[int, int]] = NearDuplicates(settings.likeness)
        self._examples: NearDuplicates[int] = NearDuplicates(settings.likeness)

    def checked(self, outcome: Outcome) -> Outcome:
        """The outcome, rejected if it was accepted and is too like others."""
        if not outcome.is_accepted or outcome.is_plain:
            return outcome
        written = [
            (place, each.wording)
            for place, each in enumerate(outcome.example.requirements)
            if each.requirement.is_judged
        ]
        for place, wording in written:
            like = self._written.like(wording)
            if len(like) >= self._most_alike:
                examples = ", ".join(self._where[index] for index, _ in like[:3])
                return replace(
                    outcome,
                    step=DUPLICATE,
                    reason=f"its requirement {place + 1} is nearly one of {examples}",
                )
        text = "\n".join(message["content"] for message in outcome.example.chat())
        first = self._examples.add_unless_like(outcome.index, text)
        if first is not None:
            reason = f"it is nearly the example of {self._where[first]}"
            return replace(outcome, step=DUPLICATE, reason=reason)
        for place, wording in written:
            self._written.add((outcome.index, place), wording)
        return outcome


def write_files(
    folder: BuildFolder,
    sources: Sequence[Source],
    outcomes: Iterator[Outcome],
    settings: BuildSettings,
    generator: str,
    card: Callable[[Tally], str],
) -> Tally:
    """Writes the data set, what is not in it, and the card; returns the counts of all.

    `outcomes` are those of the sources, in their order. Each file appears when it is whole. Raises
    NothingOfUseError, and writes none, where there is nothing to write.
    """
    tally, last = Tally(), ""
    duplicates = _RunDuplicates(sources, settings)
    with ExitStack() as stack:
        table = stack.enter_context(_Table(stack.enter_context(published(folder.table))))
        train = stack.enter_context(_lines(stack, folder.train))
        rejected = stack.enter_context(_lines(stack, folder.rejected))
        for source, found in zip(sources, outcomes, strict=True):
            outcome = duplicates.checked(found)
            tally.count(outcome)
            if outcome.is_accepted:
                record = outcome.train_record(generator)
                train.write(_line(record))
                table.add(record)
            else:
                last = outcome.reason if outcome.is_unheard else last
                rejected.write(_line(outcome.rejected_record(source.where, generator)))
        if tally.all_unheard:
            raise NothingOfUseError(
                f"{generator} gave nothing of use for any of {tally.num_unheard} examples; for the "
                f"last: {last}; check the model and its endpoint: the same command asks about them "
                "again"
            )
    with published(folder.card) as path:
        path.write_text(card(tally), encoding="utf-8")
    return tally


def _lines(stack: ExitStack, path: Path) -> Any:
    return stack.enter_context(published(path)).open("w", encoding="utf-8")


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"


def table_schema() -> "pyarrow.Schema":
    """The columns of train.parquet; train.jsonl has the same fields."""
    import pyarrow as pa

    def structs(*names: str) -> Any:
        return pa.struct([(name, pa.string()) for name in names])

    stated = pa.list_(structs("kind", "parameters", "wording"))
    return pa.schema(
        [
            ("id", pa.string()),
            ("messages", pa.list_(structs("role", "content"))),
            ("role", structs("name", "description", "scope")),
            ("requirements", stated),
            ("role_checks", stated),
            ("in_scope", pa.bool_()),
            ("provenance", pa.string()),
        ]
    )


class _Table:
    """A Parquet file that grows by groups of rows."""

    def __init__(self, path: Path) -> None:
        try:
            import pyarrow.parquet as parquet
        except ImportError:
            raise ValueError("Parquet needs pyarrow; pip install 'rnr_kernels[roles]'") from None
        self._schema = table_schema()
        self._writer = parquet.ParquetWriter(path, self._schema)
        self._rows: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None and self._rows:  # a group without rows is one that datasets cannot read
            self._write()
        self._writer.close()

    def add(self, record: dict[str, Any]) -> None:
        """One row."""
        self._rows.append(record)
        if len(self._rows) == ROWS_AT_ONCE:
            self._write()

    def _write(self) -> None:
        import pyarrow as pa

        self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
        self._rows.clear()
