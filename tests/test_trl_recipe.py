"""The TRL recipe: the prompts of the package's own template, and loss on responses alone."""

import json
from copy import deepcopy
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerBase

from rnr_kernels.generation import generate
from rnr_kernels.lab.trl_recipe import main, prompts_and_completions, tags_chat_template, tune
from rnr_kernels.loading import embedded_model_path, load_model, load_tokenizer
from rnr_kernels.templates import TEMPLATES, adds_bos

CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Name a river."},
    {"role": "assistant", "content": "The Elbe."},
    {"role": "user", "content": "And a lake?"},
]


def test_the_chat_template_writes_what_tags_write() -> None:
    assert_same_prompt(load_tokenizer("embedded"))


def test_a_tokenizer_that_adds_no_bos_is_trained_without(
    tiny_bpe: PreTrainedTokenizerBase,
) -> None:
    tokenizer = deepcopy(tiny_bpe)
    assert tokenizer.bos_token is not None and not adds_bos(tokenizer)
    assert_same_prompt(tokenizer)


def assert_same_prompt(tokenizer: PreTrainedTokenizerBase) -> None:
    """What is trained on starts as what is asked."""
    tokenizer.chat_template = tags_chat_template(tokenizer)
    ids = tokenizer.apply_chat_template(CHAT, tokenize=True)["input_ids"]
    assert ids == TEMPLATES["tags"].encode(tokenizer, CHAT)


def test_a_tokenizer_without_eos_is_refused(tiny_bpe: PreTrainedTokenizerBase) -> None:
    tokenizer = deepcopy(tiny_bpe)
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match="has no EOS token, with which responses end"):
        tags_chat_template(tokenizer)


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"id": "1"}, "line 2: 'messages' is missing or too short; expected one JSON object"),
        ({"messages": CHAT[3:]}, "line 2: 'messages' is missing or too short"),
        ({"messages": "Hi."}, "line 2: 'messages' is missing or too short"),
        ({"messages": CHAT}, "line 2: the last message must be the assistant's, .* got 'user'"),
        ({"messages": [CHAT[0], {"role": "assistant"}]}, "line 2: a message must have 'role' and"),
        ({"messages": [CHAT[0], "Hi."]}, "line 2: a message must have 'role' and 'content'"),
        ([], "line 2: 'messages' is missing"),
    ],
)
def test_a_mistake_is_a_sentence_that_names_the_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record: object, words: str
) -> None:
    data = tmp_path / "train.jsonl"
    good = {"messages": [*CHAT, {"role": "assistant", "content": "Como."}]}
    data.write_text(f"{json.dumps(good)}\n{json.dumps(record)}\n")
    arguments = ["--model", "none", "--data", str(data), "--out", str(tmp_path / "tuned")]
    monkeypatch.setattr("sys.argv", ["trl_recipe", *arguments])
    with pytest.raises(SystemExit, match=f"trl_recipe: .*{words}"):
        main()
    data.unlink()
    with pytest.raises(SystemExit, match=r"the training data file .* does not exist"):
        main()


def test_the_last_response_is_what_is_learnt() -> None:
    from datasets import Dataset

    record = {"id": "1", "messages": [*CHAT, {"role": "assistant", "content": "Como."}]}
    (cut,) = prompts_and_completions(Dataset.from_list([record]))
    assert cut["prompt"] == CHAT
    assert cut["completion"] == [{"role": "assistant", "content": "Como."}]


@pytest.mark.filterwarnings("ignore")  # of transformers, about its own arguments
def test_a_model_learns_a_response(tmp_path: Path) -> None:
    record = {"messages": [*CHAT[:2], {"role": "assistant", "content": "The Elbe."}]}
    data = tmp_path / "train.jsonl"
    data.write_text((json.dumps(record) + "\n") * 16)
    tune(
        str(embedded_model_path()), data, tmp_path / "tuned",
        num_train_epochs=6, per_device_train_batch_size=4, learning_rate=2e-3,
        use_cpu=True, bf16=False, report_to="none", save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    folder = str(tmp_path / "tuned")
    tokenizer = load_tokenizer(folder)
    (answer,) = generate(load_model(folder, device="cpu"), tokenizer, [CHAT[:2]], max_new_tokens=9)
    assert (answer.text, answer.finish_reason) == ("The Elbe.", "eos")
    (other,) = generate(
        load_model(folder, device="cpu"), tokenizer, [CHAT[:2]], template="chat", max_new_tokens=9
    )
    assert other.token_ids == answer.token_ids
