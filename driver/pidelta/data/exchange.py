"""Frames and labels in the formats of other programs: extended XYZ, folders of arrays.

Point charges are atoms there. Lengths are in angstrom, energies in eV; `forces` are minus the gradient.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from ase.io.extxyz import key_val_dict_to_str, key_val_str_to_dict, read_extxyz, write_extxyz
from ase.units import Bohr, Hartree

from pidelta.data.frames import Frame, Label, LabelKind, named
from pidelta.errors import DataError
from pidelta.output_files import replacing
from pidelta.state import FloatArray

_GRADIENT = Hartree / Bohr
_PREFIXES: Mapping[LabelKind, str] = {"reference": "REF", "low": "LOW"}
_FRAME_KEYS = ("qm", "site_charge", "charge", "multiplicity", "source")
_LABEL_KEYS = ("energy", "forces", "method", "program", "charge", "dipole")
# What other programs call the keys that are read.
_OTHER_NAMES: Mapping[str, tuple[str, ...]] = {
    "charge": ("total_charge", "net_charge", "qm_charge"),
    "multiplicity": ("spin", "total_spin", "spin_multiplicity", "mult"),
}
# ASE writes `KEY= ` for an empty text, and reads the next key as its value.
_SWALLOWED = re.compile(r"((REF|LOW|embedding|provenance)_\w+|source|pbc)=|(charge|multiplicity)=-?\d+$")

Labels = Mapping[LabelKind, Label]


Origin = tuple[Mapping[str, str | float], Mapping[str, str]]
"""Embedding of frames (lengths in bohr; empty where unknown) and provenance, as a `FrameStore` has them."""


def write_xyz(path: Path, frames: Iterable[tuple[Frame, Labels]], origin: Origin = ({}, {})) -> int:
    """Write extended XYZ, as ASE, MACE and others read it; return the number of frames.

    QM atoms come first, then the point charges; the column ``qm`` tells them apart and ``site_charge`` holds
    the charges in e. ``REF_energy``, ``REF_forces`` and, in e angstrom, ``REF_dipole`` are those of the
    reference, ``LOW_energy`` and ``LOW_forces`` those of the low level. Positions have 8 decimals. Other
    properties of labels, reasons why frames have none and empty texts are left out. Blanks in texts become
    single ones, backslashes slashes.
    """
    embedding, provenance = origin
    known: dict[str, str | float] = _texts({f"provenance_{name}": text for name, text in provenance.items()})
    for name, value in embedding.items():
        known[f"embedding_{name}"] = value if isinstance(value, str) else value * Bohr
    images = [_to_atoms(frame, labels, known) for frame, labels in frames]
    with replacing(path) as stream:
        write_extxyz(stream, images, write_results=False)
    return len(images)


def _to_atoms(frame: Frame, labels: Labels, known: Mapping[str, str | float]) -> Atoms:
    n, m = len(frame.numbers), len(frame.site_numbers)
    atoms = Atoms(
        numbers=np.concatenate([frame.numbers, frame.site_numbers]),
        positions=np.concatenate([frame.positions, frame.site_positions]) * Bohr,
    )
    atoms.arrays["qm"] = np.repeat([1, 0], [n, m])
    atoms.arrays["site_charge"] = np.concatenate([np.zeros(n), frame.site_charges])
    atoms.info.update(charge=frame.charge, multiplicity=frame.multiplicity)
    atoms.info.update(_texts({"source": frame.source}))
    atoms.info.update(known)
    for kind, label in labels.items():
        prefix = _PREFIXES[kind]
        atoms.info[f"{prefix}_energy"] = label.energy * Hartree
        atoms.info.update(_texts({f"{prefix}_method": label.method, f"{prefix}_program": label.program}))
        if "dipole" in label.properties:
            atoms.info[f"{prefix}_dipole"] = label.properties["dipole"] * Bohr
        forces = -np.concatenate([label.gradient, label.site_gradient]) * _GRADIENT
        atoms.arrays[f"{prefix}_forces"] = forces
        atoms.arrays[f"{prefix}_charge"] = np.concatenate([label.charges, np.zeros(m)])
    return atoms


def _texts(content: Mapping[str, str]) -> dict[str, str | float]:
    """Texts as ASE writes and reads them, empty ones left out."""
    found: dict[str, str | float] = {}
    for name, text in content.items():
        plain = " ".join(text.replace("\\", "/").split())
        if plain:
            # ASE would read numbers or truth values of 1.5 or T, and of = the next key.
            back = key_val_str_to_dict(key_val_dict_to_str({name: plain, "next": "key"}))
            is_read = isinstance(back.get(name), str) and back == {name: plain, "next": "key"}
            found[name] = plain if is_read else f"_JSON {json.dumps(plain)}"
    return found


def read_xyz(path: Path, method: str | None = None) -> Iterator[tuple[Frame, Labels]]:
    """Read extended XYZ as `write_xyz` writes it, or of molecules without charges.

    Without ``REF_energy`` and ``REF_forces`` those named ``energy`` and ``forces`` are taken.

    Args:
        path: the file.
        method: of the labels, where the file does not say.

    Raises:
        DataError: the file cannot be read, something in it is no number or not finite, it does not say by
            which method its energies are, its cell is periodic, or charge or multiplicity have other names.
    """
    for index, atoms in enumerate(_images(path)):
        with named(f"{path}: snapshot {index}"):
            snapshot = _from_atoms(atoms, f"{path} step {index}", method)
        yield snapshot


def read_origin(path: Path) -> Origin:
    """Embedding and provenance of the first snapshot of extended XYZ, as `write_xyz` writes them.

    Raises:
        DataError: the file cannot be read.
    """
    embedding: dict[str, str | float] = {}
    provenance: dict[str, str] = {}
    for key, value in _images(path, slice(1))[0].info.items():
        place, _, name = key.partition("_")
        if place == "embedding":
            embedding[name] = value if isinstance(value, str) else float(value) / Bohr
        elif place == "provenance":
            with named(str(path)):
                provenance[name] = _text(key, value)
    return embedding, provenance


def unread_keys(path: Path) -> list[str]:
    """The keys and columns of the first snapshot of extended XYZ that `read_xyz` passes over.

    Raises:
        DataError: the file cannot be read.
    """
    atoms = _images(path, slice(1))[0]
    known = _content(atoms)
    read = {"numbers", "positions", *_FRAME_KEYS}
    for prefix in _PREFIXES.values():
        if f"{prefix}_energy" in known:
            read |= {f"{prefix}_{name}" for name in _LABEL_KEYS}
    results = {} if atoms.calc is None else atoms.calc.results
    unread = [
        name for name in known if name not in read and not name.startswith(("embedding_", "provenance_"))
    ]
    return unread + [name for name in results if known.get(f"REF_{name}") is not results[name]]


def _images(path: Path, which: slice = slice(None)) -> list[Atoms]:
    try:
        with path.open(encoding="utf-8") as stream:
            images = list(read_extxyz(stream, which))
    except Exception as error:  # ASE raises whatever its parsing hits
        raise DataError(f"{path}: expected extended XYZ ({' '.join(str(error).split())})") from None
    if not images:
        raise DataError(f"{path}: expected a snapshot of extended XYZ, found none")
    return images


def _content(atoms: Atoms) -> dict[str, Any]:
    """What a snapshot says, by key and column."""
    known: dict[str, Any] = dict(atoms.info) | dict(atoms.arrays)
    if atoms.calc is not None:
        results = {name: value for name, value in atoms.calc.results.items() if name in ("energy", "forces")}
        known = {f"REF_{name}": value for name, value in results.items()} | known
    return known


def _from_atoms(atoms: Atoms, source: str, method: str | None) -> tuple[Frame, Labels]:
    known = _content(atoms)
    if atoms.pbc.any():
        pbc = " ".join("FT"[int(periodic)] for periodic in atoms.pbc)
        raise DataError(
            f'expected a QM region without periodic images, pbc="F F F", and labels of it, found pbc="{pbc}"'
        )
    for name, others in _OTHER_NAMES.items():
        for other in others:
            if other in known and name not in known:
                raise DataError(f"expected the key {name}, which is read, found {other}, which is not")
    count = len(atoms)
    qm = _numbers(known, "qm", (count,), 1.0) > 0
    charges = _numbers(known, "site_charge", (count,), 0.0)
    positions = atoms.positions / Bohr
    frame = Frame(
        numbers=atoms.numbers[qm].astype(np.int64),
        positions=positions[qm],
        site_positions=positions[~qm],
        site_charges=charges[~qm],
        site_numbers=atoms.numbers[~qm].astype(np.int64),
        charge=_integer(known, "charge", 0),
        multiplicity=_integer(known, "multiplicity", 1),
        source=_text("source", known.get("source", source)),
    )
    labels: dict[LabelKind, Label] = {}
    for kind, prefix in _PREFIXES.items():
        if f"{prefix}_energy" not in known:
            continue
        if f"{prefix}_forces" not in known:
            raise DataError(f"expected {prefix}_forces beside {prefix}_energy, found none")
        if f"{prefix}_method" not in known and method is None:
            raise DataError(f"expected {prefix}_method, found none: name it by --method")
        gradient = -_numbers(known, f"{prefix}_forces", (count, 3)) / _GRADIENT
        dipole = f"{prefix}_dipole"
        labels[kind] = Label(
            method=_text(f"{prefix}_method", known.get(f"{prefix}_method", method)),
            energy=float(_numbers(known, f"{prefix}_energy", ())) / Hartree,
            gradient=gradient[qm],
            site_gradient=gradient[~qm],
            charges=_numbers(known, f"{prefix}_charge", (count,), 0.0)[qm],
            program=_text(f"{prefix}_program", known.get(f"{prefix}_program", "")),
            properties={"dipole": _numbers(known, dipole, (3,)) / Bohr} if dipole in known else {},
        )
    return frame, labels


def _text(name: str, value: object) -> str:
    text = str(value)
    if _SWALLOWED.match(text):
        raise DataError(f"expected a text in {name}, found the next key, {text!r:.40}: it was written empty")
    return text


def _numbers(
    known: Mapping[str, Any], name: str, shape: tuple[int, ...], default: float | None = None
) -> FloatArray:
    """Numbers of this shape by their name; all of them `default` where there are none."""
    if name not in known and default is not None:
        return np.full(shape, default)
    try:
        found = np.asarray(known[name], dtype=np.float64)
    except (TypeError, ValueError):
        raise DataError(f"expected numbers in {name}, found {known[name]!r:.40}") from None
    if found.shape != shape:
        raise DataError(f"expected {name} of shape {shape}, found {found.shape}")
    return found


def _integer(known: Mapping[str, Any], name: str, default: int) -> int:
    value = float(_numbers(known, name, (), default))
    if not value.is_integer():
        raise DataError(f"expected an integer in {name}, found {known[name]}")
    return int(value)


def write_deepmd(folder: Path, frames: Iterable[tuple[Frame, Labels]]) -> int:
    """Write DeePMD-kit's ``deepmd/npy/mixed``, as dpdata reads it; return the number of frames.

    Frames of as many atoms share a folder. Point charges have types of their own, ``mO`` and ``mH``, as range
    correction asks for (DPRc: Zeng, Giese, Ekesan, York, JCTC 2021, 17, 6993). Energies and forces are the
    reference less the low level, or those of the reference where frames have no low-level label.
    """
    by_size: dict[int, list[tuple[Frame, Labels]]] = {}
    for frame, labels in frames:
        by_size.setdefault(len(frame.numbers) + len(frame.site_numbers), []).append((frame, labels))
    types = sorted({name for group in by_size.values() for frame, _ in group for name in _types(frame)})
    for size, group in by_size.items():
        place = folder / f"{size}"
        (place / "set.000").mkdir(parents=True, exist_ok=True)
        (place / "type_map.raw").write_text("\n".join(types) + "\n", encoding="utf-8")
        (place / "type.raw").write_text("0\n" * size, encoding="utf-8")
        (place / "nopbc").touch()
        arrays: dict[str, list[Any]] = {name: [] for name in ("coord", "energy", "force", "real_atom_types")}
        for frame, labels in group:
            energy, gradient = _target(labels)
            positions = np.concatenate([frame.positions, frame.site_positions])
            arrays["coord"].append((positions * Bohr).ravel())
            arrays["energy"].append(energy * Hartree)
            arrays["force"].append((-gradient * _GRADIENT).ravel())
            arrays["real_atom_types"].append([types.index(name) for name in _types(frame)])
        for name, values in arrays.items():
            kind = np.int32 if name == "real_atom_types" else np.float64
            np.save(place / "set.000" / f"{name}.npy", np.array(values, dtype=kind))
        np.save(place / "set.000" / "box.npy", np.tile(np.eye(3).ravel() * 100.0, (len(group), 1)))
    return sum(map(len, by_size.values()))


def _target(labels: Labels) -> tuple[float, FloatArray]:
    """Energy and gradient (n + m, 3) of the reference, less those of the low level if it is there."""
    reference, low = labels["reference"], labels.get("low")
    energy, gradient = reference.energy, np.concatenate([reference.gradient, reference.site_gradient])
    if low is None:
        return energy, gradient
    return energy - low.energy, gradient - np.concatenate([low.gradient, low.site_gradient])


def _types(frame: Frame) -> list[str]:
    names = [chemical_symbols[number] for number in frame.numbers]
    return names + [f"m{chemical_symbols[number]}" for number in frame.site_numbers]


def write_mlp_qmmm(folder: Path, frames: Iterable[tuple[Frame, Labels]]) -> int:
    """Write the folder of arrays of mlp_qmmm's adapter ``numpy_folder``; return the number of frames.

    Frames have labels of both kinds.

    Energies are less their means, as that program keeps single precision. Rows beyond the atoms of a frame
    are zero.
    """
    items = list(frames)
    folder.mkdir(parents=True, exist_ok=True)
    means = {kind: np.mean([labels[kind].energy for _, labels in items]) for kind in _PREFIXES}
    columns: dict[str, list[Any]] = {}
    for frame, labels in items:
        values: dict[str, Any] = {
            "N_qm": [len(frame.numbers)],
            "N_mm": [len(frame.site_numbers)],
            "qm_Z": frame.numbers,
            "qm_coords": frame.positions * Bohr,
            "mm_coords": frame.site_positions * Bohr,
            "mm_Q": frame.site_charges,
        }
        for kind, label in labels.items():
            suffix = "high" if kind == "reference" else "low"
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
