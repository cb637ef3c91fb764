"""``pidelta run``: i-PI and its clients, with progress, a summary and plots."""

from __future__ import annotations

import logging
import math
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from pidelta.cli.evaluate import chosen_terms
from pidelta.cli.messages import show_note, show_warning
from pidelta.cli.processors import allowed_processors, share_processors
from pidelta.cli.uncertainty import warnings
from pidelta.config import Config, load_config
from pidelta.errors import SetupError
from pidelta.ipi.forcefields import configuration_of
from pidelta.ipi.transports import ANY_ADDRESS
from pidelta.state import common_terms

if TYPE_CHECKING:
    from pidelta.ipi.simulation import Simulation
    from pidelta.setup import Setup

INTERRUPTED = 130
_RESTARTS = 3
_NEUTRAL = 1e-3
"""In e: with less, a dipole hardly depends on where the region is."""


def run(
    input_file: Annotated[Path, typer.Argument(metavar="INPUT.xml", help="The i-PI input, or RESTART.")],
    config: Annotated[
        Path | None,
        typer.Option(
            help="The configuration; by default that of an ffdirect, or pidelta.yaml beside the input."
        ),
    ] = None,
    clients: Annotated[
        int | None,
        typer.Option(min=1, help="Clients for each ffsocket; as many as can work at once by default."),
    ] = None,
    terms: Annotated[
        str | None, typer.Option(help="The terms that the run is about, such as mm+low; all by default.")
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Go on from the newest state that this input has saved.")
    ] = False,
    client_restarts: Annotated[
        int, typer.Option(min=0, help="How often, in all, clients that die are started again.")
    ] = _RESTARTS,
) -> None:
    """Run i-PI and its clients, show progress, and end with a summary and plots; Ctrl-C stops cleanly."""
    console = Console()
    chosen = chosen_terms(terms)

    from pidelta.cli.start import check_starts, show_conditions
    from pidelta.ipi.saved_states import state_to_go_on_from
    from pidelta.ipi.simulation import read_simulation

    if restart:
        state, notes = state_to_go_on_from(input_file)
        input_file = state.path
        for note in notes:
            show_note(console, note)
        console.print(f"goes on from step {state.step}, as saved in {state.path}", highlight=False)
    simulation = read_simulation(input_file)
    options = [] if config is None else ["--config", str(config)]
    options += [] if terms is None else ["--terms", terms]
    options += [] if clients is None else ["--clients", str(clients)]
    options += [] if client_restarts == _RESTARTS else ["--client-restarts", str(client_restarts)]
    config = config or configuration_of(input_file)
    settings = load_config(config)
    expected = list(settings.terms) if chosen is None else common_terms(settings.terms, chosen)
    _check_directs(simulation, config, chosen)
    _show_terms(console, simulation, expected, settings)
    show_conditions(console, simulation.path)
    n_clients, threads = _share_processors(console, simulation, settings, clients)

    # It would say that it found no folder for its cache, which matters little here.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    from pidelta.cli.run_report import report
    from pidelta.cli.supervision import supervise, systems_table
    from pidelta.ipi.extras import check_extras
    from pidelta.ipi.supervisor import Supervisor
    from pidelta.run_record import RECORD_VARIABLE, keep_configuration, record_path
    from pidelta.setup import Setup

    setup = Setup(settings)
    check_starts(console, simulation.path, setup)
    check_extras(simulation, expected, setup.extras)
    check_wrapping(simulation, setup)
    _check_virial(console, simulation, setup, expected)
    for warning in (*wrapping_warnings(simulation, setup, expected), *setup.warnings(expected)):
        show_warning(console, warning)
    if note := keep_configuration(simulation, settings, expected):
        show_note(console, note)
    started = time.monotonic()
    command = [sys.executable, "-m", "pidelta", "client", str(config.resolve())]
    command += [] if chosen is None else ["--terms", "+".join(expected)]
    command += ["--threads", str(threads)]
    record = {RECORD_VARIABLE: str(record_path(simulation).resolve())}
    supervisor = Supervisor(simulation, command, n_clients, restarts=client_restarts, variables=record)
    systems = systems_table(simulation)
    finished = supervise(supervisor, simulation, systems, console, options)
    if systems is None:
        console.print("no summary: the i-PI input asks for no <properties>")
    elif simulation.may_end_early:
        console.print("no report: means and errors are those of dynamics")
    elif systems.have_started:
        report(console, simulation, supervisor, setup, time.monotonic() - started)
    for line in warnings(supervisor.alarms()):
        show_warning(console, line)
    if not finished:
        raise typer.Exit(INTERRUPTED)


def _check_directs(simulation: Simulation, config: Path, chosen: frozenset[str] | None) -> None:
    """See that an ffdirect, which only i-PI talks to, does what is asked for here.

    Raises:
        SetupError: it reads another configuration, or would serve more terms than asked for.
    """
    for direct in simulation.forces.directs:
        what = f"{simulation.path}: <parameters> of <ffdirect name={direct.name!r}>"
        if direct.config.resolve() != config.resolve():
            raise SetupError(f"{what}: expected config: {config}, found {direct.config}")
        if chosen is not None and direct.terms is None:
            asked = "+".join(sorted(chosen))
            raise SetupError(f"{what}: expected terms: {asked}, as asked for by --terms, found none")


