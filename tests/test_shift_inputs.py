"""Prompt files of token shift: what is read, left out or refused, and which tokens it becomes."""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from shift_runs import write_records
from tiny_llama import EOS
from transformers import PreTrainedTokenizerBase

from rnr_kernels import RuleSet, UsedTokenPenalty
from rnr_kernels.analysis.inputs import Encoder, ShiftPrompt, Skip, Text, read_texts
from rnr_kernels.loading import EMBEDDED_PROMPTS
from rnr_kernels.templates import TEMPLATES


def read(tmp_path: Path, records: Iterable[Any], limit: int | None = None) -> list[Text | Skip]:
    return list(read_texts(write_records(tmp_path / "p.jsonl", records), limit))


@pytest.mark.parametrize(
    ("record", "instruction", "response", "reason", "token_ids"),
    [
        ({"instruction": "a"}, "a", None, None, None),
        ({"prompt": "a", "response": "b"}, "a", "b", "given", None),
        ({"instruction": "a", "output": "b", "generator": "x"}, "a", "b", "given", None),
        ({"instruction": "a", "response": None, "output": "b"}, "a", "b", "given", None),
        ({"instruction": "a", "output": "b", "finish_reason": "length", "token_ids": [4, 5]},
         "a", "b", "length", (4, 5)),
        ({"instruction": "a", "input": "", "output": "b"}, "a", "b", "given", None),
        ({"instruction": "a", "input": "c", "output": "b"}, "a\n\nc", "b", "given", None),
        ({"question": "a", "answer": "b"}, "a", "b", "given", None),
        # An answer to be found in a response is no response.
        ({"instruction": "a", "answer": "July"}, "a", None, None, None),
        ({"instruction": "a", "token_ids": "x", "output": "b"}, "a", "b", "given", None),
    ],
)  # fmt: skip
def test_fields(
    tmp_path: Path,
    record: dict[str, Any],
    instruction: str,
    response: str | None,
    reason: str | None,
    token_ids: tuple[int, ...] | None,
) -> None:
    (text,) = read(tmp_path, [record])
    where = f"{tmp_path / 'p.jsonl'}, line 1"
    assert text == Text(0, where, instruction, response, reason, token_ids)


def test_empty_texts_are_left_out_with_their_line(tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text('\n{"prompt": " "}\n{"prompt": "a"}\n{"prompt": "a", "output": "\\n"}\n')
    texts = list(read_texts(file))
    assert [text.index for text in texts] == [0, 1, 2]
    skips = [text for text in texts if isinstance(text, Skip)]
    assert [(skip.line, skip.reason) for skip in skips] == [
        (2, "the prompt is empty"),
        (4, "the response is empty"),
    ]


def test_the_limit_counts_records_and_an_array_is_read(tmp_path: Path) -> None:
    file = tmp_path / "p.json"
    file.write_text(json.dumps([{"prompt": ""}, {"prompt": "a"}, {"prompt": "b"}], indent=1))
    first, second = read_texts(file, 2)
    assert isinstance(first, Skip) and first.line == 1
    assert isinstance(second, Text) and second.instruction == "a"


def test_the_embedded_questions_are_to_be_answered() -> None:
    texts = list(read_texts(EMBEDDED_PROMPTS))
    assert isinstance(texts[0], Text) and texts[0].instruction == "What is the fair month of Elham?"
    assert all(isinstance(text, Text) and text.response is None for text in texts)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'{"prompt": "a"}\n{"prompt": \n', "line 2: not JSON"),
        (b'{"prompt": "a"}\n\n{"prompt": "\xff"}', "line 3: not UTF-8"),
        (b'{"prompt": "a"}\n3\n', "line 2: expected a JSON object, got int"),
        (b'{"prompt": "a"}\n{"output": "b"}\n', "line 2: expected a field 'instruction' or"),
        (b'{"prompt": 3}', "line 1: 'prompt' must be text, got int"),
        (b'{"prompt": "a", "output": ["b"]}', "line 1: 'output' must be text, got list"),
        (b'{"prompt": "a", "output": "\\ud83d"}', "line 1: 'output' is not valid Unicode"),
        (b"", "is empty"),
    ],
)
def test_a_broken_record_is_named(tmp_path: Path, text: bytes, message: str) -> None:
    (tmp_path / "p.jsonl").write_bytes(text)
    with pytest.raises(ValueError, match=message):
        list(read_texts(tmp_path / "p.jsonl"))


