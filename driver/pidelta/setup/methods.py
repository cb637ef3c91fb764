"""The methods of a configuration: the engine of the QM region, the correction to it, the force field."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pidelta.config import Config, DeltaConfig, MMConfig
from pidelta.core.charge_fields import ChargeFields
from pidelta.core.pme import reciprocal_sum
from pidelta.delta.base import Correction, check_fits, symbols
from pidelta.delta.committee import Committee
from pidelta.delta.files import models_digest
from pidelta.delta.loading import load_members
from pidelta.delta.offset import check_offset
from pidelta.delta.spread import Calibration
from pidelta.errors import ConfigError, ModelError, SettingError
from pidelta.mm.evaluator import BondedEvaluator, MMEvaluator
from pidelta.mm.openmm import OpenMMEvaluator
from pidelta.mm.settings import ForceFieldSettings, Part
from pidelta.mm.topology import Topology
from pidelta.qm.ase import ASEEngine
from pidelta.qm.base import QMEngine
from pidelta.qm.dftb.method import DFTBMethod, DispersionSettings, MethodInputs
from pidelta.qm.dftb.settings import DFTBSettings, SCCSettings
from pidelta.qm.dispersion import DEFAULT_S9, Damping
from pidelta.qm.none import NoEngine
from pidelta.qm_config import DampingConfig, DispersionConfig, QMConfig, QMWithDFTB, QMWithDFTBPlus
from pidelta.qmmm.coupling import Coupling, CutoffCoupling
from pidelta.qmmm.energy import ClassicalEvaluator
from pidelta.qmmm.pme_coupling import PMECoupling
from pidelta.qmmm.region import QMRegion
from pidelta.setup.files import where_a_cell_is
from pidelta.setup.sections import method_section, section
from pidelta.state import FloatArray, IntArray


def make_engine(config: Config, qm: QMConfig, region: QMRegion) -> QMEngine:
    """The low-level QM method.

    Raises:
        SetupError: parameters are missing, or settings do not fit the region.
    """
    if qm.engine == "ase":
        with method_section(config, "ase"):
            return ASEEngine(
                region.numbers,
                qm.ase.calculator,
                qm.ase.options,
                charges=region.force_field_charges,
                charge=qm.charge,
                multiplicity=qm.multiplicity,
            )
    if qm.engine == "none":
        return NoEngine(region.numbers)
    with method_section(config, "dftb"):
        method = _dftb_method(qm)
        inputs = method.inputs(region.numbers)
        return method.with_dispersion(_dftb_engine(qm, region.numbers, inputs))


def _dftb_engine(qm: QMWithDFTB | QMWithDFTBPlus, numbers: IntArray, inputs: MethodInputs) -> QMEngine:
    if qm.engine == "dftb+":
        from pidelta.qm.dftbplus.engine import DFTBPlusEngine

        return DFTBPlusEngine(
            numbers,
            inputs.parameters,
            inputs.files,
            inputs.settings,
            user_input=qm.dftbplus.input,
            library=qm.dftbplus.library,
        )
    from pidelta.qm.dftb.engine import DFTBEngine  # with PyTorch, which takes its time

    return DFTBEngine(numbers, inputs.parameters, inputs.settings)


def _dftb_method(qm: QMWithDFTB | QMWithDFTBPlus) -> DFTBMethod:
    dftb, derivatives = qm.dftb, qm.dftb.hubbard_derivatives
    settings = DFTBSettings(
        order=dftb.order,
        hubbard_derivatives=None if isinstance(derivatives, str) else derivatives,
        damping_exponent=dftb.damping_exponent,
        shell_resolved=dftb.shell_resolved,
        charge=qm.charge,
        multiplicity=qm.multiplicity,
        spin_polarised=dftb.spin_polarised,
        spin_constants=dftb.spin_constants,
        electronic_temperature=dftb.electronic_temperature,
        scc=SCCSettings(dftb.scc.tolerance, dftb.scc.max_iterations, dftb.scc.start),
        device=dftb.device,
    )
    return DFTBMethod(
        settings,
        folder=None if dftb.parameters == "builtin" else dftb.parameters,
        published=derivatives if isinstance(derivatives, str) else None,
        dispersion=_dispersion(dftb.dispersion),
    )


def _dispersion(dispersion: DispersionConfig) -> DispersionSettings | None:
    method, damping = dispersion.method, dispersion.damping
    if method == "none":
        return None
    if not isinstance(damping, DampingConfig):
        return DispersionSettings(method, damping)
    return DispersionSettings(
        method, Damping(**{"s9": DEFAULT_S9[method], **damping.model_dump(exclude_none=True)})
    )


def make_correction(delta: DeltaConfig, region: QMRegion, low_level: str) -> Committee:
    """The committee of the models, each checked against the region and the identity of its low level.

    Raises:
        ModelError: a file is no model, or one of another region, method or embedding; or two are the same.
        SettingError: the offset is not what the models add, or the calibration that of other models.
    """
    models = load_members(delta.models, delta.precision)
    for path, model in zip(delta.models, models, strict=True):
        _check_model(path, model, region, low_level)
    if delta.offset is not None:
        check_offset(delta.offset, models, region.numbers)
    expected, found = models_digest(delta.models), delta.calibration.models
    if found not in (None, expected):
        raise SettingError(
            "calibration.models",
            f"expected {expected}, the digest of these models, found {found}: the factors are of others, and "
            "pidelta test finds those of these",
        )
    return Committee(
        models,
        delta.offset or 0.0,
        calibration=Calibration(delta.calibration.energy, delta.calibration.force),
        baseline_error=delta.baseline_error,
        force_deviation="delta_force_deviation" in delta.properties,
    )


def _check_model(path: Path, model: Correction, region: QMRegion, low_level: str) -> None:
    try:
        check_fits(
            model.provenance,
            low_level=low_level,
            embedding=region.surroundings.settings,
            numbers=region.numbers,
            charge=region.charge,
            multiplicity=region.multiplicity,
        )
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None


def stranger_warnings(correction: Committee, region: QMRegion) -> list[str]:
    """What to know of MM atoms of elements that no frame of the training had near the QM atoms."""
    strangers = correction.provenance.strangers(region.partition.mm_numbers.tolist())
    if not strangers:
        return []
    return [
        f"delta: the training had no {symbols(strangers)} near the QM atoms: they count by their charges, "
        "and a run ends where one comes near"
    ]


def make_classical(
    mm: MMConfig,
    topology: Topology,
    cell: FloatArray | None,
    fields: ChargeFields | None,
    part: Part | None = None,
) -> ClassicalEvaluator:
    """The force field, or a part of it, by the engine that the configuration names.

    The built-in one shares `fields`, where there are any, with the coupling.
    """
    settings = ForceFieldSettings(
        cutoff=mm.cutoff if cell is not None else None,
        electrostatics=mm.electrostatics,
        ewald_tolerance=mm.ewald_tolerance,
        reaction_field_dielectric=mm.reaction_field_dielectric,
        lj_modifier=mm.lj_modifier,
        dispersion_correction=mm.dispersion_correction,
        threads=mm.threads,
    )
    if mm.engine == "openmm":
        return OpenMMEvaluator(
            topology,
            settings,
            cell,
            platform=mm.platform,
            precision=mm.precision,
            virial=mm.virial,
            part=part,
        )
    if part == "bonded":
        return BondedEvaluator(topology, settings)
    return MMEvaluator(topology, settings, cell, fields, bonded=part is None)


def embedding_scheme(config: Config, cell: FloatArray | None) -> Literal["cutoff", "pme"]:
    """The scheme that the configuration names, or else the one that goes with its force field.

    Raises:
        ConfigError: it names ``pme``, and there is no cell.
    """
    scheme = config.embedding.scheme
    if scheme == "pme" and cell is None:
        raise ConfigError(
            f"{config.path}: embedding.scheme: expected a cell with pme, found none in "
            f"{config.structure}{where_a_cell_is(config.structure)}"
        )
    if scheme is not None:
        return scheme
    if config.qm is not None and config.qm.engine == "none":
        return "cutoff"
    ewald = config.mm is not None and config.mm.electrostatics in ("pme", "ewald")
    return "pme" if ewald and cell is not None else "cutoff"


def make_fields(config: Config, region: QMRegion, cell: FloatArray | None) -> ChargeFields | None:
    """The Ewald sum of the force field's charges, which it shares with the coupling, where there is one."""
    if embedding_scheme(config, cell) == "cutoff":
        return None
    mm, force_field = config.mm, region.force_field
    assert mm is not None
    assert cell is not None
    assert force_field is not None
    with section(config, "mm"):
        reciprocal = reciprocal_sum(mm.electrostatics, mm.cutoff, mm.ewald_tolerance, cell)
    return ChargeFields(reciprocal, force_field.charges)


def make_coupling(config: Config, region: QMRegion, fields: ChargeFields | None) -> Coupling:
    """The potential that the low-level method feels: by an Ewald sum where there are fields."""
    if fields is None or config.mm is None:
        return CutoffCoupling(region.surroundings)
    return PMECoupling(region.partition, fields, config.mm.cutoff)
