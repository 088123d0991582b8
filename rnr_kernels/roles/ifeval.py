"""IFEval's file of prompts (Zhou et al. 2023), which state their requirements themselves."""

from collections.abc import Mapping
from typing import Any

IFEVAL_FIELDS = ("key", "prompt", "instruction_id_list", "kwargs")


def is_ifeval(record: Mapping[str, Any]) -> bool:
    """Whether a record is one of IFEval's."""
    return "instruction_id_list" in record


def record_of_ifeval(record: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The same as a record of an example: no system message, one question, unworded requirements.

    Parameters that are null are left out: in some copies of the file every instruction has the
    same columns. Raises ValueError that says `where` for a field that is missing, and for lists
    that are not equally long.
    """
    for field in IFEVAL_FIELDS:
        if field not in record:
            raise ValueError(
                f"{where}: the field {field!r} is missing; IFEval's records have "
                f"{', '.join(map(repr, IFEVAL_FIELDS))}"
            )
    kinds, parameters = record["instruction_id_list"], record["kwargs"]
    if not (isinstance(kinds, list) and isinstance(parameters, list)):
        raise ValueError(f"{where}: 'instruction_id_list' and 'kwargs' must be lists")
    if len(kinds) != len(parameters):
        raise ValueError(
            f"{where}: {len(kinds)} instructions with {len(parameters)} 'kwargs'; "
            "each instruction needs its own"
        )
    if not all(isinstance(each, Mapping) for each in parameters):
        raise ValueError(f"{where}: each of 'kwargs' must be an object")
    return {
        "id": record["key"],
        "messages": [{"role": "user", "content": record["prompt"]}],
        "requirements": [
            {
                "kind": kind,
                "parameters": {name: each for name, each in given.items() if each is not None},
                "wording": "",
            }
            for kind, given in zip(kinds, parameters, strict=True)
        ],
    }
