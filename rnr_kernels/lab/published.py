"""The published figures that stand beside the lab's, in percent.

Hewitt et al. 2024 (arXiv 2409.14254): Tables 1, 3 and 4, win rates against the instruction-tuned
Llama-2-7B (OLMo-7B). Those of the analyses stand with them.
"""

from collections.abc import Sequence

from rnr_kernels.analysis.published import RANKING, SHIFTS

__all__ = ["RANKING", "SHIFTS", "WIN_RATES", "cell"]

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


def cell(figures: Sequence[float | None]) -> str:
    """Figures of several models, as a table shows them."""
    return " / ".join("-" if figure is None else f"{figure:.1f}" for figure in figures)
