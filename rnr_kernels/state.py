"""DecodeState: what each running sequence has used and drawn, one slot a sequence."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from rnr_kernels.layout import (
    ERROR_PROGRAM,
    ERROR_SLOT,
    ERROR_TOKEN,
    StateTensors,
    padded_words,
)
from rnr_kernels.reference.bitmask import pack_bits, token_mask
from rnr_kernels.rules.program import RuleProgram
from rnr_kernels.sampling import GREEDY, Sampling, check_sampling, check_seed

ERRORS = {
    ERROR_SLOT: "a slot past the table, or twice in one batch",
    ERROR_PROGRAM: "a program past the table or removed",
    ERROR_TOKEN: "a token id past the vocabulary",
}


@dataclass(eq=False)
class DecodeState:
    """Slots of running sequences: program, length, used tokens, biases, sampling parameters, seed.

    `allocate` makes the tables (see layout.StateTensors), `admit` and `release` write single slots
    in place. Ops read a row's slot from `state_indices` (default: row r is slot r) and `sample_`
    and `update_state_` advance it. Kernels never report on the host: an id out of range acts as
    padding and sets a bit of `error`, which `check` reads.
    """

    program: RuleProgram
    tensors: StateTensors
    error: Tensor
    """int32 [1], sticky."""
    _live: list[int | None] = field(repr=False)
    """Program of each live slot, None for a free one."""

    def __post_init__(self) -> None:
        self.program.states.add(self)

    def __setstate__(self, attributes: dict[str, Any]) -> None:
        self.__dict__.update(attributes)
        self.program.states.add(self)

    @classmethod
    def allocate(cls, program: RuleProgram, num_slots: int, *, max_bias: int = 0) -> "DecodeState":
        """Free slots on the program's device; `max_bias` is the most biases a request may have."""
        if num_slots < 1:
            raise ValueError(f"num_slots must be at least 1, got {num_slots}")
        if max_bias < 0:
            raise ValueError(f"max_bias must be 0 or more, got {max_bias}")

        def table(*shape: int, dtype: torch.dtype) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=program.device)

        tensors = StateTensors(
            slot_params=table(num_slots, 4, dtype=torch.int32),
            used_bitmask=table(num_slots, padded_words(program.vocab_size), dtype=torch.int32),
            bias_token_ids=table(num_slots, max_bias, dtype=torch.int32),
            bias_values=table(num_slots, max_bias, dtype=torch.float32),
            sampling=table(num_slots, 4, dtype=torch.float32),
            rng=table(num_slots, 2, dtype=torch.int64),
        )
        tensors.slot_params[:, 0] = -1
        error = table(1, dtype=torch.int32)
        return cls(program, tensors, error, [None] * num_slots)

    @classmethod
    def from_token_ids(
        cls,
        program: RuleProgram,
        output_token_ids: Sequence[Sequence[int]],
        *,
        prompt_token_ids: Sequence[Sequence[int]] | None = None,
        program_ids: Sequence[int] | None = None,
        used_from: Sequence[int] | None = None,
        sampling: Sequence[Sampling] | None = None,
    ) -> "DecodeState":
        """The state after these response tokens, the same bits as by stepping through them.

        Every argument has one value a response. Raises as `admit` does, and ValueError where they
        are not equally many.
        """
        for name, values in (
            ("prompt_token_ids", prompt_token_ids),
            ("program_ids", program_ids),
            ("used_from", used_from),
            ("sampling", sampling),
        ):
            _check_one_each(name, values, len(output_token_ids))
        for item in sampling or ():
            check_sampling(item)
        state = cls.allocate(program, max(1, len(output_token_ids)))
        for slot, tokens in enumerate(output_token_ids):
            state.admit(
                slot,
                0 if program_ids is None else program_ids[slot],
                prompt_token_ids=() if prompt_token_ids is None else prompt_token_ids[slot],
                used_from=0 if used_from is None else used_from[slot],
                output_token_ids=tokens,
                sampling=GREEDY if sampling is None else sampling[slot],
            )
        return state

    @property
    def num_slots(self) -> int:
        return len(self._live)

    @property
    def vocab_size(self) -> int:
        return self.program.vocab_size

    @property
    def device(self) -> torch.device:
        return self.error.device

    @property
    def program_ids(self) -> Tensor:
        """int32 [N], a view."""
        return self.tensors.slot_params[:, 0]

    @property
    def num_output_tokens(self) -> Tensor:
        """int32 [N], a view: t, the response tokens chosen so far."""
        return self.tensors.slot_params[:, 1]

    @property
    def used_bitmask(self) -> Tensor:
        """int32 [N, words], bit v % 32 of word v // 32."""
        return self.tensors.used_bitmask

    @property
    def rng_position(self) -> Tensor:
        """int64 [N], a view: tokens drawn so far."""
        return self.tensors.rng[:, 1]

    def admit(
        self,
        slot: int,
        program_id: int = 0,
        *,
        prompt_token_ids: Sequence[int] | Tensor = (),
        used_from: int = 0,
        output_token_ids: Sequence[int] | Tensor = (),
        sampling: Sampling = GREEDY,
        token_bias: Mapping[int, float] | None = None,
    ) -> None:
        """Starts a sequence in a free slot.

        `program_id` < 0: no rules. With the scope "prompt+response", prompt tokens from position
        `used_from` on count as used; pass the prompt without padding. `output_token_ids` are
        response tokens already there. `token_bias` maps token ids to request_bias (finite or -inf).
        Raises ValueError, with nothing written, for a slot that is live or out of range, an unknown
        program, a bias that does not fit; TypeError for `sampling` that is no Sampling.
        """
        self._check_slot(slot)
        check_sampling(sampling)
        if self._live[slot] is not None:
            raise ValueError(f"slot {slot} is live; release it before admitting another sequence")
        scope = "none" if program_id < 0 else self.program.rules(program_id).scope
        bias_ids, bias_values = self._checked_bias(program_id, token_bias or {})
        prompt = _token_ids("prompt_token_ids", prompt_token_ids)
        output = _token_ids("output_token_ids", output_token_ids)
        if not 0 <= used_from <= len(prompt):
            raise ValueError(
                f"used_from must be a position in the prompt, 0 to {len(prompt)}, got {used_from}"
            )
        seed = sampling.seed
        if seed is None:
            seed = _fresh_seed()

        used = torch.cat([prompt[used_from:], output]) if scope == "prompt+response" else output
        used = used.to(self.device)[None]
        mask = token_mask(used, torch.ones_like(used, dtype=torch.bool), self.vocab_size)
        tables = self.tensors
        tables.used_bitmask[slot] = pack_bits(mask, tables.used_bitmask.shape[1])[0]
        top_k = 0 if sampling.is_greedy else min(max(sampling.top_k, 0), self.vocab_size)
        params = [program_id, len(output), top_k, len(bias_ids)]
        tables.slot_params[slot] = torch.tensor(params, dtype=torch.int32, device=self.device)
        tables.sampling[slot] = torch.tensor(sampling.device_parameters(), device=self.device)
        tables.rng[slot] = torch.tensor([seed, len(output)], device=self.device)
        tables.bias_token_ids[slot, : len(bias_ids)] = bias_ids.to(self.device)
        tables.bias_values[slot, : len(bias_ids)] = bias_values.to(self.device)
        self._live[slot] = program_id

    def release(self, slot: int) -> None:
        """Ends the slot's sequence; a free slot is a row without rules."""
        self._check_slot(slot)
        if self._live[slot] is None:
            raise ValueError(f"slot {slot} is free already")
        for table in self.tensors:
            table[slot] = 0
        self.tensors.slot_params[slot, 0] = -1
        self._live[slot] = None

    def fork(
        self, source: int, targets: Sequence[int], *, seeds: Sequence[int] | None = None
    ) -> None:
        """Copies a live slot into free ones, each with a new seed (drawn where none is given)."""
        self._check_slot(source)
        program_id = self._live[source]
        if program_id is None:
            raise ValueError(f"slot {source} is free; admit a sequence before forking it")
        if seeds is not None and len(seeds) != len(targets):
            raise ValueError(f"seeds must be one a target, {len(targets)}, got {len(seeds)}")
        for seed in seeds or ():
            check_seed(seed)
        for target in targets:
            self._check_slot(target)
            if self._live[target] is not None:
                raise ValueError(f"slot {target} is live; release it before forking into it")
        if len(set(targets)) != len(targets):
            raise ValueError(f"targets must differ from each other, got {list(targets)}")
        for index, target in enumerate(targets):
            for table in self.tensors:
                table[target] = table[source]
            self.tensors.rng[target, 0] = _fresh_seed() if seeds is None else seeds[index]
            self._live[target] = program_id

    def num_live_slots(self, program_id: int) -> int:
        """How many slots hold a sequence of this program."""
        return self._live.count(program_id)

    def check(self) -> None:
        """Reads and clears the error bits (a device sync); ValueError if one was set."""
        bits = int(self.error.item())
        self.error.zero_()
        found = [text for bit, text in ERRORS.items() if bits & bit]
        if found:
            raise ValueError(
                f"an op met {' and '.join(found)} and left those rows alone; "
                "check state_indices, program ids and token ids"
            )

    def _check_slot(self, slot: int) -> None:
        if not 0 <= slot < self.num_slots:
            raise ValueError(f"slot must be in [0, {self.num_slots}), got {slot}")

    def _checked_bias(
        self, program_id: int, token_bias: Mapping[int, float]
    ) -> tuple[Tensor, Tensor]:
        max_bias = self.tensors.bias_token_ids.shape[1]
        if len(token_bias) > max_bias:
            raise ValueError(
                f"token_bias may have {max_bias} tokens, got {len(token_bias)}; "
                "allocate the state with a larger max_bias"
            )
        if token_bias and program_id < 0:
            raise ValueError(
                "a slot without a program takes no token_bias; compile an empty RuleSet for it"
            )
        for token, value in token_bias.items():
            if not 0 <= token < self.vocab_size:
                raise ValueError(f"token_bias ids must be in [0, {self.vocab_size}), got {token}")
            if value != -torch.inf and not abs(value) <= torch.finfo(torch.float32).max:
                raise ValueError(
                    f"token_bias must be finite in float32 or -inf, got {value} for {token}"
                )
        ids = sorted(token_bias)
        values = torch.tensor([token_bias[token] for token in ids], dtype=torch.float32)
        return torch.tensor(ids, dtype=torch.int32), values


def _check_one_each(name: str, values: object, num_responses: int) -> None:
    if values is None:
        return
    wanted = f"{name} must have one value for each of the {num_responses} responses"
    if not isinstance(values, Sequence | Tensor):
        raise TypeError(f"{wanted}, got {type(values).__name__}; pass a list")
    if len(values) != num_responses:
        raise ValueError(f"{wanted}, got {len(values)}")


def _token_ids(name: str, ids: Sequence[int] | Tensor) -> Tensor:
    """int64 [length]."""
    tensor = torch.as_tensor(ids)
    if tensor.numel() and (tensor.is_floating_point() or tensor.dtype == torch.bool):
        raise TypeError(f"{name} must be ints, got {str(tensor.dtype).removeprefix('torch.')}")
    return tensor.long().flatten()


def _fresh_seed() -> int:
    return int(torch.randint(-(2**63), 2**63 - 1, ()).item())
