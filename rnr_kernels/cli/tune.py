"""`rnr-kernels tune`: tuning of a base model, or of the rules that are multiplied into it."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from rnr_kernels.cli.options import Model
from rnr_kernels.cli.progress import TrainingProgress
from rnr_kernels.cli.startup import collection_paused, quiet_transformers
from rnr_kernels.cli.tune_rules import tune_rules
from rnr_kernels.loading import EMBEDDED, load_tokenizer
from rnr_kernels.tuning.conversations import Conversation
from rnr_kernels.tuning.datasets import read_data
from rnr_kernels.tuning.examples import MODES, describe_example, encode_example
from rnr_kernels.tuning.features import FAMILIES
from rnr_kernels.tuning.fit import L2, LEAST_GAIN, NUM_WEIGHTS
from rnr_kernels.tuning.settings import EPOCHS, Lora, Settings, recipe

RULES_MODE = "rules"


def _training(*names: str, **settings: Any) -> Any:
    return typer.Option(*names, rich_help_panel="Training a model", **settings)


def _rules(*names: str, **settings: Any) -> Any:
    return typer.Option(*names, rich_help_panel="Fitting rules", **settings)


def tune_command(
    mode: Annotated[
        str, typer.Option(help="instruction, response, task; or rules: fits a rule file.")
    ],
    data: Annotated[
        str,
        typer.Option(help="JSON Lines, JSON, a folder that datasets saved, or a hub name."),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder to make; with --mode rules a .toml or .json file.")
    ] = None,
    model: Model = EMBEDDED,
    split: Annotated[str, typer.Option(help="Of a Hugging Face dataset.")] = "train",
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N records.")] = None,
    check: Annotated[
        int, typer.Option(min=0, help="Show N examples token by token, and stop.")
    ] = 0,
    recipe_name: Annotated[
        str | None,
        _training(
            "--recipe",
            help="paper (cosine, 10 % warmup) or released (the authors' scripts: linear, 3 %).",
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        _training(help=f"Default, by mode: {EPOCHS}."),
    ] = None,
    learning_rate: Annotated[
        float | None,
        _training(help=f"Default: {Settings.learning_rate:g} (for OLMo-7B take 3e-6)."),
    ] = None,
    schedule: Annotated[str | None, _training(help="cosine or linear.")] = None,
    warmup: Annotated[float | None, _training(help="Share of the steps.")] = None,
    batch_size: Annotated[
        int | None,
        _training(help="Examples an optimiser step, over all devices."),
    ] = None,
    device_batch_size: Annotated[
        int | None,
        _training(help="Examples in one forward pass of a device."),
    ] = None,
    weight_decay: Annotated[float | None, _training()] = None,
    max_length: Annotated[int | None, _training(help="Most tokens of an example.")] = None,
    skip_long: Annotated[
        bool,
        _training("--skip-long", help="Leave longer examples out, and count them."),
    ] = False,
    dtype: Annotated[
        str | None,
        typer.Option(help="Of products; weights are trained in float32."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help=f"Default: {Settings.seed}.")] = None,
    lora: Annotated[
        bool,
        _training("--lora", help="Train low-rank matrices alone; the result is merged."),
    ] = False,
    lora_rank: Annotated[int | None, _training(help=f"Of --lora; default: {Lora.rank}.")] = None,
    lora_alpha: Annotated[
        int | None,
        _training(help=f"Of --lora; default: {Lora.alpha}."),
    ] = None,
    save_every: Annotated[
        int | None,
        _training(min=1, help="Steps between checkpoints; default: an epoch."),
    ] = None,
    num_weights: Annotated[int | None, _rules(min=1, help=f"Default: {NUM_WEIGHTS}.")] = None,
    l2: Annotated[
        float | None,
        _rules(help=f"Penalty l2 / 2 |w|^2; default: {L2}."),
    ] = None,
    l1: Annotated[float | None, _rules(help="Penalty l1 |w|; default: 0.")] = None,
    least_gain: Annotated[
        float | None,
        _rules(help=f"Nats on all data that a weight must gain; default: {LEAST_GAIN}."),
    ] = None,
    first: Annotated[
        list[str] | None,
        _rules(help=f"A kind of feature to choose before the others: {', '.join(FAMILIES)}."),
    ] = None,
    scope: Annotated[
        str | None,
        _rules(help="Of used tokens: response (default) or prompt+response."),
    ] = None,
    held_out: Annotated[
        Path | None,
        _rules(help="Data to judge on; without it a tenth of --data is set aside."),
    ] = None,
    force: Annotated[bool, _rules("--force", help="Replace the rule file.")] = False,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...")] = None,
) -> None:
    """Tune a base model on responses, with the published hyperparameters unless told otherwise.

    Killed runs go on where they were when the same command is given again. On several GPUs:
    torchrun --nproc-per-node N $(which rnr-kernels) tune ... (or accelerate launch). --mode rules
    trains no model: it fits the few rules that, multiplied into it, make the responses likeliest.
    """
    training: dict[str, Any] = {
        "epochs": epochs,
        "learning_rate": learning_rate,
        "schedule": schedule,
        "warmup": warmup,
        "batch_size": batch_size,
        "device_batch_size": device_batch_size,
        "weight_decay": weight_decay,
        "max_length": max_length,
        "lora": _lora(lora, lora_rank, lora_alpha),
    }
    fitting: dict[str, Any] = {
        "num_weights": num_weights,
        "l2": l2,
        "l1": l1,
        "least_gain": least_gain,
        "first": first or None,
        "scope": scope,
        "held_out": held_out,
    }
    if mode not in (*MODES, RULES_MODE):
        raise ValueError(f"--mode must be one of {', '.join((*MODES, RULES_MODE))}, got {mode!r}")
    fits = mode == RULES_MODE
    extra = {"recipe": recipe_name, "save_every": save_every, "skip_long": skip_long or None}
    _refuse((training | extra) if fits else (fitting | {"force": force or None}), mode)
    shared = _given({"dtype": dtype, "seed": seed})
    if not fits:
        settings = replace(recipe(recipe_name or "paper", mode), **_given(training), **shared)
    conversations = read_data(data, split=split)[:limit]
    if check:
        _show_examples(conversations[:check], model, "instruction" if fits else mode)
        return
    if out is None:
        raise ValueError("--out is missing: name what to make, or look first with --check 1")
    if fits:
        options = {**_given(fitting), **shared}
        tune_rules(conversations, out, model=model, force=force, device=device, **options)
        return
    path = Path(data).expanduser()
    name = path.name if path.exists() else data  # a hub name stays whole
    _train(conversations, model, out, mode, settings, name, skip_long, save_every, device)


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _refuse(options: dict[str, Any], mode: str) -> None:
    """ValueError for options that mean nothing in this mode."""
    for name in _given(options):
        owner = "the modes that train" if mode == RULES_MODE else f"--mode {RULES_MODE}"
        raise ValueError(f"--{name.replace('_', '-')} belongs to {owner}; leave it out")


def _lora(wanted: bool, rank: int | None, alpha: int | None) -> Lora | None:
    if wanted:
        return Lora(Lora.rank if rank is None else rank, Lora.alpha if alpha is None else alpha)
    if rank is not None or alpha is not None:
        raise ValueError("--lora-rank and --lora-alpha belong to --lora: add it, or leave them out")
    return None


def _show_examples(conversations: list[Conversation], model: str, mode: str) -> None:
    tokenizer = load_tokenizer(model)
    for conversation in conversations:
        example = encode_example(conversation, tokenizer, mode=mode)
        typer.echo(
            f"{conversation.where}: {len(example.token_ids)} tokens, "
            f"{sum(example.is_trained)} of them trained on (*)"
        )
        typer.echo(describe_example(example, tokenizer))


def _train(
    conversations: list[Conversation],
    model: str,
    out: Path,
    mode: str,
    settings: Settings,
    data_name: str,
    skip_long: bool,
    save_every: int | None,
    device: str | None,
) -> None:
    with collection_paused():
        from rnr_kernels.tuning.train import tune

        quiet_transformers()
    with TrainingProgress() as progress:
        tuned = tune(
            model,
            conversations,
            out,
            mode=mode,
            settings=settings,
            data_name=data_name,
            skip_long=skip_long,
            save_every=save_every,
            device=device,
            on_step=progress.on_step,
        )
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()  # its threads would abort the process's end
    if not tuned.is_main:
        return
    if tuned.resumed_at:
        typer.echo(f"went on from step {tuned.resumed_at} of an interrupted run")
    if tuned.num_skipped:
        typer.echo(f"{tuned.num_skipped} records left out: longer than an example may be")
    last = tuned.steps[-1]
    typer.echo(
        f"{tuned.num_examples:,} examples, {last.step:,} steps, last loss {last.loss:.3f}; "
        f"the model, its card and loss.png are in {out}"
    )
