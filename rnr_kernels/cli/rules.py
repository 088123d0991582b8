"""`rnr-kernels rules check` and `rnr-kernels rules explain`."""

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rnr_kernels.cli.options import Template
from rnr_kernels.explain import explain_response, rule_name
from rnr_kernels.loading import EMBEDDED, end_token_ids_of, load_tokenizer
from rnr_kernels.rules.compiler import compile_rules
from rnr_kernels.rules.describe import describe_rules
from rnr_kernels.rules.files import find_rules
from rnr_kernels.rules.vocabulary import Vocabulary
from rnr_kernels.templates import check_text, encode_response, prompt_template

EXAMPLE = "Hi"
"""The instruction in which `check` shows how a template is cut."""

rules_app = typer.Typer(no_args_is_help=True, help="Check and explain rules.")

TokenizerOption = Annotated[
    str, typer.Option(help="Folder or Hugging Face name of a tokenizer or model.")
]
EosOption = Annotated[
    list[int], typer.Option(help="End-of-sequence id, in place of the model's; may be repeated.")
]
RulesArgument = Annotated[str, typer.Argument(help="Preset or .toml/.json rule file.")]


def visible(text: str) -> str:
    """Text with its white space and line breaks to be seen."""
    return text.replace(" ", "·").replace("\n", "⏎").replace("\t", "⇥")


@rules_app.command("check")
def check_command(
    rules: RulesArgument,
    tokenizer: TokenizerOption = EMBEDDED,
    template: Template = "tags",
    eos: EosOption = [],  # noqa: B006  (typer wants a list)
) -> None:
    """Show which tokens each rule hits, and how the prompt template is cut into tokens."""
    rule_set = find_rules(rules)
    loaded = load_tokenizer(tokenizer)
    prompt = prompt_template(template)
    vocabulary = Vocabulary.of(loaded)
    eos_token_ids = _end_ids(eos, tokenizer, vocabulary)
    compile_rules([rule_set], loaded, eos_token_ids=eos_token_ids)
    described = describe_rules(rule_set, vocabulary, eos_token_ids=eos_token_ids)
    console = Console()
    console.print(
        f"[bold]{rule_set.name}[/] on {vocabulary.size:,} tokens, "
        f"end-of-sequence ids {list(eos_token_ids)}"
    )
    table = Table("rule", "token", "id", "prints", "effect", box=None, header_style="bold")
    for rule in described:
        title = f"{rule.kind} {rule.label or ''}".strip()
        table.add_row(Text(title, "bold"), "", "", "", Text(rule.summary))
        for token in rule.tokens:
            found = "-" if token.token_id is None else str(token.token_id)
            written = repr(token.written)
            table.add_row("", written, found, Text(visible(token.printed)), Text(token.effect))
    console.print(table)
    ids = prompt.encode(loaded, EXAMPLE)
    console.print(f"\n[bold]template {prompt.name}[/]: {len(ids)} tokens with {EXAMPLE!r}")
    cut = Text(" ").join(
        Text(visible(vocabulary.text(token_id)), style="reverse") for token_id in ids
    )
    console.print(cut)
    console.print(Text(" ".join(map(str, ids)), style="dim"))


@rules_app.command("explain")
def explain_command(
    rules: RulesArgument,
    prompt: Annotated[str, typer.Option(help="The instruction.")],
    response: Annotated[str, typer.Option(help="The response whose steps are explained.")],
    tokenizer: TokenizerOption = EMBEDDED,
    template: Template = "tags",
    most: Annotated[int, typer.Option(min=0, help="Moved tokens to show a step.")] = 3,
    eos: EosOption = [],  # noqa: B006
) -> None:
    """Show, for a given response, which rule moved which token by how much at each step."""
    rule_set = find_rules(rules)
    loaded = load_tokenizer(tokenizer)
    vocabulary = Vocabulary.of(loaded)
    check_text(prompt, "--prompt")
    check_text(response, "--response")
    chosen = prompt_template(template)
    prompt_ids = chosen.encode(loaded, prompt)
    response_ids = encode_response(chosen, loaded, prompt, response)
    if not response_ids:
        raise ValueError("the response is empty: there is no step to explain")
    names = [rule_name(rule) for rule in rule_set]
    table = Table("t", "token", *names, "sum", "most raised", "most lowered", header_style="bold")
    for step in explain_response(
        rule_set,
        loaded,
        prompt_ids,
        response_ids,
        eos_token_ids=_end_ids(eos, tokenizer, vocabulary),
        most=most,
    ):
        moved = [
            Text("  ").join(_moved(vocabulary, token, score) for token, score in side)
            for side in (step.raised, step.lowered)
        ]
        table.add_row(
            str(step.step),
            Text(visible(vocabulary.text(step.token_id))),
            *(_signed(score) for score in step.scores),
            _signed(step.total),
            *moved,
        )
    Console().print(table)


def _end_ids(given: list[int], name: str, vocabulary: Vocabulary) -> tuple[int, ...]:
    """As `generate` finds them: the model's generation config's, else the tokenizer's."""
    return tuple(given) or end_token_ids_of(name) or vocabulary.eos_token_ids


def _signed(score: float) -> Text:
    if score == 0:
        return Text("0", style="dim")
    return Text(f"{score:+.2f}", style="green" if score > 0 else "red")


def _moved(vocabulary: Vocabulary, token_id: int, score: float) -> Text:
    return Text.assemble(visible(vocabulary.text(token_id)), "\N{NO-BREAK SPACE}", _signed(score))
