"""`rnr-kernels roles build`: a data set of roles and rules from instructions."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rnr_kernels.cli import INTERRUPTED
from rnr_kernels.cli.options import Template, check_belong, combined_rules
from rnr_kernels.cli.progress import counting_progress
from rnr_kernels.cli.startup import collection_paused, quiet_transformers
from rnr_kernels.endpoint import MAX_TRIES, Endpoint
from rnr_kernels.identity import model_identity
from rnr_kernels.loading import display_name, load_model, load_tokenizer
from rnr_kernels.roles.judge import EndpointJudge
from rnr_kernels.roles.pipeline.asks import RESPONSES, STEPS, Generator
from rnr_kernels.roles.pipeline.build import Built, build_dataset
from rnr_kernels.roles.pipeline.by_step import ByStep
from rnr_kernels.roles.pipeline.card import share
from rnr_kernels.roles.pipeline.dry_run import DryRun, dry_run
from rnr_kernels.roles.pipeline.endpoint_generator import REQUESTS_IN_FLIGHT, EndpointGenerator
from rnr_kernels.roles.pipeline.local_generator import LocalGenerator
from rnr_kernels.roles.pipeline.prompt_texts import Prompts
from rnr_kernels.roles.pipeline.settings import BuildSettings
from rnr_kernels.roles.pipeline.template_generator import TemplateGenerator
from rnr_kernels.sampling import Sampling

GENERATORS = ("endpoint", "local", "templates")
ROLES = ("model", "templates")
OF_GENERATOR = {
    "endpoint": ("base_url", "requests_in_flight"),
    "local": ("batch_size", "rules", "template", "device", "dtype"),
    "templates": ("wrong", "mends"),
}
"""Which parameters one generator alone has a use for."""
OF_MODELS = ("model", "temperature", "max_tokens")


def build_command(
    context: typer.Context,
    instructions: Annotated[
        Path | None,
        typer.Argument(
            metavar="INSTRUCTIONS", help="Alpaca, UltraChat, prompts or messages, as JSON or JSONL."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to make, or to go on with.")] = None,
    generator: Annotated[
        str | None,
        typer.Option(
            help="endpoint: a model behind an OpenAI-compatible endpoint; its key is "
            "OPENAI_API_KEY. local: a Hugging Face model, by our decode loop. templates: no model; "
            "right and wrong responses at stated rates, to try things out."
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Its name at the endpoint; a folder or name for local.")
    ] = None,
    base_url: Annotated[
        str | None, typer.Option(help="Of the endpoint; OpenAI's own without.")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="0.7 for an endpoint; local models are greedy.")
    ] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Of a reply.")] = None,
    requests_in_flight: Annotated[
        int, typer.Option(min=1, help="Requests that the endpoint is sent at once.")
    ] = REQUESTS_IN_FLIGHT,
    max_tries: Annotated[int, typer.Option(min=1, help="Until a request is given up.")] = MAX_TRIES,
    batch_size: Annotated[int, typer.Option(min=1, help="Of a local model.")] = 8,
    rules: Annotated[
        list[str], typer.Option(help="Preset or rule file over all of a local model's replies.")
    ] = ["none"],  # noqa: B006  (typer wants a list)
    template: Template = "chat",
    constrained: Annotated[
        bool, typer.Option(help="Decode a local model's responses under their requirements.")
    ] = True,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.")] = None,
    roles: Annotated[
        str,
        typer.Option(
            help="model, or templates: then the model writes responses alone, and no JSON."
        ),
    ] = "model",
    wrong: Annotated[float, typer.Option(help="Share of templates' wrong responses.")] = 0.3,
    mends: Annotated[float, typer.Option(help="Share of templates' repairs that are right.")] = 0.5,
    judge_model: Annotated[
        str | None,
        typer.Option(help="Judges what no program can check; the generator itself without."),
    ] = None,
    judge_base_url: Annotated[
        str | None, typer.Option(help="Of the judge's endpoint; OpenAI's own without.")
    ] = None,
    min_requirements: Annotated[int, typer.Option(help="Of an example, at least.")] = 1,
    max_requirements: Annotated[int, typer.Option(help="Of an example, at most.")] = 6,
    written_share: Annotated[
        float, typer.Option(help="Of requirements, those that the model writes.")
    ] = BuildSettings.written_share,
    kind: Annotated[
        list[str], typer.Option(help="Draw requirements of this kind; all without.")
    ] = [],  # noqa: B006
    repair_rounds: Annotated[
        int, typer.Option(help="Times that a response is sent back.")
    ] = BuildSettings.repair_rounds,
    plain_share: Annotated[
        float, typer.Option(help="Of instructions, those that stay plain examples.")
    ] = BuildSettings.plain_share,
    out_of_scope_share: Annotated[
        float, typer.Option(help="Of the others, those whose role declines the question.")
    ] = BuildSettings.out_of_scope_share,
    likeness: Annotated[
        float, typer.Option(help="Jaccard index from which on texts are near duplicates.")
    ] = BuildSettings.likeness,
    seed: Annotated[int, typer.Option(help="Of all random choices.")] = 0,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N instructions.")] = None,
    prompts: Annotated[
        Path | None, typer.Option(help="Folder with prompts in place of the packaged ones.")
    ] = None,
    write_prompts: Annotated[
        Path | None, typer.Option(help="Write the prompts to this folder, to be edited, and end.")
    ] = None,
    dry: Annotated[
        bool, typer.Option("--dry-run", help="Show calls, tokens and prompts; ask nothing.")
    ] = False,
) -> None:
    """Make examples of roles and rules from instructions: messages as JSONL and Parquet.

    The same command goes on with what it has begun, after whatever ended it.
    """
    console = Console()
    texts = Prompts.read(prompts)
    if write_prompts is not None:
        for path in texts.write(write_prompts):
            console.print(escape(str(path)), soft_wrap=True)
        return
    if instructions is None:
        raise ValueError("give the file with the instructions, as in rnr-kernels roles build FILE")
    settings = BuildSettings(
        seed=seed,
        num_requirements=(min_requirements, max_requirements),
        written_share=written_share,
        kinds=kind or None,
        repair_rounds=repair_rounds,
        plain_share=plain_share,
        out_of_scope_share=out_of_scope_share,
        likeness=likeness,
    )
    if roles not in ROLES:
        raise ValueError(f"--roles must be {' or '.join(ROLES)}, got {roles!r}")
    if not dry and out is None:
        raise ValueError("--out names the folder of the data set; give it, or --dry-run")
    if generator not in GENERATORS and not (dry and generator is None):
        raise ValueError(f"--generator must be {', '.join(GENERATORS)}, got {generator!r}")
    if dry:
        found = dry_run(
            instructions,
            settings=settings,
            prompts=texts,
            limit=limit,
            by_templates=_by_templates(generator, roles),
            judge=judge_model,
        )
        _show_dry_run(console, found)
        return
    assert out is not None and generator is not None
    _check_used(context, generator, has_judge=judge_model is not None)
    if generator == "endpoint":
        chosen: Generator = EndpointGenerator(
            Endpoint(
                _named(model, "the model's name at the endpoint"),
                base_url=base_url,
                temperature=0.7 if temperature is None else temperature,
                max_tokens=max_tokens,
                max_tries=max_tries,
            ),
            requests_in_flight=requests_in_flight,
        )
    elif generator == "local":
        name = _named(model, "a folder or Hugging Face name")
        with collection_paused():
            tokenizer = load_tokenizer(name)
            quiet_transformers()
            loaded = load_model(name, device=device, dtype=dtype)
        chosen = LocalGenerator(
            loaded,
            tokenizer,
            name=display_name(name),
            identity=model_identity(name),
            rules=combined_rules(rules, []),
            template=template,
            sampling=Sampling(temperature or 0.0),
            max_new_tokens=max_tokens or 512,
            batch_size=batch_size,
            constrained=constrained,
        )
    else:
        chosen = TemplateGenerator(wrong=wrong, mends=mends)
    if roles == "templates" and generator != "templates":
        chosen = ByStep(chosen, TemplateGenerator(writes=False))
    judge = None
    if judge_model is not None:
        judge = EndpointJudge(
            Endpoint(judge_model, base_url=judge_base_url, max_tries=max_tries),
            prompt=texts["judge"],
        )
    bar = counting_progress("examples")
    try:
        with bar:
            task = bar.add_task("", total=None)
            built = build_dataset(
                instructions,
                out,
                chosen,
                settings=settings,
                prompts=texts,
                judge=judge,
                limit=limit,
                on_progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
    except KeyboardInterrupt:
        typer.echo("interrupted; give the same command again to go on", err=True)
        raise typer.Exit(INTERRUPTED) from None
    console.print(_summary(built))


def _by_templates(generator: str | None, roles: str) -> list[str]:
    """The steps that templates take."""
    if generator == "templates":
        return [*STEPS]
    return [step for step in STEPS if roles == "templates" and step not in RESPONSES]


def _check_used(context: typer.Context, generator: str, *, has_judge: bool) -> None:
    """ValueError for an option that this generator would leave unused."""
    for owner, names in OF_GENERATOR.items():
        if owner != generator:
            check_belong(context, names, f"--generator {owner}")
    if generator == "templates":
        check_belong(context, OF_MODELS, "--generator endpoint or local")
    if not has_judge:
        check_belong(context, ["judge_base_url"], "--judge-model")
        if generator != "endpoint":
            check_belong(context, ["max_tries"], "--generator endpoint or --judge-model")


def _named(model: str | None, what: str) -> str:
    if model is None:
        raise ValueError(f"--model is missing: {what}")
    return model


def _summary(built: Built) -> Table:
    tally = built.tally
    table = Table(show_header=False)
    rows = [
        ("data set", str(built.folder)),
        (
            "examples",
            f"{tally.num_accepted:,} with requirements, {tally.num_declined:,} of which decline; "
            f"{tally.num_plain:,} plain",
        ),
        ("yield", share(tally.yield_)),
        ("first responses that follow all", share(tally.first)),
        ("after repair", share(tally.last)),
        ("requirements dropped", f"{tally.dropped:,}, because of a conflict"),
        ("replies that could not be read", f"{sum(tally.unreadable.values()):,}"),
    ]
    usage = built.usage
    rows.append(
        ("asked", f"{usage.replies:,} replies, {usage.failures:,} requests that failed before one")
    )
    if usage.num_read:
        rows.append(("tokens", f"{usage.num_read:,} read, {usage.num_written:,} written"))
    if usage.verdicts:
        rows.append(("the judge's verdicts", f"{usage.verdicts:,}"))
    for step, count in tally.rejected.most_common():
        rows.append((f"rejected: {step}", f"{count:,}"))
    for name, value in rows:
        table.add_row(escape(name), escape(value))
    return table


def _show_dry_run(console: Console, found: DryRun) -> None:
    for step, text in found.prompts.items():
        console.rule(step)
        console.print(escape(text), soft_wrap=True, highlight=False)
    console.rule("calls")
    table = Table("step", "calls", "tokens in", "tokens out", "by")
    for each in found.steps:
        numbers = (each.calls, each.num_read, each.num_written)
        table.add_row(each.step, *(f"{number:,}" for number in numbers), escape(each.by))
    totals = [sum(getattr(e, n) for e in found.steps) for n in ("calls", "num_read", "num_written")]
    table.add_row("all", *(f"{total:,}" for total in totals))
    console.print(table)
    console.print(
        f"{found.num_sources:,} instructions: {found.num_duplicates:,} near duplicates are left "
        f"out, about {found.num_plain:,} become plain examples."
    )
    console.print(escape(found.how))
