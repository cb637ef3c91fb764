"""Frames and labels in the formats of other programs: extended XYZ, folders of arrays.

Point charges are atoms there. Lengths are in angstrom, energies in eV; `forces` are minus the gradient.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from ase.io.extxyz import read_extxyz, write_extxyz
from ase.units import Bohr, Hartree

from pidelta.data.frames import Frame, Label, LabelledFrame
from pidelta.data.store import LabelKind
from pidelta.errors import DataError
from pidelta.output_files import replacing
from pidelta.state import FloatArray

_GRADIENT = Hartree / Bohr
_PREFIXES: Mapping[LabelKind, str] = {"reference": "REF", "low": "LOW"}


def write_xyz(path: Path, frames: Iterable[LabelledFrame]) -> int:
    """Write extended XYZ, as ASE, MACE and others read it; return the number of frames.

    QM atoms come first, then the point charges; the column ``qm`` tells them apart and ``site_charge`` holds
    the charges in e. ``REF_energy`` and ``REF_forces`` are those of the reference, ``LOW_energy`` and
    ``LOW_forces`` those of the low level.
    """
    images = [_to_atoms(item) for item in frames]
    with replacing(path) as stream:
        write_extxyz(stream, images, write_results=False)
    return len(images)


def _to_atoms(item: LabelledFrame) -> Atoms:
    frame = item.frame
    n, m = len(frame.numbers), len(frame.site_numbers)
    atoms = Atoms(
        numbers=np.concatenate([frame.numbers, frame.site_numbers]),
        positions=np.concatenate([frame.positions, frame.site_positions]) * Bohr,
    )
    atoms.arrays["qm"] = np.repeat([1, 0], [n, m])
    atoms.arrays["site_charge"] = np.concatenate([np.zeros(n), frame.site_charges])
    atoms.info.update(charge=frame.charge, multiplicity=frame.multiplicity, source=frame.source)
    for kind, prefix in _PREFIXES.items():
        label: Label = getattr(item, kind)
        atoms.info[f"{prefix}_energy"] = label.energy * Hartree
        atoms.info[f"{prefix}_method"] = label.method
        atoms.info[f"{prefix}_program"] = label.program
        forces = -np.concatenate([label.gradient, label.site_gradient]) * _GRADIENT
        atoms.arrays[f"{prefix}_forces"] = forces
        atoms.arrays[f"{prefix}_charge"] = np.concatenate([label.charges, np.zeros(m)])
    return atoms


def read_xyz(path: Path, method: str | None = None) -> Iterator[tuple[Frame, dict[LabelKind, Label]]]:
    """Read extended XYZ as `write_xyz` writes it, or of molecules without charges.

    Without ``REF_energy`` and ``REF_forces`` those named ``energy`` and ``forces`` are taken.

    Args:
        path: the file.
        method: of the labels, where the file does not say.

    Raises:
        DataError: the file cannot be read, or does not say by which method its energies are.
    """
    try:
        with path.open(encoding="utf-8") as stream:
            images = list(read_extxyz(stream, slice(None)))
    except (OSError, ValueError, KeyError, IndexError, StopIteration) as error:
        raise DataError(f"{path}: expected extended XYZ ({' '.join(str(error).split())})") from None
    for index, atoms in enumerate(images):
        yield _from_atoms(atoms, f"{path}: snapshot {index}", f"{path} step {index}", method)


def _from_atoms(
    atoms: Atoms, where: str, source: str, method: str | None
) -> tuple[Frame, dict[LabelKind, Label]]:
    qm = np.asarray(atoms.arrays.get("qm", np.ones(len(atoms)))) > 0
    charges = np.asarray(atoms.arrays.get("site_charge", np.zeros(len(atoms))), dtype=np.float64)
    positions = atoms.positions / Bohr
    frame = Frame(
        numbers=atoms.numbers[qm].astype(np.int64),
        positions=positions[qm],
        site_positions=positions[~qm],
        site_charges=charges[~qm],
        site_numbers=atoms.numbers[~qm].astype(np.int64),
        charge=int(atoms.info.get("charge", 0)),
        multiplicity=int(atoms.info.get("multiplicity", 1)),
        source=str(atoms.info.get("source", source)),
    )
    known: dict[str, Any] = dict(atoms.info) | dict(atoms.arrays)
    if atoms.calc is not None:
        results = {name: value for name, value in atoms.calc.results.items() if name in ("energy", "forces")}
        known = {f"REF_{name}": value for name, value in results.items()} | known
    labels: dict[LabelKind, Label] = {}
    for kind, prefix in _PREFIXES.items():
        if f"{prefix}_energy" not in known:
            continue
        if f"{prefix}_forces" not in known:
            raise DataError(f"{where}: expected {prefix}_forces beside {prefix}_energy, found none")
        name = known.get(f"{prefix}_method", method)
        if name is None:
            raise DataError(f"{where}: expected {prefix}_method, found none: name it by --method")
        gradient = -np.asarray(known[f"{prefix}_forces"]) / _GRADIENT
        labels[kind] = Label(
            method=str(name),
            energy=float(known[f"{prefix}_energy"]) / Hartree,
            gradient=gradient[qm],
            site_gradient=gradient[~qm],
            charges=np.asarray(known.get(f"{prefix}_charge", np.zeros(len(atoms))))[qm],
            program=str(known.get(f"{prefix}_program", "")),
        )
    return frame, labels


def write_deepmd(folder: Path, frames: Iterable[LabelledFrame]) -> int:
    """Write DeePMD-kit's ``deepmd/npy/mixed``, as dpdata reads it; return the number of frames.

    Frames of as many atoms share a folder. Point charges have types of their own, ``mO`` and ``mH``, as range
    correction asks for (DPRc: Zeng, Giese, Ekesan, York, JCTC 2021, 17, 6993). Energies and forces are the
    reference less the low level.
    """
    by_size: dict[int, list[LabelledFrame]] = {}
    for item in frames:
        by_size.setdefault(len(item.frame.numbers) + len(item.frame.site_numbers), []).append(item)
    types = sorted({name for group in by_size.values() for item in group for name in _types(item.frame)})
    for size, group in by_size.items():
        place = folder / f"{size}"
        (place / "set.000").mkdir(parents=True, exist_ok=True)
        (place / "type_map.raw").write_text("\n".join(types) + "\n", encoding="utf-8")
        (place / "type.raw").write_text("0\n" * size, encoding="utf-8")
        (place / "nopbc").touch()
        arrays: dict[str, list[Any]] = {name: [] for name in ("coord", "energy", "force", "real_atom_types")}
        for item in group:
            frame, reference, low = item.frame, item.reference, item.low
            positions = np.concatenate([frame.positions, frame.site_positions])
            gradient = np.concatenate(
                [reference.gradient - low.gradient, reference.site_gradient - low.site_gradient]
            )
            arrays["coord"].append((positions * Bohr).ravel())
            arrays["energy"].append((reference.energy - low.energy) * Hartree)
            arrays["force"].append((-gradient * _GRADIENT).ravel())
            arrays["real_atom_types"].append([types.index(name) for name in _types(frame)])
        for name, values in arrays.items():
            kind = np.int32 if name == "real_atom_types" else np.float64
            np.save(place / "set.000" / f"{name}.npy", np.array(values, dtype=kind))
        np.save(place / "set.000" / "box.npy", np.tile(np.eye(3).ravel() * 100.0, (len(group), 1)))
    return sum(map(len, by_size.values()))


def _types(frame: Frame) -> list[str]:
    names = [chemical_symbols[number] for number in frame.numbers]
    return names + [f"m{chemical_symbols[number]}" for number in frame.site_numbers]


def write_mlp_qmmm(folder: Path, frames: Iterable[LabelledFrame]) -> int:
    """Write the folder of arrays of mlp_qmmm's adapter ``numpy_folder``; return the number of frames.

    Energies are less their means, as that program keeps single precision. Rows beyond the atoms of a frame
    are zero.
    """
    items = list(frames)
    folder.mkdir(parents=True, exist_ok=True)
    means = {kind: np.mean([getattr(item, kind).energy for item in items]) for kind in ("reference", "low")}
    columns: dict[str, list[Any]] = {}
    for item in items:
        frame = item.frame
        values: dict[str, Any] = {
            "N_qm": [len(frame.numbers)],
            "N_mm": [len(frame.site_numbers)],
            "qm_Z": frame.numbers,
            "qm_coords": frame.positions * Bohr,
            "mm_coords": frame.site_positions * Bohr,
            "mm_Q": frame.site_charges,
        }
        for kind, suffix in (("reference", "high"), ("low", "low")):
            label: Label = getattr(item, kind)
            values[f"E_{suffix}"] = [(label.energy - means[kind]) * Hartree]
            values[f"qm_grad_{suffix}"] = label.gradient * _GRADIENT
            values[f"mm_grad_{suffix}"] = label.site_gradient * _GRADIENT
        for name, value in values.items():
            columns.setdefault(name, []).append(np.asarray(value))
    for name, arrays in columns.items():
        np.save(folder / f"{name}.npy", _padded(arrays))
    return len(items)


def _padded(arrays: list[Any]) -> FloatArray:
    """(F, longest, ...) with zeros beyond the end of each."""
    longest = max(map(len, arrays))
    stacked = np.zeros((len(arrays), longest, *arrays[0].shape[1:]), dtype=arrays[0].dtype)
    for row, array in zip(stacked, arrays, strict=True):
        row[: len(array)] = array
    return stacked
