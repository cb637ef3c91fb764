"""Frames in the formats of other programs, read by these programs where PyPI has them, and ORCA's labels."""

from __future__ import annotations

from dataclasses import replace

import dpdata
import numpy as np
import pytest
from ase.io import read
from ase.units import Bohr, Hartree
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from pidelta.cli.data import data
from pidelta.data.embedding import difference
from pidelta.data.exchange import (
    read_origin,
    read_xyz,
    unread_keys,
    write_deepmd,
    write_mlp_qmmm,
    write_xyz,
)
from pidelta.data.frames import Frame, Label, LabelledFrame
from pidelta.data.store import FrameStore
from pidelta.errors import DataError
from pidelta.qm.orca import read_output, write_input

FORCE = Hartree / Bohr


def labelled(seed: int, sites: int) -> LabelledFrame:
    rng = np.random.default_rng(seed)
    frame = Frame(
        numbers=np.array([8, 1, 1]),
        positions=rng.normal(size=(3, 3)),
        site_positions=rng.normal(size=(sites, 3)) * 8,
        site_charges=rng.normal(size=sites),
        site_numbers=np.resize([8, 1, 1], sites),
        charge=-1,
        multiplicity=2,
        source=f"run.pos_0.xyz step {seed}",
    )

    def label(method: str) -> Label:
        shapes = ((3, 3), (sites, 3), (3,))
        arrays = [rng.normal(size=shape) for shape in shapes]
        return Label(method, -76.0 + rng.normal(), *arrays, program="a program 1.0")

    return LabelledFrame(frame, label("UKS B3LYP/def2-SVP"), label("DFTB3"))


SET = [labelled(1, 6), labelled(2, 9), labelled(3, 6)]
PAIRS = [(item.frame, {"reference": item.reference, "low": item.low}) for item in SET]


def assert_same(found: Frame, label: Label, item: LabelledFrame, atol: float) -> None:
    for name in ("numbers", "site_numbers"):
        np.testing.assert_array_equal(getattr(found, name), getattr(item.frame, name))
    for name in ("positions", "site_positions", "site_charges"):
        np.testing.assert_allclose(getattr(found, name), getattr(item.frame, name), atol=atol)
    assert (found.charge, found.multiplicity) == (item.frame.charge, item.frame.multiplicity)
    assert label.energy == pytest.approx(item.reference.energy, abs=1e-10)
    for name in ("gradient", "site_gradient"):
        np.testing.assert_allclose(getattr(label, name), getattr(item.reference, name), atol=atol)


def test_xyz_comes_back_and_ase_reads_it(tmp_path):
    path = tmp_path / "frames.xyz"
    assert write_xyz(path, PAIRS) == 3
    for (frame, labels), item in zip(read_xyz(path), SET, strict=True):
        assert frame.source == item.frame.source
        assert labels["low"].method == "DFTB3"
        assert labels["reference"].program == "a program 1.0"
        assert_same(frame, labels["reference"], item, atol=2e-8)
        np.testing.assert_allclose(labels["reference"].charges, item.reference.charges, atol=1e-8)
    atoms = read(path, 1)
    assert atoms.info["REF_energy"] == pytest.approx(SET[1].reference.energy * Hartree)
    np.testing.assert_allclose(atoms.arrays["REF_forces"][:3], -SET[1].reference.gradient * FORCE, atol=1e-7)


def test_xyz_of_a_molecule_of_another_program(tmp_path):
    path = tmp_path / "other.xyz"
    path.write_text(
        "2\nProperties=species:S:1:pos:R:3:forces:R:3 energy=-27.2\nH 0 0 0 0 0 0.5\nH 0 0 0.74 0 0 -0.5\n"
    )
    with pytest.raises(DataError, match=r"snapshot 0: expected REF_method, found none: name it by --method"):
        list(read_xyz(path))
    ((frame, labels),) = read_xyz(path, "CCSD(T)")
    assert frame.positions[1, 2] == pytest.approx(0.74 / Bohr)
    assert labels["reference"].energy == pytest.approx(-27.2 / Hartree)
    np.testing.assert_allclose(labels["reference"].gradient[:, 2], np.array([-0.5, 0.5]) / FORCE)
    path.write_text("2\nno frame\nH 0 0\n")
    with pytest.raises(DataError, match="expected extended XYZ"):
        list(read_xyz(path))


