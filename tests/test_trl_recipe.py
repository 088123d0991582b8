"""The TRL recipe: the prompts of the package's own template, and loss on responses alone."""

import json
from pathlib import Path

import pytest

from rnr_kernels.generation import generate
from rnr_kernels.lab.trl_recipe import TAGS_CHAT_TEMPLATE, prompts_and_completions, tune
from rnr_kernels.loading import embedded_model_path, load_model, load_tokenizer
from rnr_kernels.templates import TEMPLATES

CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Name a river."},
    {"role": "assistant", "content": "The Elbe."},
    {"role": "user", "content": "And a lake?"},
]


def test_the_chat_template_writes_what_tags_write() -> None:
    tokenizer = load_tokenizer("embedded")
    tokenizer.chat_template = TAGS_CHAT_TEMPLATE
    ids = tokenizer.apply_chat_template(CHAT, tokenize=True)["input_ids"]
    assert ids == TEMPLATES["tags"].encode(tokenizer, CHAT)


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
