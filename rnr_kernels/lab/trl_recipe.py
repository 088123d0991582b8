"""The recipe for real models: tuning with TRL on a data set of `rnr-kernels roles build`.

`python -m rnr_kernels.lab.trl_recipe --model NAME --data DIR/train.jsonl --out tuned`

Loss on the responses alone, as in the lab. A base model without a chat template gets the one of the
package's `tags`, with a system turn, so that `rnr-kernels roles evaluate --model tuned` asks as it
was trained. Several GPUs: `accelerate launch -m rnr_kernels.lab.trl_recipe ...`.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnr_kernels.loading import check_installed

if TYPE_CHECKING:
    from datasets import Dataset

TAGS_CHAT_TEMPLATE = (
    "{{ bos_token }}"
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


def prompts_and_completions(data: "Dataset") -> "Dataset":
    """The `messages` of every record, cut before the last response, on which the loss falls."""

    def cut(record: dict[str, Any]) -> dict[str, Any]:
        return {"prompt": record["messages"][:-1], "completion": record["messages"][-1:]}

    return data.map(cut, remove_columns=data.column_names)


def tune(model: str, data: Path, out: Path, **settings: Any) -> None:
    """Tunes `model` and writes it to `out`; `settings` are those of TRL's SFTConfig."""
    check_installed(("datasets", "trl"), "the TRL recipe", "tuning")
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    tokenizer = AutoTokenizer.from_pretrained(model)
    if tokenizer.chat_template is None:
        tokenizer.chat_template = TAGS_CHAT_TEMPLATE
    records = load_dataset("json", data_files=str(data), split="train")
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


if __name__ == "__main__":
    main()
