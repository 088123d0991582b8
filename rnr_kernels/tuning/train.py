"""Tuning: a base model and instruction data in, a folder with a model, a card and a curve out."""

import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from rnr_kernels.forward import context_window, logits_width
from rnr_kernels.identity import model_identity
from rnr_kernels.loading import (
    as_device,
    check_installed,
    display_name,
    load_model,
    load_tokenizer,
    stored_dtype,
)
from rnr_kernels.tuning.card import write_card
from rnr_kernels.tuning.conversations import Conversation
from rnr_kernels.tuning.curve import write_curve
from rnr_kernels.tuning.datasets import digest, encode_all
from rnr_kernels.tuning.examples import Example, pad_examples
from rnr_kernels.tuning.monitor import Diverged, Monitor, Step
from rnr_kernels.tuning.order import ShuffledSteps
from rnr_kernels.tuning.run_folder import RunFolder
from rnr_kernels.tuning.settings import MAX_GRADIENT_NORM, Settings

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer, TrainingArguments

LOG = "training.json"
"""In a tuned model's folder: how it was trained, and every step."""


@dataclass(frozen=True)
class Tuned:
    """A finished run."""

    out: Path
    num_examples: int
    num_skipped: int
    """Records left out for their length."""
    num_tokens: int
    """Of all examples, prompts included, in one epoch."""
    num_trained: int
    """Tokens with a loss among them."""
    steps: list[Step]
    resumed_at: int
    """The step from which an interrupted run went on; 0 for one that ran through."""
    is_main: bool
    """False in the processes of a distributed run that write nothing."""


def tune(
    model: str,
    conversations: Sequence[Conversation],
    out: Path,
    *,
    mode: str,
    settings: Settings,
    data_name: str = "data",
    skip_long: bool = False,
    save_every: int | None = None,
    device: str | None = None,
    on_step: Callable[[Step, int], None] | None = None,
) -> Tuned:
    """Tunes a causal language model by name or folder and writes it to `out`.

    Loss on responses and their EOS alone. A checkpoint is written every `save_every` steps, or
    else every epoch; a run that was killed goes on from its last one when it is called again with
    the same arguments, and ends with the weights it would have had. Under `torchrun` a step's
    examples are shared between the processes; one process uses one GPU, the first it sees.

    ValueError before anything is written for records that do not fit, an `out` that is taken, a
    tokenizer without EOS; `Diverged`, a ValueError, if the loss runs away: then nothing is left.
    """
    folder = RunFolder(out)
    folder.check()
    tokenizer = load_tokenizer(model)
    arguments = training_arguments(folder, settings, save_every, device)
    # On the CPU: the trainer moves each process's copy to that process's own GPU.
    loaded = load_model(model, device="cpu", dtype="float32")
    window = context_window(loaded)
    length = min(settings.max_length, window or settings.max_length)
    examples, skipped = encode_all(
        conversations, tokenizer, mode=mode, max_length=length, skip_long=skip_long
    )
    _check_vocabulary(examples, logits_width(loaded))
    trained = _with_adapter(loaded, settings)
    description = {
        "base": display_name(model),
        "base_identity": model_identity(model),
        "mode": mode,
        "data": data_name,
        "num_examples": len(examples),
        "digest": digest(examples),
        "settings": settings.as_dict(),
    }
    is_main = arguments.process_index == 0
    monitor = Monitor(
        on_step=on_step if is_main else None, may_overflow=settings.dtype == "float16"
    )
    if is_main:
        folder.begin(description)
    with folder.held() if is_main else nullcontext():
        trainer = _trainer(trained, examples, tokenizer, arguments, settings, folder, monitor)
        if settings.lora is not None and _is_sharded(trainer):
            raise ValueError("LoRA is not sharded: launch with torchrun, or leave --lora out")
        resumed_at = _train(trainer, folder, monitor)
        tuned = Tuned(
            out, len(examples), skipped, sum(len(e.token_ids) for e in examples),
            sum(sum(e.is_trained) for e in examples), monitor.steps, resumed_at, is_main,
        )  # fmt: skip
        if _is_sharded(trainer):
            trainer.save_model(str(folder.model))  # every process has a part
        if is_main:
            _write(folder, trainer, model, tokenizer, description, tuned)
    # A process that ended now would take down the one that writes.
    trainer.accelerator.wait_for_everyone()
    return tuned


def _train(trainer: "Trainer", folder: RunFolder, monitor: Monitor) -> int:
    """Trains to the end; the step of the checkpoint from which it went on, 0 without one."""
    with trainer.args.main_process_first():
        checkpoint = folder.last_checkpoint()
    if checkpoint is not None:
        monitor.load(checkpoint / "trainer_state.json")
    resumed_at = len(monitor.steps)
    try:
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    except Diverged:
        if trainer.args.process_index == 0:
            folder.abandon()
        raise
    return resumed_at


def _is_sharded(trainer: "Trainer") -> bool:
    """Whether no process has all of the weights."""
    return bool(trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled)


