"""Responses of a file, matched to examples; and of a model."""

import json
from pathlib import Path

import pytest
from role_examples import CLERK, NO_COMMA, example

from rnr_kernels.generation import generate
from rnr_kernels.loading import load_model, load_tokenizer
from rnr_kernels.roles.requirement import Requirement
from rnr_kernels.roles.responses import answer, read_responses
from rnr_kernels.sampling import Sampling

EXAMPLES = [example("1", NO_COMMA), example("2", NO_COMMA), example("3")]
ASKED = [each.instruction for each in EXAMPLES]


def write(path: Path, *records: object) -> Path:
    path.write_text("\n".join(map(json.dumps, records)))
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "responses.jsonl"


@pytest.mark.parametrize("field", ["response", "output"])
def test_responses_are_matched_by_id_in_any_order(file: Path, field: str) -> None:
    records = [{"id": each, field: f"r{each}"} for each in (3, "1", "2")]
    assert read_responses(write(file, *records), EXAMPLES) == ["r1", "r2", "r3"]


def test_a_limit_asks_for_the_first_examples_only(file: Path) -> None:
    records = [{"id": "2", "response": "r2"}, {"id": "1", "response": "r1"}]
    assert read_responses(write(file, *records), EXAMPLES, 1) == ["r1"]
    assert read_responses(file, EXAMPLES, 2) == ["r1", "r2"]
    with pytest.raises(ValueError, match="1 of 3 examples have no response"):
        read_responses(file, EXAMPLES, 3)
    asked = [{"prompt": text, "response": text[9]} for text in ASKED]
    for given in (asked, asked[:2], asked[1::-1]):
        assert read_responses(write(file, *given), EXAMPLES, 2) == ["1", "2"]


def test_ifevals_responses_are_matched_by_their_prompt(file: Path) -> None:
    records = [{"prompt": text, "response": text[9]} for text in ASKED[::-1]]
    assert read_responses(write(file, *records), EXAMPLES) == ["1", "2", "3"]


def test_what_generate_writes_is_matched_by_its_instruction(file: Path) -> None:
    records = [{"instruction": text, "output": text[9], "generator": "m"} for text in ASKED]
    assert read_responses(write(file, *records), EXAMPLES) == ["1", "2", "3"]


def test_repeated_questions_are_matched_by_order_alone(file: Path) -> None:
    asked = [example("1"), example("2")]
    twins = [asked[0], example("x").__class__("x", None, (), asked[0].messages), asked[1]]
    texts = [each.instruction for each in twins]
    records = [{"prompt": text, "response": str(n)} for n, text in enumerate(texts)]
    assert read_responses(write(file, *records), twins) == ["0", "1", "2"]
    with pytest.raises(ValueError, match=r"several examples ask 'Question 1\?'.* the 'id'"):
        read_responses(write(file, *records[::-1]), twins)


def test_an_id_of_null_is_none(file: Path) -> None:
    records = [{"id": None, "prompt": text, "response": text[9]} for text in ASKED]
    assert read_responses(write(file, *records), EXAMPLES) == ["1", "2", "3"]


RECORDS = [{"id": n, "response": "r"} for n in "123"]
ASKING = [{"prompt": text, "response": "r"} for text in ASKED]


@pytest.mark.parametrize(
    ("records", "message"),
    [
        (RECORDS[:1], "2 of 3 examples have no response; the first has the id '2'"),
        ([*RECORDS, RECORDS[0]], "line 4: a second response with the id '1'"),
        ([*RECORDS, {"id": 7, "response": ""}], "line 4: no example has the id '7'"),
        (ASKING[1:], "1 of 3 examples have no response; the first has the instruction 'Quest"),
        ([*ASKING, ASKING[0]], "line 4: a second response with the instruction 'Question 1"),
        ([*ASKING[:2], {"prompt": "q" * 99, "response": ""}], r"no example has .* 'q{60} \.\.\.'"),
        ([*RECORDS[:2], {"response": "r"}], "line 3: no 'id', which 2 of 3 records have; give"),
        ([{**ASKING[0], "id": None}, *RECORDS[1:]], "line 1: no 'id', which 2 of 3 records have"),
        ([{"response": "r"}], "line 1: the field 'instruction' or 'prompt' is missing"),
        ([{"id": ["1"], "response": "r"}], r"line 1: 'id' must be text or .* got \['1'\]"),
        ([{"id": "1"}], "line 1: the field 'response' or 'output' is missing; expected one JSON"),
        ([{"id": "1", "response": None}], "line 1: 'response' must be text, got NoneType"),
        ([{"id": "1", "response": "\ud800"}], "line 1: 'response' is not valid Unicode"),
        (["r"], "line 1: expected a JSON object, got str"),
        ([], "is empty; expected one JSON object"),
    ],
)
def test_what_is_wrong_with_a_file_of_responses(
    file: Path, records: list[object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        read_responses(write(file, *records), EXAMPLES)
    with pytest.raises(ValueError, match=r"the responses file .* does not exist"):
        read_responses(file.with_name("none"), EXAMPLES)


def test_a_model_answers_system_message_and_conversation() -> None:
    tokenizer, model = load_tokenizer("embedded"), load_model("embedded")
    examples = [example("1", NO_COMMA, role=CLERK, response="before"), example("2")]
    seen: list[tuple[int, str]] = []
    texts = answer(
        examples, model, tokenizer, max_new_tokens=4, batch_size=1,
        on_response=lambda index, text: seen.append((index, text)),
    )  # fmt: skip
    prompts = [each.prompt() for each in examples]
    alone = [each.text for each in generate(model, tokenizer, prompts, max_new_tokens=4)]
    assert texts == alone and seen == [*enumerate(texts)]
    assert CLERK.description in prompts[0][0]["content"] and "before" not in str(prompts)


def test_constrained_responses_follow_and_what_cannot_be_is_told() -> None:
    tokenizer, model = load_tokenizer("embedded"), load_model("embedded")
    title = Requirement("detectable_format:title")
    long = Requirement("startend:end_checker", end_phrase="and so on, " * 20)
    examples = [example("1", title), example("2", title, long), example("3", title, NO_COMMA)]
    told: dict[int, str] = {}
    texts = answer(
        examples, model, tokenizer, constrained=True, max_new_tokens=24, batch_size=2,
        on_unconstrained=told.__setitem__,
    )  # fmt: skip
    free = answer(examples, model, tokenizer, max_new_tokens=24)
    assert title.check(texts[0]) and title.check(texts[2]) and NO_COMMA.check(texts[2])
    assert not title.check(free[0]) and texts[1] == free[1]
    assert list(told) == [1] and "and has at most 24" in told[1]


def test_a_constrained_response_does_not_depend_on_its_batch() -> None:
    tokenizer, model = load_tokenizer("embedded"), load_model("embedded")
    examples = [example(str(n), NO_COMMA) for n in range(3)]
    one, two = (
        answer(
            examples, model, tokenizer, constrained=True, max_new_tokens=12, batch_size=size,
            sampling=Sampling(1.0, seed=5),
        )
        for size in (1, 3)
    )  # fmt: skip
    assert one == two and len(set(one)) > 1
