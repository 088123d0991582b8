"""Prompt templates: how an instruction, or a whole chat, becomes the tokens a model continues."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Messages: TypeAlias = Sequence[Mapping[str, str]]
"""Objects with `role` and `content`: perhaps a system message, then user and assistant in turn."""

Prompt: TypeAlias = str | Messages
"""An instruction, or the messages of a chat of which the last is the user's."""

TAGS = "<|user|>\n{instruction}\n<|assistant|>\n"
"""The format of Hewitt et al. 2024, section 3: plain-text tags. It knows no system turn."""

SYSTEM_TAGS = "<|system|>\n{system}\n"
"""Ours for a system turn, in the manner of their tags (as Tulu's format has it)."""

FIELD = "{instruction}"
SYSTEM_FIELD = "{system}"

BETWEEN_TURNS = "\n"
"""After the EOS of a response that is not the last."""


class PromptTemplate(Protocol):
    """Turns a prompt into token ids, with BOS exactly once where the model has one."""

    @property
    def name(self) -> str:
        """What records and tables call it."""

    def text(self, tokenizer: "PreTrainedTokenizerBase", prompt: Prompt) -> str:
        """The prompt as text, without the BOS that `encode` adds."""

    def encode(self, tokenizer: "PreTrainedTokenizerBase", prompt: Prompt) -> list[int]:
        """The prompt's token ids."""


@dataclass(frozen=True)
class Chat:
    """A prompt in its parts."""

    system: str
    """"" where there is no system message."""
    earlier: tuple[tuple[str, str], ...]
    """What the user has asked before, and the assistant answered."""
    instruction: str

    @classmethod
    def of(cls, prompt: Prompt, where: str = "the prompt") -> "Chat":
        """TypeError or ValueError that says `where` for what is no prompt."""
        if isinstance(prompt, str):
            check_text(prompt, where)
            return cls("", (), prompt)
        messages = list(prompt) if isinstance(prompt, Sequence) else [None]
        if not all(isinstance(message, Mapping) for message in messages):
            raise TypeError(
                f"{where} must be a str or a list of messages, got {type(prompt).__name__}"
            )
        roles = [message.get("role") for message in prompt]
        contents = [message.get("content") for message in prompt]
        texts: list[str] = []
        for number, content in enumerate(contents, start=1):
            check_text(content, f"{where}, message {number}: content")
            texts.append(str(content))
        has_system = roles[:1] == ["system"]
        system, *texts = texts if has_system else ["", *texts]
        if roles[has_system:] != ["user", "assistant"] * (len(texts) // 2) + ["user"]:
            raise ValueError(
                f"{where}: messages must be an optional system message, then user and assistant "
                f"in turn, the last the user's, got {roles}"
            )
        earlier = tuple(zip(texts[:-1:2], texts[1::2], strict=True))
        return cls(system, earlier, texts[-1])

    def messages(self) -> list[dict[str, str]]:
        """The prompt as chat templates take it."""
        found = [{"role": "system", "content": self.system}] if self.system else []
        for asked, answered in self.earlier:
            found.append({"role": "user", "content": asked})
            found.append({"role": "assistant", "content": answered})
        return [*found, {"role": "user", "content": self.instruction}]


@dataclass(frozen=True)
class TextTemplate:
    """Plain text around `{instruction}`; BOS in front where the tokenizer adds one itself.

    `system` is the text around `{system}` that stands before the first turn of a chat with a system
    message. It is empty where `pattern` itself has a `{system}`, or no place for one.
    """

    name: str
    pattern: str
    system: str = ""

    def __post_init__(self) -> None:
        if self.pattern.count(FIELD) != 1:
            raise ValueError(
                f"template {self.name!r} must contain {FIELD} exactly once, "
                f"it contains it {self.pattern.count(FIELD)} times"
            )

    def text(self, tokenizer: "PreTrainedTokenizerBase", prompt: Prompt) -> str:
        chat = Chat.of(prompt)
        asked = [*(asked for asked, _ in chat.earlier), chat.instruction]
        answered = [answer + str(tokenizer.eos_token or "") for _, answer in chat.earlier]
        turns = [self._turn(text, chat.system if not n else "") for n, text in enumerate(asked)]
        return BETWEEN_TURNS.join(map("".join, zip(turns, [*answered, ""], strict=True)))

    def encode(self, tokenizer: "PreTrainedTokenizerBase", prompt: Prompt) -> list[int]:
        chat = Chat.of(prompt)
        token_ids: list[int] = []
        before = ""
        for asked, answered in [*chat.earlier, (chat.instruction, None)]:
            text = before + self._turn(asked, "" if before else chat.system)
            token_ids += tokenizer.encode(text, add_special_tokens=False)
            before = BETWEEN_TURNS
            if answered is not None:
                token_ids += encode_response(self, tokenizer, asked, answered)
                if tokenizer.eos_token_id is not None:
                    token_ids.append(int(tokenizer.eos_token_id))
        bos = tokenizer.bos_token_id
        if bos is not None and adds_bos(tokenizer) and token_ids[:1] != [bos]:
            return [bos, *token_ids]
        return token_ids

    def _turn(self, instruction: str, system: str) -> str:
        has_place = self.system or SYSTEM_FIELD in self.pattern
        if system and not has_place:
            raise ValueError(
                f"template {self.name!r} has no place for a system message: it lacks {SYSTEM_FIELD}"
            )
        pattern = (self.system if system else "") + self.pattern
        texts = {FIELD: instruction, SYSTEM_FIELD: system}
        fields = [FIELD, SYSTEM_FIELD] if has_place else [FIELD]
        # In one pass: an instruction may itself contain the other field's name.
        return re.sub("|".join(map(re.escape, fields)), lambda found: texts[found[0]], pattern)


@dataclass(frozen=True)
class ChatTemplate:
    """The tokenizer's own chat template; it places all special tokens."""

    name: str = "chat"

    def text(self, tokenizer: "PreTrainedTokenizerBase", prompt: Prompt) -> str:
        if not tokenizer.chat_template:
            raise ValueError(
                "the tokenizer has no chat template; use template 'tags' or 'plain', or a file"
            )
        messages = Chat.of(prompt).messages()
        try:
            rendered = tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, tokenize=False
            )
        except Exception as error:  # a template is a program of its own
            roles = ", ".join(message["role"] for message in messages)
            given = "a lone user message" if len(messages) == 1 else f"messages of {roles}"
            raise ValueError(f"the tokenizer's chat template refuses {given}: {error}") from error
        return str(rendered)

    def encode(self, tokenizer: "PreTrainedTokenizerBase", prompt: Prompt) -> list[int]:
        text = self.text(tokenizer, prompt)
        return list(tokenizer.encode(text, add_special_tokens=False))


