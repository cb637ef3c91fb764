"""The command `pidelta`: registers the subcommands and turns errors into one line and exit code 2.

The files of the subcommands import little, and their functions what they need: neither help nor the errors
of a configuration wait for torch.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NoReturn, TextIO

if TYPE_CHECKING:
    import typer

_INTERRUPTED = 130


def main() -> None:
    """Run the command line."""
    try:
        from pidelta.errors import PideltaError

        for stream in (sys.stdout, sys.stderr):
            _print_what_the_terminal_has(stream)
        try:
            _app()()
        except PideltaError as error:
            _end(2, str(error))
        except OSError as error:  # a full disk, a folder that may not be written to
            _end(2, f"{error.filename or 'input or output'}: {error.strerror or error}")
    except KeyboardInterrupt:
        _end(_INTERRUPTED, "stopped")


def _app() -> typer.Typer:
    import typer
    from typer.core import TyperGroup

    from pidelta.cli.check import check
    from pidelta.cli.client import client
    from pidelta.cli.data import data
    from pidelta.cli.evaluate import evaluate
    from pidelta.cli.ffdirect import ffdirect_path
    from pidelta.cli.label import label, sample
    from pidelta.cli.learn import learn
    from pidelta.cli.prepare import prepare
    from pidelta.cli.report import report
    from pidelta.cli.run import run
    from pidelta.cli.slater_koster import slater_koster
    from pidelta.cli.test import test
    from pidelta.cli.train import train

    class Commands(TyperGroup):
        """The subcommands; Ctrl-C in one of them ends it in one line, not in typer's "Aborted"."""

        def invoke(self, context: typer.Context) -> object:  # type: ignore[override]
            """Run the subcommand."""
            try:
                return super().invoke(context)
            except KeyboardInterrupt:
                _end(_INTERRUPTED, "stopped")

    app = typer.Typer(
        cls=Commands,
        help="QM/MM forces at DFT accuracy for i-PI.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    for command in (prepare, run, client, evaluate, check, report, sample, label, train, test, learn):
        app.command()(command)
    app.command("ffdirect-path")(ffdirect_path)
    app.add_typer(data)
    app.add_typer(slater_koster)
    return app


def _print_what_the_terminal_has(stream: TextIO) -> None:
    """Replace characters that a terminal without UTF-8 cannot show; they are no reason to fail."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="replace")


def _end(code: int, message: str) -> NoReturn:
    print(f"pidelta: {message}", file=sys.stderr)
    sys.exit(code)
