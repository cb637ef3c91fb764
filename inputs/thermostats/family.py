"""The runs of the thermostat study: which system, how many beads, which thermostat, how long."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
TEMPERATURE = 298.0  # kelvin: the published matrices of PIGLET are for this one
TIME_STEP = 0.5  # fs


@dataclass(frozen=True)
class Run:
    """One simulation.

    Attributes:
        name: of its folder.
        system: of the configuration, ``uracil``, ``water`` or ``molecule``.
        label: what tables and pictures call its thermostat.
        how: how it differs from other runs of that thermostat, as tables say it; empty for those that do not.
        thermostat: the element of the i-PI input, empty at constant energy.
        beads: of the ring polymer.
        picoseconds: of the whole run, what is left out at its beginning included.
        start: the run from whose end it starts; empty for the structure as it is.
        scc: settings of the self-consistency of DFTB that are not the default.
        time_step: fs; smooth forces act once in it, stiff ones every TIME_STEP where that is shorter.
        splitting: where the thermostat acts in a time step, as i-PI names it.
        smooth_beads: of the contracted ring polymer that the smooth forces act on; 0 for all of them.
    """

    name: str
    system: str
    label: str
    thermostat: str
    beads: int
    picoseconds: float
    start: str
    how: str = ""
    scc: str = ""
    time_step: float = TIME_STEP
    smooth_beads: int = 0
    splitting: str = "obabo"

    @property
    def title(self) -> str:
        """What names it in a table."""
        return "; ".join(filter(None, (self.label, self.how)))

    @property
    def through_water(self) -> bool:
        """Whether nothing but water heats and cools the centroids of its QM region."""
        return self.system == "uracil" and self.label in THROUGH_WATER

    @property
    def is_long(self) -> bool:
        """Whether it is one of the runs for temperatures alone, whose smooth forces are rarer."""
        return self.time_step > TIME_STEP

    def steps(self, part: float) -> int:
        """Steps of a part of it; a warm-up has no parts."""
        return round(1000.0 * self.picoseconds / self.time_step * (part if self.start else 1.0))


def local(mode: str, tau: float, **more: float) -> str:
    """A thermostat with the time `tau` in fs."""
    rest = "".join(f" <{key}> {value} </{key}>" for key, value in more.items())
    return f"<thermostat mode='{mode}'> <tau units='femtosecond'> {tau:g} </tau>{rest} </thermostat>"


def smart_sampling() -> str:
    """The coloured noise that samples modes of 1 ps best and others up to 3336 cm-1 as well as it can."""
    drift = _matrices()["smart"]["drift"]
    return f"<thermostat mode='gle'> {_array('A', [drift])} </thermostat>"


def piglet() -> str:
    """The coloured noise that makes 8 beads do the work of many, on all modes."""
    parameters = _matrices()["piglet"]
    beads = int(parameters["beads"])
    centroid = parameters["centroid_drift"]
    heat = parameters["temperature_in_kelvin"] * beads
    white = [[heat if i == j else 0.0 for j in range(len(centroid))] for i in range(len(centroid))]
    drift = _array("A", [centroid, *[parameters["drift"]] * (beads - 1)])
    covariance = _array("C", [white, *[parameters["covariance_in_kelvin"]] * (beads - 1)], "kelvin")
    return f"<thermostat mode='nm_gle'> {drift} {covariance} </thermostat>"


def _matrices() -> dict:
    return json.loads((FOLDER / "gle.json").read_text())


def _array(tag: str, blocks: list[list[list[float]]], units: str = "") -> str:
    size = len(blocks[0])
    shape = f"({len(blocks)},{size},{size})" if len(blocks) > 1 else f"({size},{size})"
    values = ", ".join(f"{value:.12e}" for block in blocks for row in block for value in row)
    return f"<{tag} shape='{shape}'{f' units={units!r}' if units else ''}> [ {values} ] </{tag}>"


CLASSICAL = {
    "langevin-100": ("Langevin, 100 fs", local("langevin", 100)),
    "svr-100": ("SVR, 100 fs", local("svr", 100)),
    "gle": ("GLE, smart sampling", smart_sampling()),
    "nve": ("none (NVE)", ""),
    "langevin-10": ("Langevin, 10 fs", local("langevin", 10)),
    "ffl-10": ("FFL, 10 fs", local("ffl", 10)),
    "langevin-1000": ("Langevin, 1 ps", local("langevin", 1000)),
    "ffl-100": ("FFL, 100 fs", local("ffl", 100)),
    "svr-10": ("SVR, 10 fs", local("svr", 10)),
}
QUANTUM = {
    "pile-l": ("PILE-L, 100 fs", local("pile_l", 100)),
    "pile-g": ("PILE-G, 100 fs", local("pile_g", 100)),
    "piglet": ("PIGLET", piglet()),
    "trpmd": ("PILE-L, centroid free", local("pile_l", 1e6, pile_lambda=0.5)),
}
LONG = {"svr-100": 500.0, "nve": 500.0, "langevin-1000": 320.0, "ffl-100": 60.0, "svr-10": 320.0}
LONG_QUANTUM = {"pile-l": 50.0, "pile-g": 200.0, "trpmd": 340.0}
"""Picoseconds until the QM region's temperature is known to 1 %, where water brings most of its heat: smooth
forces less often make them affordable."""
LONG_STEP = 2.0  # fs
BEADS = 8
SMOOTH_BEADS = 2  # of the smooth forces in long runs of ring polymers, which take half of the time so
THROUGH_WATER = frozenset(
    (CLASSICAL | QUANTUM)[key][0] for key in ("svr-100", "svr-10", "nve", "pile-g", "trpmd")
)
"""Labels of thermostats that act on the total kinetic energy, or on no centroid."""
SLOW = ("langevin-1000", "svr-10", "svr-100", "nve")
"""Half as long as others with 0.5 fs: their QM regions need the longer runs."""

SELF_CONSISTENCY = (  # tolerance in e, what the charges start from; the first are the defaults
    ("1e-8", "extrapolated"),
    ("1e-4", "extrapolated"),
    ("1e-4", "none"),
    ("1e-3", "extrapolated"),
    ("1e-3", "previous"),
    ("1e-3", "none"),
    ("1e-2", "extrapolated"),
    ("1e-2", "none"),
)


def family() -> list[Run]:
    """All runs, those first that matter most, and each after the one that it starts from."""
    return [*_short(), *_more_beads(), *_drift(), *_long(), *_self_consistency()]


def _short() -> list[Run]:
    """Every thermostat on both systems, all terms in every time step."""
    runs = []
    for system, warm_up, classical, quantum in (("uracil", 4.0, 60.0, 8.0), ("water", 2.0, 20.0, 5.0)):
        first = Run(f"{system}-warm-up", system, "warm-up", local("langevin", 50), 1, warm_up, "")
        runs.append(first)
        for beads, length, thermostats in ((1, classical, CLASSICAL), (BEADS, quantum, QUANTUM)):
            for key, (label, thermostat) in thermostats.items():
                name = f"{system}-{beads}-{key}"
                own = 0.5 * length if system == "uracil" and key in SLOW else length
                runs.append(Run(name, system, label, thermostat, beads, own, first.name))
    return runs


def _more_beads() -> list[Run]:
    """Water with BAOAB, whose positions are more exact: quantum kinetic energies as they converge."""
    label, thermostat = QUANTUM["pile-l"]
    start, more = "water-warm-up", {"how": "BAOAB", "splitting": "baoab"}
    return [
        Run(f"water-{beads}-baoab", "water", label, thermostat, beads, 0.6, start, **more)
        for beads in (8, 16, 32, 64)
    ]


def _drift() -> list[Run]:
    """Water with half the time step, and without a thermostat: what makes ring polymers drift."""
    label, thermostat = QUANTUM["pile-l"]
    finer, start = {"how": "0.25 fs", "time_step": 0.25}, "water-8-baoab"
    return [
        Run("water-8-pile-l-0.25fs", "water", label, thermostat, BEADS, 2.0, start, **finer),
        Run("water-8-nve", "water", CLASSICAL["nve"][0], "", BEADS, 1.0, start),
    ]


def _long() -> list[Run]:
    """Uracil in water until its temperature is known, the smooth terms more rarely."""
    runs = []
    rarely = f"smooth every {LONG_STEP:g} fs"
    for beads, lengths, thermostats in ((1, LONG, CLASSICAL), (BEADS, LONG_QUANTUM, QUANTUM)):
        smooth_beads = SMOOTH_BEADS if beads > 1 else 0
        how = f"{rarely}, on {smooth_beads} beads" if smooth_beads else rarely
        more = {"how": how, "time_step": LONG_STEP, "smooth_beads": smooth_beads}
        for key, length in lengths.items():
            label, thermostat = thermostats[key]
            name, start = f"uracil-long-{key}", "uracil-warm-up"
            runs.append(Run(name, "uracil", label, thermostat, beads, length, start, **more))
    return runs


def _self_consistency() -> list[Run]:
    """A molecule in vacuum with NVE and with SVR, its charges more or less self-consistent."""
    first = Run("molecule-warm-up", "molecule", "warm-up", local("langevin", 50), 1, 1.0, "")
    runs = [first]
    for key, label, thermostat in (("nve", "NVE", ""), ("svr", "SVR, 100 fs", local("svr", 100))):
        for tolerance, start in SELF_CONSISTENCY:
            scc = f"tolerance: {float(tolerance):.1e}, start: {start}"
            name = f"molecule-{key}-{tolerance}-{start}"
            runs.append(Run(name, "molecule", label, thermostat, 1, 10.0, first.name, scc=scc))
    return runs
