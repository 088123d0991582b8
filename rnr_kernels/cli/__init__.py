"""The command `rnr-kernels`: thin over the package's public functions."""

import sys

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""


def main() -> None:
    """Runs the command line; a user's mistake ends with one or two sentences and exit code 2."""
    try:
        import rich  # noqa: F401
        import typer
    except ImportError:
        sys.exit("rnr-kernels needs typer and rich; pip install 'rnr_kernels[cli]'")
    try:
        from rnr_kernels.cli.app import app

        app()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except (ValueError, TypeError, OSError) as error:
        typer.secho(f"rnr-kernels: {error}", fg="red", err=True)
        sys.exit(2)
    except RuntimeError as error:
        reason = str(error).strip().partition("\n")[0]
        advice = "try a smaller batch, another --device or --dtype"
        typer.secho(f"rnr-kernels: torch stopped: {reason}; {advice}", fg="red", err=True)
        sys.exit(1)
