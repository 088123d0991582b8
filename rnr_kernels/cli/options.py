"""Options that several commands share."""

from collections.abc import Iterable
from typing import Annotated

import typer

from rnr_kernels.rules.files import find_rules
from rnr_kernels.rules.kinds import RuleSet

Model = Annotated[
    str,
    typer.Option(
        help="Folder or Hugging Face name of a causal language model, or embedded, "
        "embedded:instruction, embedded:response."
    ),
]
Rules = Annotated[
    list[str],
    typer.Option(help="Preset or .toml/.json rule file; give it again to add up; none: no rules."),
]
Without = Annotated[
    list[str], typer.Option(help="Leave out the rules with this label: eos, uniform, used.")
]
Template = Annotated[
    str,
    typer.Option(
        help="tags, chat, plain, or a text file with {instruction}, and {system} for system "
        "messages."
    ),
]


def check_belong(context: typer.Context, names: Iterable[str], owner: str) -> None:
    """ValueError for one of these parameters that was given without the option it belongs to.

    What has a default is told from what was given: it would be left unused without a word.
    """
    for name in names:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            option = "--" + name.replace("_", "-")
            raise ValueError(f"{option} belongs to {owner}; add that, or leave it out")


NO_RULES = "none"


def combined_rules(names: list[str], without: list[str]) -> RuleSet | None:
    """The sum of rule sets less the labels left out; None for `none`."""
    if NO_RULES in names:
        if len(names) > 1:
            raise ValueError("--rules none stands alone: leave it out, or the other --rules")
        if without:
            raise ValueError("--without needs rules to leave out of; --rules none has none")
        return None
    total = find_rules(names[0])
    for name in names[1:]:
        total = total + find_rules(name)
    return total.without(*without) if without else total