def test_deepmd_folders_are_read_by_dpdata(tmp_path):
    assert write_deepmd(tmp_path / "deepmd", PAIRS) == 3
    systems = dpdata.MultiSystems(
        *(
            system
            for folder in sorted((tmp_path / "deepmd").iterdir())
            for system in dpdata.MultiSystems().load_systems_from_file(str(folder), fmt="deepmd/npy/mixed")
        )
    )
    found = {len(system["coords"]): system for system in systems}
    assert sorted(found) == [1, 2]
    two = found[2]
    order = np.argsort(two["energies"])
    expected = sorted((item.reference.energy - item.low.energy) * Hartree for item in (SET[0], SET[2]))
    np.testing.assert_allclose(two["energies"][order], expected)
    one = found[1]
    item = SET[1]
    gradient = np.concatenate(
        [item.reference.gradient - item.low.gradient, item.reference.site_gradient - item.low.site_gradient]
    )
    names = np.array(one["atom_names"])[one["atom_types"]].tolist()
    assert sorted(names) == sorted(["O", "H", "H", *["mO", "mH", "mH"] * 3])
    assert one["forces"][0].sum() == pytest.approx(-gradient.sum() * FORCE)


def test_mlp_qmmm_arrays(tmp_path):
    assert write_mlp_qmmm(tmp_path, PAIRS) == 3
    arrays = {path.stem: np.load(path) for path in tmp_path.glob("*.npy")}
    np.testing.assert_array_equal(arrays["N_mm"], [[6], [9], [6]])
    assert arrays["mm_grad_high"].shape == (3, 9, 3)
    assert not arrays["mm_grad_high"][0, 6:].any()
    np.testing.assert_allclose(arrays["mm_grad_low"][1], SET[1].low.site_gradient * FORCE)
    np.testing.assert_allclose(arrays["mm_coords"][1], SET[1].frame.site_positions * Bohr)
    assert arrays["E_high"].mean() == pytest.approx(0.0, abs=1e-10)
    difference = SET[1].reference.energy - SET[0].reference.energy
    assert arrays["E_high"][1, 0] - arrays["E_high"][0, 0] == pytest.approx(difference * Hartree)


OUT = """
                         Program Version 5.0.4 -  RELEASE  -
|  1> ! B3LYP D3BJ def2-SVP EnGrad
 Total Charge           Charge          ....   -1
 Multiplicity           Mult            ....    2
MULLIKEN ATOMIC CHARGES AND SPIN POPULATIONS
--------------------------------------------
   0 O :   -1.000000    0.900000
   1 H :    0.000000    0.050000
   2 H :    0.000000    0.050000
Sum of atomic charges         :   -1.0000000
                             ****ORCA TERMINATED NORMALLY****
"""


def write_job(folder, item, out=OUT):
    """What ORCA leaves beside an input: the gradients in hartree/bohr, one number a line for the QM atoms."""
    path = write_input(folder, "job", item.frame)
    path.with_suffix(".out").write_text(out)
    lines = ["# Number of atoms", " 3", "# The current total energy in Eh", f"{item.reference.energy:.12f}"]
    lines += ["# The current gradient in Eh/bohr", *(f"{x:.12f}" for x in item.reference.gradient.ravel())]
    lines += ["# The atomic numbers and current coordinates in Bohr"]
    for number, point in zip(item.frame.numbers, item.frame.positions, strict=True):
        lines.append(f"{number} {point[0]:.7f} {point[1]:.7f} {point[2]:.7f}")
    path.with_suffix(".engrad").write_text("#\n".join(f"{line}\n" for line in lines))
    rows = [f"{x:.12f} {y:.12f} {z:.12f}" for x, y, z in item.reference.site_gradient]
    path.with_suffix(".pcgrad").write_text("\n".join([str(len(rows)), *rows]) + "\n")
    return path.with_suffix(".out")


