"""Published rule sets."""

from collections.abc import Callable
from typing import Literal

from rnr_kernels.rules.kinds import EosRamp, RuleSet, Token, TokenBias, UsedTokenPenalty


def hewitt2024(variant: Literal["paper", "released"] = "paper", *, strict: bool = False) -> RuleSet:
    """The three rules with which a base model follows instructions (Hewitt et al. 2024, Table 8).

    The rules are labelled "eos" (end the response more and more), "uniform" (15 tokens up or down)
    and "used" (a penalty on tokens already used), so `hewitt2024().without("eos")` is an ablation.

    "paper" is Table 8. "released" is the authors' published code where it differs: "What" at -5, no
    end-of-sequence bonus from 250 response tokens on, and used tokens counted from the user's
    instruction on, for prompts of the form "<|user|>\\n{instruction}\\n<|assistant|>\\n".

    Forms that a tokenizer has no single token for are skipped with a warning when the rules are
    compiled; with `strict=True` they are an error. Raises ValueError for an unknown variant.
    """
    if variant not in ("paper", "released"):
        raise ValueError(f"variant must be 'paper' or 'released', got {variant!r}")
    released = variant == "released"
    weights: dict[Token, float] = {
        # The characters of the chat tags: a base model repeats the format.
        "<": -4.0,
        " <": -4.0,
        "|": -4.0,
        # Openings of refusals and of further questions.
        " I": -5.0,
        "I": -5.0,
        " We": -3.0,
        "What": -5.0 if released else -3.0,
        " should": -6.0,
        # Formatting of a worked-out answer. The form of three spaces is one token in Llama-2.
        " *": 1.0,
        " -": 1.0,
        "   ": 1.0,
        " #": 1.0,
        " ##": 1.0,
        "\n": 1.0,
        "!": 1.0,
    }
    used = (
        UsedTokenPenalty(1.5, scope="prompt+response", after="<|user|>\n", label="used")
        if released
        else UsedTokenPenalty(1.5, scope="response", label="used")
    )
    return RuleSet(
        [
            EosRamp(15.0, over=250, until=250 if released else None, label="eos"),
            TokenBias(weights, skip_missing=not strict, label="uniform"),
            used,
        ],
        name="hewitt2024:released" if released else "hewitt2024",
    )


PRESETS: dict[str, Callable[[], RuleSet]] = {
    "hewitt2024": hewitt2024,
    "hewitt2024:released": lambda: hewitt2024("released"),
}


def preset(name: str) -> RuleSet:
    """The rule set of a name in `PRESETS`; an unknown name is a ValueError that lists them."""
    if name not in PRESETS:
        raise ValueError(f"there is no preset {name!r}; presets: {', '.join(sorted(PRESETS))}")
    return PRESETS[name]()
