"""`rnr-kernels roles evaluate`: how often responses follow all that a system prompt requires."""

import json
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from importlib import metadata
from itertools import chain
from pathlib import Path
from threading import Event
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, TaskID

from rnr_kernels import __version__
from rnr_kernels.cli import INTERRUPTED
from rnr_kernels.cli.options import Template, check_belong
from rnr_kernels.cli.pass_rate_table import notes, rates_table
from rnr_kernels.cli.progress import GenerationProgress, counting_progress
from rnr_kernels.cli.startup import collection_paused, quiet_transformers
from rnr_kernels.durable import published
from rnr_kernels.endpoint import MAX_TRIES, Endpoint
from rnr_kernels.loading import display_name, load_model, load_tokenizer
from rnr_kernels.records import RecordWriter, check_apart, check_writable
from rnr_kernels.roles.chart import MOST_SYSTEMS, check_chart, write_chart
from rnr_kernels.roles.evaluation import Evaluation, check_decided, system_records
from rnr_kernels.roles.example import Example, read_examples
from rnr_kernels.roles.findings import Findings, check_something_counts, check_unjudged
from rnr_kernels.roles.judge import EndpointJudge, read_judge_prompt
from rnr_kernels.roles.pass_rate import REQUESTS_IN_FLIGHT, PassRate, pass_rate, pass_rate_of
from rnr_kernels.roles.responses import answer, read_responses
from rnr_kernels.sampling import Sampling
from rnr_kernels.templates import prompt_template

CHECKING_PACKAGES = ("py3langid", "regex", "sentencex")
"""Whose versions may change what a check says."""
ANSWERING = (
    "constrained", "template", "max_new_tokens", "batch_size", "temperature", "seed", "device",
    "dtype",
)  # fmt: skip
JUDGING = ("base_url", "judge_prompt", "requests_in_flight", "max_tries")
"""Parameters without a use where no model answers, and where none judges."""
FIRST_EXAMPLES = 32
"""After so many it is seen whether the judge makes any sense: the others cost money too."""


@dataclass(frozen=True)
class Answering:
    """How models answer here."""

    template: str
    max_new_tokens: int
    batch_size: int
    temperature: float
    seed: int | None
    device: str | None
    dtype: str | None
    constrained: bool

    def responses(self, model: str, examples: list[Example], out: Path | None) -> list[str]:
        """Of a model, by name or folder; in `out` each as it comes, for read_responses."""
        template = prompt_template(self.template)
        sampling = Sampling(self.temperature, seed=self.seed)
        with collection_paused():
            tokenizer = load_tokenizer(model)
            quiet_transformers()
            loaded = load_model(model, device=self.device, dtype=self.dtype)
        with ExitStack() as stack:
            progress = stack.enter_context(GenerationProgress(len(examples)))
            progress.describe(display_name(model))
            writer = None if out is None else stack.enter_context(RecordWriter(out))

            def keep(index: int, response: str) -> None:
                if writer is not None:
                    writer.write({"id": examples[index].id, "response": response})
                progress.finish_one()

            unconstrained: list[str] = []
            responses = answer(
                examples,
                loaded,
                tokenizer,
                constrained=self.constrained,
                template=template,
                sampling=sampling,
                max_new_tokens=self.max_new_tokens,
                batch_size=self.batch_size,
                on_step=progress.on_step,
                on_response=keep,
                on_unconstrained=lambda index, why: unconstrained.append(
                    f"{examples[index].id}: {why}"
                ),
            )
        if unconstrained:
            typer.echo(
                f"decoded without constraint: {len(unconstrained)} of {len(examples)} examples; "
                f"the first is {unconstrained[0]:.300}",
                err=True,
            )
        return responses