@pytest.fixture
def encoder(tiny_bpe: PreTrainedTokenizerBase) -> Encoder:
    return Encoder(tiny_bpe, TEMPLATES["plain"], None, None, (EOS,), 20, 328)


def text_of(response: str | None, reason: str | None = "given", ids: Any = None) -> Text:
    return Text(7, "file, line 8", "I think", response, reason, ids)


def test_a_response_is_closed_unless_it_was_cut(encoder: Encoder) -> None:
    sea = (273, 271, 283, 282, 16)  # We see the sea.
    text = "We see the sea."
    given = ShiftPrompt(7, "I think", text, "given", (43, 285), (43, 285), (*sea, EOS))
    assert encoder.encode(text_of(text)) == given
    ended = encoder.encode(text_of(text, "eos"))
    assert ended == replace(given, finish_reason="eos")
    cut = encoder.encode(text_of(text, "length"))
    assert cut == replace(given, finish_reason="length", response_token_ids=sea)
    undecided = encoder.encode(text_of(None, None))
    assert undecided == ShiftPrompt(7, "I think", None, None, (43, 285), (43, 285), None)


@pytest.mark.parametrize(
    ("emitted", "expected"),
    [
        ((85, 71, 67, EOS), (85, 71, 67, EOS)),  # s, e, a one by one: another cut of the text
        ((85, 71, 67), (85, 71, 67)),
        ((85, 71, 71, EOS), (85, 71, 67, EOS)),  # see
        ((85, 71, 67, 5000), (85, 71, 67, EOS)),
        ((-1,), (85, 71, 67, EOS)),
    ],
)
def test_emitted_tokens_are_taken_where_they_print_the_response(
    encoder: Encoder, emitted: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    encoded = encoder.encode(text_of("sea", "eos", emitted))
    assert isinstance(encoded, ShiftPrompt) and encoded.response_token_ids == expected


def test_emitted_tokens_keep_their_cut(encoder: Encoder) -> None:
    """think is one token for the tokenizer, and was not for whoever emitted it."""
    pieces = tuple(encoder.tokenizer.convert_tokens_to_ids(list("Ġthink")))
    encoded = encoder.encode(text_of(" think", "eos", (*pieces, EOS)))
    assert isinstance(encoded, ShiftPrompt) and encoded.response_token_ids == (*pieces, EOS)
    again = encoder.encode(text_of(" think", "eos"))
    assert isinstance(again, ShiftPrompt) and again.response_token_ids == (285, EOS)


def test_a_template_of_the_base_alone(encoder: Encoder) -> None:
    encoded = replace(encoder, base_template=TEMPLATES["tags"], window=None).encode(text_of("sea"))
    assert isinstance(encoded, ShiftPrompt)
    assert encoded.prompt_token_ids == (43, 285)
    shown = encoder.tokenizer.decode(encoded.base_prompt_token_ids)
    assert shown == "<|user|>\nI think\n<|assistant|>\n"


@pytest.mark.parametrize(
    ("window", "response", "reason"),
    [
        (6, "sea", None),
        (5, "sea", "prompt and response have 6 tokens, the window is 5"),
        (3, None, None),
        (2, None, "the prompt has 2 tokens, the window is 2: there is no room for a response"),
        (None, "sea" * 99, None),
    ],
)
def test_what_is_longer_than_the_window_is_left_out(
    encoder: Encoder, window: int | None, response: str | None, reason: str | None
) -> None:
    found = replace(encoder, window=window).encode(text_of(response))
    if reason is None:
        assert isinstance(found, ShiftPrompt)
    else:
        assert found == Skip(7, "file, line 8", reason)


def test_the_longer_of_both_prompts_must_fit(encoder: Encoder) -> None:
    tags = replace(encoder, base_template=TEMPLATES["tags"])
    found = tags.encode(text_of("sea"))
    assert isinstance(found, Skip) and "prompt and response have 30 tokens" in found.reason


def test_what_no_run_can_be_made_of_names_its_line(encoder: Encoder) -> None:
    with pytest.raises(ValueError, match=r"file, line 8: it has token 285, the models know 200"):
        replace(encoder, num_tokens=200).encode(text_of("sea"))
    rules = RuleSet([UsedTokenPenalty(1.0, scope="prompt+response", after="<|user|>")])
    with pytest.raises(ValueError, match=r"file, line 8: .*<\|user\|>"):
        replace(encoder, rules=rules).encode(text_of("sea"))
