"""IFEval's loose variants of a response (Zhou et al. 2023, section 2.3)."""

from collections.abc import Iterator


def loose_variants(response: str) -> Iterator[str]:
    """The response without first line, last line, both; and each without asterisks.

    Models often add a line of introduction or of farewell, and markdown's emphasis. The response as
    it is comes first, and none comes twice.
    """
    lines = response.split("\n")
    cuts = (lines, lines[1:], lines[:-1], lines[1:-1])
    texts = [response, *("\n".join(cut).strip() for cut in cuts[1:])]
    yield from dict.fromkeys([*texts, *(text.replace("*", "") for text in texts)])