def test_labels_of_orca_go_to_their_frames(tmp_path):
    item = SET[0]
    out = write_job(tmp_path / "orca", item)
    frame, labels = read_output(out)
    assert_same(
        frame, labels["reference"], replace(item, frame=replace(item.frame, site_numbers=np.zeros(6))), 1e-6
    )
    assert labels["reference"].method == "B3LYP D3BJ def2-SVP EnGrad"
    assert labels["reference"].program == "ORCA 5.0.4"
    np.testing.assert_array_equal(labels["reference"].charges, [-1.0, 0.0, 0.0])
    with FrameStore(tmp_path / "frames.h5", "a") as store:
        for other in SET:
            store.append(other.frame)
    result = CliRunner().invoke(data, ["import", str(out), "--output", str(tmp_path / "frames.h5")])
    assert "0 frames and 1 labels added, 3 frames in all" in result.output
    with FrameStore(tmp_path / "frames.h5") as store:
        assert store.methods("reference") == {"B3LYP D3BJ def2-SVP EnGrad": [0]}


FIRST = "B3LYP D3BJ def2-SVP EnGrad"


@pytest.mark.parametrize(
    ("lines", "method"),
    [
        (["! B3LYP D3BJ", "!def2-TZVP EnGrad"], "B3LYP D3BJ def2-TZVP EnGrad"),
        ([f"! {FIRST} # of a paper"], FIRST),
        ([f"! {FIRST}", "%maxcore 2000", '%pal nprocs 8 end %pointcharges "a.pc"'], FIRST),
        ([f"! {FIRST}", "* xyz 0 1", "O 0 0 0", "*", "****END OF INPUT****"], FIRST),
        (
            [f"! {FIRST}", "%BASIS", ' NewGTO O "def2-QZVP" end', "end", "%pal nprocs 4", "end"],
            f'{FIRST}; %BASIS NewGTO O "def2-QZVP" end end',
        ),
        ([f"! {FIRST}", "%cpcm epsilon 80 end", "%maxcore 1"], f"{FIRST}; %cpcm epsilon 80 end"),
        (["%method D3S8 1.0 end", f"! {FIRST}"], f"{FIRST}; %method D3S8 1.0 end"),
        (
            [f"! {FIRST}", "* xyz 0 1", "O 0 0 0", 'H 0 0 1 newgto "def2-TZVP" end', "*"],
            f'{FIRST}; atom 1 newgto "def2-TZVP" end',
        ),
    ],
)
def test_the_method_of_orca_is_all_of_its_level(tmp_path, lines, method):
    """Two levels never have one name; blocks that say how a job runs are no part of it."""
    echo = "\n".join(f"|{number:3d}> {line}" for number, line in enumerate(lines, 1))
    out = write_job(tmp_path, SET[0], OUT.replace(f"|  1> ! {FIRST}", echo))
    assert read_output(out)[1]["reference"].method == method
    assert read_output(out, "HF")[1]["reference"].method == "HF"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("job.out", OUT.replace(f"! {FIRST}", "%pal end"), "expected an output of ORCA, found no line"),
        ("job.out", "nothing", "job.out: expected a job that terminated normally"),
        ("job.out", OUT + "Wavefunction not fully converged", "expected a converged SCF"),
        ("job.out", OUT.replace("Mult", "Spin"), "expected an output of ORCA"),
        ("job.engrad", "#\n3\n-76.0\n", "job.engrad: expected 14 lines of numbers, found 2: it is cut off"),
        ("job.pcgrad", "6\n0 0 0\n", "job.pcgrad: expected 6 rows of 3 numbers, found 1"),
        ("job.pcgrad", "1\n0 0 0\n", "job.pcgrad: expected 6 point charges, found 1"),
    ],
)
def test_damaged_jobs_of_orca_are_one_line(tmp_path, name, text, message):
    out = write_job(tmp_path, SET[0])
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        read_output(out)
    assert "\n" not in str(caught.value)


