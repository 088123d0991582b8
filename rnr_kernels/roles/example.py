"""One example of roles and rules, and its record in files.

A record is an object with `messages` (an optional system message, then user and assistant in turn;
the last may be the assistant's response), and beside them what the system message says, as data:
`role`, `requirements`, `role_checks`, `in_scope`. Data sets for training and sets for evaluation
are both such files; TRL and Hugging Face datasets read them as they are. IFEval's own records are
read too.

A system message of a file is what a model is shown, to the letter; a record without one gets the
role and the requirements in our words.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, TypeGuard

from rnr_kernels.records import checked_text, read_records, record_id
from rnr_kernels.roles.ifeval import is_ifeval, record_of_ifeval
from rnr_kernels.roles.requirement import Requirement

Turns: TypeAlias = tuple[Mapping[str, str], ...]
"""Objects with `role` (user or assistant) and `content`, in turn, the first of them the user's."""

EXPECTED = (
    "one JSON object a line with 'messages' (roles system, user and assistant) and 'requirements' "
    "(objects with 'kind', 'parameters' and 'wording')"
)


@dataclass(frozen=True)
class Role:
    """Who the model is to be."""

    name: str
    """What users call it, such as "Harbour clerk"."""
    description: str
    """Sentences that tell the model who it is, in the second person."""
    scope: str = ""
    """What it answers questions about, as a noun phrase; "" for everything."""

    def introduction(self) -> str:
        """The sentences that tell the model who it is."""
        return self.description or (f"You are {self.name}." if self.name else "")


@dataclass(frozen=True)
class StatedRequirement:
    """A requirement in the words in which a system prompt states it."""

    requirement: Requirement
    wording: str
    """"" where the conversation states it already, as IFEval's prompts do."""


@dataclass(frozen=True)
class Example:
    """What the developer and the user want, and a response if there is one."""

    id: str
    """Unlike that of any other example of its file."""
    role: Role | None
    requirements: tuple[StatedRequirement, ...]
    messages: Turns
    """What comes before the response, without the system message; the last is the user's."""
    response: str | None = None
    in_scope: bool = True
    """Whether the role answers the last question; it declines the others."""
    role_checks: tuple[StatedRequirement, ...] = ()
    """How to tell that a response keeps the role: that it signs with the name, say, or declines.

    No rules of the system prompt: what follows them is counted apart, as role-following."""
    system: str | None = None
    """A system message in words of its own, which is to state role and requirements itself; None
    for one that is made of them."""

    @property
    def instruction(self) -> str:
        """What the user asks last."""
        return self.messages[-1]["content"]

    @property
    def checks(self) -> tuple[StatedRequirement, ...]:
        """All that a response is to follow: the requirements, then what the role asks for."""
        return (*self.requirements, *self.role_checks)

    def system_prompt(self) -> str:
        """The system message: its own, else the role, then its requirements one a line; or ""."""
        if self.system is not None:
            return self.system
        parts = []
        if self.role is not None and (introduction := self.role.introduction()):
            parts.append(introduction)
        wordings = [each.wording for each in self.requirements if each.wording]
        if wordings:
            parts.append("Follow these rules:\n" + numbered(wordings))
        return "\n\n".join(parts)

    def role_text(self) -> str:
        """The role as prompts for other models show it."""
        who = self.system
        if who is None and self.role is not None:
            who = self.role.introduction()
        scope = self.role.scope if self.role is not None else ""
        lines = [who, scope and f"It answers questions about {scope}."]
        return "\n".join(line for line in lines if line) or "none"

    def conversation_text(self) -> str:
        """The messages as prompts for other models show them."""
        return "\n\n".join(f"{each['role']}: {each['content']}" for each in self.messages)

    def prompt(self) -> list[dict[str, str]]:
        """The messages that a model answers: system and conversation."""
        system = self.system_prompt()
        start = [{"role": "system", "content": system}] if system else []
        return [*start, *map(dict, self.messages)]

    def chat(self) -> list[dict[str, str]]:
        """All messages, as chat templates take them: system, conversation, response."""
        if self.response is None:
            return self.prompt()
        return [*self.prompt(), {"role": "assistant", "content": self.response}]

    def as_record(self) -> dict[str, Any]:
        """What `read_examples` reads; every record has the same fields and types."""
        role = self.role
        return {
            "id": self.id,
            "messages": self.chat(),
            "role": {
                "name": role.name if role else "",
                "description": role.description if role else "",
                "scope": role.scope if role else "",
            },
            "requirements": [_stated_record(each) for each in self.requirements],
            "role_checks": [_stated_record(each) for each in self.role_checks],
            "in_scope": self.in_scope,
        }

    def answered(self, response: str) -> "Example":
        """The example with another response."""
        return replace(self, response=response)


