"""The commands of `rnr-kernels`."""

import typer

from rnr_kernels.cli.generate import generate_command
from rnr_kernels.cli.info import info_command
from rnr_kernels.cli.lab import lab_command
from rnr_kernels.cli.rank_responses import rank_responses_command
from rnr_kernels.cli.roles import roles_app
from rnr_kernels.cli.rules import rules_app
from rnr_kernels.cli.token_shift import merge_command, report_command, token_shift_command
from rnr_kernels.cli.tune import tune_command
from rnr_kernels.cli.win_rate import win_rate_command

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Decode language models with rules multiplied into their next-token distribution.",
)
app.command("generate")(generate_command)
app.command("win-rate")(win_rate_command)
app.command("rank-responses")(rank_responses_command)
app.add_typer(rules_app, name="rules")
app.add_typer(roles_app, name="roles")
app.command("tune")(tune_command)
app.command("token-shift")(token_shift_command)
app.command("token-shift-merge")(merge_command)
app.command("token-shift-report")(report_command)
app.command("lab")(lab_command)
app.command("info")(info_command)
