"""``pidelta sample`` and ``pidelta label``: from trajectories to labelled frames."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.progress import track

from pidelta.cli.counting import shown
from pidelta.cli.processors import allowed_processors
from pidelta.config import load_config
from pidelta.errors import ConfigError, DataError, SettingError
from pidelta.output_files import check_distinct

if TYPE_CHECKING:
    from pidelta.data.frames import LabelKind
    from pidelta.data.store import FrameStore
    from pidelta.qm.reference_settings import ReferenceSettings
    from pidelta.setup import Setup
    from pidelta.workflow.labelling import Outcome


def sample(
    config: Annotated[Path, typer.Argument(help="The configuration, a YAML file.")],
    trajectories: Annotated[list[Path], typer.Argument(help="Positions that i-PI wrote, .xyz or .pdb.")],
    output: Annotated[Path, typer.Option(help="The HDF5 file that frames are added to.")],
    every: Annotated[int, typer.Option(min=1, help="Take each such snapshot.")] = 1,
    skip: Annotated[
        int, typer.Option(min=0, help="Snapshots to leave out at the beginning of each file.")
    ] = 0,
    limit: Annotated[int | None, typer.Option(min=1, help="Frames to take from each file at most.")] = None,
) -> None:
    """Cut QM regions and their point charges out of trajectories, as frames to label."""
    settings = load_config(config)
    check_distinct(output, [config, *settings.files, *trajectories])

    from pidelta.data.store import FrameStore
    from pidelta.setup import Setup
    from pidelta.workflow import sampling

    setup = Setup(settings)
    with FrameStore(output, "a") as store:
        store.set_embedding(setup.surroundings.settings)
        for note in sampling.other_files(store, setup.origin):
            print(f"note: {note}")
        added = 0
        for trajectory in track(trajectories, "sampling", console=Console(stderr=True)):
            added += sampling.sample(
                trajectory,
                setup.qm_region,
                store,
                numbers=setup.system.numbers,
                yardstick=setup.yardstick,
                periodic=setup.system.cell is not None,
                every=every,
                skip=skip,
                limit=limit,
                origin=setup.origin,
            )
        print(f"{output}: {added} frames added, {len(store)} in all")


def label(
    frames: Annotated[Path, typer.Argument(help="The HDF5 file of frames.")],
    low: Annotated[
        Path | None, typer.Option(help="Label with the low-level method of this configuration instead.")
    ] = None,
    xc: Annotated[
        str,
        typer.Option(
            help="Density functional, as PySCF names it, or r2SCAN-3c, with a basis, D4 and gCP of its own."
        ),
    ] = "B3LYP",
    basis: Annotated[
        str | None, typer.Option(help="Orbital basis, as PySCF names it; by default def2-SVP.")
    ] = None,
    auxiliary_basis: Annotated[
        str | None,
        typer.Option(
            help="Basis of density fitting, as PySCF names it; by default def2-universal-jkfit, or for "
            "functionals without exact exchange def2-universal-jfit."
        ),
    ] = None,
    grid_level: Annotated[
        int | None,
        typer.Option(min=0, max=9, help="Integration grid; by default 2, and 3 for r2SCAN and its kin."),
    ] = None,
    dispersion: Annotated[
        str | None,
        typer.Option(
            help="none, d3bj or d4, with the published parameters of the functional; by default none."
        ),
    ] = None,
    unrestricted: Annotated[
        bool, typer.Option("--unrestricted", help="Orbitals for each spin, for radicals.")
    ] = False,
    check_every: Annotated[
        int | None, typer.Option(min=1, help="Compare gradients with differences of energies every N frames.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Frames computed at once; by default one for each processor.")
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            help="Compute on the workers of this dask scheduler: its address, or the file that it wrote."
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Frames to label now at most.")] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Label frames again that have a label by this method.")
    ] = False,
) -> None:
    """Label frames with DFT or, with --low, with DFTB; start it again to go on where it stopped.

    A frame keeps its labels by other methods.
    """
    if low is not None and dispersion not in (None, "none"):
        raise ConfigError(
            f"--dispersion: expected none with --low, whose configuration has qm.dftb.dispersion, "
            f"found {dispersion}"
        )
    if scheduler is not None and (low is not None or workers is not None):
        raise ConfigError("--scheduler: expected neither --low nor --workers with it, found one of them")
    config = None if low is None else load_config(low)

    from pidelta.qm.reference_settings import ReferenceSettings
    from pidelta.setup import Setup

    with open_frames(frames) as store, named_settings(lambda quantity: f"--{quantity.replace('_', '-')}"):
        if not len(store):
            raise DataError(f"{frames}: expected frames to label, found none")
        if config is None:
            reference = ReferenceSettings(
                xc=xc,
                basis=basis,
                auxiliary_basis=auxiliary_basis,
                grid_level=grid_level,
                dispersion=None if dispersion is None else _parse_dispersion(dispersion),
                unrestricted=unrestricted,
            )
            indices = _wanted(store, "reference", reference.method, replace)[:limit]
            where = workers or allowed_processors() if scheduler is None else scheduler
            failures = label_with_dft(store, indices, reference, where, replace, check_every)
        else:
            failures = label_with_low_level(store, Setup(config), limit, replace)
    if failures:
        raise typer.Exit(2)


def _parse_dispersion(text: str) -> Literal["none", "d3bj", "d4"]:
    if text == "none":
        return "none"
    if text == "d3bj":
        return "d3bj"
    if text == "d4":
        return "d4"
    raise ConfigError(f"--dispersion: expected none, d3bj or d4, found {text!r}")


@contextmanager
def named_settings(name: Callable[[str], str]) -> Iterator[None]:
    """Say by which key or option the user gave a setting of the level of theory that is refused."""
    try:
        yield
    except SettingError as error:
        raise ConfigError(f"{name(error.quantity)}: {error.problem}") from None


def open_frames(frames: Path) -> FrameStore:
    """Open a file of frames that has to be there.

    Raises:
        DataError: it is not.
    """
    if not frames.is_file():
        raise DataError(f"{frames}: no such file of frames")

    from pidelta.data.store import FrameStore

    return FrameStore(frames, "a")


def _wanted(store: FrameStore, kind: LabelKind, method: str, replace: bool) -> list[int]:
    return list(range(len(store))) if replace else store.unlabelled(kind, method)


def label_with_dft(
    store: FrameStore,
    indices: list[int],
    settings: ReferenceSettings,
    workers: int | str,
    replace: bool = False,
    check_every: int | None = None,
) -> list[str]:
    """Label frames with DFT, with a progress bar; print and return what went wrong with which.

    `workers` is the number of processes, or the address or file of a dask scheduler.
    """
    from pidelta.workflow import labelling

    labelling.check_frames(store, indices, settings)
    for program, count in store.programs("reference", settings.method).items():
        if program != settings.program and not replace:
            print(f"note: {count} frames have labels by this method from {program}, which stay")
    if isinstance(workers, str):
        from pidelta.workflow.dask_labelling import dask_labels

        outcomes = dask_labels(store, indices, settings, workers, check_every)
    else:
        workers = min(workers, len(indices) or 1)
        outcomes = labelling.reference_labels(store, indices, settings, workers, check_every)
    return _label(store, "reference", settings.method, len(indices), outcomes, replace)


def label_with_low_level(
    store: FrameStore, setup: Setup, limit: int | None = None, replace: bool = False
) -> list[str]:
    """Label frames with the low-level method of a set-up; as `label_with_dft`."""
    from pidelta.workflow import labelling

    region, engine = setup.qm_region, setup.engine
    indices = _wanted(store, "low", engine.identity, replace)[:limit]
    outcomes = labelling.low_labels(store, indices, engine, region.charge, region.multiplicity)
    return _label(store, "low", engine.identity, len(indices), outcomes, replace)


def _label(
    store: FrameStore, kind: LabelKind, method: str, count: int, outcomes: Iterable[Outcome], replace: bool
) -> list[str]:
    from pidelta.workflow import labelling

    for other, indices in store.methods(kind).items():
        if other != method:
            print(f"note: {len(indices)} frames have {kind} labels by {other}, which stay")
    print(f"{store.path}: {count} of {len(store)} frames to label with {method}", flush=True)
    failed = store.failures(kind, method)
    if failed:
        index, reason = next(iter(failed.items()))
        print(f"note: {len(failed)} of them failed before, such as frame {index}: {reason}")
    try:
        failures = labelling.write_labels(store, kind, method, shown(outcomes, "labelling", count), replace)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        raise typer.Exit(130) from None
    for failure in failures:
        print(f"pidelta: {failure}", file=sys.stderr)
    return failures
