"""What each token of a tokenizer prints, and which token prints a given string.

Tokenizers spell their pieces differently: SentencePiece writes a space as "▁" and a lone byte as
"<0x0A>", byte-level BPE writes every byte as a printable character ("Ġ" for a space), word-level
vocabularies write plain text. `Vocabulary` hides this: its strings are surface forms.
"""

import difflib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, Protocol

from rnr_kernels.rules.kinds import Token, as_token_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_MAX_NEAREST = 5


class Vocabulary:
    """The surface forms of one tokenizer, looked up one by one: nothing is built ahead of need."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        for name in ("convert_tokens_to_ids", "convert_ids_to_tokens", "encode", "__len__"):
            if not callable(getattr(tokenizer, name, None)) or isinstance(tokenizer, type):
                raise TypeError(
                    f"expected a transformers tokenizer, got {type(tokenizer).__name__} "
                    f"{tokenizer!r:.60}; load one with AutoTokenizer.from_pretrained"
                )
        self._tokenizer = tokenizer
        self._alphabet = _alphabet_of(tokenizer)
        self._byte_piece = _byte_piece_of(tokenizer)
        self.size = len(tokenizer)

    @classmethod
    def of(cls, tokenizer: "PreTrainedTokenizerBase | Vocabulary") -> "Vocabulary":
        """The vocabulary of any transformers tokenizer; a Vocabulary is returned as it is."""
        return tokenizer if isinstance(tokenizer, Vocabulary) else cls(tokenizer)

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """The tokenizer's end-of-sequence ids; empty if it has none."""
        eos = self._tokenizer.eos_token_id
        return () if eos is None else as_token_ids(eos)

    def printed(self, token_id: int) -> bytes:
        """The exact bytes a token prints; special and added tokens print their literal text.

        Empty for an id that has no token, as in a padded embedding.
        """
        return self._printed([token_id])[0]

    def printed_by(self, token_ids: Sequence[int]) -> list[bytes]:
        """What each of many tokens prints, in one pass over them."""
        return self._printed(token_ids)

    @property
    def special_token_ids(self) -> frozenset[int]:
        """Ids that stand for no text: BOS, EOS, padding and the like."""
        added: object = self._tokenizer.added_tokens_decoder
        marked = (
            [token_id for token_id, token in added.items() if token.special]
            if isinstance(added, Mapping)
            else []
        )
        return frozenset([*self._tokenizer.all_special_ids, *marked])

    @cached_property
    def literal_token_ids(self) -> frozenset[int]:
        """Ids of special and added tokens: their pieces are literal text, in no alphabet."""
        # In tokenizers of mistral_common this is a method that raises.
        added: object = self._tokenizer.added_tokens_decoder
        ids = added if isinstance(added, Mapping) else self._tokenizer.all_special_ids
        return frozenset(ids)

    def text(self, token_id: int) -> str:
        """What a token prints, for display; bytes that are not UTF-8 show as "<0xE2>"."""
        return _readable(self.printed(token_id))

    def find(self, form: str) -> int | None:
        """The id of the one token that prints `form`, or None.

        Ordinary pieces win over byte pieces, and both over added tokens.
        """
        wanted = form.encode()
        # Checking what is found against the bytes covers unknown-token ids and look-alike names.
        for piece in dict.fromkeys((*self._alphabet.spellings(form), form)):
            token_id = self._id_of(piece)
            if token_id is not None and self.printed(token_id) == wanted:
                return token_id
        return None

    def resolve(self, token: Token, *, vocab_size: int) -> int:
        """The id of a token of a rule, below `vocab_size`.

        An int may be any id of the model, one without a token included. Raises ValueError for an id
        out of range, or for a string that no single token prints; the message names near tokens.
        """
        if isinstance(token, int):
            if not 0 <= token < vocab_size:
                raise ValueError(
                    f"token id {token} is outside the vocabulary: ids are 0 to {vocab_size - 1}"
                )
            return token
        token_id = self.find(token)
        if token_id is None:
            raise ValueError(self._no_token(token))
        if token_id >= vocab_size:
            raise ValueError(
                f"{token!r} is token {token_id} of the tokenizer, but the model's ids are 0 to "
                f"{vocab_size - 1}; check that the tokenizer belongs to the model"
            )
        return token_id

    def used_from(self, prompt_token_ids: Sequence[int], after: str) -> int:
        """The index of the first prompt token after the last occurrence of `after`.

        That is the first token that starts at or after its end, len(prompt_token_ids) if none does;
        how the text is cut into tokens does not matter. Raises ValueError if it does not occur.
        """
        pieces = self._printed([int(token_id) for token_id in prompt_token_ids])
        wanted = after.encode()
        end = b"".join(pieces).rfind(wanted) + len(wanted)
        if end < len(wanted):
            raise ValueError(
                f"the prompt does not contain {after!r}, after which used tokens are counted; "
                f"pass used_from= or use a prompt template that contains it"
            )
        start = 0
        for index, piece in enumerate(pieces):
            if start >= end:
                return index
            start += len(piece)
        return len(pieces)

    @cached_property
    def _end(self) -> int:
        """One past the last id that may have a token; added tokens may leave gaps."""
        return max(self.size, max(self.literal_token_ids, default=-1) + 1)

    @cached_property
    def _ids_by_text(self) -> dict[str, int]:
        """Every token by its text: a walk over the vocabulary, so only for error messages."""
        by_text: dict[str, int] = {}
        for token_id, printed in enumerate(self._printed(range(self._end))):
            by_text.setdefault(_readable(printed), token_id)
        return by_text

    def _id_of_text(self, text: str) -> int:
        token_id = self.find(text)
        return self._ids_by_text[text] if token_id is None else token_id

    def _id_of(self, piece: str) -> int | None:
        token_id: object = self._tokenizer.convert_tokens_to_ids(piece)
        return token_id if isinstance(token_id, int) else None

    def _printed(self, token_ids: Sequence[int]) -> list[bytes]:
        known = [token_id for token_id in token_ids if 0 <= token_id < self._end]
        pieces: list[str | None] = list(self._tokenizer.convert_ids_to_tokens(known))
        printed = {
            token_id: self._bytes_of(token_id, piece)
            for token_id, piece in zip(known, pieces, strict=True)
        }
        return [printed.get(token_id, b"") for token_id in token_ids]

    def _bytes_of(self, token_id: int, piece: str | None) -> bytes:
        if piece is None:
            return b""
        if token_id in self.literal_token_ids:
            return piece.encode()
        if self._byte_piece is not None:
            return self._byte_piece(token_id)
        return self._alphabet.printed(piece)

    def _no_token(self, form: str) -> str:
        message = f"no single token prints {_short(form)}"
        cut = self._cut(form)
        if len(cut) > 1:
            shown = ", ".join(map(_short, cut[:8])) + (", ..." if len(cut) > 8 else "")
            message += f" (the tokenizer cuts it into {shown})"
        near = [f"{text!r} ({self._id_of_text(text)})" for text in self._nearest(form, cut)]
        if not near:
            return f"{message}; give the id of a token, or a string that one token prints"
        return f"{message}; nearest: {', '.join(near)}; give an id or one of these"

    def _cut(self, form: str) -> list[str]:
        """How the tokenizer cuts `form` inside a text."""
        wanted = form.encode()
        ids: list[int] = []
        # Some tokenizers put a space before a text; after a newline they do not.
        for context in ("\n", ""):
            ids = list(self._tokenizer.encode(context + form, add_special_tokens=False))
            pieces = self._printed(ids)
            length = 0
            for index in reversed(range(len(pieces))):
                length += len(pieces[index])
                if length >= len(wanted):
                    if b"".join(pieces[index:]) == wanted:
                        return [_readable(piece) for piece in pieces[index:]]
                    break
        return [_readable(piece) for piece in self._printed(ids)]

    def _nearest(self, form: str, cut: Sequence[str]) -> list[str]:
        by_text = self._ids_by_text
        # A piece name copied from a tokenizer ("▁I", "ĠI", "<0x0A>") stands for what it prints.
        near = [_readable(alphabet.printed(form)) for alphabet in (_SENTENCEPIECE, _BYTE_LEVEL)]
        sibling = form[1:] if form.startswith(" ") else f" {form}"
        near.append(sibling)
        for base in (form, sibling):
            word = base.lstrip(" ")
            space = base[: len(base) - len(word)]
            near += [space + word.lower(), space + word.capitalize(), space + word.upper()]
        pieces = [piece for piece in cut if piece in form]
        near += [piece for piece in pieces if len(piece.strip()) > 1]
        initial = form.strip()[:1].casefold()
        alike = [
            text
            for text in by_text
            if text.strip()[:1].casefold() == initial and abs(len(text) - len(form)) <= 3
        ]
        near += difflib.get_close_matches(form, alike, n=_MAX_NEAREST, cutoff=0.6)
        near += pieces
        known = [text for text in dict.fromkeys(near) if text and text in by_text]
        return known[:_MAX_NEAREST]


