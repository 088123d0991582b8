"""Where the prompts of a padded batch end, and which of their tokens are looked at."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

INTEGERS = (torch.int32, torch.int64)


@dataclass(frozen=True, eq=False)
class Prompts:
    """What is known of P prompts in columns [0, length); P = 1 may stand for every prompt."""

    length: int
    """Columns up to the last response start."""
    starts: Tensor
    """int64 [P]: the column where each response starts."""
    is_token: Tensor | None
    """bool [P, length]: what is not padding; None: no padding."""
    used_from: Tensor | None
    """int64 [P]: where used tokens start, in the prompt without its padding."""

    @classmethod
    def of(
        cls,
        prompt_length: int | Tensor,
        attention_mask: Tensor | None,
        used_from: int | Sequence[int] | None,
    ) -> Self:
        """Checked, and copied to the CPU. ValueError or TypeError for what does not fit."""
        starts = _starts(prompt_length)
        length = int(starts.max())
        if attention_mask is not None and (
            attention_mask.dim() != 2 or attention_mask.shape[1] != length
        ):
            raise ValueError(
                f"attention_mask must be [P, {length}], the columns of the prompts, got "
                f"{list(attention_mask.shape)}"
            )
        is_token = None
        if attention_mask is not None:
            is_token = attention_mask.to("cpu", torch.bool, copy=True)
        return cls(length, starts, is_token, _used_from(used_from, length))

    def to(self, device: torch.device) -> Self:
        return self._map(lambda values: values.to(device))

    def spread(self, num_rows: int) -> Self:
        """The same with one value a row."""
        return self._map(lambda values: spread(values, num_rows))

    def counts(self) -> dict[str, int]:
        """How many prompts each argument speaks of."""
        tables = {
            "prompt_length": self.starts,
            "attention_mask": self.is_token,
            "used_from": self.used_from,
        }
        return {name: len(values) for name, values in tables.items() if values is not None}

    def tokens(self, input_ids: Tensor) -> Tensor:
        """bool [B, length]: prompt tokens without padding, where self has one value a row."""
        prompts = input_ids[:, : self.length]
        own = torch.arange(self.length, device=input_ids.device) < self.starts[:, None]
        return own.expand_as(prompts) if self.is_token is None else own & self.is_token

    def token_ids(self, input_ids: Tensor) -> list[list[int]]:
        """The prompt of each row as a list, where self has one value a row."""
        rows = zip(input_ids[:, : self.length], self.tokens(input_ids), strict=True)
        return [row[is_token].tolist() for row, is_token in rows]

    def _map(self, function: Callable[[Tensor], Tensor]) -> Self:
        return replace(
            self,
            starts=function(self.starts),
            is_token=None if self.is_token is None else function(self.is_token),
            used_from=None if self.used_from is None else function(self.used_from),
        )


def rows_a_prompt(num_rows: int, num_prompts: int) -> int:
    """How many rows each prompt has; ValueError if they do not come out even."""
    if num_rows % num_prompts:
        raise ValueError(
            f"the batch must have a multiple of {num_prompts} rows, one rule set or prompt "
            f"argument each, got {num_rows}"
        )
    return num_rows // num_prompts


def spread(values: Tensor, num_rows: int) -> Tensor:
    """One value a prompt, [P, ...], to one a row: row r is of prompt r // n."""
    return values.repeat_interleave(rows_a_prompt(num_rows, len(values)), dim=0)


def _starts(prompt_length: int | Tensor) -> Tensor:
    if isinstance(prompt_length, Tensor):
        got = f"{prompt_length.dtype} {list(prompt_length.shape)}"
        fits = prompt_length.dtype in INTEGERS and prompt_length.dim() <= 1
    else:
        got = type(prompt_length).__name__
        fits = isinstance(prompt_length, int) and not isinstance(prompt_length, bool)
    if not fits:
        raise TypeError(
            f"prompt_length must be an int, or an int tensor with one a prompt, got {got}"
        )
    starts = torch.as_tensor(prompt_length).to("cpu", torch.int64, copy=True).reshape(-1)
    if not len(starts) or int(starts.min()) < 0:
        raise ValueError(f"prompt_length must be 0 or more tokens, got {starts.tolist()}")
    return starts


def _used_from(used_from: int | Sequence[int] | None, length: int) -> Tensor | None:
    if used_from is None:
        return None
    positions = [used_from] if isinstance(used_from, int) else [int(start) for start in used_from]
    outside = [start for start in positions if not 0 <= start <= length]
    if outside or not positions:
        raise ValueError(
            f"used_from must be positions in the prompt, 0 to {length}, got {positions}"
        )
    return torch.tensor(positions)
