"""The study in inputs/thermostats: i-PI reads its thermostats, and its page says what was measured."""

from __future__ import annotations

from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from scipy.signal import lfilter

from conftest import ROOT
from pidelta.state import PARTS

MODULES = ("family", "stretches", "kept", "running", "observables", "results", "pictures", "page")


@pytest.fixture
def study(script):
    """Its modules by name; they import each other as scripts of one folder do."""
    return {name: script("thermostats", name) for name in MODULES}


def test_ipi_reads_every_thermostat(study):
    from ipi.inputs.thermostats import InputThermo
    from ipi.utils.io.inputs.io_xml import xml_parse_string

    kinds = set()
    for run in study["family"].family():
        if run.thermostat:
            thermostat = InputThermo()
            thermostat.parse(xml_parse_string(run.thermostat).fields[0][1])
            kinds.add(type(thermostat.fetch()).__name__)
    assert kinds == {
        *("ThermoLangevin", "ThermoSVR", "ThermoGLE", "ThermoFFL"),
        *("ThermoPILE_L", "ThermoPILE_G", "ThermoNMGLE"),
    }


def test_runs_have_names_of_their_own_and_start_from_runs_before_them(study):
    before = [""]
    for run in study["family"].family():
        assert run.name not in before
        assert run.start in before
        before.append(run.name)


def test_matrices_of_piglet_are_classical_for_the_centroid_and_positive_elsewhere(study):
    """A C + C A^T is the covariance of the noise, and so has no negative eigenvalue."""
    parameters = study["family"]._matrices()["piglet"]
    drift, covariance = (np.array(parameters[key]) for key in ("drift", "covariance_in_kelvin"))
    noise = drift @ covariance + covariance @ drift.T
    assert np.linalg.eigvalsh(0.5 * (noise + noise.T)).min() > -1e-6 * np.abs(noise).max()
    for key in ("drift", "centroid_drift"):
        assert np.linalg.eigvals(np.array(parameters[key])).real.min() > 0.0


def test_long_runs_have_every_term_once_and_full_batches(study, tmp_path):
    """Their smooth terms act more rarely, of ring polymers on two beads, the stiff ones on all."""
    for run in study["family"].family():
        if run.is_long:
            study["running"].write_inputs(run, 10, tmp_path)
            root = ElementTree.parse(tmp_path / run.name / "input.xml").getroot()
            forces = {force.get("forcefield"): int(force.get("nbeads")) for force in root.iter("force")}
            assert forces == {"stiff": run.beads, "smooth": min(run.beads, 2)}
            terms = []
            for field in root.iter("ffdirect"):
                assert int(field.findtext("batch_size")) == forces[field.get("name")]
                parameters = yaml.safe_load(field.findtext("parameters"))
                terms += parameters["terms"].split("+")
            assert sorted(terms) == sorted((*PARTS["mm"], *PARTS["low"]))


def test_the_page_says_what_was_measured(study):
    page = study["page"]
    written = (ROOT / "inputs" / "thermostats" / "README.md").read_text()
    assert written == page.text(study["results"].read())
    assert "ot run yet" not in written


