"""What the border between QM and MM does, as rows of the table of `pidelta check`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pidelta.config import MMConfig
from pidelta.state import FloatArray
from pidelta.units import BOHR_IN_ANGSTROM, HARTREE_IN_KCAL_PER_MOL

if TYPE_CHECKING:
    from pidelta.qmmm.surroundings import CutoffSurroundings
    from pidelta.setup import Setup

_Rows = list[tuple[str, str]]

_NEUTRAL = 1e-3  # e


def describe_embedding(mm: MMConfig, setup: Setup, surroundings: CutoffSurroundings) -> _Rows:
    """The coupling, its background, and what charge groups do at the end of the surroundings."""
    lengths = ", ".join(
        f"{name} {value * BOHR_IN_ANGSTROM:.2f} angstrom"
        for name, value in (("cutoff", surroundings.cutoff), ("switch", surroundings.switch))
    )
    rows, cell = [], setup.system.cell
    if setup.embedding_scheme == "pme" and cell is not None:
        text = "pme" + ("" if setup.config.embedding.scheme else ", as the force field has an Ewald sum")
        rows += [("embedding", f"{text}: all MM charges and the periodic images of the QM region")]
        rows += [("neutralising background", _describe_background(mm, setup, cell))]
        rows += [("delta models, labels", f"charges within a {lengths}")]
    else:
        text = "cutoff" + ("" if setup.config.embedding.scheme else ", as the force field has no Ewald sum")
        rows += [("embedding", f"{text}: charges within a {lengths}")]
    return rows + _describe_groups(setup, surroundings)


def _describe_background(mm: MMConfig, setup: Setup, cell: FloatArray) -> str:
    """Charges of both regions, and the energy of the background in both terms."""
    from pidelta.core.ewald import background_energy, splitting

    region = setup.qm_region
    low = float(region.charge)
    if setup.engine.embedding == "mechanical":
        low = float(region.force_field_charges.sum())
    rest = float(region.partition.charges.sum())
    if max(abs(rest), abs(low)) < _NEUTRAL:
        return "none: MM part and QM region are neutral"
    unit = background_energy(1.0, splitting(mm.cutoff, mm.ewald_tolerance), cell)
    energies = {"mm": rest**2, "low": low * (low + 2.0 * rest), "all": (low + rest) ** 2}
    charges = {"MM": rest, "QM region": low, "cell": low + rest}
    return (
        ", ".join(f"{name} {round(value, 4) + 0.0:+.4f} e" for name, value in charges.items())
        + "; its energy: "
        + ", ".join(f"{unit * value + 0.0:.6f} hartree in {name}" for name, value in energies.items())
    )


def _describe_groups(setup: Setup, surroundings: CutoffSurroundings) -> _Rows:
    """How many there are and the extremes, and what happens where they end."""
    from pidelta.qmmm.border import CHARGED, border_facts, group_facts

    cell = setup.system.cell
    cells = None if cell is None else cell[None]
    particles = setup.qm_region.particles.place(setup.system.positions[None], cells)[0]
    facts, force_field = group_facts(surroundings, particles, cell), setup.qm_region.force_field
    border = border_facts(surroundings, particles, cell)
    if facts is None or border is None or force_field is None:
        return [("charge groups", "none")]
    parts = [str(facts.count)]
    if facts.several:
        parts.append(f"{facts.several} of them large and counted whole as soon as a part is near")
    parts.append(
        f"up to {facts.radius * BOHR_IN_ANGSTROM:.2f} angstrom wide: {force_field.label(facts.widest)}"
    )
    if abs(facts.charge) > CHARGED:
        parts.append(f"net charges up to {facts.charge:+.3f} e: {force_field.label(facts.charged)}")
    else:
        parts.append("all neutral")
    full = (surroundings.cutoff - surroundings.switch - facts.radius) * BOHR_IN_ANGSTROM
    parts.append(f"charges within {full:.1f} angstrom of a QM atom count in full")
    jump = border.jump * HARTREE_IN_KCAL_PER_MOL
    at_border = (
        f"{border.whole} groups count in full, {border.partly} in part; {border.outside} are left out, with "
        f"{round(border.left_out, 3) + 0.0:+.3f} e; largest jump of the potential {jump:.2f} kcal/mol/e: "
        f"{force_field.label(border.jumping)}"
    )
    if setup.embedding_scheme == "pme":
        at_border = f"none for the low level; for delta models and labels {at_border}"
    return [("charge groups", "; ".join(parts)), ("border", at_border)]
