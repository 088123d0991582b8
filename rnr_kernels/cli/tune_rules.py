"""`rnr-kernels tune --mode rules`: a rule file fitted to responses."""

import random
from collections.abc import Sequence
from pathlib import Path

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rnr_kernels.cli.rules import visible
from rnr_kernels.cli.startup import collection_paused, quiet_transformers
from rnr_kernels.loading import EMBEDDED, load_model, load_tokenizer
from rnr_kernels.records import check_writable
from rnr_kernels.rules.files import rule_file_suffix, save_rules
from rnr_kernels.rules.vocabulary import Vocabulary
from rnr_kernels.tuning.conversations import Conversation, read_conversations
from rnr_kernels.tuning.features import Family, Scope
from rnr_kernels.tuning.fit import L2, LEAST_GAIN, NUM_WEIGHTS, FittedRules, fit_rules

HELD_OUT_SHARE = 0.1


def tune_rules(
    conversations: list[Conversation],
    out: Path,
    *,
    model: str = EMBEDDED,
    num_weights: int = NUM_WEIGHTS,
    l2: float = L2,
    l1: float = 0.0,
    least_gain: float = LEAST_GAIN,
    first: Sequence[Family] = (),
    scope: Scope = "response",
    held_out: Path | None = None,
    seed: int = 1,
    force: bool = False,
    device: str | None = None,
    dtype: str | None = None,
) -> FittedRules:
    """Fits rules to the conversations' responses, writes the rule file `out` and shows both.

    The likelihoods are shown on `held_out` too, or without it on a tenth of the conversations,
    which is set aside. ValueError before the model is loaded for a file that cannot be written.
    """
    rule_file_suffix(out)
    check_writable(out, force=force)
    if held_out is not None:
        unseen = read_conversations(held_out)
    else:
        conversations, unseen = set_aside(conversations, HELD_OUT_SHARE, seed=seed)
    with collection_paused():
        tokenizer = load_tokenizer(model)
        quiet_transformers()
        loaded = load_model(model, device=device, dtype=dtype)
    typer.echo(f"fitting to {len(conversations):,} conversations", err=True)
    fitted = fit_rules(
        loaded,
        tokenizer,
        conversations,
        num_weights=num_weights,
        l2=l2,
        l1=l1,
        least_gain=least_gain,
        first=first,
        scope=scope,
        held_out=unseen,
        name=out.stem,
    )
    save_rules(fitted.rules, out)
    console = Console()
    console.print(weights_table(fitted, Vocabulary.of(tokenizer)))
    console.print(likelihoods_table(fitted))
    if not fitted.converged:
        typer.echo(
            f"the weights are not at their optimum: a gradient of {fitted.gradient_norm:.1e} nats "
            "a token is left; raise --l2",
            err=True,
        )
    console.print(f"{len(fitted.weights)} weights in {out}")
    return fitted


def set_aside(
    conversations: list[Conversation], share: float, *, seed: int
) -> tuple[list[Conversation], list[Conversation]]:
    """The conversations to fit to, and a random share of them to judge on; rounded down."""
    if not 0 <= share < 1:
        raise ValueError(f"the share to set aside must be 0 or more and below 1, got {share}")
    shuffled = random.Random(seed).sample(conversations, len(conversations))
    count = int(share * len(shuffled))
    return shuffled[count:], shuffled[:count]


def weights_table(fitted: FittedRules, vocabulary: Vocabulary) -> Table:
    """One row a weight, the largest first within a family."""
    table = Table("feature", "token", "when", "weight", box=None, header_style="bold")
    for each in sorted(fitted.weights, key=lambda w: (w.feature.family, -abs(w.weight))):
        tokens = " ".join(visible(vocabulary.text(token)) for token in each.feature.token_ids)
        weight = Text(f"{each.weight:+.3f}", style="green" if each.weight > 0 else "red")
        table.add_row(each.feature.family, Text(tokens), each.feature.when, weight)
    return table


def likelihoods_table(fitted: FittedRules) -> Table:
    """Mean log-likelihoods in nats, before and after."""
    table = Table("log-likelihood", "nats a token", "nats a response", header_style="bold")
    for title, value in (
        ("base", fitted.base),
        ("base x fitted rules", fitted.fitted),
        ("base, held out", fitted.base_held_out),
        ("base x fitted rules, held out", fitted.fitted_held_out),
    ):
        if value is not None:
            table.add_row(title, f"{value.per_token:.4f}", f"{value.per_response:.4f}")
    return table
