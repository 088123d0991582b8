"""Pairs to rank: read from files of the usual formats, and those that models have room for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rnr_kernels.analysis.response_ranking import rivals
from rnr_kernels.records import ALPACA_INPUT, read_records
from rnr_kernels.teacher_forcing import force
from rnr_kernels.templates import PromptTemplate, check_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ASKED = ("instruction", "prompt", "question")
ANSWERED = ("response", "output", "answer")
"""Names of a record's fields: of each the first that it has."""

EXPECTED = (
    f"one JSON object a line (or an array of them) with one of {', '.join(map(repr, ASKED))} and "
    f"one of {', '.join(map(repr, ANSWERED))}"
)

ROOM_TO_JOIN = 4
"""Tokens: after another instruction a response may be cut into a few more."""


@dataclass(frozen=True)
class Pair:
    """An instruction, its response, and the words for where they stand."""

    instruction: str
    response: str
    where: str

    @property
    def texts(self) -> tuple[str, str]:
        """As `rank_responses` takes it."""
        return self.instruction, self.response


@dataclass(frozen=True)
class Contender:
    """What decides whether a model can score a text."""

    name: str
    tokenizer: "PreTrainedTokenizerBase"
    window: int | None
    """The most tokens, None where that is unknown."""


@dataclass(frozen=True)
class Skipped:
    """A pair that is not ranked."""

    where: str
    reason: str


@dataclass(frozen=True, eq=False)
class Room:
    """Which responses have room after which instructions."""

    prompts: NDArray[np.int64]
    responses: NDArray[np.int64]
    """[contenders, pairs]: tokens."""
    windows: NDArray[np.float64]
    """[contenders, 1]: the most tokens."""

    def fits(self, i: int) -> NDArray[np.bool_]:
        """[pairs]: the responses that fit after the instruction of pair i, for all contenders."""
        longest = self.prompts[:, i : i + 1] + self.responses + ROOM_TO_JOIN
        return np.asarray((longest <= self.windows).all(axis=0))


@dataclass(frozen=True, eq=False)
class Selection:
    """The pairs that every contender can score, and the others."""

    kept: list[Pair]
    skipped: list[Skipped]
    lengths: list[int]
    """Response tokens of the kept ones with EOS, as the first contender's tokenizer cuts them."""
    room: Room

    @property
    def num_limited(self) -> int:
        """Instructions that some response does not fit after, so that it cannot be drawn."""
        return sum(not self.room.fits(i).all() for i in range(len(self.kept)))


def read_pairs(path: str | Path) -> list[Pair]:
    """Every record of a JSON Lines file or a JSON array, without space at the ends.

    Alpaca's `input` follows the instruction. A response may be empty: `select_pairs` skips it.
    ValueError that names the record for one without both, or where they are no text.
    """
    return [_pair(record, where) for where, record in read_records(path, "data", EXPECTED)]


def _pair(record: object, where: str) -> Pair:
    if not isinstance(record, Mapping):
        raise ValueError(f"{where}: expected a JSON object, got {type(record).__name__}")
    instruction, response = _text(record, ASKED, where), _text(record, ANSWERED, where)
    more = record.get("input") or ""
    check_text(more, f"{where}: 'input'")
    if more.strip():
        instruction = ALPACA_INPUT.format(instruction=instruction, input=more.strip())
    return Pair(instruction, response, where)


def _text(record: Mapping[str, Any], fields: Sequence[str], where: str) -> str:
    for field in fields:
        if field in record:
            check_text(record[field], f"{where}: {field!r}")
            return str(record[field]).strip()
    has = ", ".join(map(repr, record)) or "none"
    raise ValueError(f"{where}: its fields are {has}; expected {EXPECTED}")


def select_pairs(
    pairs: Sequence[Pair], contenders: Sequence[Contender], template: PromptTemplate
) -> Selection:
    """Skips pairs without instruction or response, those longer than a contender's window, and
    those that no other response fits after."""
    for one in contenders:
        if one.tokenizer.eos_token_id is None:
            raise ValueError(
                f"the tokenizer of {one.name} has no EOS token, which closes a response; set its "
                "eos_token"
            )
    skipped: dict[int, str] = {}
    sizes = np.zeros((2, len(contenders), len(pairs)), dtype=np.int64)
    for n, pair in enumerate(pairs):
        missing = [name for name in ("instruction", "response") if not getattr(pair, name).strip()]
        if missing:
            skipped[n] = f"the {missing[0]} is empty"
            continue
        for m, one in enumerate(contenders):
            # The EOS is one more token, whichever it is.
            text = force(one.tokenizer, template, *pair.texts, end=one.tokenizer.eos_token_id)
            sizes[:, m, n] = len(text.prompt_token_ids), len(text.response_token_ids)
            if one.window is not None and len(text) > one.window:
                skipped.setdefault(
                    n,
                    f"{len(text)} tokens with its prompt, the window of {one.name} is {one.window}",
                )
    windows = np.array([[np.inf if one.window is None else one.window] for one in contenders])
    kept = [n for n in range(len(pairs)) if n not in skipped]
    while True:
        room = Room(sizes[0][:, kept], sizes[1][:, kept], windows)
        others = rivals([pairs[n].texts for n in kept])
        alone = [n for i, n in enumerate(kept) if not (others(i) & room.fits(i)).any()]
        if not alone:
            break
        skipped |= dict.fromkeys(alone, "no other response can be drawn that fits after it")
        kept = [n for n in kept if n not in skipped]
    return Selection(
        [pairs[n] for n in kept],
        [Skipped(pairs[n].where, skipped[n]) for n in sorted(skipped)],
        room.responses[0].tolist(),
        room,
    )