def training_arguments(
    folder: RunFolder, settings: Settings, save_every: int | None, device: str | None
) -> "TrainingArguments":
    """The settings as the trainer takes them. ValueError for what this machine does not fit."""
    check_installed(("transformers", "accelerate", "matplotlib"), "tuning", "tuning")
    from transformers import TrainingArguments

    if save_every is not None and save_every < 1:
        raise ValueError(f"save_every must be at least 1 step, got {save_every}")
    where = as_device(device)
    if where.index:
        raise ValueError(
            f"tuning uses the first GPU it sees, got device {device!r}: set CUDA_VISIBLE_DEVICES="
            f"{where.index} and leave the device out"
        )
    arguments = TrainingArguments(
        output_dir=str(folder.checkpoints),
        num_train_epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.schedule,
        warmup_steps=settings.warmup,
        weight_decay=settings.weight_decay,
        per_device_train_batch_size=settings.device_batch_size,
        bf16=settings.dtype == "bfloat16",
        fp16=settings.dtype == "float16",
        max_grad_norm=MAX_GRADIENT_NORM,
        use_cpu=where.type == "cpu",
        seed=settings.seed,
        save_strategy="epoch" if save_every is None else "steps",
        save_steps=save_every or 1,
        save_total_limit=2,
        logging_steps=1,
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        report_to=[],
        remove_unused_columns=False,
        ddp_find_unused_parameters=False,
    )
    # The trainer would give every GPU in sight a batch of its own, and so change the batch size.
    arguments._n_gpu = min(arguments.n_gpu, 1)
    each = settings.device_batch_size * arguments.world_size
    if settings.batch_size % each:
        raise ValueError(
            f"batch_size {settings.batch_size} must be a multiple of {each}: device_batch_size "
            f"{settings.device_batch_size} on each of {arguments.world_size} processes"
        )
    arguments.gradient_accumulation_steps = settings.batch_size // each
    return arguments


def _check_vocabulary(examples: Sequence[Example], size: int) -> None:
    largest = max(max(example.token_ids) for example in examples)
    if largest >= size:
        raise ValueError(
            f"the tokenizer makes token {largest}, but the model has {size} tokens only: take the "
            "model's own tokenizer"
        )


def _with_adapter(model: "PreTrainedModel", settings: Settings) -> Any:
    """The model itself, or with low-rank matrices that alone are trained."""
    torch.manual_seed(settings.seed)  # of the adapter's first weights
    if settings.lora is None:
        return model
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise ValueError("LoRA needs peft; pip install 'rnr_kernels[tuning]'") from None
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.lora.rank,
        lora_alpha=settings.lora.alpha,
        lora_dropout=settings.lora.dropout,
        target_modules="all-linear",
    )
    return get_peft_model(cast(Any, model), config)


class _Examples(torch.utils.data.Dataset[Example]):
    """As the trainer takes them."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self._examples = examples

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> Example:
        return self._examples[index]


def _trainer(
    model: Any,
    examples: Sequence[Example],
    tokenizer: "PreTrainedTokenizerBase",
    arguments: "TrainingArguments",
    settings: Settings,
    folder: RunFolder,
    monitor: Monitor,
) -> "Trainer":
    from transformers import PrinterCallback, Trainer, TrainerCallback

    # Not the padding token, which may have been added without a row in the embedding: what stands
    # in padding has neither a loss nor an influence.
    filler = int(tokenizer.eos_token_id)
    lengths = [len(example.token_ids) for example in examples]
    order = ShuffledSteps(lengths, settings.batch_size, settings.seed)

    class Watch(TrainerCallback):
        def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            # The trainer's own call misses an order in the data loader of a distributed run that
            # goes on within an epoch.
            order.set_epoch(int(state.epoch or 0))

        def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            monitor.add(kwargs["logs"], state.global_step, state.max_steps)

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            trainer.accelerator.wait_for_everyone()  # each process writes a file of its own
            if args.should_save:
                folder.mark_whole(state.global_step)

    class Ordered(Trainer):
        def _get_train_sampler(self, train_dataset: Any = None) -> ShuffledSteps:
            return order

    trainer = Ordered(
        model=model,
        args=arguments,
        train_dataset=_Examples(examples),
        data_collator=lambda batch: pad_examples(batch, filler),
        callbacks=[Watch()],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _write(
    folder: RunFolder,
    trainer: "Trainer",
    name: str,
    tokenizer: "PreTrainedTokenizerBase",
    description: dict[str, Any],
    tuned: Tuned,
) -> None:
    """The model, its tokenizer, card, curve and log, and then the move to where they belong."""
    if _is_sharded(trainer):
        check_whole(folder.model)
    else:
        model: Any = trainer.accelerator.unwrap_model(trainer.model)
        if hasattr(model, "merge_and_unload"):
            model.save_pretrained(folder.model / "adapter")
            model = model.merge_and_unload()
        model.to(stored_dtype(name))
        model.save_pretrained(folder.model)
    tokenizer.save_pretrained(folder.model)
    log = {**description, "steps": [vars(step) for step in tuned.steps]}
    (folder.model / LOG).write_text(json.dumps(log, indent=1) + "\n", encoding="utf-8")
    write_curve(tuned.steps, folder.model / "loss.png")
    write_card(folder.model / "README.md", description, tuned)
    folder.finish()


def check_whole(folder: Path) -> None:
    """ValueError unless a folder's weights are all there: what a launcher gathers may be parts."""
    from transformers import AutoModelForCausalLM

    loaded: Any = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    _, found = loaded
    wrong = [*found["missing_keys"], *found["mismatched_keys"]]
    if wrong:
        raise ValueError(
            f"the weights in {folder} are not whole ({wrong[0]} and {len(wrong) - 1} more): let "
            "the launcher gather them (FSDP: FULL_STATE_DICT; ZeRO-3: "
            "stage3_gather_16bit_weights_on_model_save), and give the same command again"
        )
