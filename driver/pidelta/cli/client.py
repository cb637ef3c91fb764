"""``pidelta client``: the socket client alone."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from pidelta.cli.evaluate import chosen_terms
from pidelta.cli.first_frame import check_first_frame
from pidelta.config import load_config
from pidelta.ipi.client import serve
from pidelta.ipi.transports import SOCKETS_PREFIX, connect
from pidelta.setup import Setup


def client(
    config: Annotated[Path, typer.Argument(help="The configuration, a YAML file.")],
    mode: Annotated[str, typer.Option(help="unix or inet, as in the ffsocket of the i-PI input.")] = "unix",
    address: Annotated[str, typer.Option(help="Name of the unix socket, or of the host.")] = "localhost",
    port: Annotated[int, typer.Option(help="Port, in mode inet.")] = 65535,
    terms: Annotated[str | None, typer.Option(help="Terms joined by +, such as low+delta.")] = None,
    sockets_prefix: Annotated[
        str, typer.Option(help="What i-PI puts before the address of a unix socket.")
    ] = SOCKETS_PREFIX,
    patience: Annotated[float, typer.Option(help="Seconds to wait for i-PI to listen.")] = 10.0,
) -> None:
    """Serve forces to an i-PI that is already running; ends with it and reports its work in JSON."""
    setup = Setup(load_config(config))
    evaluator = setup.evaluator(chosen_terms(terms))
    check = check_first_frame(setup)
    with closing(connect(mode, address, port, sockets_prefix=sockets_prefix, patience=patience)) as transport:
        summary = serve(evaluator, transport, on_first_positions=check)
    print(summary.to_json())
