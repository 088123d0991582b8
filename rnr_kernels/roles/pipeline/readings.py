"""What is read out of models' JSON replies, by schema."""

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from rnr_kernels.endpoint import json_objects
from rnr_kernels.roles.example import Role
from rnr_kernels.roles.kinds import KINDS
from rnr_kernels.roles.requirement import Requirement
from rnr_kernels.templates import check_text

Schema = Mapping[str, Any]

NO_OBJECT = "there is no JSON object in it"
"""What is wrong with a reply that is prose alone."""

JUDGED = {name.partition(":")[2]: name for name, kind in KINDS.items() if kind.is_judged}
"""Kinds that a model writes, by the names that it calls them."""


def _object(**properties: Schema) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": [*properties],
        "additionalProperties": False,
    }


_TEXT = {"type": "string", "pattern": r"\S", "maxLength": 1000}

ROLE: Schema = _object(name=_TEXT, description=_TEXT, scope={"type": "string", "maxLength": 1000})
CONFLICTS: Schema = _object(
    conflicts={
        "type": "array",
        "items": _object(requirement={"type": "integer"}, reason={"type": "string"}),
    }
)
FOLLOWED: Schema = _object(reason={"type": "string"}, followed={"type": "boolean"})


def requirements_schema(count: int) -> Schema:
    """Of so many requirements."""
    item = _object(kind={"type": "string", "enum": [*JUDGED]}, text=_TEXT)
    return _object(
        requirements={"type": "array", "items": item, "minItems": count, "maxItems": count}
    )


def role_of(record: Mapping[str, Any]) -> Role:
    """A role by the schema `ROLE`; ValueError for text that is no Unicode."""
    texts = [" ".join(record[field].split()) for field in ("name", "description", "scope")]
    for each in texts:
        check_text(each, "the role")
    return Role(*texts)


def requirements_of(record: Mapping[str, Any]) -> list[Requirement]:
    """Requirements by their schema; ValueError if one comes twice."""
    found = [
        Requirement(JUDGED[each["kind"]], text=" ".join(each["text"].split()))
        for each in record["requirements"]
    ]
    if len(set(found)) < len(found):
        raise ValueError("a requirement comes twice")
    return found


def conflicts_of(record: Mapping[str, Any], count: int) -> dict[int, str]:
    """Reasons by the place of the requirement, from 0; ValueError for a number that none has."""
    for each in record["conflicts"]:
        if not 1 <= each["requirement"] <= count:
            raise ValueError(f"there is no requirement {each['requirement']}")
    return {each["requirement"] - 1: each["reason"] for each in record["conflicts"]}


def read_object(text: str, schema: Schema) -> dict[str, Any]:
    """The last JSON object in a reply that has the schema; ValueError says what is wrong."""
    validator = _validator(json.dumps(schema))
    problem = NO_OBJECT
    for record in json_objects(text):
        error = next(validator.iter_errors(record), None)
        if error is None:
            check_text(json.dumps(record, ensure_ascii=False), "the object")
            return record
        place = "".join(f"[{part!r}]" for part in error.path)
        problem = f"{place or 'the object'} breaks the schema's {error.validator!r}"
    raise ValueError(problem)


@cache
def _validator(schema: str) -> Any:
    import jsonschema

    return jsonschema.Draft202012Validator(json.loads(schema))
