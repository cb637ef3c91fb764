"""A small recipe of a Slater-Koster set, on a coarse grid."""

REPULSIVE = "repulsive: {orders: [2], cutoffs: {H-H: 3 bohr, H-O: 3 bohr, O-O: 3 bohr}}"

RECIPE = f"""
name: test
version: "1"
license: MIT
functional: PBE
dispersion: {{s8: 1.9889, a1: 0.3981, a2: 4.4211}}
grid: {{first: 0.6 bohr, last: 6 bohr, step: 0.2 bohr, file_step: 0.1 bohr}}
elements:
  H: {{electrons: {{1s: 1}}, valence: [1s], wave_function_radius: 2.43 bohr, density_radius: 2.875 bohr}}
  O:
    electrons: {{1s: 2, 2s: 2, 2p: 4}}
    valence: [2s, 2p]
    wave_function_radius: 2.6 bohr
    density_radius: 4.0 bohr
    onsite: {{2s: -0.9 hartree}}
{REPULSIVE}
training:
  labels: {{xc: B3LYP, basis: def2-SVP, diffuse_basis: def2-SVPD}}
  seed: 1
  molecules: [{{frames: 4, smiles: ["O"]}}]
  temperatures: [500 K]
"""
