"""Builds a data set of roles and rules from instructions."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rnr_kernels.identity import file_digest
from rnr_kernels.roles.judge import Judge, name_of
from rnr_kernels.roles.pipeline.asks import Generator
from rnr_kernels.roles.pipeline.card import card
from rnr_kernels.roles.pipeline.finish import (
    NothingOfUseError,
    same_instruction,
    same_instructions,
    write_files,
)
from rnr_kernels.roles.pipeline.folder import BuildFolder
from rnr_kernels.roles.pipeline.journal import Journal, Usage
from rnr_kernels.roles.pipeline.outcome import Outcome
from rnr_kernels.roles.pipeline.prompt_texts import Prompts
from rnr_kernels.roles.pipeline.scheduler import Scheduler
from rnr_kernels.roles.pipeline.settings import BuildSettings
from rnr_kernels.roles.pipeline.sources import Source, read_sources
from rnr_kernels.roles.pipeline.steps import ExampleSteps, Machine
from rnr_kernels.roles.pipeline.tally import Tally

FORMAT = 1
"""Of the journal; one of another format is not gone on with."""

ProgressCallback = Callable[[int, int], None]
"""(examples that are finished, all that are to be made)."""


@dataclass(frozen=True)
class Built:
    """A finished data set."""

    folder: Path
    tally: Tally
    usage: Usage


def build_dataset(
    instructions: str | Path,
    out: str | Path,
    generator: Generator,
    *,
    settings: BuildSettings | None = None,
    prompts: Prompts | None = None,
    judge: Judge | None = None,
    limit: int | None = None,
    on_progress: ProgressCallback | None = None,
) -> Built:
    """Makes examples of the `instructions` of a file, the first `limit`, in the folder `out`.

    For each: a role and requirements, without those that conflict; a response, checked and judged;
    repair with the reasons of what failed; then an example, or a rejection with its reason. Without
    a `judge` the generator judges what no program can check.

    The same call goes on where one before was ended, even killed: what a model has answered is not
    asked again. Raises ValueError for input that is not as `read_sources` expects it and for a
    folder with another build, ValueError or OSError where the generator or the judge fails for
    good or no longer answers, and where all that comes of them is of no use.
    """
    settings, prompts = settings or BuildSettings(), prompts or Prompts.read()
    path, folder = Path(instructions), BuildFolder(Path(out))
    sources = read_sources(path)[:limit]
    described = {
        "format": FORMAT,
        "input": {"name": path.name, "digest": file_digest(path), "limit": limit},
        "settings": settings.as_record(),
        "prompts": prompts.digest(),
        "generator": generator.identity(),
        "judge": name_of(judge) if judge is not None else None,
    }
    with folder.opened(described), Journal(folder.journal) as journal:
        same = same_instructions(sources, settings.likeness)
        to_make = [source for source in sources if source.index not in same]
        _make_examples(to_make, generator, settings, prompts, judge, journal, on_progress)
        try:
            tally = write_files(
                folder,
                sources,
                _outcomes(sources, same, journal),
                settings,
                generator.name,
                lambda tally: card(described, generator.name, tally),
            )
        except NothingOfUseError:
            for index in journal.finished:
                if journal.outcome(index).is_unheard:
                    journal.forget(index)
            raise
    return Built(folder.path, tally, journal.usage)


def _make_examples(
    sources: Sequence[Source],
    generator: Generator,
    settings: BuildSettings,
    prompts: Prompts,
    judge: Judge | None,
    journal: Journal,
    on_progress: ProgressCallback | None,
) -> None:
    finished = set(journal.finished)
    waiting = [source for source in sources if source.index not in finished]
    num_finished = len(sources) - len(waiting)

    def machines() -> Iterator[tuple[int, Machine]]:
        for source in waiting:
            steps = ExampleSteps(source, settings, prompts, has_judge=judge is not None)
            yield source.index, steps.run()

    def count(outcome: Outcome) -> None:
        nonlocal num_finished
        num_finished += 1
        if on_progress is not None:
            on_progress(num_finished, len(sources))

    if on_progress is not None:
        on_progress(num_finished, len(sources))
    Scheduler(generator, judge, journal).run(machines(), count)


def _outcomes(
    sources: Sequence[Source], same: dict[int, int], journal: Journal
) -> Iterator[Outcome]:
    for source in sources:
        if source.index in same:
            yield same_instruction(source, sources[same[source.index]])
        else:
            yield journal.outcome(source.index)
