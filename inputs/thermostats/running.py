"""Write the inputs of a run from the template, and run it from where it was left."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
from pathlib import Path
from string import Template

from family import FOLDER, TEMPERATURE, TIME_STEP, Run, family
from kept import keep, steps_done, take_up
from stretches import BEADS_STRIDE, STRIDE, condense, stride

import pidelta
from pidelta.analysis.cost import add_cost
from pidelta.output_files import replacing

SAFE_STRIDE = 20  # between states that i-PI keeps for its RESTART: one at every step is a third of its time
_PES = Path(pidelta.__file__).with_name("ipi_pes.py")
_SMALL_BOXES = (FOLDER.parent / "small-boxes").resolve()
_STRUCTURES = {
    "uracil": f"<file mode='pdb'> {_SMALL_BOXES / 'uracil-216.pdb'} </file>",
    "water": f"<file mode='pdb'> {_SMALL_BOXES / 'water-216.pdb'} </file>",
    "molecule": f"<file mode='xyz' units='angstrom'> {FOLDER / 'uracil.xyz'} </file>"
    " <cell mode='abc' units='angstrom'> [ 30, 30, 30 ] </cell>",
}
_FORCE_FIELD = """\
<ffdirect name='{name}' pbc='false'>
    <pes> custom </pes> <pes_path> {pes_path} </pes_path>
    <parameters> {{config: pidelta.yaml{terms}}} </parameters>
    <batch_size> {beads} </batch_size>
  </ffdirect>"""
_STIFF, _SMOOTH = ("mm.bonded", "low.vacuum"), ("mm.nonbonded", "low.embedding")
_TRAJECTORY = (
    "<trajectory filename='{name}' stride='{stride}' format='{format}'{more}> {quantity} </trajectory>"
)


def bring_to(run: Run, steps: int, runs: Path) -> None:
    """Run what is left of `steps` steps of a run in its folder below `runs`.

    i-PI calls pidelta in its own process, so that nothing waits for messages. ``cost.json`` has the
    processor time. The raw outputs of earlier parts are condensed first. Long runs are kept beside the study.

    Raises:
        SystemExit: it did not come to its end.
    """
    folder = runs / run.name
    restart = folder / "RESTART"
    take_up(run, folder)
    keep(run, folder)  # a run that was killed has not come to that
    done = steps_done(restart)
    if done >= steps:
        return
    if run.start and not done and not steps_done(runs / run.start / "RESTART"):
        (first,) = (other for other in family() if other.name == run.start)
        bring_to(first, first.steps(1.0), runs)
    write_inputs(run, steps, runs)
    condense(run, folder, done)
    if done:
        _extend(restart, steps)
    command = [sys.executable, str(Path(sys.executable).with_name("i-pi"))]
    command.append("RESTART" if done else "input.xml")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with (folder / "run.log").open("a") as log:
        code = subprocess.run(command, cwd=folder, env=environment, stdout=log, stderr=log).returncode
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    add_cost(folder, done, steps_done(restart), seconds)
    print(f"{run.name}: {seconds:.0f} s of processor time", flush=True)
    if steps_done(restart) < steps:
        raise SystemExit(f"{run.name}: i-PI ended early, with exit code {code}; see {folder / 'run.log'}")
    keep(run, folder)


def _extend(restart: Path, steps: int) -> None:
    """Let a RESTART go on to `steps`, with the pidelta that is installed now."""
    text = re.sub(r"<total_steps>.*?</total_steps>", "", restart.read_text())  # i-PI writes none for 1000
    text = text.replace("</simulation>", f"   <total_steps>{steps}</total_steps>\n</simulation>")
    with replacing(restart) as stream:
        stream.write(re.sub(r"(<pes_path>).*?(</pes_path>)", rf"\g<1> {_PES} \g<2>", text))


def write_inputs(run: Run, steps: int, runs: Path) -> None:
    """Write ``input.xml`` and ``pidelta.yaml``."""
    folder = runs / run.name
    folder.mkdir(parents=True, exist_ok=True)
    settings = Template((FOLDER / f"{run.system}.yaml").read_text()).substitute(scc=run.scc)
    (folder / "pidelta.yaml").write_text(re.sub(r"(structure|topology): ", rf"\1: {FOLDER}/", settings))
    template = Template((FOLDER / "input.xml.template").read_text())
    (folder / "input.xml").write_text(
        template.substitute(
            title=run.title,
            safe_stride=SAFE_STRIDE,
            steps=steps,
            seed=10007 + sum(run.name.encode()),
            beads=run.beads,
            stride=stride(run),
            trajectories="\n    ".join(_trajectories(run)),
            start=_start(run, runs),
            ensemble="nvt" if run.thermostat else "nve",
            splitting=run.splitting,
            time_step=run.time_step,
            thermostat=run.thermostat,
            **_forces(run),
        )
    )


def _forces(run: Run) -> dict[str, str]:
    """One force field of all terms, or those of the stiff and of the smooth ones, with their time steps."""

    def force_field(name: str, terms: tuple[str, ...], beads: int = run.beads) -> str:
        wanted = f", terms: {'+'.join(terms)}" if terms else ""
        return _FORCE_FIELD.format(name=name, pes_path=_PES, terms=wanted, beads=beads)

    inner = max(1, round(run.time_step / TIME_STEP))
    if inner == 1:
        whole = force_field("pidelta", ())
        return {
            "force_fields": whole,
            "forces": "<forces> <force forcefield='pidelta'/> </forces>",
            "inner_steps": "",
        }
    smooth_beads = run.smooth_beads or run.beads
    weights = {("smooth", smooth_beads): "[1, 0]", ("stiff", run.beads): "[0, 1]"}
    forces = [
        f"<force forcefield='{name}' nbeads='{beads}'> <mts_weights> {values} </mts_weights> </force>"
        for (name, beads), values in weights.items()
    ]
    smooth = force_field("smooth", _SMOOTH, smooth_beads)
    return {
        "force_fields": f"{force_field('stiff', _STIFF)}\n  {smooth}",
        "forces": f"<forces> {' '.join(forces)} </forces>",
        "inner_steps": f" <nmts> [1, {inner}] </nmts>",
    }


def _trajectories(run: Run) -> list[str]:
    wanted = [
        ("vel", stride(run), "bin", "v_centroid" if run.beads > 1 else "velocities", ""),
        ("pos", 50 * stride(run), "xyz", "x_centroid", ""),
    ]
    if run.beads > 1:
        wanted += [
            ("beads-vel", stride(run, BEADS_STRIDE), "bin", "velocities", ""),
            ("kinetic", stride(run, BEADS_STRIDE), "bin", "kinetic_cv", ""),
        ]
    elif run.system == "uracil" and not run.is_long:  # parts have no dipole
        wanted += [("dipole", STRIDE, "xyz", "extras", " extra_type='dipole'")]
    return [
        _TRAJECTORY.format(name=name, stride=stride, format=form, quantity=quantity, more=more)
        for name, stride, form, quantity, more in wanted
    ]


def _start(run: Run, runs: Path) -> str:
    velocities = f"<velocities mode='thermal' units='kelvin'> {TEMPERATURE:g} </velocities>"
    if not run.start:
        return f"{_STRUCTURES[run.system]} {velocities}"
    restart = (runs / run.start / "RESTART").resolve()
    return f"<file mode='chk'> {restart} </file>" + (f" {velocities}" if run.beads > 1 else "")