class _Alphabet(Protocol):
    def spellings(self, form: str) -> Sequence[str]:
        """The pieces that may print `form`, the likeliest first."""
        ...

    def printed(self, piece: str) -> bytes:
        """The bytes that a piece prints."""
        ...


class _TextAlphabet:
    """Pieces are text, with a stand-in for the space and, in some vocabularies, byte pieces."""

    def __init__(self, space: str = " ", *, byte_pieces: bool = False) -> None:
        self._space = space
        self._byte_pieces = byte_pieces

    def spellings(self, form: str) -> Sequence[str]:
        spellings = [form.replace(" ", self._space)]
        if self._byte_pieces and len(form.encode()) == 1:
            spellings.append(f"<0x{ord(form):02X}>")
        return spellings

    def printed(self, piece: str) -> bytes:
        byte = _BYTE_PIECE.fullmatch(piece) if self._byte_pieces else None
        if byte is not None:
            return bytes([int(byte[1], 16)])
        return piece.replace(self._space, " ").encode()


class _ByteLevelAlphabet:
    """Pieces are bytes, each written as one printable character (GPT-2's byte-level BPE)."""

    def spellings(self, form: str) -> Sequence[str]:
        characters = _byte_characters()
        return ["".join(characters[byte] for byte in form.encode())]

    def printed(self, piece: str) -> bytes:
        bytes_of = _bytes_of_characters()
        return b"".join(bytes_of.get(character) or character.encode() for character in piece)


