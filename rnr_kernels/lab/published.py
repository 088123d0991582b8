"""The published figures that stand beside the lab's, in percent.

Hewitt et al. 2024 (arXiv 2409.14254): Tables 1 to 4, win rates against the instruction-tuned
Llama-2-7B (OLMo-7B). Lin et al. 2023 (arXiv 2312.01552): Figure 3.
"""

from collections.abc import Sequence

WIN_RATES: dict[str, tuple[float, float | None]] = {
    "base": (2.4, 4.7),
    "response": (43.3, 43.7),
    "code": (16.9, 10.4),
    "sums": (23.7, 30.3),
    "verse": (22.9, 21.9),
    "recipes": (14.6, 21.5),
    "moves": (2.1, 6.3),
    "rules": (24.4, None),
    "-eos": (10.4, None),
    "-used": (14.3, None),
    "-uniform": (16.3, None),
}
"""(Llama-2-7B, OLMo-7B); rules were tried on the former alone."""

RANKING: dict[str, tuple[float, float]] = {"base": (80.4, 74.5), "instruction": (77.4, 74.3)}

SHIFTS: dict[str, tuple[float, float, float]] = {
    "Llama-2-7B to its chat model": (77.7, 14.5, 7.8),
    "Llama-2-7B to Vicuna": (82.4, 12.8, 4.8),
    "Mistral-7B to its instruct model": (82.2, 12.5, 5.2),
}
"""Unshifted, marginal, shifted."""


def cell(figures: Sequence[float | None]) -> str:
    """Figures of several models, as a table shows them."""
    return " / ".join("-" if figure is None else f"{figure:.1f}" for figure in figures)
