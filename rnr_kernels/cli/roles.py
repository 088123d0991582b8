"""`rnr-kernels roles`: system prompts with roles and rules."""

import typer

from rnr_kernels.cli.roles_build import build_command
from rnr_kernels.cli.roles_evaluate import evaluate_command

roles_app = typer.Typer(no_args_is_help=True, help="Roles and rules of system prompts.")
roles_app.command("build")(build_command)
roles_app.command("evaluate")(evaluate_command)
