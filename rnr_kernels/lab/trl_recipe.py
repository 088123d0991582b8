"""The recipe for real models: tuning with TRL on a data set of `rnr-kernels roles build`.

`python -m rnr_kernels.lab.trl_recipe --model NAME --data DIR/train.jsonl --out tuned`

It needs `pip install 'rnr_kernels[tuning]' trl`. Loss on the responses alone, as in the lab. A base
model without a chat template gets the one of the package's `tags`, with a system turn, so that
`rnr-kernels roles evaluate --model tuned` asks as it was trained. Several GPUs: `accelerate launch
-m rnr_kernels.lab.trl_recipe ...`.
"""

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnr_kernels.loading import check_installed
from rnr_kernels.records import read_records
from rnr_kernels.templates import adds_bos

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

EXPECTED = "one JSON object a line with 'messages', as rnr-kernels roles build writes them"

TAGS_CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}"
    "{{ message['content'] + eos_token + ('' if loop.last else '\\n') }}"
    "{% else %}"
    "{{ '<|' + message['role'] + '|>\\n' + message['content'] + '\\n' }}"
    "{% if message['role'] == 'user' %}{{ '<|assistant|>\\n' }}{% endif %}"
    "{% endif %}"
    "{% endfor %}"
)
"""Template `tags` (rnr_kernels/templates.py) in the language of chat templates."""
BOS = "{{ bos_token }}"


def tags_chat_template(tokenizer: "PreTrainedTokenizerBase") -> str:
    """`tags` as a chat template for a tokenizer, with BOS in front where `tags` itself has it.

    ValueError for a tokenizer without EOS: a model could not learn from it where to end.
    """
    if tokenizer.eos_token is None:
        raise ValueError(
            "the tokenizer has no EOS token, with which responses end; set its eos_token, or give "
            "a model that has one"
        )
    has_bos = tokenizer.bos_token is not None and adds_bos(tokenizer)
    return (BOS if has_bos else "") + TAGS_CHAT_TEMPLATE


def read_conversations(path: Path) -> "Dataset":
    """The `messages` of every record of a file.

    Raises ValueError that names the record for one without, or whose last message is not the
    assistant's.
    """
    from datasets import Dataset

    found = []
    for where, record in read_records(path, "training data", EXPECTED):
        messages = record.get("messages") if isinstance(record, dict) else None
        if not isinstance(messages, Sequence) or isinstance(messages, str) or len(messages) < 2:
            raise ValueError(f"{where}: 'messages' is missing or too short; expected {EXPECTED}")
        for each in messages:
            texts = [each.get(name) for name in ("role", "content")] if hasattr(each, "get") else []
            if not texts or not all(isinstance(text, str) for text in texts):
                raise ValueError(f"{where}: a message must have 'role' and 'content' as text")
        if messages[-1]["role"] != "assistant":
            raise ValueError(
                f"{where}: the last message must be the assistant's, which is learnt, got "
                f"{messages[-1]['role']!r}"
            )
        found.append({"messages": [{k: m[k] for k in ("role", "content")} for m in messages]})
    return Dataset.from_list(found)


def prompts_and_completions(data: "Dataset") -> "Dataset":
    """The `messages` of every record, cut before the last response, on which the loss falls."""

    def cut(record: dict[str, Any]) -> dict[str, Any]:
        return {"prompt": record["messages"][:-1], "completion": record["messages"][-1:]}

    return data.map(cut, remove_columns=data.column_names)


def tune(model: str, data: Path, out: Path, **settings: Any) -> None:
    """Tunes `model` and writes it to `out`; `settings` are those of TRL's SFTConfig.

    Raises ValueError as `read_conversations` and `tags_chat_template` do, before a model is loaded.
    """
    check_installed(("datasets",), "the TRL recipe", "tuning")
    if importlib.util.find_spec("trl") is None:  # which no extra for users brings
        raise ValueError("the TRL recipe needs trl; pip install trl")
    records = read_conversations(data)
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    tokenizer = AutoTokenizer.from_pretrained(model)
    if tokenizer.chat_template is None:
        tokenizer.chat_template = tags_chat_template(tokenizer)
    trainer = SFTTrainer(
        AutoModelForCausalLM.from_pretrained(model, dtype=settings.pop("dtype", "float32")),
        args=SFTConfig(output_dir=str(out), completion_only_loss=True, **settings),
        train_dataset=prompts_and_completions(records),
        processing_class=tokenizer,
    )
    trainer.train()
    trainer.save_model(str(out))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="a causal language model, base or tuned")
    parser.add_argument("--data", type=Path, required=True, help="train.jsonl of roles build")
    parser.add_argument("--out", type=Path, required=True, help="folder for the tuned model")
    parser.add_argument("--epochs", type=float, default=2)
    parser.add_argument("--learning-rate", type=float, default=1e-5)
    parser.add_argument("--batch-size", type=int, default=8, help="examples a device and pass")
    parser.add_argument("--accumulate", type=int, default=8, help="passes an optimiser step")
    parser.add_argument("--max-length", type=int, default=2048, help="tokens of an example")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    try:
        tune(
            given.model,
            given.data,
            given.out,
            num_train_epochs=given.epochs,
            learning_rate=given.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=0.1,
            per_device_train_batch_size=given.batch_size,
            gradient_accumulation_steps=given.accumulate,
            max_length=given.max_length,
            bf16=False,
            seed=given.seed,
            report_to="none",
            save_strategy="no",
        )
    except (ValueError, OSError) as error:
        sys.exit(f"trl_recipe: {error}")


if __name__ == "__main__":
    main()