def test_stretches_of_a_run_add_up_to_what_its_raw_outputs_say(study, tmp_path):
    """Kinetic temperatures from the equipartition theorem by hand, whether read at once or in two parts."""
    stretches, family = study["stretches"], study["family"]
    run = family.Run("drop", "water", "", "", 1, 2.0, "start")
    rng = np.random.default_rng(5)
    steps = np.arange(0, 4200, stretches.STRIDE)
    velocities = 1e-3 * rng.standard_normal((len(steps), 24, 3))
    potential = rng.standard_normal(len(steps))
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    write_outputs(whole, steps, velocities, potential)
    cut = 1700
    write_outputs(parts, steps[: cut // 4 + 30], velocities[: cut // 4 + 30], potential[: cut // 4 + 30])
    stretches.condense(run, parts, cut)
    assert not list(parts.glob("run.vel*"))
    after = steps > cut
    write_outputs(parts, steps[after], velocities[after], potential[after])
    once = stretches.join(stretches.stretches_of(run, whole))
    twice = stretches.join(stretches.stretches_of(run, parts))
    masses = np.array([15.9949, 1.00783, 1.00783] * 8) * 1822.8885
    kinetic = 0.5 * np.einsum("tai,a->t", velocities**2, masses)
    expected = 2.0 * kinetic / (3 * 24 - 3) * 315775.02
    for found in (once, twice):
        np.testing.assert_array_equal(found.rows["time"], steps * family.TIME_STEP / 1000.0)
        np.testing.assert_allclose(found.rows["potential"], potential / 27.211386, rtol=1e-6)
        np.testing.assert_allclose(found.rows["MM"], expected, rtol=1e-3)
    # of 2.1 ps, the first 0.5 left out: segments of 1 ps that overlap by half, and none across the cut
    assert (once.segments, twice.segments) == (2, 1)
    assert once.power["MM"].shape == stretches.wavenumbers().shape


@pytest.fixture
def long_run(study):
    return study["family"].Run("drop", "water", "", "", 1, 2.0, "start", time_step=2.0)


STATE = "<simulation> <step>1000</step> <pes_path> /home/of/mine/pes.py </pes_path></simulation>"


def write_long_run(folder, n=1000):
    """Outputs of `n` steps of 2 fs and a state; returns the velocities."""
    rng = np.random.default_rng(6)
    velocities = 1e-3 * rng.standard_normal((n, 24, 3))
    write_outputs(folder, np.arange(1, n + 1), velocities, rng.standard_normal(n))
    (folder / "cost.json").write_text('{"first_step, last_step, CPU seconds": [[0, 1000, 30.0]]}')
    (folder / "RESTART").write_text(f"<!--\n Working Directory: /home/of/mine\n-->\n{STATE}")
    return velocities


def test_a_long_run_goes_on_on_another_machine(study, long_run, tmp_path):
    """What is kept of it says the same there, and names no path of here."""
    stretches, kept, running = study["stretches"], study["kept"], study["running"]
    here, store, there = tmp_path / "here", tmp_path / "kept", tmp_path / "there"
    velocities = write_long_run(here)
    raw = stretches.join(stretches.stretches_of(long_run, here))
    kept.keep(long_run, here, store)
    there.mkdir()
    (there / "run.vel_0.bin").write_bytes(b"left by a run that came to no state")
    kept.take_up(long_run, there, store)
    running.condense(long_run, there, 1000)  # before it goes on
    assert not list(there.glob("run.vel*"))
    assert "/home" not in (there / "RESTART").read_text()
    assert running.steps_done(there / "RESTART") == 1000
    running._extend(there / "RESTART", 1200)  # i-PI leaves out what is its default
    assert "<total_steps>1200</total_steps>" in (there / "RESTART").read_text()
    masses = np.array([15.9949, 1.00783, 1.00783] * 8) * 1822.8885
    every = np.einsum("tai,a->t", velocities**2, masses) / (3 * 24 - 3) * 315775.02
    (found,) = stretches.stretches_of(long_run, there)
    np.testing.assert_allclose(found.rows["MM"], every.reshape(100, 10).mean(axis=1), rtol=1e-3)
    for name, values in raw.rows.items():
        np.testing.assert_allclose(found.rows[name], values, rtol=1e-6, atol=1e-6)
    # the variance of every row is that of the means and that within them
    assert found.rows["MM"].var() + found.within["MM"] == pytest.approx(every.var(), rel=1e-2)
    assert study["observables"].observe(long_run, there).seconds_per_ps == 15.0
    # a run of i-PI that goes on writes no head
    assert (there / "run.out").read_text().startswith("# column")


def test_of_two_states_the_later_one_is_kept_and_taken_up(study, long_run, tmp_path):
    kept = study["kept"]
    here, store, there = tmp_path / "here", tmp_path / "kept", tmp_path / "there"
    write_long_run(here)
    write_long_run(there)
    (there / "RESTART").write_text(STATE.replace("1000", "900"))
    kept.keep(long_run, here, store)
    before = (store / "drop.npz").read_bytes()
    kept.keep(long_run, there, store)
    assert (store / "drop.npz").read_bytes() == before
    (there / "RESTART").write_text(STATE[:20])  # killed as it was written
    kept.take_up(long_run, there, store)
    assert study["running"].steps_done(there / "RESTART") == 1000
    assert len(study["stretches"].stretches_of(long_run, there)) == 1  # no rows of what is done again
    (there / "RESTART").write_text(STATE.replace("1000", "1200"))
    kept.take_up(long_run, there, store)
    assert study["running"].steps_done(there / "RESTART") == 1200


def test_stretches_without_a_state_are_not_added_to(study, long_run, tmp_path):
    stretches = study["stretches"]
    write_long_run(tmp_path)
    stretches.condense(long_run, tmp_path, 1000)
    with pytest.raises(SystemExit, match="expected a RESTART that can be read"):
        stretches.condense(long_run, tmp_path, 0)


def test_correlation_times_of_means_are_those_of_all_rows(study):
    """Of white noise and of a part that decays in 200 rows, of equal variance: (1/2 + 200) / 2 rows."""
    observables = study["observables"]
    rng = np.random.default_rng(8)
    stays = np.exp(-1.0 / 200.0)
    noise = np.sqrt(1.0 - stays**2) * rng.standard_normal(2_000_000)
    series = lfilter([1.0], [1.0, -stays], noise) + rng.standard_normal(len(noise))
    blocks = series.reshape(-1, 10)
    rows, samples = observables._correlation(blocks.mean(axis=1), float(blocks.var(axis=1).mean()))
    assert 10.0 * rows == pytest.approx(100.0, rel=0.1)
    assert samples == pytest.approx(len(series) / 200.0, rel=0.1)
    assert rows < 0.6 * observables.correlation_time(blocks.mean(axis=1)).samples


def test_the_error_of_diffusion_is_that_of_the_means_of_stretches(study):
    """Molecules that move together tell too small an error; stretches weigh as much as they are long."""
    observables = study["observables"]
    rng = np.random.default_rng(2)
    lengths = np.tile([10.0, 20.0], 200)
    together = 0.2 + 0.1 * rng.standard_normal(400) / np.sqrt(lengths)
    slopes = together[:, None] + 1e-3 * rng.standard_normal((400, 8))
    value, error = observables._diffusion(SimpleNamespace(slopes=slopes, lengths=lengths))
    assert value == pytest.approx(np.sum(lengths * together) / lengths.sum(), abs=1e-4)
    assert error == pytest.approx(0.1 / np.sqrt(lengths.sum()), rel=0.1)
    _, alone = observables._diffusion(SimpleNamespace(slopes=slopes[:1], lengths=lengths[:1]))
    assert alone < 1e-3
    assert observables._diffusion(SimpleNamespace(slopes=slopes[:0], lengths=lengths[:0])) == []


def write_outputs(folder, steps, velocities, potential):
    """As i-PI does, which writes the head of a table but once."""
    folder.mkdir(exist_ok=True)
    columns = ("step", "time{picosecond}", "conserved{electronvolt}", "temperature{kelvin}")
    names = [*columns, "potential{electronvolt}"]
    if not (folder / "run.out").exists():
        head = [f"# column   {i}     --> {name} : what it is\n" for i, name in enumerate(names, 1)]
        (folder / "run.out").write_text("".join(head))
    with (folder / "run.out").open("a") as file:
        for step, energy in zip(steps, potential, strict=True):
            file.write(f"  {step:.8e} {step * 0.0005:.8e} {0:.8e} {300:.8e} {energy:.8e}\n")
    atoms = "|".join("OHH" * 8)
    with (folder / "run.vel_0.bin").open("ab") as file:
        for step, values in zip(steps, velocities, strict=True):
            (20.0 * np.eye(3)).tofile(file)
            np.array([24]).tofile(file)
            values.tofile(file)
            np.array([len(atoms)]).tofile(file)
            np.array([atoms]).tofile(file)
            title = f"Step: {step:10d}  Bead:       0 velocities{{atomic_unit}}  cell{{atomic_unit}}"
            np.array([title]).tofile(file)


@pytest.mark.slow
def test_both_regions_have_the_temperature_of_the_thermostat(study, tmp_path):
    """1.5 ps of uracil in water, strongly damped: 36 and 1944 degrees of freedom at 298 K."""
    family, running, observables = (study[name] for name in ("family", "running", "observables"))
    thermostat = family.local("langevin", 20)
    run = family.Run("both", "uracil", "Langevin", thermostat, 1, 2.0, "")
    running.bring_to(run, run.steps(1.0), tmp_path)
    result = observables.observe(run, tmp_path / run.name)
    for group in ("QM", "QM H", "QM heavy", "MM", "MM H", "MM O"):
        value, error = result.temperatures[group]
        assert error < 20.0
        assert abs(value - family.TEMPERATURE) < 4.0 * error
    assert result.temperatures["QM"][1] < 0.04 * family.TEMPERATURE
    assert result.temperatures["MM"][1] < 0.01 * family.TEMPERATURE
