"""What a build would ask, before anything is asked."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from rnr_kernels.roles.pipeline.asks import STEPS, Ask, Reply
from rnr_kernels.roles.pipeline.finish import same_instructions
from rnr_kernels.roles.pipeline.outcome import Outcome
from rnr_kernels.roles.pipeline.prompt_texts import Prompts
from rnr_kernels.roles.pipeline.settings import BuildSettings
from rnr_kernels.roles.pipeline.sources import Source, read_sources
from rnr_kernels.roles.pipeline.steps import ExampleSteps
from rnr_kernels.roles.pipeline.template_generator import TemplateGenerator

SAMPLE = 200
"""Instructions that the estimate is made of, spread evenly."""
CHARACTERS_PER_TOKEN = 4
USUAL_RESPONSE = 250
"""Tokens, where no instruction comes with a response."""
UNREADABLE = "there is no JSON object in it"

HOW = (
    "Calls and tokens are those of {sample} instructions that went through all steps with "
    "templates in the model's place, times {scale:.3g}. A token is taken as 4 characters of a "
    "prompt; a response as {response} tokens, {why}. Replies that cannot be read come on top, and "
    "repair: at most {repairs} calls, each a response's length longer than that of a response."
)


@dataclass(frozen=True)
class StepEstimate:
    """Calls of one step of all examples together."""

    step: str
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
) -> DryRun:
    """Reads the instructions and estimates what `build_dataset` would ask about them.

    Asks no model. Raises ValueError as `build_dataset` does.
    """
    settings, prompts = settings or BuildSettings(), prompts or Prompts.read()
    sources = read_sources(instructions)[:limit]
    same = same_instructions(sources, settings.likeness)
    to_make = [source for source in sources if source.index not in same]
    sample = to_make[:: max(1, -(-len(to_make) // SAMPLE))]
    right, wrong = TemplateGenerator(wrong=0), TemplateGenerator(wrong=1)
    asks, num_plain = [], 0
    for source in sample:
        own, outcome = _asked(source, settings, prompts, right)
        asks += own
        num_plain += outcome.is_plain
    shown = {ask.step: ask for ask in reversed(asks) if ask.example.in_scope}
    for source in sample:
        if "repair" in shown:
            break
        shown |= {
            ask.step: ask
            for ask in _asked(source, settings, prompts, wrong)[0]
            if ask.step == "repair"
        }
    response, why = _response_length(sample)
    scale = len(to_make) / max(1, len(sample))
    made = len(sample) - num_plain
    return DryRun(
        len(sources),
        len(same),
        round(num_plain * scale),
        tuple(_estimate(step, asks, scale, response) for step in STEPS if step != "repair"),
        {
            **{step: _shown(shown[step]) for step in STEPS if step in shown},
            "again": prompts.filled("again", problem=UNREADABLE),
        },
        HOW.format(
            sample=len(sample),
            scale=scale,
            response=response,
            why=why,
            repairs=f"{round(made * scale) * settings.repair_rounds:,}",
        ),
    )


def _asked(
    source: Source, settings: BuildSettings, prompts: Prompts, generator: TemplateGenerator
) -> tuple[list[Ask], Outcome]:
    """All that an example asks of a generator that answers by templates."""
    machine = ExampleSteps(source, settings, prompts).run()
    asks: list[Ask] = []
    reply: Reply | None = None
    while True:
        try:
            request = next(machine) if reply is None else machine.send(reply)
        except StopIteration as stopped:
            outcome: Outcome = stopped.value
            return asks, outcome
        assert isinstance(request, Ask)  # as it was made without a judge
        asks.append(request)
        (reply,) = generator.replies([request], Event())


def _response_length(sample: Sequence[Source]) -> tuple[int, str]:
    lengths = [_tokens([source.response]) for source in sample if source.response]
    if not lengths:
        return USUAL_RESPONSE, "as none comes with the instructions"
    return round(sum(lengths) / len(lengths)), "the mean of those that came with them"


def _estimate(step: str, asks: Sequence[Ask], scale: float, response: int) -> StepEstimate:
    own = [ask for ask in asks if ask.step == step]
    num_read = sum(_tokens(message["content"] for message in ask.messages) for ask in own)
    written = response if step == "response" else _json_length(own)
    return StepEstimate(
        step, round(len(own) * scale), round(num_read * scale), round(len(own) * scale * written)
    )


def _json_length(asks: Sequence[Ask]) -> float:
    """Of the templates' JSON replies, on average."""
    replies = TemplateGenerator(wrong=0).replies(list(asks), Event())
    return sum(_tokens([reply.text]) for reply in replies) / max(1, len(asks))


def _tokens(texts: Iterable[str]) -> int:
    return sum(-(-len(text) // CHARACTERS_PER_TOKEN) for text in texts)


def _shown(ask: Ask) -> str:
    return "\n\n".join(f"[{message['role']}]\n{message['content']}" for message in ask.messages)