def test_the_commands(tmp_path):
    path = tmp_path / "frames.h5"
    with FrameStore(path, "a") as store:
        for index, item in enumerate(SET):
            store.append(item.frame)
            store.set_label(index, "reference", item.reference)
            store.set_label(index, "low", item.low)
    run = CliRunner()
    for name, output in (("xyz", "f.xyz"), ("deepmd", "deepmd"), ("mlp_qmmm", "arrays"), ("orca", "jobs")):
        result = run.invoke(data, ["export", str(path), "--format", name, "--output", str(tmp_path / output)])
        assert result.exit_code == 0, result.output
    assert "! B3LYP" in (tmp_path / "jobs" / "frames-000002.inp").read_text()
    again = str(tmp_path / "again.h5")
    for added in ("3 frames and 6 labels", "0 frames and 0 labels"):
        result = run.invoke(data, ["import", str(tmp_path / "f.xyz"), "--output", again])
        assert f"{added} added, 3 frames in all" in result.output


def store_of(path, items, kinds=("reference", "low"), embedding=None):
    with FrameStore(path, "a") as store:
        store.set_embedding(embedding)
        for index, item in enumerate(items):
            store.append(item.frame)
            for kind in kinds:
                store.set_label(index, kind, getattr(item, kind))
    return path


def test_the_reference_alone_is_exported(tmp_path, run, fail, capsys):
    path = store_of(tmp_path / "frames.h5", SET, ["reference"])
    assert run("data", "export", path, "--output", tmp_path / "f.xyz") == 0
    snapshots = list(read_xyz(tmp_path / "f.xyz"))
    assert [set(labels) for _, labels in snapshots] == [{"reference"}] * 3
    for (frame, labels), item in zip(snapshots, SET, strict=True):
        assert_same(frame, labels["reference"], item, atol=2e-8)
    deepmd = ["--format", "deepmd", "--output", tmp_path / "deepmd"]
    line = fail("data", "export", path, *deepmd)
    assert "expected frames with low labels, found none; --total writes the reference itself" in line
    assert run("data", "export", path, *deepmd, "--total") == 0
    energies = np.load(tmp_path / "deepmd" / "12" / "set.000" / "energy.npy")
    np.testing.assert_allclose(energies, [SET[1].reference.energy * Hartree])
    forces = np.load(tmp_path / "deepmd" / "12" / "set.000" / "force.npy")
    gradient = np.concatenate([SET[1].reference.gradient, SET[1].reference.site_gradient])
    np.testing.assert_allclose(forces[0], (-gradient * FORCE).ravel())
    arrays = ["--format", "mlp_qmmm", "--output", tmp_path / "arrays"]
    assert "expected frames with low labels, found none" in fail("data", "export", path, *arrays)
    assert "--total: expected --format xyz or deepmd" in fail("data", "export", path, *arrays, "--total")


def test_total_leaves_the_low_level_out(tmp_path, run):
    path = store_of(tmp_path / "frames.h5", SET)
    assert run("data", "export", path, "--total", "--output", tmp_path / "f.xyz") == 0
    assert [set(labels) for _, labels in read_xyz(tmp_path / "f.xyz")] == [{"reference"}] * 3


@pytest.mark.parametrize("options", [["--total"], []])
def test_frames_that_are_not_alike_are_not_exported_together(tmp_path, run, fail, capsys, options):
    """Of one embedding and one charge; what does not say so is said."""
    near, far = {"scheme": "cutoff", "cutoff": 22.676713}, {"scheme": "cutoff", "cutoff": 26.456165}
    paths = [
        store_of(tmp_path / f"{place}.h5", [item], embedding=embedding)
        for place, (item, embedding) in enumerate(zip(SET[:2], (far, None), strict=True))
    ]
    export = ["data", "export", *paths, "--output", tmp_path / "f.xyz", *options]
    assert run(*export) == 0
    silent = f"note: {paths[1]}: does not say with which embedding its frames were cut"
    assert silent in " ".join(capsys.readouterr().out.split())
    paths[1] = export[3] = store_of(tmp_path / "2.h5", SET[1:2], embedding=near)
    line = fail(*export)
    assert f"{paths[1]}: expected frames cut with cutoff 1.4 nm, as {paths[0]}, found 1.2 nm" in line
    ion = replace(SET[2], frame=replace(SET[2].frame, charge=1))
    export[3] = store_of(tmp_path / "ion.h5", [ion])
    assert "ion.h5: frame 0: expected charge -1, found 1" in fail(*export)


