#!/usr/bin/env bash
# Makes the delta models of this folder, delta-*.pt, from the labelled frames of ../studies/paper/uracil: low-level
# labels, training, test. Started again, it goes on where it stopped. Needs pidelta[train].
# (The frames are from ../studies/paper/sampling.py, their DFT labels from `pidelta label --dispersion d3bj`;
# prepare.py, which made the structure and the topology, needs pidelta[openmm,label].)
set -euo pipefail
cd "$(dirname "$0")"

labels=../studies/paper/uracil/labels
mkdir -p frames
pidelta data pack "$labels"/train-*.h5 "$labels"/hot-*.h5 --output frames/train.h5
pidelta data pack "$labels/heldout.h5" --output frames/heldout.h5
for frames in train heldout; do
    pidelta label frames/$frames.h5 --low pidelta.yaml
done

pidelta train frames/train.h5 --settings train.yaml --output . --models 3 --resume
pidelta test frames/heldout.h5 --model delta-0.pt --model delta-1.pt --model delta-2.pt --output holdout.json
