"""RuleProgram: compiled rules as tensors, in tables of fixed capacity that change in place."""

from dataclasses import dataclass, field, fields
from typing import Any, Literal, NamedTuple, Protocol
from weakref import WeakSet

import torch
from torch import Tensor

from rnr_kernels.layout import BITS, FLAG_BLOCK, MAX_CLASSES, NO_KNOT, TILE, ProgramTensors
from rnr_kernels.reference.bitmask import pack_bits

Scope = Literal["none", "response", "prompt+response"]


class Knot(NamedTuple):
    """From step `start` on, a class scores value + slope * (t - start)."""

    start: int
    value: float
    slope: float


@dataclass(frozen=True, eq=False)
class LoweredRules:
    """One rule set without strings: what a program is written from."""

    token_class: Tensor
    """uint8 [V]."""
    schedule: tuple[tuple[Knot, ...], ...]
    """The knots of classes 1, 2, ..., ascending; class 0 has none."""
    score_vector: Tensor | None
    """float32 [V]."""
    penalty: float
    scope: Scope
    """Which tokens count as used."""
    name: str | None


@dataclass(frozen=True)
class Capacity:
    """Rows and columns of a program's tables, which never grow after they are made."""

    programs: int
    class_maps: int
    classes: int
    """Class 0 included."""
    knots: int
    class_tokens: int
    score_vectors: int

    @classmethod
    def of(cls, rule_sets: list[LoweredRules]) -> "Capacity":
        """Room for exactly these rule sets."""
        maps: list[Tensor] = []
        for rules in rule_sets:
            if not any(torch.equal(rules.token_class, other) for other in maps):
                maps.append(rules.token_class)
        schedules = [rules.schedule for rules in rule_sets]
        return cls(
            programs=max(1, len(rule_sets)),
            class_maps=max(1, len(maps)),
            classes=1 + max((len(schedule) for schedule in schedules), default=0),
            knots=max((len(knots) for schedule in schedules for knots in schedule), default=1),
            class_tokens=max((len(sparse_tokens(codes)) for codes in maps), default=0),
            score_vectors=sum(rules.score_vector is not None for rules in rule_sets),
        )


class HoldsSlots(Protocol):
    """What a program asks of the states on it (DecodeState)."""

    def num_live_slots(self, program_id: int) -> int:
        """How many of its slots hold a sequence of this program."""
        ...


class _Entry(NamedTuple):
    rules: LoweredRules
    class_map: int
    vector: int


def sparse_tokens(token_class: Tensor) -> Tensor:
    """int64: tokens of the classes with fewer than V / 16 tokens, by class, then by id."""
    named = token_class.nonzero().squeeze(1)
    codes = token_class[named].long()
    few = codes.bincount(minlength=MAX_CLASSES + 1)[codes] * 16 < len(token_class)
    named, codes = named[few], codes[few]
    return named[codes.argsort(stable=True)]


