"""The semantics of every op, in plain PyTorch: the only definition, which all backends are tested
against.

Written to be read, not to be fast. Floating-point results (log-probabilities, entropies, log Z)
are computed in float64 and rounded once, so they are the truth within half a unit in the last
place; `apply_rules_`, tokens, ranks, counts and the state are exact. The reference may read its
tensors on the host; other backends may not.

Row r of `logits` [R, row_width] belongs to slot `state_indices[r]` (or r). `program` and `state`
are the tensors of `layout.ProgramTensors` and `layout.StateTensors`, `error` int32 [1].

Where the contract left a choice, it is made here:

- A program id past the table, or of a removed program, is a padding row, like a slot past the
  table, and sets an error bit. Negative ones are legal (padding slot; no rules) and set none.
- A row is judged by its adjusted values: an allowed one that is NaN or +inf, or none above -inf,
  makes it invalid. So logits that only overflow when a score is added are caught too.
- A slot's position counts the tokens drawn for it. Row r draws at `position + row_offsets[r]`, and
  committing tokens, by `sample_` or by `update_state_`, advances the position with the length:
  otherwise the uniforms of accepted drafts would be drawn again.
- A slot that occurs twice where `sample_` advances the state: its later rows are padding rows and
  set an error bit. One launch cannot promise them the state as it was before the first.
- Sampling weights are relative to a = clamp(x * scale, -2^30, 2^30), one float32 product with
  scale = float32(log2(e) / T): as accurate as a float32 softmax of x / T. Tokens beyond the clamp
  tie, which keeps huge logits defined.
- Filters look at adjusted logits and at masses shifted to the row's ceiling, the draw at tile sums,
  shifted after summing: a one-pass kernel knows a tile's sum before it knows the row's ceiling.
"""

from rnr_kernels.reference.rules import apply_rules_, rule_log_softmax, rule_log_softmax_out
from rnr_kernels.reference.sampling import sample_, update_state_
from rnr_kernels.reference.statistics import (
    linear_shift_stats,
    linear_token_stats,
    shift_stats,
    token_stats,
)

__all__ = [
    "apply_rules_",
    "linear_shift_stats",
    "linear_token_stats",
    "rule_log_softmax",
    "rule_log_softmax_out",
    "sample_",
    "shift_stats",
    "token_stats",
    "update_state_",
]
