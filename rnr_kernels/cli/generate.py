"""`rnr-kernels generate`: a base model follows instructions because rules are multiplied in."""

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from rnr_kernels.cli import INTERRUPTED
from rnr_kernels.cli.options import Model, Rules, Template, Without, combined_rules
from rnr_kernels.cli.progress import GenerationProgress, TextStream
from rnr_kernels.cli.rendering import response_panel, side_by_side
from rnr_kernels.cli.startup import collection_paused, quiet_transformers
from rnr_kernels.generation import Completion, generate
from rnr_kernels.loading import (
    EMBEDDED,
    EMBEDDED_PROMPTS,
    display_name,
    load_model,
    load_tokenizer,
)
from rnr_kernels.records import (
    RecordWriter,
    check_writable,
    completion_record,
    read_instructions,
)
from rnr_kernels.rules.kinds import RuleSet
from rnr_kernels.sampling import Sampling
from rnr_kernels.templates import prompt_template

SHOWN_QUESTIONS = 4
"""Of the embedded model's own questions, which it answers when no prompt is given."""


def generate_command(
    prompt: Annotated[str | None, typer.Argument(help="One instruction, streamed.")] = None,
    model: Model = EMBEDDED,
    rules: Rules = ["hewitt2024"],  # noqa: B006  (typer wants a list)
    without: Without = [],  # noqa: B006
    prompts: Annotated[
        Path | None, typer.Option(help="JSON Lines with an 'instruction' a record.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N prompts.")] = None,
    template: Template = "tags",
    compare: Annotated[bool, typer.Option("--compare", help="Base beside base x rules.")] = False,
    out: Annotated[Path | None, typer.Option(help="JSON Lines file to write.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file of --out.")] = False,
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 512,
    batch_size: Annotated[int, typer.Option(min=1)] = 8,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.0,
    top_k: Annotated[int, typer.Option(help="0 is off.")] = 0,
    top_p: Annotated[float, typer.Option(help="1 is off.")] = 1.0,
    min_p: Annotated[float, typer.Option(help="0 is off.")] = 0.0,
    seed: Annotated[int | None, typer.Option(help="Prompt i draws from seed + i.")] = None,
    stop: Annotated[list[str], typer.Option(help="End a response here.")] = [],  # noqa: B006
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.")] = None,
) -> None:
    """Answer instructions with a base model times rules; greedy unless a temperature is given."""
    instructions = _instructions(prompt, prompts, limit, model)
    rule_set = combined_rules(rules, without)
    if compare and rule_set is None:
        raise ValueError("--compare shows base beside base x rules; it needs --rules")
    if out is not None:
        check_writable(out, force=force)
    chosen_template = prompt_template(template)
    sampling = Sampling(temperature, top_k, top_p, min_p, seed)
    with collection_paused():
        tokenizer = load_tokenizer(model)
        quiet_transformers()
        loaded = load_model(model, device=device, dtype=dtype)

    stream = None
    if prompt is not None and not compare and out is None:
        stream = TextStream(tokenizer, stop)
    progress = GenerationProgress(len(instructions) * (2 if compare else 1))
    runs = {
        generator_name(model, each): generate(
            loaded,
            tokenizer,
            instructions,
            rules=each,
            template=chosen_template,
            sampling=sampling,
            max_new_tokens=max_new_tokens,
            batch_size=batch_size,
            stop=stop,
            details=out is not None,
            on_step=(stream or progress).on_step,
        )
        for each in ([None, rule_set] if compare else [rule_set])
    }
    finished: dict[str, list[Completion]] = {name: [] for name in runs}
    interrupted = False
    with ExitStack() as stack:
        writer = stack.enter_context(RecordWriter(out)) if out is not None else None
        if stream is None:
            stack.enter_context(progress)
        try:
            for name, completions in runs.items():
                progress.describe(name)
                for completion in completions:
                    if writer is not None:
                        record = completion_record(
                            completion, generator=name, template=chosen_template.name, seed=seed
                        )
                        writer.write(record)
                    finished[name].append(completion)
                    progress.finish_one()
        except KeyboardInterrupt:
            interrupted = True
    _show(Console(), instructions, finished, streamed=stream is not None, out=out, compare=compare)
    if interrupted:
        kept = sum(map(len, finished.values()))
        typer.echo(f"interrupted; finished records kept: {kept}", err=True)
        raise typer.Exit(INTERRUPTED)


def _instructions(
    prompt: str | None, prompts: Path | None, limit: int | None, model: str
) -> list[str]:
    if prompt is not None and prompts is None:
        if not prompt:
            raise ValueError('the instruction is empty; give one, as in "What is ...?"')
        return [prompt]
    if prompts is not None and prompt is None:
        return read_instructions(prompts)[:limit]
    if prompts is None and model == EMBEDDED:
        return read_instructions(EMBEDDED_PROMPTS)[: limit or SHOWN_QUESTIONS]
    raise ValueError(
        'give either one instruction, as in rnr-kernels generate "What is ...?", '
        "or --prompts FILE.jsonl"
    )


def generator_name(model: str, rules: RuleSet | None) -> str:
    """What a record's `generator` says."""
    name = display_name(model)
    return name if rules is None else f"{name} x {rules.name}"


def _show(
    console: Console,
    instructions: list[str],
    finished: dict[str, list[Completion]],
    *,
    streamed: bool,
    out: Path | None,
    compare: bool,
) -> None:
    columns = list(finished.values())
    if streamed:
        console.print()
    elif compare:
        console.print(side_by_side(instructions, list(finished), columns))
    elif out is None:
        for completion in columns[0]:
            console.print(response_panel(completion))
    if out is not None:
        count = sum(map(len, columns))
        console.print(f"{count} {'record' if count == 1 else 'records'} in {out}")