def evaluate_command(
    context: typer.Context,
    examples: Annotated[
        Path,
        typer.Argument(
            metavar="EXAMPLES",
            help="JSON Lines with 'messages' and 'requirements', or IFEval's own file.",
        ),
    ],
    responses: Annotated[
        list[Path],
        typer.Option(
            help="Responses to the examples, by 'id' or instruction; without it, and without "
            "--model, those in EXAMPLES count. Twice, or with --model: two systems compared."
        ),
    ] = [],  # noqa: B006  (typer wants a list)
    model: Annotated[
        list[str],
        typer.Option(
            help="A causal language model, or embedded, that answers the examples now; with --out "
            "its responses are kept in a file beside it."
        ),
    ] = [],  # noqa: B006
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N examples.")] = None,
    judge_model: Annotated[
        str | None,
        typer.Option(
            help="Judges requirements in free words, and whether the role is kept: its name at an "
            "OpenAI-compatible endpoint; its key is OPENAI_API_KEY."
        ),
    ] = None,
    base_url: Annotated[
        str | None, typer.Option(help="Of the judge's endpoint; OpenAI's own without.")
    ] = None,
    judge_prompt: Annotated[
        Path | None, typer.Option(help="Text file with {requirement} and {response}.")
    ] = None,
    requests_in_flight: Annotated[
        int, typer.Option(min=1, help="Questions that the judge is asked at once.")
    ] = REQUESTS_IN_FLIGHT,
    max_tries: Annotated[
        int, typer.Option(min=1, help="Until the judge has no verdict.")
    ] = MAX_TRIES,
    skip_judged: Annotated[
        bool, typer.Option("--skip-judged", help="Leave out what needs a judge, and count it.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="JSON file to write: rates, and every verdict's reason.")
    ] = None,
    chart: Annotated[
        Path | None, typer.Option(help="Figure to write, as .png, .svg or .pdf.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
    constrained: Annotated[
        bool,
        typer.Option(
            "--constrained", help="Decode --model's responses under the examples' requirements."
        ),
    ] = False,
    template: Template = "tags",
    max_new_tokens: Annotated[int, typer.Option(min=1)] = 512,
    batch_size: Annotated[int, typer.Option(min=1)] = 8,
    temperature: Annotated[float, typer.Option(help="0 is greedy.")] = 0.0,
    seed: Annotated[int | None, typer.Option(help="Example i draws from seed + i.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.")] = None,
) -> None:
    """Count how often responses follow all requirements of their system prompts, and their roles.

    Intervals are of 95 %, over examples. Two systems are compared on the same examples by
    McNemar's exact test.
    """
    sources = _sources(examples, responses, model)
    if not model:
        check_belong(context, ANSWERING, "--model")
    if judge_model is None:
        check_belong(context, JUDGING, "--judge-model")
    stopped = Event()
    judge = _judge(judge_model, base_url, judge_prompt, max_tries, stopped)
    if judge is not None and skip_judged:
        raise ValueError("--skip-judged leaves out what --judge-model judges; give one of them")
    kept_responses = _response_files(out, model)
    partial = None if out is None else out.with_name(f"{out.stem}.partial{out.suffix}")
    outputs = {"--out": out, "--chart": chart, "what is kept of a run that stops": partial}
    outputs |= {f"the responses of {display_name(m)}": p for m, p in kept_responses.items()}
    written = {name: path for name, path in outputs.items() if path is not None}
    read = {"the file of examples": examples, "--judge-prompt": judge_prompt}
    read |= {f"--responses {path}": path for path in responses}
    check_apart({name: path for name, path in read.items() if path is not None}, written)
    for path in written.values():
        check_writable(path, force=force)
    if chart is not None:
        check_chart(chart)
    everything = read_examples(examples)
    asked = everything[:limit]
    if judge is None and not skip_judged:
        check_unjudged(asked)
    check_something_counts(asked, has_judge=judge is not None)
    given = {
        name: read_responses(source, everything, limit)
        for name, source in sources.items()
        if isinstance(source, Path)
    }
    answering = Answering(
        template, max_new_tokens, batch_size, temperature, seed, device, dtype, constrained
    )
    for name, source in sources.items():
        if isinstance(source, str):
            given[name] = answering.responses(source, asked, kept_responses.get(source))
    head = {
        "settings": {
            "examples": str(examples),
            "limit": limit,
            "systems": {name: str(source or examples) for name, source in sources.items()},
            "judge": None if judge is None else {"model": judge.name, "endpoint": judge.place},
            "skip_judged": skip_judged,
            "answering": asdict(answering) if model else None,
        },
        "versions": _versions(),
    }
    found: dict[str, list[Findings]] = {}
    systems: dict[str, PassRate] = {}
    try:
        with counting_progress("checked") as bar:
            for name in sources:
                found[name] = []
                task = bar.add_task(escape(name), total=len(asked))
                systems[name] = pass_rate(
                    asked,
                    given.get(name),
                    judge=judge,
                    skip_judged=skip_judged,
                    requests_in_flight=requests_in_flight,
                    on_findings=_both(found[name], bar, task),
                )
                check_decided(chain.from_iterable(found.values()))
    except (KeyboardInterrupt, ValueError, OSError) as error:
        stopped.set()  # or requests that fail would be tried again before the command ends
        if partial is not None and any(found.values()):
            rates = {name: pass_rate_of(each) for name, each in found.items()}
            _write(partial, head | {"systems": system_records(rates)})
            kept = sum(map(len, found.values()))
            typer.echo(f"stopped; finished examples kept in {partial}: {kept}", err=True)
        if isinstance(error, KeyboardInterrupt):
            raise typer.Exit(INTERRUPTED) from None
        raise
    evaluation = Evaluation(systems)
    console = Console()
    console.print(rates_table(systems))
    console.print(*notes(evaluation, judge), sep="\n")
    if out is not None:
        _write(out, head | evaluation.as_record())
        _say(console, f"verdicts of {len(asked)} examples in {out}")
    for name, file in kept_responses.items():
        _say(console, f"responses of {display_name(name)} in {file}")
    if chart is not None:
        write_chart(systems, chart)
        _say(console, f"chart in {chart}")


def _sources(
    examples: Path, responses: list[Path], models: list[str]
) -> dict[str, Path | str | None]:
    """Where the responses of each system come from: a file, a model, or None for the examples."""
    if len(responses) + len(models) > MOST_SYSTEMS:
        raise ValueError(
            f"at most {MOST_SYSTEMS} systems are compared, got {len(responses) + len(models)}; "
            "give --responses and --model less often"
        )
    named: list[tuple[str, Path | str | None]] = [(path.stem, path) for path in responses]
    named += [(display_name(model), model) for model in models]
    if not named:
        return {examples.stem: None}
    if len(dict(named)) < len(named):  # two files of one name, in two folders
        named = [(str(source), source) for _, source in named]
    if len(dict(named)) < len(named):
        raise ValueError(f"{named[0][0]} is given twice; there is nothing to compare")
    return dict(named)


def _response_files(out: Path | None, models: list[str]) -> dict[str, Path]:
    """Where responses that cost a model's time are kept, whatever happens to a judge later."""
    if out is None:
        return {}
    endings = ["responses"] if len(models) == 1 else ["responses-1", "responses-2"]
    files = (out.with_name(f"{out.stem}.{ending}.jsonl") for ending in endings)
    return dict(zip(models, files, strict=False))


def _judge(
    model: str | None, base_url: str | None, prompt: Path | None, max_tries: int, stopped: Event
) -> EndpointJudge | None:
    if model is not None:
        return EndpointJudge(
            Endpoint(model, base_url=base_url, max_tries=max_tries),
            prompt=None if prompt is None else read_judge_prompt(prompt),
            stopped=stopped,
        )
    return None


def _both(found: list[Findings], bar: Progress, task: TaskID) -> Callable[[Findings], None]:
    def keep(each: Findings) -> None:
        found.append(each)
        bar.advance(task)
        if len(found) == FIRST_EXAMPLES:
            check_decided(found)

    return keep


def _say(console: Console, words: str) -> None:
    """A line that a terminal, not rich, breaks; brackets in a name are no markup."""
    console.print(words, markup=False, soft_wrap=True)


def _versions() -> dict[str, str]:
    packages = {}
    for name in CHECKING_PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            packages[name] = metadata.version(name)
    return {"rnr_kernels": __version__, **packages}


def _write(path: Path, record: dict[str, Any]) -> None:
    with published(path) as file:
        file.write_text(json.dumps(record, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
