"""`rnr-kernels win-rate`: how often a judge prefers one model's responses to another's."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table
from rich.text import Text

from rnr_kernels.cli import INTERRUPTED
from rnr_kernels.cli.progress import counting_progress
from rnr_kernels.endpoint import MAX_TRIES, Endpoint
from rnr_kernels.models.exact_answers import exact_verdicts
from rnr_kernels.records import check_writable, read_outputs
from rnr_kernels.tuning.alpaca_eval import (
    MODEL_OUTPUTS,
    REFERENCE_OUTPUTS,
    annotation_records,
    write_array,
    write_outputs,
)
from rnr_kernels.tuning.judges import REQUESTS_IN_FLIGHT, OpenAIJudge, read_judge_prompt
from rnr_kernels.tuning.win_rate import Judge, Judged, SuccessJudge, WinRate, paired, win_rate

JUDGES = ("exact", "openai")


def win_rate_command(
    a: Annotated[
        Path, typer.Argument(metavar="A.jsonl", help="Responses whose win rate is wanted.")
    ],
    b: Annotated[Path, typer.Argument(metavar="B.jsonl", help="The responses to beat.")],
    judge: Annotated[
        str | None,
        typer.Option(
            help="exact: right answers, for the embedded model's questions. openai: a model behind "
            "an OpenAI-compatible endpoint, asked in both orders; its key is OPENAI_API_KEY."
        ),
    ] = None,
    judge_model: Annotated[
        str | None, typer.Option(help="The judge's name, as its endpoint knows it.")
    ] = None,
    base_url: Annotated[
        str | None, typer.Option(help="Of the judge's endpoint; OpenAI's own without.")
    ] = None,
    judge_prompt: Annotated[
        Path | None,
        typer.Option(help="Text file with {instruction}, {output_1} and {output_2}."),
    ] = None,
    judge_temperature: Annotated[float, typer.Option(help="Of the judge's decoding.")] = 0.0,
    requests_in_flight: Annotated[
        int, typer.Option(min=1, help="Pairs that the judge is asked about at once.")
    ] = REQUESTS_IN_FLIGHT,
    max_tries: Annotated[int, typer.Option(min=1, help="Until a pair has no verdict.")] = MAX_TRIES,
    out: Annotated[
        Path | None, typer.Option(help="Verdicts to write, in AlpacaEval's format (.json).")
    ] = None,
    alpaca_eval: Annotated[
        Path | None,
        typer.Option(help="Folder for both sides' responses as alpaca_eval reads them."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
) -> None:
    """Count how often A's responses beat B's: files of generate --out, or AlpacaEval's outputs.

    A tie counts as half. The interval is a 95 % bootstrap over prompts. Both sides should be
    decoded alike: generate is greedy unless it is given a temperature.
    """
    chosen = _judge(
        judge, judge_model, base_url, judge_prompt, judge_temperature, requests_in_flight, max_tries
    )
    if chosen is None and alpaca_eval is None:
        raise ValueError("give --judge exact or --judge openai, or --alpaca-eval FOLDER alone")
    if chosen is None and out is not None:
        raise ValueError("--out holds a judge's verdicts; it needs --judge")
    outputs_a, outputs_b = read_outputs(a), read_outputs(b)
    pairs = paired(outputs_a, outputs_b)
    if out is not None:
        check_writable(out, force=force)
    console = Console()
    if alpaca_eval is not None:
        _prepare(alpaca_eval, force=force)
        command = write_outputs(alpaca_eval, pairs)
        console.print("Both sides' responses are written; alpaca_eval judges them with")
        typer.echo(command)  # in one line, to be copied
    if chosen is None:
        return

    judged: list[Judged] = []
    bar = counting_progress("judged")
    try:
        with bar:
            task = bar.add_task("", total=len(pairs))
            result = win_rate(outputs_a, outputs_b, chosen, on_judged=_both(judged, bar, task))
    except (KeyboardInterrupt, ValueError, OSError) as error:
        if out is not None and judged:
            partial = out.with_name(f"{out.stem}.partial{out.suffix}")
            write_array(partial, annotation_records(judged, chosen.name))
            typer.echo(f"stopped; finished pairs kept in {partial}: {len(judged)}", err=True)
        if isinstance(error, KeyboardInterrupt):
            raise typer.Exit(INTERRUPTED) from None
        raise
    console.print(_table(result, a, b, asks=judge == "openai"))
    if out is not None:
        write_array(out, annotation_records(judged, chosen.name))
        console.print(f"{len(judged)} pairs in {out}")


def _judge(
    name: str | None,
    model: str | None,
    base_url: str | None,
    prompt: Path | None,
    temperature: float,
    requests_in_flight: int,
    max_tries: int,
) -> Judge | None:
    if name is not None and name not in JUDGES:
        raise ValueError(f"judge must be {' or '.join(JUDGES)}, got {name!r}")
    if name != "openai":
        for option, value in (
            ("--judge-model", model),
            ("--base-url", base_url),
            ("--judge-prompt", prompt),
        ):
            if value is not None:
                raise ValueError(f"{option} belongs to --judge openai; add that, or leave it out")
        return None if name is None else SuccessJudge("exact", exact_verdicts)
    if model is None:
        raise ValueError("--judge openai needs --judge-model, the judge's name at its endpoint")
    return OpenAIJudge(
        Endpoint(model, base_url=base_url, temperature=temperature, max_tries=max_tries),
        prompt=None if prompt is None else read_judge_prompt(prompt),
        requests_in_flight=requests_in_flight,
    )


def _prepare(folder: Path, *, force: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; name a folder for --alpaca-eval")
    folder.mkdir(parents=True, exist_ok=True)
    for name in (MODEL_OUTPUTS, REFERENCE_OUTPUTS):
        check_writable(folder / name, force=force)


def _both(judged: list[Judged], bar: Progress, task: TaskID) -> Callable[[Judged], None]:
    def keep(each: Judged) -> None:
        judged.append(each)
        bar.advance(task)

    return keep


def _table(result: WinRate, a: Path, b: Path, *, asks: bool) -> Table:
    pair = result.judged[0].pair
    low, high = result.interval
    table = Table(show_header=False)
    table.add_row("A", Text.assemble(pair.a.generator, (f"  {a.name}", "dim")))
    table.add_row("B", Text.assemble(pair.b.generator, (f"  {b.name}", "dim")))
    table.add_row("judge", Text(result.judge))
    table.add_row(
        "win rate of A",
        Text.assemble(
            (f"{100 * result.rate:.1f} %", "bold"),
            f"  (95 % interval {100 * low:.1f} to {100 * high:.1f})",
        ),
    )
    table.add_row(
        "prompts",
        f"{len(result.judged)}: {result.wins} won, {result.ties} tied, {result.losses} lost, "
        f"{result.unjudged} without a verdict",
    )
    if asks:
        table.add_row("changed with the order", f"{result.order_changes}, among the ties")
        table.add_row("failed requests", str(result.failures))
        table.add_row("replies without verdict", str(result.nonsense))
    return table
