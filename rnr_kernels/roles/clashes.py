"""Kinds whose forms exclude each other, whatever their parameters."""

ENGLISH_CASES = ("change_case:english_capital", "change_case:english_lowercase")

CLASHES: tuple[tuple[str, tuple[str, ...], str], ...] = (
    (ENGLISH_CASES[0], ENGLISH_CASES[1:], "no letter is of both cases"),
    (
        "detectable_format:json_format",
        (
            "combination:repeat_prompt",
            "combination:two_responses",
            "detectable_content:postscript",
            "detectable_format:multiple_sections",
            "detectable_format:number_bullet_lists",
            "detectable_format:number_highlighted_sections",
            "detectable_format:title",
            "length_constraints:nth_paragraph_first_word",
            "length_constraints:number_paragraphs",
            "startend:end_checker",
            "startend:quotation",
            "startend:start_phrase",
        ),
        "the whole response is JSON, which leaves no place for it",
    ),
    (
        "combination:two_responses",
        (
            "combination:repeat_prompt",
            "detectable_format:constrained_response",
            "detectable_format:no_markdown",
            "length_constraints:nth_paragraph_first_word",
            "length_constraints:number_paragraphs",
        ),
        "two responses with asterisks between them have another form",
    ),
    (
        "length_constraints:number_paragraphs",
        ("length_constraints:nth_paragraph_first_word",),
        "one counts paragraphs between asterisks, the other between blank lines",
    ),
    (
        "detectable_format:no_markdown",
        (
            "detectable_format:number_bullet_lists",
            "detectable_format:number_highlighted_sections",
            "length_constraints:number_paragraphs",
        ),
        "that is Markdown",
    ),
)

_REASONS = {
    frozenset((name, other)): reason for name, others, reason in CLASHES for other in others
}


def clash(name: str, other: str) -> str | None:
    """Why no sensible response follows two kinds, by name, or None."""
    reason = _REASONS.get(frozenset((name, other)))
    return reason and f"{name} with {other}: {reason}"
