#!/usr/bin/env bash
# Makes the delta models of this folder, delta-*.pt, from its other inputs: frames, DFT labels, training, test.
# Started again, it goes on where it stopped, but for the two runs, which then start anew. Needs pidelta[train,label].
# (prepare.py, which made the structure and the topology, needs pidelta[openmm,label].)
set -euo pipefail
cd "$(dirname "$0")"

# Ring polymers on DFTB + MM: frames from every bead, every 50 fs once 0.1 ps have passed.
[ -f sample.done ] || { pidelta run sample.xml --terms mm+low && touch sample.done; }
pidelta sample pidelta.yaml sample.pos_?.xyz --skip 4 --every 2 --output train.h5
# Other velocities, from 0.5 ps on: frames that no training sees.
[ -f holdout.done ] || { pidelta run holdout.xml --terms mm+low && touch holdout.done; }
pidelta sample pidelta.yaml holdout.pos_?.xyz --skip 20 --every 4 --output holdout.h5

for frames in train.h5 holdout.h5; do
    pidelta label $frames --xc B3LYP --basis def2-SVP
    pidelta label $frames --low pidelta.yaml
done

pidelta train train.h5 --settings train.yaml --output . --models 3 --resume
pidelta test holdout.h5 --model delta-0.pt --model delta-1.pt --model delta-2.pt --output holdout.json