def numbered(wordings: Iterable[str]) -> str:
    """Rules one a line, with their numbers."""
    return "\n".join(hanging(f"{n}. ", wording) for n, wording in enumerate(wordings, start=1))


def hanging(mark: str, text: str) -> str:
    """One entry of a list. Further lines of a text, which may be a user's that is to be repeated,
    stand indented below the first: they cannot pass for entries of their own."""
    return mark + (" " * len(mark)).join(text.splitlines(keepends=True))


def read_examples(path: str | Path) -> list[Example]:
    """The examples of a JSON Lines file or a JSON array.

    Raises ValueError that names the record for a field that is missing or of another type, an
    unknown kind of requirement, parameters out of range, and an id that comes twice.
    """
    found: dict[str, Example] = {}
    for where, record in read_records(path, "examples", EXPECTED):
        example = example_of(record, where)
        if example.id in found:
            raise ValueError(f"{where}: the id {example.id!r} comes twice; ids tell examples apart")
        found[example.id] = example
    return list(found.values())


def example_of(record: object, where: str) -> Example:
    """One record as an example; `where` tells of it in errors and is its id if it has none."""
    if not isinstance(record, Mapping):
        raise ValueError(f"{where}: expected a JSON object, got {type(record).__name__}")
    if is_ifeval(record):
        record = record_of_ifeval(record, where)
    for field in ("messages", "requirements"):
        if not _is_list(record.get(field)):
            raise ValueError(f"{where}: {field!r} is missing or no list; expected {EXPECTED}")
    system, messages, response = conversation(record["messages"], where)
    in_scope = record.get("in_scope", True)
    if not isinstance(in_scope, bool):
        raise ValueError(f"{where}: 'in_scope' must be true or false, got {in_scope!r:.60}")
    name = record_id(record, where)
    example = Example(
        where if name is None else name,
        _role(record.get("role"), where),
        _stated(record["requirements"], f"{where}, requirement"),
        messages,
        response,
        in_scope,
        _stated(record.get("role_checks"), f"{where}, role check"),
    )
    if not system or system == example.system_prompt():
        return example
    return replace(example, system=system)


def _stated_record(stated: StatedRequirement) -> dict[str, str]:
    return {**stated.requirement.as_record(), "wording": stated.wording}


def _stated(value: object, where: str) -> tuple[StatedRequirement, ...]:
    """Requirements with their wordings; one without a wording gets a usual one."""
    if value is None:
        return ()
    if not _is_list(value):
        raise ValueError(f"{where}s must be a list, got {type(value).__name__}")
    stated = []
    for number, each in enumerate(value, start=1):
        try:
            requirement = Requirement.from_record(each)
        except ValueError as error:
            raise ValueError(f"{where} {number}: {error}") from None
        wording = each.get("wording")
        wording = requirement.wording() if wording is None else wording
        stated.append(
            StatedRequirement(requirement, checked_text(wording, f"{where} {number}: wording"))
        )
    return tuple(stated)


def _is_list(value: object) -> TypeGuard[Sequence[Any]]:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _role(value: object, where: str) -> Role | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise ValueError(f"{where}: 'role' must be an object with 'name' and 'description'")
    texts = [
        checked_text(value.get(field, ""), f"{where}: role's {field}")
        for field in ("name", "description", "scope")
    ]
    return Role(*texts) if any(texts) else None


class Conversation(NamedTuple):
    """Messages in their parts."""

    system: str | None
    """The system message; None for none, or a blank one."""
    messages: Turns
    """What comes before the response; the last is the user's."""
    response: str | None


def conversation(value: Sequence[Any], where: str) -> Conversation:
    """The parts of a list of messages.

    ValueError that says `where` for what are no messages in turn, or an empty instruction.
    """
    system = None
    messages = []
    for number, message in enumerate(value, start=1):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise ValueError(f"{where}, message {number}: must be an object with role and content")
        content = checked_text(message.get("content"), f"{where}, message {number}: content")
        messages.append({"role": message["role"], "content": content})
    if messages and messages[0]["role"] == "system":
        system = messages.pop(0)["content"]
    roles = [message["role"] for message in messages]
    in_turn = ["user", "assistant"] * ((len(roles) + 1) // 2)
    if not roles or roles != in_turn[: len(roles)]:
        raise ValueError(
            f"{where}: messages must be an optional system message, then user and assistant in "
            f"turn, got {roles}"
        )
    response = messages.pop()["content"] if roles[-1] == "assistant" else None
    if not messages[-1]["content"].strip():
        raise ValueError(f"{where}: the instruction is empty")
    return Conversation(system if system and system.strip() else None, tuple(messages), response)
