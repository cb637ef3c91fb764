"""The section `qm` of a configuration: engines and their methods, the region, its links."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, FiniteFloat, field_validator, model_validator

from pidelta.units import parse_quantity
from pidelta.yaml_input import FilePath, Integer, Length, Section, Temperature

_HIGHEST_TEMPERATURE = 1.0001 * parse_quantity("20000 K", "temperature")
_LOWEST_TEMPERATURE = 0.99 * parse_quantity("1 K", "temperature")


class SCCConfig(Section):
    """Self-consistent charges.

    `tolerance` is the largest change of a charge (e) that counts as converged. `start` is what the charges
    start from: neutral atoms, those of the call before, or an extrapolation of the last calls as far as these
    proved smooth. It changes the time, not the result.
    """

    tolerance: FiniteFloat = Field(1.0e-8, gt=0.0, le=0.01)
    max_iterations: Integer = Field(100, ge=1)
    start: Literal["none", "previous", "extrapolated"] = "extrapolated"


class DFTBPlusSCCConfig(SCCConfig):
    """Self-consistent charges of DFTB+, which starts from those of the call before."""

    start: Literal["previous"] = "previous"


class DampingConfig(Section):
    """Parameters of Becke-Johnson damping, `a2` in bohr.

    `s9` scales three-body terms: by default 0 for D3(BJ), which is without them, and 1 for D4.
    """

    s6: FiniteFloat = Field(1.0, ge=0.0)
    s8: FiniteFloat
    s9: FiniteFloat | None = None
    a1: FiniteFloat
    a2: FiniteFloat = Field(ge=0.0)


class DispersionConfig(Section):
    """Dispersion among the QM atoms; `dispersion: d3bj` is short for `dispersion: {method: d3bj}`.

    `damping` is the name of a published Slater-Koster set or functional or values of its own. By default it
    is that of B3LYP with the built-in parameters, whose repulsives are fitted to B3LYP without dispersion,
    and else that of the set that `hubbard_derivatives` names. Published D3(BJ) has no three-body terms, D4
    has them.
    """

    method: Literal["none", "d3bj", "d4"]
    damping: DampingConfig | str | None = None

    @model_validator(mode="before")
    @classmethod
    def _name_method(cls, value: object) -> object:
        return {"method": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check_damping(self) -> DispersionConfig:
        if self.method == "none" and self.damping is not None:
            raise ValueError("damping: expected a method with it, d3bj or d4, found none")
        return self


class DFTBConfig(Section):
    """DFTB, by the built-in engine or DFTB+.

    `order` is that of DFTB: by default 3 with the built-in parameters, 2 with a folder of .skf files.
    `hubbard_derivatives` (order 3) is the name of a published set or a value for each element in hartree/e;
    the built-in parameters bring their own. `damping_exponent` is the exponent zeta of the H-X damping of
    gamma: by default that of the named set, then that of the built-in parameters, else none.
    `shell_resolved` gives each shell its own charge and U, as the .skf files have it. With a multiplicity
    above 1 spins have their own orbitals, or share them, with thermal occupations, if `spin_polarised` is
    false. `spin_constants`, for spin polarisation, are W by element in hartree: a matrix by the shells s, p,
    d, or one number for all; the built-in parameters bring their own.
    `device` is where the built-in engine runs.
    """

    parameters: Literal["builtin"] | FilePath = "builtin"
    order: Literal[2, 3] = 3
    hubbard_derivatives: str | dict[str, FiniteFloat] | None = None
    damping_exponent: FiniteFloat | None = Field(None, gt=0.0)
    shell_resolved: bool = False
    spin_polarised: bool = True
    spin_constants: dict[str, FiniteFloat | list[list[FiniteFloat]]] | None = None
    dispersion: DispersionConfig = DispersionConfig(method="none")
    electronic_temperature: Temperature = Field(0.0, ge=0.0)
    scc: SCCConfig = SCCConfig()
    device: Literal["cpu", "cuda"] = "cpu"

    @model_validator(mode="before")
    @classmethod
    def _set_order(cls, values: object) -> object:
        if isinstance(values, dict) and values.get("parameters", "builtin") != "builtin":
            return {"order": 2, **values}
        return values

    @field_validator("electronic_temperature")
    @classmethod
    def _check_temperature(cls, value: float) -> float:
        if 0.0 < value < _LOWEST_TEMPERATURE:
            raise ValueError("expected 0 K or at least 1 K")
        if value > _HIGHEST_TEMPERATURE:
            raise ValueError("expected at most 20000 K")
        return value

    @field_validator("hubbard_derivatives")
    @classmethod
    def _check_derivatives(
        cls, value: str | dict[str, FiniteFloat] | None
    ) -> str | dict[str, FiniteFloat] | None:
        wrong = {} if not isinstance(value, dict) else {e: d for e, d in value.items() if d > 0.0}
        for element, derivative in wrong.items():
            raise ValueError(
                f"expected none above 0 (those of 3OB are -0.02 to -0.19), found {derivative:g} for {element}"
            )
        return value

    @model_validator(mode="after")
    def _check_order(self) -> DFTBConfig:
        given = self.hubbard_derivatives is not None
        if given and self.order != 3:
            raise ValueError("expected hubbard_derivatives with order 3, and only with it")
        if not given and self.order == 3 and self.parameters != "builtin":
            raise ValueError(
                "expected hubbard_derivatives with order 3 and a folder of .skf files, found none"
            )
        return self


class DFTBMethodOfDFTBPlus(DFTBConfig):
    """DFTB with what DFTB+ does not leave open."""

    scc: DFTBPlusSCCConfig = DFTBPlusSCCConfig()
    device: Literal["cpu"] = "cpu"


class DFTBPlusConfig(Section):
    """What only DFTB+ needs: its library, if it is not where its Python module is, and an input of your own.

    The atoms, the charge and the method of `input` must be those of the configuration; other keywords of its
    Hamiltonian, such as a mixer, are taken over. Its coordinates are not used, and its paths, but for those
    of .skf files, must be absolute.
    """

    library: FilePath | None = None
    input: FilePath | None = None


class ASEConfig(Section):
    """A calculator of ASE: its class with the module, such as `tblite.ase.TBLite`, and its arguments.

    The embedding is mechanical: the calculator sees no MM charges. They act on the force-field charges of the
    QM atoms instead, so nothing polarises the QM region but a delta model that has learnt it.
    """

    calculator: str
    options: dict[str, Any] = Field(default_factory=dict)


class LinksConfig(Section):
    """Hydrogens on bonds that join the QM region with MM atoms, their hosts; `length` in bohr once read.

    `position` is a fixed ratio of the bond (`scaled`), `length` over the force field's length of the bond, or
    the distance `length` from the QM atom (`fixed`); by default that is 1.09 angstrom at carbon.
    `host_charge` is where the charge of a host goes in what the QM region feels: to the MM atoms bonded to
    it, with the dipole kept (`charge-shift`); to the middles of its bonds to them (`redistribute`); to the MM
    atoms of its residue (`zero`). `allow` names borders that are refused otherwise: bonds other than carbon
    with carbon (`polar`), double and conjugated ones (`multiple`), those of rings (`ring`), several of one
    host (`shared`).
    """

    position: Literal["scaled", "fixed"] = "scaled"
    length: Annotated[Length, Field(gt=1.0, lt=6.0)] | None = None
    host_charge: Literal["charge-shift", "redistribute", "zero"] = "charge-shift"
    allow: list[Literal["polar", "multiple", "ring", "shared"]] = Field(default_factory=list)


class QMRegionConfig(Section):
    """The QM region, whichever engine describes it; see the engines' own sections for their methods.

    The method is the term `low` of the energy. `charge_remainder` selects MM atoms that take up, in equal
    shares, what the force-field charges of the QM atoms have more than `charge`. Without it, a remainder up
    to 0.05 e, as rounding leaves, is dropped; where bonds join the region with MM atoms, it goes to the MM
    atoms of the residues that are cut. `links` says how such bonds are cut. `properties` are results to
    report, by the names that `pidelta.qm.base.QMResult` explains; which of them an engine gives, it says
    itself.
    """

    atoms: str | list[int] = "all"
    charge: Integer = 0
    charge_remainder: str | list[int] | None = None
    links: LinksConfig = LinksConfig()
    multiplicity: Integer = Field(1, ge=1)
    properties: list[str] = Field(default_factory=list)


class QMWithDFTB(QMRegionConfig):
    """The QM region by the built-in DFTB, with electrostatic embedding."""

    engine: Literal["dftb"] = "dftb"
    dftb: DFTBConfig = DFTBConfig()


class QMWithDFTBPlus(QMRegionConfig):
    """The QM region by DFTB+, with electrostatic embedding."""

    engine: Literal["dftb+"]
    dftb: DFTBMethodOfDFTBPlus = DFTBMethodOfDFTBPlus()
    dftbplus: DFTBPlusConfig = DFTBPlusConfig()


class QMWithASE(QMRegionConfig):
    """The QM region by a calculator of ASE, with mechanical embedding."""

    engine: Literal["ase"]
    ase: ASEConfig


class QMWithNone(QMRegionConfig):
    """The QM region by the delta models alone, trained on frames with the low-level labels of this engine."""

    engine: Literal["none"]

    @model_validator(mode="after")
    def _check_properties(self) -> QMWithNone:
        if self.properties:
            raise ValueError(f"properties: expected none with engine none, found {self.properties[0]!r}")
        return self


QMConfig: TypeAlias = QMWithDFTB | QMWithDFTBPlus | QMWithASE | QMWithNone