TEMPLATES: dict[str, PromptTemplate] = {
    "tags": TextTemplate("tags", TAGS, SYSTEM_TAGS),
    "chat": ChatTemplate(),
    "plain": TextTemplate("plain", FIELD, f"{SYSTEM_FIELD}\n\n"),
}


def prompt_template(name_or_file: str | Path) -> PromptTemplate:
    """A template by name (`tags`, `chat`, `plain`) or from a text file.

    The file contains `{instruction}`, and `{system}` where a system message is to stand.
    """
    name = str(name_or_file)
    if name in TEMPLATES:
        return TEMPLATES[name]
    path = Path(name)
    if not path.is_file():
        raise ValueError(
            f"template must be {', '.join(TEMPLATES)} or a text file that contains {FIELD}, "
            f"got {name!r}"
        )
    try:
        return TextTemplate(path.name, path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"template file {path} is not UTF-8 text: {error.reason}") from None


def encode_response(
    template: PromptTemplate,
    tokenizer: "PreTrainedTokenizerBase",
    prompt: Prompt,
    response: str,
) -> list[int]:
    """The response's token ids as they follow the prompt.

    Tokenizers may cut a text otherwise at its start: SentencePiece puts a space in front.
    """
    text = template.text(tokenizer, prompt)
    before: list[int] = tokenizer.encode(text, add_special_tokens=False)
    whole: list[int] = tokenizer.encode(text + response, add_special_tokens=False)
    if whole[: len(before)] == before:
        return whole[len(before) :]
    return list(tokenizer.encode(response, add_special_tokens=False))


def check_text(text: object, where: str) -> None:
    """TypeError or ValueError unless `text` is a str that UTF-8 can hold."""
    if not isinstance(text, str):
        raise TypeError(f"{where} must be a str, got {type(text).__name__}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{where} is not valid Unicode: half of a surrogate pair at character {error.start}"
        ) from None


def adds_bos(tokenizer: "PreTrainedTokenizerBase") -> bool:
    """Whether the tokenizer puts its BOS in front of a text by itself."""
    return bool(tokenizer.encode("a")[:1] == [tokenizer.bos_token_id])
