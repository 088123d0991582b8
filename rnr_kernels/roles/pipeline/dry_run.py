"""What a build would ask, before anything is asked."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from rnr_kernels.roles.pipeline.asks import STEPS, Ask, Reply
from rnr_kernels.roles.pipeline.finish import same_instructions
from rnr_kernels.roles.pipeline.prompt_texts import Prompts
from rnr_kernels.roles.pipeline.readings import NO_OBJECT
from rnr_kernels.roles.pipeline.settings import BuildSettings
from rnr_kernels.roles.pipeline.sources import Source, read_sources
from rnr_kernels.roles.pipeline.steps import ExampleSteps
from rnr_kernels.roles.pipeline.template_generator import TemplateGenerator
from rnr_kernels.roles.pipeline.template_texts import CannotWriteError

SAMPLE = 200
"""Instructions that the estimate is made of, spread evenly."""
CHARACTERS_PER_TOKEN = 4
USUAL_RESPONSE = 250
"""Tokens, where no instruction comes with a response."""

HOW = (
    "Calls and tokens are those of {sample} instructions that went through all steps with "
    "templates in the model's place, times {scale:.3g}. A token is taken as 4 characters of a "
    "prompt; a response as {response} tokens, {why}. Replies that cannot be read come on top, and "
    "repair: at most {repairs:,} calls, each a response's length longer than that of a response, "
    "and {judged:,} for judging what comes of them."
)

GENERATOR, TEMPLATES = "generator", "templates"
"""Who takes a step, besides a judge of its own."""


@dataclass(frozen=True)
class StepEstimate:
    """Calls of one step of all examples together; none for what templates do."""

    step: str
    by: str
    """`GENERATOR`, `TEMPLATES` or the judge's name."""
    calls: int
    num_read: int
    """Tokens."""
    num_written: int


@dataclass(frozen=True)
class DryRun:
    """What a build would ask."""

    num_sources: int
    num_duplicates: int
    num_plain: int
    steps: tuple[StepEstimate, ...]
    prompts: dict[str, str]
    """One of each step, as the model would see it."""
    how: str
    """How the numbers are estimated."""


def dry_run(
    instructions: str | Path,
    *,
    settings: BuildSettings | None = None,
    prompts: Prompts | None = None,
    limit: int | None = None,
    by_templates: Collection[str] = (),
    judge: str | None = None,
) -> DryRun:
    """Reads the instructions and estimates what `build_dataset` would ask about them.

    `by_templates` are the steps that templates take in the generator's place, `judge` the name of a
    judge that is no generator. Asks no model. Raises ValueError as `build_dataset` does.
    """
    settings, prompts = settings or BuildSettings(), prompts or Prompts.read()
    takers = {step: TEMPLATES if step in by_templates else GENERATOR for step in STEPS}
    if judge is not None:
        takers["judge"] = judge
    sources = read_sources(instructions)[:limit]
    same = same_instructions(sources, settings.likeness)
    to_make = [source for source in sources if source.index not in same]
    sample = to_make[:: max(1, -(-len(to_make) // SAMPLE))]
    # What templates have no response to is kept where a model writes it.
    writes = "response" in by_templates or not by_templates
    right, wrong = (_Answers(share, writes=writes) for share in (0, 1))
    by_source = [_asked(source, settings, prompts, right) for source in sample]
    asks = [ask for own in by_source for ask in own if ask.step != "repair"]
    shown = {ask.step: ask for ask in reversed(asks) if ask.example.in_scope}
    for source in sample:
        if "repair" in shown:
            break
        own = _asked(source, settings, prompts, wrong)
        shown |= {ask.step: ask for ask in own if ask.step == "repair"}
    response, why = _response_length(sample)
    scale = len(to_make) / max(1, len(sample))
    estimates = [
        _estimate(step, takers[step], asks, scale, response) for step in STEPS if step != "repair"
    ]
    rounds = {each.step: each.calls * settings.repair_rounds for each in estimates}
    by_models = [step for step in STEPS if step in shown and takers[step] != TEMPLATES]
    texts = {step: _shown(shown[step]) for step in by_models}
    if any(shown[step].schema is not None and takers[step] == GENERATOR for step in by_models):
        texts["again"] = prompts.filled("again", problem=NO_OBJECT)
    return DryRun(
        len(sources),
        len(same),
        round(sum(not own for own in by_source) * scale),
        tuple(estimates),
        texts,
        HOW.format(
            sample=len(sample),
            scale=scale,
            response=response,
            why=why,
            repairs=rounds["response"],
            judged=rounds["judge"],
        ),
    )


class _Answers:
    """Templates that also answer where they have no response."""

    def __init__(self, wrong: float, *, writes: bool) -> None:
        self._templates = TemplateGenerator(wrong=wrong, writes=writes)

    def reply(self, ask: Ask) -> Reply:
        try:
            (reply,) = self._templates.replies([ask], Event())
        except CannotWriteError:
            return Reply("What templates cannot write.")
        return reply


def _asked(
    source: Source, settings: BuildSettings, prompts: Prompts, answers: _Answers
) -> list[Ask]:
    """What an example asks, to its first repair at most; nothing if it is a plain one."""
    machine = ExampleSteps(source, settings, prompts).run()
    asks: list[Ask] = []
    reply: Reply | None = None
    while not asks or asks[-1].step != "repair":
        try:
            request = next(machine) if reply is None else machine.send(reply)
        except StopIteration:
            break
        assert isinstance(request, Ask)  # as it was made without a judge
        asks.append(request)
        reply = answers.reply(request)
    return asks


def _response_length(sample: Sequence[Source]) -> tuple[int, str]:
    lengths = [_tokens([source.response]) for source in sample if source.response]
    if not lengths:
        return USUAL_RESPONSE, "as none comes with the instructions"
    return round(sum(lengths) / len(lengths)), "the mean of those that came with them"


def _estimate(step: str, by: str, asks: Sequence[Ask], scale: float, response: int) -> StepEstimate:
    own = [ask for ask in asks if ask.step == step]
    if by == TEMPLATES:
        return StepEstimate(step, by, 0, 0, 0)
    num_read = sum(_tokens(message["content"] for message in ask.messages) for ask in own)
    written = response if step == "response" else _json_length(own)
    return StepEstimate(
        step,
        by,
        round(len(own) * scale),
        round(num_read * scale),
        round(len(own) * scale * written),
    )


def _json_length(asks: Sequence[Ask]) -> float:
    """Of the templates' JSON replies, on average."""
    replies = TemplateGenerator(wrong=0).replies(list(asks), Event())
    return sum(_tokens([reply.text]) for reply in replies) / max(1, len(asks))


def _tokens(texts: Iterable[str]) -> int:
    return sum(-(-len(text) // CHARACTERS_PER_TOKEN) for text in texts)


def _shown(ask: Ask) -> str:
    return "\n\n".join(f"[{message['role']}]\n{message['content']}" for message in ask.messages)
