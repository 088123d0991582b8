"""`rnr-kernels token-shift`: how a base ranks the tokens of an aligned model's responses."""

import re
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rnr_kernels.analysis.merge import merge_shifts
from rnr_kernels.analysis.ray_engine import RayEngine
from rnr_kernels.analysis.results import stored_counts
from rnr_kernels.analysis.run import ShiftRun, run_token_shift
from rnr_kernels.analysis.run_report import write_run_report
from rnr_kernels.analysis.settings import ALIGNED, MAX_TOP_K, ShiftSettings
from rnr_kernels.analysis.token_shift import CLASSES, ClassShares, Share, class_shares
from rnr_kernels.cli import INTERRUPTED
from rnr_kernels.cli.options import Template
from rnr_kernels.cli.progress import ShiftBar
from rnr_kernels.cli.startup import collection_paused, quiet_transformers
from rnr_kernels.loading import (
    EMBEDDED,
    EMBEDDED_PROMPTS,
    check_installed,
    load_tokenizer,
)
from rnr_kernels.teacher_forcing import BATCH_TOKENS

ENGINES = ("local", "ray")


def token_shift_command(
    out: Annotated[Path, typer.Option(help="Folder to make; a run that stopped goes on there.")],
    aligned: Annotated[
        str,
        typer.Option(
            help="A model, as --base; or rules:PRESET or rules:FILE.toml: the first base with them."
        ),
    ] = ALIGNED,
    base: Annotated[
        list[str],
        typer.Option(
            help="Folder or Hugging Face name of the model to compare with, or embedded; give it "
            "again for several."
        ),
    ] = [EMBEDDED],  # noqa: B006  (typer wants a list)
    prompts: Annotated[
        Path | None,
        typer.Option(
            help="JSON Lines or JSON: instruction or prompt, and perhaps response or output; the "
            "aligned side answers where there is none. Default: the embedded model's questions."
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N records.")] = None,
    template: Template = "tags",
    base_template: Annotated[
        str | None, typer.Option(help="Of the bases; default: they see the same prompt.")
    ] = None,
    top_k: Annotated[
        int, typer.Option(min=0, max=MAX_TOP_K, help="Likeliest tokens of both sides to keep.")
    ] = MAX_TOP_K,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Of responses to decode.")] = 512,
    batch_tokens: Annotated[
        int, typer.Option(min=1, help="Tokens in a forward pass, padding included.")
    ] = BATCH_TOKENS,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.")] = None,
    shard: Annotated[
        str, typer.Option(metavar="i/n", help="Only every n-th batch, from the i-th (1 to n).")
    ] = "1/1",
    engine: Annotated[
        str, typer.Option(help="local, or ray: workers of a Ray cluster that see --out.")
    ] = ENGINES[0],
    workers: Annotated[
        int | None, typer.Option(min=1, help="Of --engine ray; default: as the cluster has room.")
    ] = None,
    report: Annotated[
        bool, typer.Option(help="Write report.html and curves.svg when all batches are done.")
    ] = True,
) -> None:
    """Compare an aligned model with its base at every token of its responses.

    A token that the base ranks first is unshifted, second or third marginal, lower shifted. A run
    that was killed goes on when the same command is given again, and ends with the same files.
    """
    settings = ShiftSettings(
        aligned, tuple(base), EMBEDDED_PROMPTS if prompts is None else prompts, limit, template,
        base_template, top_k, max_new_tokens, batch_tokens, device, dtype,
    )  # fmt: skip
    if engine not in ENGINES:
        raise ValueError(f"engine must be {' or '.join(ENGINES)}, got {engine!r}")
    if report:
        check_installed(("matplotlib",), "the report", "analysis")
    if workers is not None and engine != "ray":
        raise ValueError("--workers belongs to --engine ray; add that, or leave it out")
    with collection_paused():
        quiet_transformers()
    try:
        with ShiftBar() as bar:
            run = run_token_shift(
                settings,
                out,
                shard=_shard(shard),
                engine=RayEngine(workers) if engine == "ray" else None,
                report=bar.show,
            )
    except KeyboardInterrupt:
        typer.echo(f"interrupted; what is finished is kept in {out}", err=True)
        raise typer.Exit(INTERRUPTED) from None
    console = Console()
    console.print(_summary(run))
    if run.missing:
        console.print(
            f"{len(run.missing)} of {len(run.manifest.batches)} batches are for other shards; "
            "rnr-kernels token-shift-merge joins folders"
        )
    else:
        console.print(_shares(out, run.manifest.bases))
        if report:
            _report(out, settings.models[0])


def _report(out: Path, tokenizer: str) -> None:
    typer.echo(f"the page is {write_run_report(out, load_tokenizer(tokenizer))}")


def report_command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Of a finished run.")],
    tokenizer: Annotated[
        str, typer.Option(help="Folder or Hugging Face name of one of the run's models.")
    ] = EMBEDDED,
) -> None:
    """Write the page and the curves of a token-shift run, of one that was merged for example."""
    check_installed(("matplotlib",), "the report", "analysis")
    quiet_transformers()
    _report(folder, tokenizer)


def merge_command(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Of the shards.")],
    out: Annotated[Path, typer.Option(help="Folder to make.")],
) -> None:
    """Join the folders of a token-shift run's shards, as one process would have written it."""
    manifest = merge_shifts(folders, out)
    console = Console()
    console.print(f"{manifest.num_prompts} prompts in {out}")
    console.print(_shares(out, manifest.bases))


def _shard(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None:
        raise ValueError(f"--shard must be i/n, as in 1/4, got {text!r}")
    return int(match[1]), int(match[2])


def _summary(run: ShiftRun) -> Table:
    table = Table(show_header=False)
    table.add_row("aligned", Text(run.manifest.aligned))
    table.add_row("prompts", str(run.manifest.num_prompts))
    skipped = run.manifest.num_skipped
    table.add_row("skipped", f"{skipped}, in {run.out / 'skipped.jsonl'}" if skipped else "0")
    if run.num_tokens:
        speed = run.num_tokens / run.seconds
        table.add_row("compared now", f"{run.num_tokens} tokens, {speed:,.0f} tokens/s")
    else:
        done = "it was finished" if not run.missing else "this shard was finished"
        table.add_row("compared now", f"nothing: {done}")
    return table


def _shares(out: Path, bases: tuple[str, ...]) -> Table:
    table = Table(title="% of response tokens, 95 % intervals", title_justify="left")
    for column in ("base", "EOS", "tokens", *CLASSES):
        table.add_column(column)
    for base, name in enumerate(bases):
        for with_eos in (True, False):
            counts = stored_counts(out, base, with_eos=with_eos)
            if len(counts):
                eos = "with" if with_eos else "without"
                table.add_row(Text(name), eos, *_cells(class_shares(counts)))
    return table


def _cells(shares: ClassShares) -> list[str]:
    return [str(shares.num_tokens), *(_percent(getattr(shares, name)) for name in CLASSES)]


def _percent(share: Share) -> str:
    return f"{100 * share.share:.1f} ({100 * share.low:.1f} to {100 * share.high:.1f})"
