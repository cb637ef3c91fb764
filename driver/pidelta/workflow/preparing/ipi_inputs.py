"""i-PI inputs of a prepared folder, and the .pdb that they start from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ase.data import chemical_symbols

from pidelta.output_files import replacing
from pidelta.state import System
from pidelta.units import BOHR_IN_ANGSTROM, HARTREE_IN_KELVIN

_CLASSICAL = "step, time{picosecond}, conserved{electronvolt}, temperature{kelvin}, potential{electronvolt}"
_SVR = "<thermostat mode='svr'> <tau units='femtosecond'> 100 </tau> </thermostat>"
_PILE = "<thermostat mode='pile_g'> <tau units='femtosecond'> {tau} </tau> </thermostat>"


def write_inputs(
    folder: Path, structure: str, terms: Sequence[str], temperature: float, seed: int
) -> list[str]:
    """Write nve.xml, nvt.xml, pimd.xml and, where there is a QM region, sample.xml; return their stems.

    Args:
        folder: where they go; their sockets are named after it.
        structure: the .pdb that they start from.
        terms: of the energy.
        temperature: as k_B T in hartree.
        seed: of random numbers; each input has another.
    """
    kelvin = f"{temperature * HARTREE_IN_KELVIN:.6g}"
    name = "".join(letter if letter.isalnum() else "-" for letter in folder.resolve().name)
    kinds = [kind for kind in _KINDS if kind != "sample" or "low" in terms]
    for place, kind in enumerate(kinds):
        title, text = _KINDS[kind]
        content = _TEMPLATE.format(
            title=title,
            kind=kind,
            structure=structure,
            temperature=kelvin,
            seed=seed + place,
            address=f"pidelta-{name}-{kind}",
            socket="mm+low" if kind == "sample" else "pidelta",
            **text,
        )
        with replacing(folder / f"{kind}.xml") as stream:
            stream.write(content)
    return kinds


def write_pdb(path: Path, system: System) -> None:
    """Write a structure of a cubic or other orthogonal cell as i-PI reads it, with elements as names."""
    assert system.cell is not None
    edges = "".join(f"{edge * BOHR_IN_ANGSTROM:9.3f}" for edge in system.cell.diagonal())
    lines = [f"CRYST1{edges}  90.00  90.00  90.00 P 1           1"]
    for atom, (number, point) in enumerate(
        zip(system.numbers, system.positions * BOHR_IN_ANGSTROM, strict=True)
    ):
        symbol = chemical_symbols[number]
        coordinates = "".join(f"{x:8.3f}" for x in point)
        lines.append(
            f"ATOM  {(atom + 1) % 100_000:5d}  {symbol:<3s} {system.residue_names[atom][:3]:3s}  "
            f"{(system.residue_indices[atom] + 1) % 10_000:4d}    {coordinates}  1.00  0.00"
            f"          {symbol:>2s}"
        )
    with replacing(path) as stream:
        stream.write("\n".join([*lines, "END"]) + "\n")


_RING = {"beads": 8, "batch": "\n    <batch_size> 4 </batch_size>\n    <latency> 0.01 </latency>"}
_KINDS: dict[str, tuple[str, dict[str, object]]] = {
    "nve": (
        "Constant energy, 4 ps: shows the drift of the conserved quantity.",
        {
            "properties": _CLASSICAL, "stride": 100, "steps": 16000, "beads": 1, "batch": "",
            "ensemble": "nve", "time_step": 0.25, "thermostat": "",
        },
    ),
    "nvt": (
        "Constant temperature, 10 ps.",
        {
            "properties": _CLASSICAL, "stride": 20, "steps": 20000, "beads": 1, "batch": "",
            "ensemble": "nvt", "time_step": 0.5, "thermostat": f"\n        {_SVR}",
        },
    ),
    "pimd": (
        "Path integrals, 8 beads, 2 ps.",
        {
            **_RING, "properties": f"{_CLASSICAL}, kinetic_cv{{electronvolt}}", "stride": 20, "steps": 4000,
            "ensemble": "nvt", "time_step": 0.5, "thermostat": f"\n        {_PILE.format(tau=100)}",
        },
    ),
    "sample": (
        "Path integrals without a delta model, whose positions `pidelta sample` takes frames to learn from.",
        {
            **_RING, "properties": f"{_CLASSICAL}, kinetic_cv{{electronvolt}}", "stride": 50, "steps": 3000,
            "ensemble": "nvt", "time_step": 0.5, "thermostat": f"\n        {_PILE.format(tau=25)}",
        },
    ),
}  # fmt: skip

_TEMPLATE = """<!-- {title} -->
<simulation verbosity='low' safe_stride='20'>
  <output prefix='{kind}'>
    <properties filename='out' stride='1'>
      [ {properties} ]
    </properties>
    <trajectory filename='pos' stride='{stride}' format='xyz' cell_units='angstrom'>
      positions{{angstrom}}
    </trajectory>
    <checkpoint filename='checkpoint' stride='100' overwrite='true'/>
  </output>
  <total_steps>{steps}</total_steps>
  <prng> <seed>{seed}</seed> </prng>
  <ffsocket name='{socket}' mode='unix' pbc='false'>
    <address>{address}</address>{batch}
  </ffsocket>
  <system>
    <initialize nbeads='{beads}'>
      <file mode='pdb'> {structure} </file>
      <velocities mode='thermal' units='kelvin'> {temperature} </velocities>
    </initialize>
    <forces> <force forcefield='{socket}'/> </forces>
    <motion mode='dynamics'>
      <dynamics mode='{ensemble}'>
        <timestep units='femtosecond'> {time_step} </timestep>{thermostat}
      </dynamics>
    </motion>
    <ensemble> <temperature units='kelvin'> {temperature} </temperature> </ensemble>
  </system>
</simulation>
"""