def test_embedding_provenance_and_dipole_come_back(tmp_path, run):
    dipole = np.array([0.1, -0.2, 1e-5])
    item = replace(SET[0], reference=replace(SET[0].reference, properties={"dipole": dipole}))
    embedding = {"scheme": "cutoff", "cutoff": 26.456165, "switch": 3.779452}
    path = store_of(tmp_path / "frames.h5", [item], embedding=embedding)
    provenance = {"structure": 'a "b".gro sha256 0012; c.gro', "pidelta": "0.1.0"}
    with FrameStore(path, "a") as store:
        store.set_provenance(provenance)
    assert run("data", "export", path, "--output", tmp_path / "f.xyz") == 0
    for output in (tmp_path / "again.h5", path):
        assert run("data", "import", tmp_path / "f.xyz", "--output", output) == 0
    with FrameStore(tmp_path / "again.h5") as store:
        assert store.provenance == provenance
        assert difference(embedding, store.embedding) is None
        label = store.label(0, "reference", item.reference.method)
    np.testing.assert_allclose(label.properties["dipole"], dipole, rtol=1e-12)
    with FrameStore(path) as store:
        assert (len(store), store.provenance) == (1, provenance)


WORDS = st.text(st.characters(exclude_categories=("C", "Z"), exclude_characters="\\"), min_size=1)
TEXTS = st.one_of(
    st.just(""),
    st.sampled_from(["T", "1.5", "1 2 3", "=", "_JSON 1", "nan", '"', "REF energy", "[1, 2]"]),
    st.lists(WORDS, max_size=3).map(" ".join),
)


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(source=TEXTS, program=TEXTS, method=TEXTS.filter(bool), origin=TEXTS, has_dipole=st.booleans())
def test_every_text_comes_back_from_xyz_and_takes_no_other_with_it(
    tmp_path, source, program, method, origin, has_dipole
):
    """ASE writes `KEY= ` for an empty text, whose value is then the next key."""
    path, item = tmp_path / "f.xyz", SET[0]
    dipole = {"dipole": np.array([0.1, 0.2, 0.3])} if has_dipole else {}
    reference = replace(item.reference, method=method, program=program, properties=dipole)
    low = replace(item.low, program=program)
    frame = replace(item.frame, source=source)
    write_xyz(path, [(frame, {"reference": reference, "low": low})], ({"scheme": "none"}, {"a": origin}))
    ((found, labels),) = read_xyz(path)
    assert found.source == (source or f"{path} step 0")
    assert (labels["reference"].method, labels["reference"].program) == (method, program)
    assert (labels["low"].method, labels["low"].program) == (item.low.method, program)
    assert set(labels["reference"].properties) == set(dipole)
    assert_same(found, labels["reference"], item, atol=2e-8)
    assert read_origin(path) == ({"scheme": "none"}, {"a": origin} if origin else {})
    assert unread_keys(path) == []


@pytest.mark.parametrize(
    "words",
    [
        'REF_program= REF_dipole="1 2 3"',
        'REF_program= pbc="F F F"',
        "source= REF_energy=-27.2",
        "source= charge=-1",
        "REF_program= embedding_scheme=cutoff",
    ],
)
def test_a_key_that_was_written_empty_is_refused(tmp_path, words):
    path = tmp_path / "f.xyz"
    path.write_text(
        f"1\nProperties=species:S:1:pos:R:3:forces:R:3 energy=-1 REF_method=a {words}\nH 0 0 0 0 0 0\n"
    )
    name = words.partition("=")[0]
    with pytest.raises(DataError, match=f"snapshot 0: expected a text in {name}, found the next key"):
        list(read_xyz(path))


def test_paths_that_look_like_keys_are_texts(tmp_path):
    path = tmp_path / "f.xyz"
    for source in ("REF_runs/a.xyz step 1", "T=300/a.xyz step 1", "charge=-1/a.xyz step 1"):
        write_xyz(path, [(replace(SET[0].frame, source=source), {})])
        ((frame, _),) = read_xyz(path)
        assert frame.source == source


