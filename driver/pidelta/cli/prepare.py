"""``pidelta prepare``: from a SMILES or a file to a folder that runs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer
from rich.console import Console

from pidelta.checksums import checksum
from pidelta.cli.option_values import one_of, quantity
from pidelta.cli.run import INTERRUPTED
from pidelta.errors import ConfigError, SettingError, SetupError

if TYPE_CHECKING:
    from pidelta.workflow.preparing.components import Request

_FOR_EACH = "once for each molecule, in their order"
_LONGEST_NAME = 3


def prepare(
    molecules: Annotated[
        list[str],
        typer.Argument(metavar="MOLECULE...", help="SMILES, or .mol2, .sdf, .mol, .pdb or .xyz files."),
    ],
    output: Annotated[Path, typer.Option(help="The folder to make.")],
    water: Annotated[str, typer.Option(help="spc-fw, q-spc-fw, q-tip4p-f or tip3p-flexible.")] = "spc-fw",
    count: Annotated[
        list[int] | None, typer.Option(min=1, help=f"How often each molecule stands, {_FOR_EACH}.")
    ] = None,
    charge: Annotated[list[int] | None, typer.Option(help=f"Net charges, {_FOR_EACH}.")] = None,
    name: Annotated[list[str] | None, typer.Option(help=f"Names of residues, {_FOR_EACH}.")] = None,
    topology: Annotated[
        list[Path] | None,
        typer.Option(help=f"Topologies (.prmtop, .top) in place of those that are made, {_FOR_EACH}."),
    ] = None,
    classical: Annotated[
        list[int] | None,
        typer.Option(min=1, help="The place of a molecule, from 1, that is not quantum mechanical."),
    ] = None,
    multiplicity: Annotated[
        int | None, typer.Option(min=1, help="Of the QM region; by default 1, where electrons are paired.")
    ] = None,
    cutoff: Annotated[
        str, typer.Option(help="Of the embedding: what delta models and DFT labels see.")
    ] = "1.4 nm",
    margin: Annotated[
        str | None, typer.Option(help="Water around the molecules; by default the cutoff.")
    ] = None,
    force_field: Annotated[
        str, typer.Option(help="auto, gaff2, or generic: Lennard-Jones types alone, for QM molecules.")
    ] = "auto",
    ambertools: Annotated[
        Path | None, typer.Option(help="The folder of AmberTools; by default $AMBERHOME, or what PATH has.")
    ] = None,
    temperature: Annotated[str, typer.Option(help="Of the equilibration and of the inputs.")] = "300 K",
    equilibrate: Annotated[str, typer.Option(help="Length of the equilibration; 0 ps for none.")] = "1 ps",
    seed: Annotated[int, typer.Option(min=0, help="Of random numbers.")] = 20500,
) -> None:
    """Make a whole set-up: molecules in flexible water, equilibrated, with all inputs; again, it goes on.

    The molecules are quantum mechanical (DFTB), but for those that --classical names.
    """
    from pidelta.cli.preparation import Preparation, Settings
    from pidelta.mm.water import WATER_MODELS
    from pidelta.workflow.preparing.components import ForceField
    from pidelta.workflow.preparing.molecules import is_file

    settings = Settings(
        water=one_of("--water", water, WATER_MODELS),
        cutoff=quantity("--cutoff", cutoff, "length"),
        margin=quantity("--margin", margin or cutoff, "length"),
        temperature=quantity("--temperature", temperature, "temperature"),
        equilibration=quantity("--equilibrate", equilibrate, "time", zero=True),
        force_field=one_of("--force-field", force_field, get_args(ForceField)),
        multiplicity=multiplicity,
        ambertools=ambertools,
        seed=seed,
    )
    of_molecules = {"--count": count, "--charge": charge, "--name": name, "--topology": topology}
    requests = _requests(molecules, of_molecules, classical or [])
    files = [Path(source) for source in [*molecules, *map(str, topology or [])] if is_file(source)]
    options: dict[str, str | int] = {
        "molecules": " ".join(molecules),
        **{option: _shown(values) for option, values in {**of_molecules, "--classical": classical}.items()},
        "--water": water,
        "--multiplicity": multiplicity or 0,
        "--cutoff": cutoff,
        "--margin": margin or cutoff,
        "--force-field": force_field,
        "--temperature": temperature,
        "--equilibrate": equilibrate,
        "--seed": seed,
        "digest of files": checksum(*files)[:16],
    }
    console = Console(soft_wrap=True, highlight=False)
    try:
        Preparation(console, output, settings).run(requests, options)
    except SettingError as error:
        raise SetupError(f"--{error.quantity}: {error.problem}") from None
    except KeyboardInterrupt:
        console.print("stopped; the same command goes on from here")
        raise typer.Exit(INTERRUPTED) from None


def _requests(
    sources: Sequence[str], options: Mapping[str, Sequence[Any] | None], classical: Collection[int]
) -> list[Request]:
    from pidelta.workflow.preparing.components import Request, default_names

    values: dict[str, Sequence[Any]] = {}
    for option, given in options.items():
        if given and len(given) != len(sources):
            raise ConfigError(
                f"{option}: expected it {_FOR_EACH}, {len(sources)} times or never, found {len(given)}"
            )
        values[option] = given or [None] * len(sources)
    if beyond := [place for place in classical if place > len(sources)]:
        raise ConfigError(f"--classical: expected 1 to {len(sources)}, found {beyond[0]}")
    names = options["--name"] or default_names(sources)
    for name in names:
        if not (name.isascii() and name.isalnum() and len(name) <= _LONGEST_NAME) or names.count(name) > 1:
            raise ConfigError(
                f"--name: expected names of molecules, all different, of up to {_LONGEST_NAME} letters "
                f"or digits, found {name!r}"
            )
    return [
        Request(source, name, count or 1, charge, place not in classical, topology)
        for place, (source, name, count, charge, topology) in enumerate(
            zip(
                sources,
                names,
                values["--count"],
                values["--charge"],
                values["--topology"],
                strict=True,
            ),
            start=1,
        )
    ]


def _shown(values: Sequence[object] | None) -> str:
    return " ".join(map(str, values or ["as by default"]))
