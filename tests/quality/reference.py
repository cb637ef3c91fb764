"""Make the DFT data of the quality report: B3LYP/def2-TZVP, no dispersion.

Run: python tests/quality/reference.py [--set FOLDER] [--output reference.json]

It shows what it does, writes the file after every step and, started again, goes on where it stopped. The set
(the built-in one by default) only gives starting geometries and Hessians of the minima. All in atomic units.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from dft import SETTINGS, Surface, charges_and_dipole, hessian_of
from methods import Method, own_methods
from minima import minimise
from molecules import Molecule, dynamics_frames, force_field_minimum, heavy_atoms, make_frame, read_molecules
from pidelta.data.frames import Frame
from pidelta.qm.reference import label_frame
from pidelta.qm.reference_settings import ReferenceSettings
from pidelta.units import ANGSTROM
from special import (
    SYMMETRIC,
    dimer_at,
    malonaldehyde,
    malonaldehyde_transition_state,
    water,
    water_dimer,
    zundel,
)

OUTPUT = Path(__file__).with_name("reference.json")
_DIGITS = 7

Job = tuple[str, Callable[[], dict]]
"""The key of a result and what computes it."""


class Reference:
    """Results by key, such as ``frame/uracil/0``, in a JSON file."""

    def __init__(self, path: Path = OUTPUT) -> None:
        self.path = path
        self.results: dict[str, dict] = json.loads(path.read_text())["results"] if path.is_file() else {}

    def write(self) -> None:
        content = {"method": SETTINGS.method, "units": "hartree, bohr, e", "results": self.results}
        text = json.dumps(content).replace('}, "', '},\n"')
        temporary = self.path.with_suffix(".part")
        temporary.write_text(text + "\n")
        temporary.replace(self.path)

    def frame(self, key: str) -> Frame:
        """The geometry of a result."""
        result = self.results[key]
        return make_frame(result["numbers"], result["positions"], result["charge"], key)

    def keys(self, kind: str) -> list[str]:
        return [key for key in self.results if key.startswith(f"{kind}/")]


def entry(frame: Frame, **values: object) -> dict:
    """A result: the geometry and what belongs to it, rounded."""
    content = {
        "numbers": frame.numbers,
        "charge": frame.charge,
        "positions": frame.positions,
        **values,
    }
    return {key: _rounded(value) for key, value in content.items()}


def _rounded(value: object) -> object:
    if isinstance(value, float):
        return round(value, _DIGITS + 2)
    return np.round(value, _DIGITS).tolist() if isinstance(value, np.ndarray) else value


def labelled(frame: Frame, settings: ReferenceSettings = SETTINGS) -> dict:
    label = label_frame(frame, settings)
    return entry(frame, energy=label.energy, gradient=label.gradient)


def minimum(
    frame: Frame,
    start: Method,
    project: Callable[[np.ndarray], np.ndarray] = lambda positions: positions,
    settings: ReferenceSettings = SETTINGS,
) -> dict:
    """The DFT minimum that the minimum of a DFTB method leads to."""

    surface = Surface(frame, settings)
    guess = start.minimum(frame, project).positions
    found = minimise(surface, guess, start.hessian(frame, guess), project=project)
    scf = surface.scf(found.positions)
    charges, dipole = charges_and_dipole(scf)
    return entry(
        replace(frame, positions=found.positions),
        energy=float(scf.e_tot),
        gradients=found.gradients,
        charges=charges,
        dipole=dipole,
    )


def jobs(reference: Reference, start: Method) -> Iterator[Job]:
    """All jobs, in an order that gives something of everything early."""
    molecules = read_molecules()
    dynamics = molecules.settings["dynamics"]
    yield from _special_jobs(reference, start, molecules.settings)
    diffuse = replace(SETTINGS, basis=molecules.settings["diffuse_basis"])

    def level(molecule: Molecule) -> ReferenceSettings:
        return diffuse if "-]" in molecule.smiles and molecule.name in molecules.ions else SETTINGS

    early = [*molecules.settings["planar_nitrogen"], *molecules.settings["frequencies"]]
    ordered = sorted(molecules.minima.values(), key=lambda m: heavy_atoms(m) - 1.5 * (m.name in early))
    for molecule in ordered:
        name = molecule.name
        if name in molecules.sampled:
            yield (
                f"frame/{name}/0",
                lambda m=molecule: labelled(dynamics_frames(m, dynamics)[0], level(m)),
            )
        yield f"minimum/{name}", lambda m=molecule: minimum(force_field_minimum(m), start, settings=level(m))
        if name in molecules.settings["frequencies"]:
            yield f"hessian/{name}", lambda n=name: _hessian(reference.frame(f"minimum/{n}"))
    sulfur_chlorine = molecules.sulfur_chlorine
    for number in range(dynamics["frames"]):
        for molecule in [*ordered, *sulfur_chlorine.values()]:
            if molecule.name in (molecules.sampled if number else sulfur_chlorine):
                key = f"frame/{molecule.name}/{number}"
                yield (
                    key,
                    lambda m=molecule, k=number: labelled(dynamics_frames(m, dynamics)[k], level(m)),
                )


def _special_jobs(reference: Reference, start: Method, settings: dict) -> Iterator[Job]:
    for separation in settings["zundel"]["separations"]:
        for shift in settings["zundel"]["shifts"]:
            frame = zundel(separation * ANGSTROM, shift * ANGSTROM)
            yield f"zundel/{separation}/{shift}", lambda f=frame: labelled(f)
    yield "minimum/malonaldehyde", lambda: minimum(malonaldehyde(), start)
    yield (
        "minimum/malonaldehyde transition state",
        lambda: minimum(malonaldehyde_transition_state(), start, SYMMETRIC),
    )
    diffuse = replace(SETTINGS, basis=settings["diffuse_basis"])
    yield "minimum/water", lambda: minimum(water(), start, settings=diffuse)
    yield "minimum/water dimer", lambda: minimum(water_dimer(), start, settings=diffuse)
    for separation in settings["water_dimer"]["separations"]:
        yield (
            f"dimer/{separation}",
            lambda r=separation: labelled(_dimer(reference, r), diffuse),
        )
    for name, part in (("donor", slice(0, 3)), ("acceptor", slice(3, 6))):
        yield f"fragment/{name}", lambda p=part: labelled(_fragment(reference, p), diffuse)


def _dimer(reference: Reference, separation: float) -> Frame:
    frame = reference.frame("minimum/water dimer")
    return replace(frame, positions=dimer_at(frame.positions, separation * ANGSTROM))


def _fragment(reference: Reference, part: slice) -> Frame:
    frame = reference.frame("minimum/water dimer")
    return make_frame(frame.numbers[part], frame.positions[part], source="water in the dimer")


def _hessian(frame: Frame) -> dict:
    hessian = hessian_of(frame)
    return {"lower": _rounded(hessian[np.tril_indices(len(hessian))])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--set", type=Path, action="append", default=[], help="folder of a set for the starts"
    )
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    reference = Reference(arguments.output)
    todo = list(jobs(reference, own_methods(arguments.set)[0]))
    for number, (key, compute) in enumerate(todo, 1):
        if key in reference.results:
            continue
        started, busy = time.perf_counter(), time.process_time()
        try:
            reference.results[key] = compute()
        except RuntimeError as error:
            print(f"{key}: {error}", flush=True)
            continue
        reference.write()
        took = f"{time.perf_counter() - started:.0f} s, {time.process_time() - busy:.0f} s of CPU"
        print(f"{number}/{len(todo)} {key}: {took}", flush=True)


if __name__ == "__main__":
    main()