_SENTENCEPIECE = _TextAlphabet("▁", byte_pieces=True)
_BYTE_LEVEL = _ByteLevelAlphabet()


@cache
def _byte_characters() -> tuple[str, ...]:
    """The character of each byte: itself if it is visible Latin-1, else the next from U+0100 on."""
    visible = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = [byte for byte in range(256) if byte not in visible]
    return tuple(chr(b if b in visible else 256 + hidden.index(b)) for b in range(256))


@cache
def _bytes_of_characters() -> dict[str, bytes]:
    return {character: bytes([byte]) for byte, character in enumerate(_byte_characters())}


def _alphabet_of(tokenizer: Any) -> _Alphabet:
    """The alphabet that the tokenizer's own decoder undoes; found by probing if it has none."""
    if _byte_piece_of(tokenizer) is not None:
        return _TextAlphabet()
    backend = getattr(tokenizer, "backend_tokenizer", None)
    for part in ("decoder", "pre_tokenizer"):
        components = _components(getattr(backend, part, None))
        byte_pieces = any(component["type"] == "ByteFallback" for component in components)
        for component in components:
            if component["type"] == "ByteLevel":
                return _BYTE_LEVEL
            if component["type"] == "Metaspace":
                return _TextAlphabet(component["replacement"], byte_pieces=True)
            if component["type"] == "Replace" and component["content"] == " ":
                return _TextAlphabet(component["pattern"]["String"], byte_pieces=byte_pieces)

    def has(piece: str) -> bool:
        token_id = tokenizer.convert_tokens_to_ids(piece)
        return token_id is not None and tokenizer.convert_ids_to_tokens(token_id) == piece

    if has("Ġ") and has("Ċ"):
        return _BYTE_LEVEL
    if has("▁") or has("<0x0A>"):
        return _SENTENCEPIECE
    return _TextAlphabet()


def _components(part: Any) -> list[dict[str, Any]]:
    """The steps of a decoder or pre-tokenizer of the tokenizers library, sequences unrolled."""
    if part is None:
        return []
    try:
        pending = [json.loads(part.__getstate__())]
    except (
        Exception
    ):  # One written in Python has no JSON form; the library raises a bare Exception.
        return []
    components = []
    while pending:
        component = pending.pop(0)
        components.append(component)
        pending += component.get("decoders") or component.get("pretokenizers") or []
    return components


def _byte_piece_of(tokenizer: Any) -> Callable[[int], bytes] | None:
    """The exact bytes of a token where a mistral_common vocabulary keeps bytes, not pieces."""
    instruct = getattr(getattr(tokenizer, "tokenizer", None), "instruct_tokenizer", None)
    byte_piece: Callable[[int], bytes] | None = getattr(
        getattr(instruct, "tokenizer", None), "id_to_byte_piece", None
    )
    return byte_piece


def _readable(printed: bytes) -> str:
    text = printed.decode("utf-8", errors="surrogateescape")
    return re.sub("[\udc80-\udcff]", lambda found: f"<0x{ord(found[0]) - 0xDC00:02X}>", text)


def _short(text: str) -> str:
    return repr(text) if len(text) <= 60 else f"{text[:57]!r}..."
