"""The command `pidelta`: registers the subcommands and turns errors into one line and exit code 2."""

from __future__ import annotations

import sys

import typer

from pidelta.cli.check import check
from pidelta.cli.client import client
from pidelta.cli.evaluate import evaluate
from pidelta.cli.label import label, sample
from pidelta.cli.run import run
from pidelta.cli.slater_koster import slater_koster
from pidelta.cli.train import test, train
from pidelta.errors import PideltaError

app = typer.Typer(
    help="QM/MM forces at DFT accuracy for i-PI.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (run, client, evaluate, check, sample, label, train, test):
    app.command()(command)
app.add_typer(slater_koster)


def main() -> None:
    """Run the command line."""
    try:
        app()
    except PideltaError as error:
        print(f"pidelta: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:  # a full disk, a folder that may not be written to
        print(f"pidelta: {error.filename or 'input or output'}: {error.strerror or error}", file=sys.stderr)
        sys.exit(2)
