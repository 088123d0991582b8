"""Prompt templates: how an instruction becomes the tokens a model continues."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TAGS = "<|user|>\n{instruction}\n<|assistant|>\n"
"""The format of Hewitt et al. 2024, section 3: plain-text tags, no system turn."""

FIELD = "{instruction}"


class PromptTemplate(Protocol):
    """Turns an instruction into prompt token ids, with BOS exactly once where the model has one."""

    @property
    def name(self) -> str:
        """What records and tables call it."""

    def text(self, tokenizer: "PreTrainedTokenizerBase", instruction: str) -> str:
        """The prompt as text, without the BOS that `encode` adds."""

    def encode(self, tokenizer: "PreTrainedTokenizerBase", instruction: str) -> list[int]:
        """The prompt's token ids."""


@dataclass(frozen=True)
class TextTemplate:
    """Plain text around `{instruction}`; BOS in front where the tokenizer adds one itself."""

    name: str
    pattern: str

    def __post_init__(self) -> None:
        if self.pattern.count(FIELD) != 1:
            raise ValueError(
                f"template {self.name!r} must contain {FIELD} exactly once, "
                f"it contains it {self.pattern.count(FIELD)} times"
            )

    def text(self, tokenizer: "PreTrainedTokenizerBase", instruction: str) -> str:
        return self.pattern.replace(FIELD, instruction)

    def encode(self, tokenizer: "PreTrainedTokenizerBase", instruction: str) -> list[int]:
        text = self.text(tokenizer, instruction)
        token_ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
        bos = tokenizer.bos_token_id
        if bos is not None and adds_bos(tokenizer) and token_ids[:1] != [bos]:
            return [bos, *token_ids]
        return token_ids


@dataclass(frozen=True)
class ChatTemplate:
    """The tokenizer's own chat template with one user message; it places all special tokens."""

    name: str = "chat"

    def text(self, tokenizer: "PreTrainedTokenizerBase", instruction: str) -> str:
        if not tokenizer.chat_template:
            raise ValueError(
                "the tokenizer has no chat template; use template 'tags' or 'plain', or a file"
            )
        messages = [{"role": "user", "content": instruction}]
        try:
            rendered = tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, tokenize=False
            )
        except Exception as error:  # a template is a program of its own
            raise ValueError(
                f"the tokenizer's chat template refuses a lone user message: {error}"
            ) from error
        return str(rendered)

    def encode(self, tokenizer: "PreTrainedTokenizerBase", instruction: str) -> list[int]:
        text = self.text(tokenizer, instruction)
        return list(tokenizer.encode(text, add_special_tokens=False))


TEMPLATES: dict[str, PromptTemplate] = {
    "tags": TextTemplate("tags", TAGS),
    "chat": ChatTemplate(),
    "plain": TextTemplate("plain", FIELD),
}


def prompt_template(name_or_file: str | Path) -> PromptTemplate:
    """A template by name (`tags`, `chat`, `plain`) or from a text file with `{instruction}`."""
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
    instruction: str,
    response: str,
) -> list[int]:
    """The response's token ids as they follow the prompt.

    Tokenizers may cut a text otherwise at its start: SentencePiece puts a space in front.
    """
    prompt = template.text(tokenizer, instruction)
    before: list[int] = tokenizer.encode(prompt, add_special_tokens=False)
    whole: list[int] = tokenizer.encode(prompt + response, add_special_tokens=False)
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