def test_keys_that_are_not_read_are_said(tmp_path, run, capsys):
    path = tmp_path / "f.xyz"
    columns = "Properties=species:S:1:pos:R:3:forces:R:3:momenta:R:3"
    keys = 'energy=-1 stress="1 0 0 0 1 0 0 0 1" temperature=300'
    path.write_text(f"1\n{columns} {keys}\nO 0 0 0 0 0 0 1 1 1\n")
    assert run("data", "import", path, "--method", "HF", "--output", tmp_path / "f.h5") == 0
    output = capsys.readouterr().out.replace("\n", " ")
    assert f"note: {path}: keys that are not read: temperature, momenta, stress" in output


CUT = {"scheme": "cutoff", "cutoff": 26.456165}


@pytest.mark.parametrize(("there", "new"), [(CUT, None), (None, CUT)])
def test_imported_frames_of_unknown_embedding_stay_apart(tmp_path, run, fail, there, new):
    path = store_of(tmp_path / "there.h5", SET[:1], embedding=there)
    other = store_of(tmp_path / "new.h5", SET[:2], embedding=new)
    text = tmp_path / "new.xyz"
    assert run("data", "export", other, "--output", text) == 0
    before = path.read_bytes()
    assert f"{text}: {path}: expected frames " in fail("data", "import", text, "--output", path)
    assert path.read_bytes() == before
    # Labels go to a frame that is there, whatever its file knows.
    write_xyz(text, [(SET[0].frame, {"reference": replace(SET[0].reference, method="new")})])
    assert run("data", "import", text, "--output", path) == 0
    with FrameStore(path) as store:
        assert list(store.methods("reference")) == [SET[0].reference.method, "new"]
        assert store.embedding == there


def test_corrected_labels_are_counted_and_replace_the_old_ones_if_told(tmp_path, run, capsys):
    path = store_of(tmp_path / "f.h5", SET)
    corrected = replace(SET[1].reference, gradient=-SET[1].reference.gradient)
    pairs = [PAIRS[0], (SET[1].frame, {"reference": corrected, "low": SET[1].low}), PAIRS[2]]
    write_xyz(tmp_path / "f.xyz", pairs)
    command = ["data", "import", tmp_path / "f.xyz", "--output", path]
    for options, message, gradient in (
        (
            [],
            "1 labels differ from those by the same method that are there, which stay",
            SET[1].reference.gradient,
        ),
        (["--replace"], "1 labels replaced", corrected.gradient),
        (["--replace"], "0 labels replaced", corrected.gradient),
        ([], "0 frames and 0 labels added, 3 frames in all", corrected.gradient),
    ):
        assert run(*command, *options) == 0
        output = capsys.readouterr().out.replace("\n", " ")
        assert message in output
        assert ("differ" in message) == ("--replace takes the new ones" in output)
        with FrameStore(path) as store:
            found = store.label(1, "reference", corrected.method)
        np.testing.assert_allclose(found.gradient, gradient, atol=1e-8)


@pytest.mark.parametrize("name", ["deepmd", "mlp_qmmm"])
def test_a_folder_of_an_earlier_export_is_refused(tmp_path, run, fail, name):
    path, output = store_of(tmp_path / "f.h5", SET), tmp_path / "out"
    output.mkdir()
    command = ["data", "export", path, "--format", name, "--output", output]
    assert run(*command) == 0
    before = sorted(output.rglob("*"))
    assert f"{output}: expected an empty folder or none" in fail(*command)
    assert sorted(output.rglob("*")) == before


HEADER = "Properties=species:S:1:pos:R:3:REF_forces:R:3 REF_energy=-27.2 REF_method=HF"


