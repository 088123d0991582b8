"""Response ranking: is an instruction's own response likelier to a model than a random one?

P(response | instruction) > P(random response | instruction), the rate at which that holds (Hewitt
et al. 2024, section 4).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rnr_kernels.forward import context_window
from rnr_kernels.intervals import bootstrap_interval
from rnr_kernels.ops import token_stats
from rnr_kernels.teacher_forcing import BATCH_TOKENS, Forced, force, response_logits
from rnr_kernels.templates import PromptTemplate, check_text, prompt_template

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SCORINGS: Mapping[str, str] = {
    "mean": "log-probability per token of response + EOS, as in the published figures",
    "sum": "log-probability of response + EOS, as the definition is written",
    "pmi": "log p(response | instruction) - log p(response | empty instruction)",
}
"""What a response's score is, in nats."""


@dataclass(frozen=True, eq=False)
class Ranking:
    """Comparisons of real responses with random ones: C rows, those of an instruction together."""

    scoring: str
    num_draws: int
    seed: int
    match_length: bool
    template: str
    pair: Ints
    """[C], ascending: position of the pair with the instruction and its real response."""
    drawn: Ints
    """[C]: position of the pair whose response was drawn."""
    score: Floats
    """[C]: the real response's score, in nats (per token with "mean")."""
    drawn_score: Floats
    """[C]: the drawn response's score after the same instruction."""

    @property
    def num_comparisons(self) -> int:
        return len(self.pair)

    @property
    def num_ties(self) -> int:
        """Comparisons of equal scores; they are no wins."""
        return int((self.score == self.drawn_score).sum())

    @property
    def per_instruction(self) -> Floats:
        """[pairs]: share of an instruction's comparisons that its real response wins."""
        wins = np.bincount(self.pair, self.score > self.drawn_score)
        return np.asarray(wins / np.bincount(self.pair))

    @property
    def accuracy(self) -> float:
        """Mean of `per_instruction`: each instruction counts once."""
        return float(self.per_instruction.mean())

    def interval(self) -> tuple[float, float]:
        """95 % interval of the accuracy, by bootstrap over instructions."""
        return bootstrap_interval(self.per_instruction)


def rank_responses(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    pairs: Sequence[tuple[str, str]],
    *,
    scoring: str = "mean",
    num_draws: int = 5,
    seed: int = 0,
    match_length: bool = False,
    template: str | PromptTemplate = "tags",
    batch_tokens: int = BATCH_TOKENS,
) -> Ranking:
    """Compares each real response with `num_draws` random ones after the same instruction.

    `pairs` are (instruction, response); `draw_responses` says what is drawn, and SCORINGS what a
    score is. "sum" favours short responses; `match_length` compares responses of like length, "pmi"
    leaves out how likely a response is by itself. Each distinct text is scored once.

    Everything is checked before the first forward pass: ValueError for fewer than two distinct
    responses, an empty response, an unknown scoring, no draws, a tokenizer without EOS, a text
    longer than the model's window. ValueError afterwards if a score is not finite.
    """
    pairs = [(instruction, response) for instruction, response in pairs]
    if scoring not in SCORINGS:
        raise ValueError(f"scoring must be {', '.join(SCORINGS)}, got {scoring!r}")
    end = tokenizer.eos_token_id
    if end is None:
        raise ValueError(
            "the tokenizer has no EOS token to end a response with; set tokenizer.eos_token"
        )
    if isinstance(template, str):
        template = prompt_template(template)
    _check_pairs(pairs)
    prompt = tuple(template.encode(tokenizer, "")) if scoring == "pmi" else ()
    if scoring == "pmi" and not prompt:
        raise ValueError(
            f"scoring 'pmi' needs a prompt without instruction, and template {template.name!r} "
            "has no tokens then; use template 'tags'"
        )
    real = [force(tokenizer, template, *pair, end=end) for pair in pairs]
    lengths = [len(text.response_token_ids) for text in real] if match_length else None
    pair, drawn = draw_responses(pairs, num_draws=num_draws, seed=seed, lengths=lengths)

    texts = dict(zip(pairs, real, strict=True))
    origins = {own: (i, i) for i, own in enumerate(pairs)}
    for i, j in zip(pair.tolist(), drawn.tolist(), strict=True):
        mixed = pairs[i][0], pairs[j][1]
        if mixed not in texts:
            texts[mixed], origins[mixed] = force(tokenizer, template, *mixed, end=end), (i, j)
    _check_window(model, texts, origins)

    totals = _log_probabilities(model, list(texts.values()), batch_tokens)
    if scoring == "mean":
        totals = totals / [len(text.response_token_ids) for text in texts.values()]
    elif scoring == "pmi":
        totals = totals - _without_instruction(model, prompt, list(texts.values()), batch_tokens)
    scores = dict(zip(texts, totals.tolist(), strict=True))
    for key, score in scores.items():
        if not np.isfinite(score):
            raise ValueError(
                f"{_named(*origins[key])}: its score is {score}: the model's logits are NaN, or "
                "give a token probability 0; try another dtype, or leave the pair out"
            )
    return Ranking(
        scoring, num_draws, seed, match_length, template.name, pair, drawn,
        np.array([scores[pairs[i]] for i in pair]),
        np.array([scores[pairs[i][0], pairs[j][1]] for i, j in zip(pair, drawn, strict=True)]),
    )  # fmt: skip


