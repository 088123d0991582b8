"""`rnr-kernels rank-responses`: is an instruction's own response likelier than a random one?"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table
from rich.text import Text

from rnr_kernels.analysis.published import (
    RANKING,
    RANKING_CAVEAT,
    RANKING_MODELS,
    RANKING_SCORING,
)
from rnr_kernels.analysis.ranking_pairs import (
    Contender,
    Pair,
    Selection,
    read_pairs,
    select_pairs,
)
from rnr_kernels.analysis.response_ranking import SCORINGS, Ranking, draw_responses, rankings
from rnr_kernels.cli.options import Template
from rnr_kernels.cli.progress import counting_progress
from rnr_kernels.cli.startup import collection_paused, quiet_transformers
from rnr_kernels.forward import config_window
from rnr_kernels.loading import EMBEDDED, display_name, load_config, load_model, load_tokenizer
from rnr_kernels.models.world import build_world, held_out_questions
from rnr_kernels.records import check_writable
from rnr_kernels.teacher_forcing import BATCH_TOKENS
from rnr_kernels.templates import PromptTemplate, prompt_template

SHOWN_SKIPS = 10

TITLES = {"base": "base", "instruction": "tuned"}


def rank_responses_command(
    data: Annotated[
        Path | None,
        typer.Option(
            help="Instructions with their responses, as JSON Lines or an array: records of "
            "generate --out, AlpacaEval, Alpaca or GSM8K, or fields instruction and response. "
            "Without it: facts of the embedded model's world."
        ),
    ] = None,
    model: Annotated[
        list[str],
        typer.Option(
            help="Folder or Hugging Face name, or embedded, embedded:instruction, "
            "embedded:response; give it again for more."
        ),
    ] = [EMBEDDED],  # noqa: B006  (typer wants a list)
    scoring: Annotated[
        list[str],
        typer.Option(help="mean (per token), sum or pmi; give it again for more."),
    ] = ["mean"],  # noqa: B006
    draws: Annotated[int, typer.Option(min=1, help="Random responses an instruction.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Of the draws.")] = 0,
    match_length: Annotated[
        bool,
        typer.Option("--match-length", help="Draw the responses nearest in length."),
    ] = False,
    limit: Annotated[int | None, typer.Option(min=2, help="Only the first N records.")] = None,
    template: Template = "tags",
    out: Annotated[
        Path | None, typer.Option(help="Every comparison's scores, and the table (.json).")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file of --out.")] = False,
    batch_tokens: Annotated[
        int, typer.Option(min=1, help="Tokens in a forward pass, padding included.")
    ] = BATCH_TOKENS,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.")] = None,
) -> None:
    """Rank each instruction's own response against random ones, under one or more models.

    The rate is the share of comparisons in which the model gives the own response the higher score;
    each instruction counts once, a tie is no win, and the interval is a 95 % bootstrap over
    instructions. All models get the same comparisons.
    """
    names, scorings = list(dict.fromkeys(model)), list(dict.fromkeys(scoring))
    for one in scorings:
        if one not in SCORINGS:
            raise ValueError(f"scoring must be {', '.join(SCORINGS)}, got {one!r}")
    pairs = _pairs(data, names)[:limit]
    if out is not None:
        check_writable(out, force=force)
    prompt = prompt_template(template)
    with collection_paused():
        contenders = [
            Contender(shown, load_tokenizer(name), config_window(load_config(name)))
            for name, shown in _shown_names(names).items()
        ]
        quiet_transformers()
    chosen = _selection(pairs, contenders, prompt)
    texts = [pair.texts for pair in chosen.kept]
    drawn = draw_responses(
        texts,
        num_draws=draws,
        seed=seed,
        lengths=chosen.lengths if match_length else None,
        fits=chosen.room.fits,
    )
    found: dict[str, list[Ranking]] = {}
    with counting_progress("texts scored") as bar:
        for name, contender in zip(names, contenders, strict=True):
            task = bar.add_task(contender.name, total=None)
            found[contender.name] = rankings(
                load_model(name, device=device, dtype=dtype),
                contender.tokenizer,
                texts,
                scorings=scorings,
                num_draws=draws,
                seed=seed,
                match_length=match_length,
                draws=drawn,
                template=prompt,
                batch_tokens=batch_tokens,
                on_scored=_on_scored(bar, task),
            )
    _report_skips(chosen, len(pairs), out)
    console = Console()
    console.print(_table(found))
    console.print(
        f"{len(chosen.kept)} instructions, up to {draws} random responses each, seed {seed}, "
        f"template {prompt.name}{', matched in length' if match_length else ''}. {RANKING_CAVEAT}",
        highlight=False,
    )
    if out is not None:
        text = json.dumps(_as_record(found, chosen, data), ensure_ascii=False)
        out.write_text(text + "\n", encoding="utf-8")
        console.print(f"{len(drawn[0])} comparisons in {out}", highlight=False, soft_wrap=True)


def _on_scored(bar: Progress, task: TaskID) -> Callable[[int, int], None]:
    return lambda done, total: bar.update(task, completed=done, total=total)


def _shown_names(names: Sequence[str]) -> dict[str, str]:
    """What tables call each model: two folders may have the same last part."""
    short = [display_name(name) for name in names]
    return {
        name: shown if short.count(shown) == 1 else name
        for name, shown in zip(names, short, strict=True)
    }


def _pairs(data: Path | None, names: Sequence[str]) -> list[Pair]:
    if data is not None:
        return read_pairs(data)
    if foreign := [name for name in names if name.partition(":")[0] != EMBEDDED]:
        raise ValueError(
            f"give --data FILE: without it, the facts of the embedded model's world are ranked, "
            f"which {foreign[0]!r} does not know"
        )
    asked = held_out_questions(build_world())
    return [
        Pair(question, fact.sentence, f"held-out fact {n}")
        for n, (question, fact) in enumerate(asked, start=1)
    ]


def _selection(
    pairs: Sequence[Pair], contenders: Sequence[Contender], template: PromptTemplate
) -> Selection:
    chosen = select_pairs(pairs, contenders, template)
    if not chosen.kept:
        first = chosen.skipped[0]
        raise ValueError(
            f"none of {len(pairs)} records can be ranked; the first, {first.where}: {first.reason}"
        )
    return chosen


def _report_skips(chosen: Selection, num_pairs: int, out: Path | None) -> None:
    skipped = chosen.skipped
    if skipped:
        typer.echo(f"skipped {len(skipped)} of {num_pairs} records:", err=True)
        for one in skipped[:SHOWN_SKIPS]:
            typer.echo(f"  {one.where}: {one.reason}", err=True)
        if len(skipped) > SHOWN_SKIPS:
            where = "--out lists them" if out is None else f"all are in {out}"
            typer.echo(f"  and {len(skipped) - SHOWN_SKIPS} more; {where}", err=True)
    if chosen.num_limited:
        typer.echo(
            f"after {chosen.num_limited} instructions some responses do not fit into the window; "
            "there, the others alone are drawn from",
            err=True,
        )


def _table(found: Mapping[str, Sequence[Ranking]]) -> Table:
    table = Table(title="Real responses ranked above random ones")
    table.add_column("model", overflow="fold")
    table.add_column("scoring")
    table.add_column("accuracy", justify="right")
    table.add_column("95 % interval", justify="right")
    table.add_column("ties", justify="right")
    table.add_column("comparisons", justify="right")
    for name, each in found.items():
        for ranking in each:
            low, high = ranking.interval()
            table.add_row(
                Text(name),
                ranking.scoring,
                f"{100 * ranking.accuracy:.1f} %",
                f"{100 * low:.1f} to {100 * high:.1f}",
                str(ranking.num_ties),
                str(ranking.num_comparisons),
            )
    table.add_section()
    table.add_row("published", style="dim")
    for place, name in enumerate(RANKING_MODELS):
        for system, figures in RANKING.items():
            table.add_row(
                f"{name} {TITLES[system]}",
                RANKING_SCORING,
                f"{figures[place]:.1f} %",
                *["-"] * 3,
                style="dim",
            )
    return table


def _as_record(
    found: Mapping[str, Sequence[Ranking]], chosen: Selection, data: Path | None
) -> dict[str, Any]:
    """What --out holds; `pair` and `drawn` are positions in `records`."""
    ranking = next(iter(found.values()))[0]
    return {
        "data": None if data is None else str(data),
        "template": ranking.template,
        "draws": ranking.num_draws,
        "seed": ranking.seed,
        "match_length": ranking.match_length,
        "results": [
            {
                "model": name,
                "scoring": each.scoring,
                "accuracy": each.accuracy,
                "interval": each.interval(),
                "ties": each.num_ties,
                "comparisons": each.num_comparisons,
                "score": each.score.tolist(),
                "drawn_score": each.drawn_score.tolist(),
            }
            for name, several in found.items()
            for each in several
        ],
        "pair": ranking.pair.tolist(),
        "drawn": ranking.drawn.tolist(),
        "records": [pair.where for pair in chosen.kept],
        "skipped": [{"record": one.where, "reason": one.reason} for one in chosen.skipped],
        "limited_by_window": chosen.num_limited,
        "published": {
            "scoring": RANKING_SCORING,
            "percent": {
                name: {system: figures[place] for system, figures in RANKING.items()}
                for place, name in enumerate(RANKING_MODELS)
            },
            "caveat": RANKING_CAVEAT,
        },
    }