@pytest.mark.parametrize(
    ("header", "row", "message"),
    [
        (HEADER, "H 0 0 nan 0 0 0", "expected finite numbers, found others in positions"),
        (HEADER, "H 0 0 1 0 0 nan", "label by HF: expected finite numbers, found others in gradient"),
        (HEADER.replace("-27.2", "nan"), "H 0 0 1 0 0 0", "expected finite numbers, found others in energy"),
        (HEADER.replace("-27.2", "low"), "H 0 0 1 0 0 0", "expected numbers in REF_energy, found 'low'"),
        (
            HEADER.replace("forces:R:3", "forces:R:2"),
            "H 0 0 1 0 0",
            "expected REF_forces of shape (2, 3)",
        ),
        (HEADER + " charge=abc", "H 0 0 1 0 0 0", "expected numbers in charge, found 'abc'"),
        (HEADER + " charge=0.5", "H 0 0 1 0 0 0", "expected an integer in charge, found 0.5"),
        (HEADER + ' multiplicity="1 2"', "H 0 0 1 0 0 0", "expected multiplicity of shape (), found (2,)"),
        (HEADER + " multiplicity=nan", "H 0 0 1 0 0 0", "expected an integer in multiplicity, found nan"),
        (HEADER + " REF_dipole=1.0", "H 0 0 1 0 0 0", "expected REF_dipole of shape (3,), found ()"),
        (HEADER + ' pbc="T T F"', "H 0 0 1 0 0 0", 'without periodic images, pbc="F F F"'),
        (HEADER + ' Lattice="9 0 0 0 9 0 0 0 9"', "H 0 0 1 0 0 0", 'found pbc="T T T"'),
        (HEADER + " total_charge=-1", "H 0 0 1 0 0 0", "expected the key charge, which is read, found total"),
        (
            HEADER + " charge=0 spin=1",
            "H 0 0 1 0 0 0",
            "expected the key multiplicity, which is read, found s",
        ),
    ],
)
def test_snapshots_that_are_wrong_are_one_line(tmp_path, fail, header, row, message):
    """With file and snapshot; and nothing of the file is added."""
    path = tmp_path / "wrong.xyz"
    good = f"2\n{HEADER}\nH 0 0 0 0 0 0\nH 0 0 1 0 0 0\n"
    path.write_text(f"{good}2\n{header}\n{row}\n{row}\n")
    line = fail("data", "import", path, "--output", tmp_path / "frames.h5")
    assert f"{path}: snapshot 1: " in line
    assert message in line
    assert not (tmp_path / "frames.h5").exists()


def test_a_molecule_that_was_wrapped_into_its_cell_is_refused(tmp_path, run, fail):
    path, output = tmp_path / "f.xyz", tmp_path / "f.h5"
    rows = [f"O 0 0 0 {'0 ' * 3}", f"H 0.96 0 0 {'0 ' * 3}", f"H -0.24 12.93 0 {'0 ' * 3}"]
    path.write_text("\n".join(["3", HEADER, *rows, ""]))
    line = fail("data", "import", path, "--output", output)
    assert (
        "step 0: expected a QM region that is whole, found its atom 2 12.9 angstrom from all others" in line
    )
    # An ion may be alone.
    path.write_text("\n".join(["3", HEADER, *rows[:2], f"Cl 0 5 0 {'0 ' * 3}", ""]))
    assert run("data", "import", path, "--output", output) == 0


def test_an_empty_file_is_an_error(tmp_path, fail):
    (tmp_path / "empty.xyz").touch()
    line = fail("data", "import", tmp_path / "empty.xyz", "--output", tmp_path / "frames.h5")
    assert "empty.xyz: expected a snapshot of extended XYZ, found none" in line


def test_an_output_is_no_input(tmp_path, fail):
    path, other = store_of(tmp_path / "frames.h5", SET), tmp_path / "other"
    other.symlink_to(path)
    before = path.read_bytes()
    training = tmp_path / "train.yaml"
    training.touch()
    for command in (
        ["data", "export", path, "--output", path],
        ["data", "export", path, "--format", "orca", "--output", other],
        ["data", "import", path, "--output", other],
        ["data", "pack", path, "--output", other],
        ["train", path, "--settings", training, "--output", other],
        ["train", path, "--settings", training, "--output", training],
        ["test", path, "--model", tmp_path / "delta.pt", "--output", path],
    ):
        assert ": expected an output that is not read, found it among the inputs" in fail(*command)
    assert path.read_bytes() == before