def draw_responses(
    pairs: Sequence[tuple[str, str]],
    *,
    num_draws: int,
    seed: int = 0,
    lengths: Sequence[int] | None = None,
) -> tuple[Ints, Ints]:
    """Random pairs for every pair: int64 [C] and [C], whose instruction and whose response.

    A pair is drawn without replacement, all there are where they are fewer than `num_draws`; never
    one with the same response, or with the same instruction, to which its response would be a real
    one too. With `lengths` (of each response, in tokens) the nearest in length are taken, by chance
    among equals. The same seed gives the same draws.
    """
    if num_draws < 1:
        raise ValueError(f"num_draws must be at least 1, got {num_draws}")
    rng = np.random.default_rng(seed)
    instructions, responses = (_numbered([pair[side] for pair in pairs]) for side in (0, 1))
    sizes = None if lengths is None else np.asarray(lengths)
    chosen = []
    for i in range(len(pairs)):
        others = (instructions != instructions[i]) & (responses != responses[i])
        order = rng.permutation(np.flatnonzero(others))
        if not len(order):
            raise ValueError(
                f"pair {i + 1}: every other response is its own, or to the same instruction; add "
                "pairs with others"
            )
        if sizes is not None:
            order = order[np.argsort(np.abs(sizes[order] - sizes[i]), kind="stable")]
        chosen.append(order[:num_draws])
    pair = np.repeat(np.arange(len(pairs)), [len(some) for some in chosen])
    return pair, np.concatenate(chosen)


def _numbered(texts: Sequence[str]) -> Ints:
    """Equal numbers for equal texts."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(text, len(numbers)) for text in texts])


def _check_pairs(pairs: Sequence[tuple[str, str]]) -> None:
    for number, (instruction, response) in enumerate(pairs, start=1):
        check_text(instruction, f"pair {number}: the instruction")
        check_text(response, f"pair {number}: the response")
        if not response.strip():
            raise ValueError(f"pair {number}: the response is empty; leave the pair out")
    distinct = len({response for _, response in pairs})
    if distinct < 2:
        raise ValueError(
            f"ranking needs at least 2 distinct responses, got {distinct} in {len(pairs)} pairs"
        )


def _check_window(
    model: "PreTrainedModel",
    texts: Mapping[tuple[str, str], Forced],
    origins: Mapping[tuple[str, str], tuple[int, int]],
) -> None:
    window = context_window(model)
    for key, text in texts.items():
        if window is not None and len(text) > window:
            raise ValueError(
                f"{_named(*origins[key])} has {len(text)} tokens with its prompt, the model's "
                f"window is {window}; leave the pair out"
            )


def _named(instruction: int, response: int) -> str:
    if instruction == response:
        return f"pair {instruction + 1}"
    return f"the response of pair {response + 1} after the instruction of pair {instruction + 1}"


def _log_probabilities(
    model: "PreTrainedModel", texts: Sequence[Forced], batch_tokens: int
) -> Floats:
    """log p(response | prompt) of each text, in nats: float32 terms, summed in float64."""
    totals = np.empty(len(texts))
    for batch in response_logits(model, texts, batch_tokens=batch_tokens):
        logprobs = token_stats(batch.logits, batch.token_ids).logprob.double().split(batch.lengths)
        totals[batch.indices] = [float(some.sum()) for some in logprobs]
    return totals


def _without_instruction(
    model: "PreTrainedModel", prompt: tuple[int, ...], texts: Sequence[Forced], batch_tokens: int
) -> Floats:
    """log p of the same response tokens after the empty instruction's prompt, [texts]."""
    places: dict[tuple[int, ...], int] = {}
    order = [places.setdefault(text.response_token_ids, len(places)) for text in texts]
    alone = [Forced(prompt, response) for response in places]
    return _log_probabilities(model, alone, batch_tokens)[order]
