"""``pidelta client``: the socket client alone."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pidelta.cli.evaluate import chosen_terms
from pidelta.config import load_config, load_delta
from pidelta.errors import ConfigError
from pidelta.ipi.transports import SOCKETS_PREFIX
from pidelta.state import common_terms

if TYPE_CHECKING:
    from pidelta.qmmm.energy import QMMMEvaluator
    from pidelta.state import Evaluator


def client(
    config: Annotated[Path, typer.Argument(help="The configuration, a YAML file.")],
    mode: Annotated[
        str, typer.Option(help="unix, shm or inet, as in the ffsocket of the i-PI input.")
    ] = "unix",
    address: Annotated[str, typer.Option(help="Name of the unix socket, or of the host.")] = "localhost",
    port: Annotated[int, typer.Option(help="Port, in mode inet.")] = 65535,
    terms: Annotated[str | None, typer.Option(help="Terms joined by +, such as low+delta.")] = None,
    sockets_prefix: Annotated[
        str, typer.Option(help="What i-PI puts before the address of a unix socket.")
    ] = SOCKETS_PREFIX,
    status: Annotated[
        Path | None, typer.Option(help="A file for the work done so far and the uncertainty, as JSON.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of the force field; mm.threads by default.")
    ] = None,
    patience: Annotated[float, typer.Option(help="Seconds to wait for i-PI to listen.")] = 10.0,
    delta: Annotated[
        Path | None, typer.Option(help="A file with the section delta, in place of the configuration's.")
    ] = None,
    bias: Annotated[
        Path | None, typer.Option(help="A bias on distances, as pidelta learn writes it.")
    ] = None,
    input_file: Annotated[
        Path | None,
        typer.Option(
            "--input", help="The i-PI input: the client ends where its run began with another configuration."
        ),
    ] = None,
) -> None:
    """Serve forces to an i-PI that is already running; ends with it and reports its work in JSON."""
    settings, chosen = load_config(config), chosen_terms(terms)
    if threads is not None and settings.mm is not None:
        settings = settings.model_copy(update={"mm": settings.mm.model_copy(update={"threads": threads})})
    if delta is not None:
        settings = settings.model_copy(update={"delta": load_delta(delta)})

    from pidelta.ipi.client import serve
    from pidelta.ipi.client_status import StatusFile
    from pidelta.ipi.observers import merge_alarms
    from pidelta.ipi.served import Served
    from pidelta.ipi.transports import connect
    from pidelta.run_record import check_configuration, record_beside
    from pidelta.setup import Setup
    from pidelta.workflow.learning.bias import BiasedEvaluator, read_bias

    setup = Setup(settings)
    record: Path | None = None
    files = {} if delta is None else {"delta": delta}

    def evaluator_for(terms: frozenset[str] | None, member: int | None = None) -> QMMMEvaluator:
        evaluator = setup.evaluator(terms, member)
        check_configuration(settings, record, files)
        return evaluator

    evaluator = evaluator_for(chosen)
    whole = list(settings.terms)
    observers, alarms = setup.observers(evaluator)
    status_file = None if status is None else StatusFile(status, alarms)
    if status_file is not None:
        observers.append(status_file)

    def evaluator_of(served: Served) -> Evaluator:
        """What the <parameters> of the forcefield ask for."""
        if served.terms is not None and chosen not in (None, served.terms):
            raise ConfigError(
                f"--terms: expected {'+'.join(sorted(served.terms))} as in the <parameters> of the "
                f"forcefield, found {terms}"
            )
        named = served.terms or chosen
        print(_what_is_served(whole, named, served.member), file=sys.stderr)
        return biased(evaluator if served == Served() else evaluator_for(named, served.member))

    def biased(evaluator: Evaluator) -> Evaluator:
        if bias is None:
            return evaluator
        return BiasedEvaluator(evaluator, read_bias(bias), setup.system.cell is not None)

    with closing(connect(mode, address, port, sockets_prefix=sockets_prefix, patience=patience)) as transport:
        if input_file is not None:  # `pidelta run` writes the record before i-PI listens
            if (found := record_beside(input_file)).exists():
                check_configuration(settings, record := found, files)
            else:
                print(f"no {found}: what the run began with is not known", file=sys.stderr)
        summary = serve(biased(evaluator), transport, observers, on_terms=evaluator_of)
    if status_file is not None:
        status_file.write()
    summary.alarms = merge_alarms([alarms])
    print(summary.to_json())


def _what_is_served(whole: list[str], named: frozenset[str] | None, member: int | None) -> str:
    """What a client serves of the whole energy, in one line.

    i-PI does not send the name of a forcefield: whoever meant its terms sees that they did not arrive.
    """
    terms = " + ".join(whole if named is None else common_terms(whole, named))
    terms += "" if member is None else f" of member {member}"
    if named is not None:
        return f"serves {terms}"
    return (
        f"serves the whole energy, {terms}: neither --terms nor the <parameters> of the forcefield name terms"
    )
