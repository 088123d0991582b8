"""The published figures of the analyses, in percent.

Hewitt et al. 2024 (arXiv 2409.14254): Table 2. Lin et al. 2023 (arXiv 2312.01552): Figure 3.
"""

RANKING_MODELS = ("Llama-2-7B", "OLMo-7B")
RANKING: dict[str, tuple[float, float]] = {"base": (80.4, 74.5), "instruction": (77.4, 74.3)}
"""Real responses ranked above random ones, a figure for each of RANKING_MODELS."""

RANKING_SCORING = "mean"
"""As their code has it; the formula in the paper is a sum."""
RANKING_CAVEAT = (
    "Published: the first 1,000 of Alpaca, five draws with replacement from the same, by "
    "log-probability a token of response + EOS; the published commands give OLMo the tokenizer of "
    "Llama, so OLMo's figures may not hold."
)

SHIFTS: dict[str, tuple[float, float, float]] = {
    "Llama-2-7B to its chat model": (77.7, 14.5, 7.8),
    "Llama-2-7B to Vicuna": (82.4, 12.8, 4.8),
    "Mistral-7B to its instruct model": (82.2, 12.5, 5.2),
}
"""Unshifted, marginal, shifted; of all tokens, EOS included."""
