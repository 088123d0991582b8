"""Languages from small machines that read a text character by character."""

from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

from rnr_kernels.automata.characters import Characters, partition
from rnr_kernels.automata.dfa import DEAD, MAX_STATES, TooManyStatesError, of_classes
from rnr_kernels.automata.languages import Language

State = TypeVar("State", bound=Hashable)

OTHER = "other"


def machine(
    kinds: Mapping[str, Characters],
    start: State,
    step: Callable[[State, str], State | None],
    accepts: Callable[[State], bool],
) -> Language:
    """The texts after which a machine is in a state that `accepts`.

    `step` gives the state after one that reads a character of a kind, None for no way on; a
    character is of the first kind that holds it, else "other".
    """
    names = list(kinds)
    starts, members = partition(kinds.values())
    name_of = [
        next((name for name, inside in zip(names, each, strict=True) if inside), OTHER)
        for each in members
    ]
    classes = {name: number for number, name in enumerate(dict.fromkeys(name_of))}
    index: dict[State, int] = {start: 1}
    table = [[DEAD] * len(classes)]
    accepting = [False]
    pending = [start]
    for state in pending:
        row = []
        for name in classes:
            after = step(state, name)
            if after is not None and after not in index:
                index[after] = len(index) + 1
                pending.append(after)
            row.append(DEAD if after is None else index[after])
        table.append(row)
        accepting.append(accepts(state))
        if len(table) > MAX_STATES:
            raise TooManyStatesError(f"the machine takes more than {MAX_STATES:,} states")
    return Language(of_classes(starts, [classes[name] for name in name_of], table, accepting, 1))
