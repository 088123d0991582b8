"""Instructions are read in every format, and every mistake in them is named."""

import json
from pathlib import Path
from typing import Any

import pytest
from real_inputs import real_input

from rnr_kernels.roles.pipeline.finish import same_instructions
from rnr_kernels.roles.pipeline.sources import Source, read_sources

ASKED = {"role": "user", "content": "Who rings the bell?"}
ANSWERED = {"role": "assistant", "content": "The clerk."}
AGAIN = {"role": "user", "content": "When?"}


def read(path: Path, *records: Any) -> list[Source]:
    path.write_text("\n".join(map(json.dumps, records)))
    return read_sources(path)


@pytest.mark.parametrize(
    ("record", "messages", "response"),
    [
        ({"instruction": "Who rings the bell?"}, [ASKED], None),
        ({"instruction": "Who rings the bell?", "output": "The clerk."}, [ASKED], "The clerk."),
        ({"instruction": "Who rings the bell?", "input": "", "output": ""}, [ASKED], None),
        ({"instruction": "Sort.", "input": "2, 1"},
         [{"role": "user", "content": "Sort.\n\n2, 1"}], None),
        ({"prompt": "Who rings the bell?", "response": "The clerk."}, [ASKED], "The clerk."),
        ({"data": "Who rings the bell?", "class": "x"}, [ASKED], None),
        ({"data": ["Who rings the bell?", "The clerk."]}, [ASKED], "The clerk."),
        ({"data": ["Who rings the bell?", "The clerk.", "When?"]}, [ASKED, ANSWERED, AGAIN], None),
        ({"messages": [ASKED, ANSWERED, AGAIN]}, [ASKED, ANSWERED, AGAIN], None),
        ({"messages": [{"role": "system", "content": "Be kind."}, ASKED, ANSWERED]},
         [ASKED], "The clerk."),
        ("Who rings the bell?", [ASKED], None),
    ],
)  # fmt: skip
def test_every_format_is_read(
    tmp_path: Path, record: Any, messages: list[dict[str, str]], response: str | None
) -> None:
    (source,) = read(tmp_path / "x.jsonl", record)
    assert list(source.messages) == messages and source.response == response
    assert source.index == 0 and source.where == "line 1"
    assert source.instruction == messages[-1]["content"]


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({}, "line 2: no instruction; expected a JSON array"),
        ({"instruction": " "}, "line 2: the instruction is empty"),
        ({"instruction": 3}, "line 2: 'instruction' must be text, got int"),
        ({"instruction": "a", "input": ["b"]}, "line 2: 'input' must be text, got list"),
        ({"prompt": "a\ud800"}, "line 2: 'prompt' is not valid Unicode"),
        ({"data": []}, "line 2: 'data' must be a text, or a list of texts in turn"),
        ({"data": [1]}, "line 2, message 1: content must be text, got int"),
        ({"messages": "hello"}, "line 2: 'messages' must be a list, got str"),
        ({"messages": []}, "line 2: messages must be an optional system message"),
        ({"messages": [ANSWERED]}, "line 2: messages must be an optional system message"),
        ({"messages": [ASKED, AGAIN]}, "got ['user', 'user']"),
        ({"messages": [{"role": "user", "content": ""}]}, "line 2: the instruction is empty"),
        (7, "line 2: expected a JSON array"),
    ],
)
def test_a_wrong_record_is_named(tmp_path: Path, record: Any, words: str) -> None:
    with pytest.raises(ValueError) as raised:
        read(tmp_path / "x.jsonl", "fine", record)
    assert words in str(raised.value) and "x.jsonl" in str(raised.value)


def test_near_duplicates_are_those_of_an_earlier_instruction(tmp_path: Path) -> None:
    long = "Describe in ten sentences how a ferry crosses a wide river in the early morning fog"
    sources = read(
        tmp_path / "x.jsonl", f"{long}.", "Who rings?", f"{long.upper()}!", "Who sings?",
        "Who rings?", f"{long} and rain.",
    )  # fmt: skip
    assert same_instructions(sources, 0.8) == {2: 0, 4: 1, 5: 0}
    assert same_instructions(sources, 1.0) == {2: 0, 4: 1}


@pytest.mark.parametrize(
    ("name", "count", "answered"),
    [("alpaca_en_demo.json", 999, 999), ("ultra_eval.json", 385, 0), ("gsm8k_test.jsonl", 0, 0),
     ("alpaca_eval_text_davinci_003.json", 805, 803), ("ifeval_prompts.jsonl", 541, 0)],
)  # fmt: skip
def test_real_files_are_read(name: str, count: int, answered: int) -> None:
    file = real_input(name)
    if not count:
        with pytest.raises(ValueError, match="line 1: no instruction"):
            read_sources(file)
        return
    sources = read_sources(file)
    assert len(sources) == count
    assert sum(source.response is not None for source in sources) == answered
