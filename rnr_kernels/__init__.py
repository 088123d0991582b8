"""Decoding kernels that multiply rule models into a language model's next-token distribution."""

from typing import TYPE_CHECKING

from rnr_kernels.ops import (
    apply_rules_,
    linear_shift_stats,
    linear_token_stats,
    rule_log_softmax,
    sample_,
    shift_stats,
    token_stats,
    update_state_,
)
from rnr_kernels.rules.compiler import compile_rules
from rnr_kernels.rules.files import load_rules
from rnr_kernels.rules.kinds import (
    BanTokens,
    EosRamp,
    OnlyTokens,
    RuleSet,
    ScoreVector,
    TokenBias,
    UsedTokenPenalty,
)
from rnr_kernels.rules.presets import hewitt2024
from rnr_kernels.rules.program import RuleProgram
from rnr_kernels.sampling import Sampling
from rnr_kernels.state import DecodeState
from rnr_kernels.warm_up import warm_up

if TYPE_CHECKING:
    from rnr_kernels.integrations.huggingface import RuleLogitsProcessor

__version__ = "0.1.0"

__all__ = [
    "BanTokens",
    "DecodeState",
    "EosRamp",
    "OnlyTokens",
    "RuleLogitsProcessor",
    "RuleProgram",
    "RuleSet",
    "Sampling",
    "ScoreVector",
    "TokenBias",
    "UsedTokenPenalty",
    "apply_rules_",
    "compile_rules",
    "hewitt2024",
    "linear_shift_stats",
    "linear_token_stats",
    "load_rules",
    "rule_log_softmax",
    "sample_",
    "shift_stats",
    "token_stats",
    "update_state_",
    "warm_up",
]


def __getattr__(name: str) -> object:
    # The processor needs transformers, which takes seconds to import.
    if name == "RuleLogitsProcessor":
        from rnr_kernels.integrations.huggingface import RuleLogitsProcessor

        return RuleLogitsProcessor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