@dataclass(eq=False)
class RuleProgram:
    """Compiled rules: class maps, schedules, score vectors, penalties (see layout.ProgramTensors).

    Make one with `compile_rules`. Program ids 0, 1, ... are the rule sets in order. `add` and
    `remove` write into the tables in place, so captured graphs and running servers stay valid. A
    copy, pickled or not, is a program of its own, and no state is on it.
    """

    vocab_size: int
    capacity: Capacity
    tensors: ProgramTensors
    _entries: list[_Entry | None] = field(repr=False)
    states: "WeakSet[HoldsSlots]" = field(default_factory=WeakSet, init=False, repr=False)
    """The states on this program that still exist; a state adds itself."""

    @classmethod
    def allocate(
        cls, vocab_size: int, capacity: Capacity, device: torch.device | str | None = None
    ) -> "RuleProgram":
        """Empty tables. Raises ValueError for a capacity that is not positive where it must be."""
        _check_capacity(vocab_size, capacity)
        c = capacity
        flag_words = -(-vocab_size // (FLAG_BLOCK * BITS))

        def table(*shape: int, dtype: torch.dtype = torch.int32, fill: float = 0) -> Tensor:
            return torch.full(shape, fill, dtype=dtype, device=device)

        tensors = ProgramTensors(
            token_class=table(c.class_maps, -(-vocab_size // TILE) * TILE, dtype=torch.uint8),
            class_counts=table(c.class_maps, c.classes),
            class_offsets=table(c.class_maps, c.classes + 1),
            class_tokens=table(c.class_maps, c.class_tokens),
            block_flags=table(c.class_maps, flag_words),
            knot_starts=table(c.programs, c.knots, c.classes, fill=NO_KNOT),
            knot_lines=table(c.programs, c.knots, c.classes, 2, dtype=torch.float64),
            program_table=table(c.programs, 4),
            penalties=table(c.programs, dtype=torch.float32),
            score_vectors=table(c.score_vectors, vocab_size, dtype=torch.float32),
        )
        return cls(vocab_size, capacity, tensors, [None] * c.programs)

    @property
    def device(self) -> torch.device:
        return self.tensors.token_class.device

    @property
    def num_programs(self) -> int:
        """Programs that exist."""
        return sum(entry is not None for entry in self._entries)

    def rules(self, program_id: int) -> LoweredRules:
        """What program `program_id` was written from; ValueError if there is none."""
        entry = self._entries[program_id] if 0 <= program_id < len(self._entries) else None
        if entry is None:
            known = [index for index, other in enumerate(self._entries) if other is not None]
            raise ValueError(
                f"program id must be one of {known} (or negative: no rules), got {program_id}"
            )
        return entry.rules

    def add(self, other: "RuleProgram") -> list[int]:
        """Copies the programs of `other` into free rows and returns their ids here.

        Raises ValueError, before anything is written, if the vocabulary differs or a table is full.
        """
        if other.vocab_size != self.vocab_size:
            raise ValueError(
                f"programs must be compiled for vocab_size={self.vocab_size}, "
                f"got {other.vocab_size}; pass vocab_size to compile_rules"
            )
        return self.write([entry.rules for entry in other._entries if entry is not None])

    def write(self, rule_sets: list[LoweredRules]) -> list[int]:
        """Writes lowered rule sets into free rows; all of them, or none and a ValueError."""
        needed = Capacity.of(rule_sets)
        for name, got, have in (
            ("classes", needed.classes, self.capacity.classes),
            ("knots", needed.knots, self.capacity.knots),
            ("class_tokens", needed.class_tokens, self.capacity.class_tokens),
        ):
            if got > have:
                _raise_full(name, got, have)
        free = [index for index, entry in enumerate(self._entries) if entry is None]
        if len(rule_sets) > len(free):
            _raise_full("programs", len(rule_sets), len(free), "free ")
        maps = self._place_maps(rule_sets)
        vectors = self._place_vectors(rule_sets)
        program_ids = free[: len(rule_sets)]
        for program_id, rules, class_map, vector in zip(
            program_ids, rule_sets, maps, vectors, strict=True
        ):
            self._write_row(program_id, rules, class_map, vector)
        return program_ids

    def remove(self, program_id: int) -> None:
        """Frees a program's rows. ValueError if there is none or a live slot uses it."""
        self.rules(program_id)
        live = sum(state.num_live_slots(program_id) for state in self.states)
        if live:
            raise ValueError(
                f"program {program_id} is used by {live} live slots; release them first"
            )
        self._entries[program_id] = None
        self.tensors.program_table[program_id] = 0

    def to(self, device: torch.device | str) -> "RuleProgram":
        """A copy on another device."""
        tensors = ProgramTensors(*(tensor.to(device, copy=True) for tensor in self.tensors))
        return RuleProgram(self.vocab_size, self.capacity, tensors, list(self._entries))

    def __getstate__(self) -> dict[str, Any]:
        # Weak references are neither pickled nor copied; copied states add themselves anew.
        return {name: value for name, value in self.__dict__.items() if name != "states"}

    def __setstate__(self, attributes: dict[str, Any]) -> None:
        self.__dict__.update(attributes, states=WeakSet())

    def _place_maps(self, rule_sets: list[LoweredRules]) -> list[int]:
        """A class-map row for each rule set; equal maps share one."""
        held: dict[int, Tensor] = {
            entry.class_map: entry.rules.token_class for entry in self._entries if entry is not None
        }
        rows = []
        for rules in rule_sets:
            same = [row for row, codes in held.items() if torch.equal(codes, rules.token_class)]
            free = [row for row in range(self.capacity.class_maps) if row not in held]
            if not same and not free:
                _raise_full("class_maps", len(held) + 1, self.capacity.class_maps)
            row = (same or free)[0]
            held[row] = rules.token_class
            rows.append(row)
        return rows

    def _place_vectors(self, rule_sets: list[LoweredRules]) -> list[int]:
        """A score-vector row for each rule set that has one, else -1."""
        held = {entry.vector for entry in self._entries if entry is not None}
        free = [row for row in range(self.capacity.score_vectors) if row not in held]
        needed = sum(rules.score_vector is not None for rules in rule_sets)
        if needed > len(free):
            _raise_full("score_vectors", needed, len(free), "free ")
        rows = iter(free)
        return [-1 if rules.score_vector is None else next(rows) for rules in rule_sets]

    def _write_row(self, program_id: int, rules: LoweredRules, class_map: int, vector: int) -> None:
        tables = self.tensors
        self._write_class_map(class_map, rules.token_class)
        starts = torch.full(tables.knot_starts.shape[1:], NO_KNOT, dtype=torch.int32)
        lines = torch.zeros(tables.knot_lines.shape[1:], dtype=torch.float64)
        for code, knots in enumerate(rules.schedule, start=1):
            for index, knot in enumerate(knots):
                starts[index, code] = knot.start
                lines[index, code, 0], lines[index, code, 1] = knot.value, knot.slope
        tables.knot_starts[program_id] = starts.to(self.device)
        tables.knot_lines[program_id] = lines.to(self.device)
        tables.penalties[program_id] = rules.penalty
        if rules.score_vector is not None:
            tables.score_vectors[vector] = rules.score_vector.to(self.device)
        row = torch.tensor([class_map, program_id, vector, 1], dtype=torch.int32)
        tables.program_table[program_id] = row.to(self.device)
        self._entries[program_id] = _Entry(rules, class_map, vector)

    def _write_class_map(self, row: int, token_class: Tensor) -> None:
        tables, vocab_size, classes = self.tensors, self.vocab_size, self.capacity.classes
        tables.token_class[row, :vocab_size] = token_class.to(self.device)
        counts = token_class.long().bincount(minlength=classes)
        listed = sparse_tokens(token_class)
        listed_counts = token_class[listed].long().bincount(minlength=classes)
        offsets = torch.nn.functional.pad(listed_counts.cumsum(0), (1, 0))
        tables.class_counts[row] = counts.to(self.device, torch.int32)
        tables.class_offsets[row] = offsets.to(self.device, torch.int32)
        tables.class_tokens[row, : len(listed)] = listed.to(self.device, torch.int32)
        padding = -vocab_size % FLAG_BLOCK
        named = torch.nn.functional.pad(token_class, (0, padding)).view(-1, FLAG_BLOCK) != 0
        flags = pack_bits(named.any(1)[None], tables.block_flags.shape[1])
        tables.block_flags[row] = flags[0].to(self.device)


def _check_capacity(vocab_size: int, capacity: Capacity) -> None:
    if vocab_size < 1:
        raise ValueError(f"vocab_size must be at least 1, got {vocab_size}")
    for item in fields(capacity):
        least = 0 if item.name in ("class_tokens", "score_vectors") else 1
        if getattr(capacity, item.name) < least:
            got = getattr(capacity, item.name)
            raise ValueError(f"capacity {item.name} must be at least {least}, got {got}")
    if capacity.classes > MAX_CLASSES + 1:
        raise ValueError(
            f"capacity classes must be at most {MAX_CLASSES + 1}, got {capacity.classes}"
        )


def _raise_full(name: str, needed: int, available: int, kind: str = "") -> None:
    raise ValueError(
        f"the program has room for {available} {kind}{name}, {needed} are needed; "
        f"compile it with capacity=Capacity({name}=...) large enough"
    )