def _show_terms(console: Console, simulation: Simulation, terms: list[str], config: Config) -> None:
    """Say which forcefield serves which terms, how often, and which of them do not count once.

    Raises:
        SetupError: the forces do not add up to the terms, or a committee lacks what it needs.
    """
    from pidelta.ipi.committees import check_committees
    from pidelta.ipi.schedules import schedule_of, stiff_terms_behind

    forces = simulation.forces
    notes = forces.check(simulation.path, terms)
    delta = config.delta
    notes += check_committees(
        simulation.path,
        forces,
        0 if delta is None else len(delta.models),
        () if delta is None else delta.properties,
        centred=delta is not None and delta.offset is not None,
    )
    for source in forces.sources:
        served = " + ".join(forces.served(source, terms))
        served += "" if source.member is None else f" of member {source.member}"
        if schedule := schedule_of(forces, source):
            served += f": {schedule}"
        console.print(f"forcefield {source.name}: {served}", markup=False, highlight=False)
    for note in (*notes, *clients_elsewhere(simulation, terms, config)):
        show_note(console, note)
    for warning in stiff_terms_behind(forces, terms):
        show_warning(console, warning)


def clients_elsewhere(simulation: Simulation, terms: Sequence[str], config: Config) -> Iterator[str]:
    """What a client that is started by hand, on any host, has to be told, as i-PI does not tell it.

    Without the terms of a name, or those that this run is about, it would serve the whole energy.
    """
    for ffsocket in simulation.forces.sockets:
        served = simulation.forces.served(ffsocket, terms)
        if ffsocket.mode != "inet" or ffsocket.tells_terms or served == list(config.terms):
            continue
        names = "+".join(served)
        address = "HOST" if ffsocket.address == ANY_ADDRESS else ffsocket.address
        options = ["--mode", "inet", "--address", address, "--port", str(ffsocket.port), "--terms", names]
        options += ["--input", str(simulation.path)]
        yield (
            f"clients of {ffsocket.name} started by hand have to be told its terms: "
            f"{shlex.join(['pidelta', 'client', str(config.path), *options])}; or add terms: {names} to its "
            "<parameters>"
        )


def check_wrapping(simulation: Simulation, setup: Setup) -> None:
    """See that i-PI does not put atoms into a cell that the structure does not have.

    Raises:
        SetupError: it would, and tear a molecule at the border.
    """
    if setup.system.cell is not None:
        return
    for source in simulation.forces.sources:
        if source.wraps:
            raise SetupError(
                f"{simulation.path}: pbc of forcefield {source.name!r}: expected false, as "
                f"{setup.config.structure} has no cell, found true: i-PI would tear molecules apart"
            )


def wrapping_warnings(simulation: Simulation, setup: Setup, terms: Sequence[str]) -> Iterator[str]:
    """Say where the dipole among the outputs jumps, as its origin stays and a charged region is moved."""
    extras = [file.extras for file in simulation.trajectories if file.quantity.startswith("extras")]
    if setup.config.qm is None or not any(not names or "dipole" in names for names in extras):
        return
    for source in simulation.forces.sources:
        served = frozenset(simulation.forces.served(source, terms))
        if not source.wraps or "dipole" not in setup.extras(served):
            continue
        region = setup.qm_region
        is_embedded = setup.engine.embedding == "electrostatic"
        charge = region.charge if is_embedded else float(region.force_field_charges.sum())
        if abs(charge) > _NEUTRAL:
            what = f"{simulation.path}: pbc of forcefield {source.name!r}: expected false, found true"
            how = f"the dipole jumps by {charge:+.4g} e times a lattice vector"
            yield f"{what}: {how} where i-PI puts the QM region back into the cell"


def _check_virial(console: Console, simulation: Simulation, setup: Setup, terms: list[str]) -> None:
    """See that there is a virial where the cell is to change; say where a pressure will be no number.

    Raises:
        SetupError: the cell of a molecule in vacuum would change, or there is no virial.
    """
    config, mm = setup.config, setup.config.mm
    if simulation.barostat and setup.system.cell is None:
        raise SetupError(
            f"{simulation.path}: {simulation.barostat}: expected a structure with a cell, found none in "
            f"{config.structure}"
        )
    if mm is None or mm.engine != "openmm" or mm.virial or not common_terms(["mm"], terms):
        return
    if simulation.barostat:
        raise SetupError(
            f"{config.path}: mm.virial: expected true with {simulation.barostat} in {simulation.path}, "
            "found false"
        )
    if simulation.pressures:
        names = ", ".join(simulation.pressures)
        show_note(console, f"{names}: no numbers, as mm.virial is false")


def _share_processors(
    console: Console, simulation: Simulation, config: Config, asked: int | None
) -> tuple[dict[str, int], int]:
    """Clients by ffsocket, and threads of each: those asked for, or as there are batches and processors.

    Where the configuration says nothing of threads, clients share the processors that they leave.
    """
    sockets, forces = simulation.forces.sockets, simulation.forces
    processors = allowed_processors()
    given = config.mm is not None and "threads" in config.mm.model_fields_set
    threads = config.mm.threads if config.mm is not None else 1
    batches = [math.ceil(forces.structures(ffsocket) / ffsocket.batch_size) for ffsocket in sockets]
    shares = share_processors(batches, processors // threads)
    counts = shares if asked is None else [asked] * len(sockets)
    if config.mm is not None and not given:
        threads = max(1, processors // max(1, sum(counts)))
    if sum(counts) * threads > max(processors, len(sockets)):
        show_note(console, f"{sum(counts)} clients with {threads} threads each share {processors} processors")
    by_name = {ffsocket.name: count for ffsocket, count in zip(sockets, counts, strict=True)}
    return by_name, threads
