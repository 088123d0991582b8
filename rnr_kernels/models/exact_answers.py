"""The verdict on stored responses to the embedded model's questions."""

from collections.abc import Sequence

from rnr_kernels.models.evaluate import Response, load_prompts, verdicts_on
from rnr_kernels.models.judge import Verdict
from rnr_kernels.records import ModelOutput


def exact_verdicts(outputs: Sequence[ModelOutput]) -> list[Verdict]:
    """Whether each response gives the right answer, by `rnr_kernels.models.judge.judge`.

    A response ended if its finish reason is "eos", and also if its file has none, as AlpacaEval's
    files do not. Raises ValueError for an instruction that is none of the embedded questions.
    """
    known = {prompt.instruction: prompt for prompt in load_prompts()}
    for each in outputs:
        if each.instruction not in known:
            raise ValueError(
                f"{each.instruction[:60]!r} is no question about the embedded model's world; the "
                "exact judge knows the answers to rnr_kernels/models/prompts.jsonl only: use "
                "another judge"
            )
    return verdicts_on(
        [known[each.instruction] for each in outputs],
        [Response(each.output, each.finish_reason in (None, "eos")) for each in outputs],
    )
