#!/usr/bin/env bash
# Makes the rows of models.csv that are missing, from the labels in uracil/labels and benzene/labels, then models.md
# and models.png: some three hours of one core for all. Started again, it goes on where it stopped. Needs pidelta[train].
#
#     bash repeat.sh [FOLDER]     FOLDER takes frames with low-level labels; frames by default
set -euo pipefail
cd "$(dirname "$0")"

frames=${1:-frames}
mkdir -p "$frames"
for molecule in uracil benzene; do
    sets=("$molecule"/labels/train-*.h5)
    [ "$molecule" = benzene ] || sets=(uracil/labels/hot-*.h5 "${sets[@]}")
    pidelta data pack "${sets[@]}" --output "$frames/$molecule.h5"
    pidelta data pack "$molecule/labels/heldout.h5" --output "$frames/$molecule-heldout.h5"
done
pidelta data pack uracil/labels/minima-train.h5 --output "$frames/uracil-minima.h5"
pidelta data pack uracil/labels/minima-heldout.h5 --output "$frames/uracil-minima-heldout.h5"
for part in uracil uracil-heldout uracil-minima uracil-minima-heldout benzene benzene-heldout; do
    pidelta label "$frames/$part.h5" --low "${part%%-*}/sampling.yaml"
done

on() {
    python models.py "$frames/$1.h5" "$frames/$2.h5" --epochs 200 --workers 2 "${@:3}"
}
models() {
    on "$1" "$1-heldout" --name "$1" "${@:2}"
}
models uracil --frames 400 200 100 50 --variants response
models benzene --frames 200 100 50 --variants response
models uracil --frames 50 100 200 400 --seeds 1 --variants hdnnp "response, without DFTB"
models uracil --frames 100 400 --seeds 1 --variants "hdnnp, without DFTB" "response, energies alone"
models uracil --frames 100 --seeds 1 --variants "hdnnp, energies alone" "response, without DFTB, energies alone" \
    "response, charges within 6 Å" "response, charges within 8 Å" "response, charges within 10 Å" \
    "response, charges within 12 Å"
models benzene --frames 50 200 --seeds 1 --variants hdnnp "response, without DFTB"
models uracil --frames 100 --variants "response, no field coupling" "response, E0 shares its layer" \
    "response, no short-range term" "response, near field by one function" "response, small" "response, large"
models uracil --frames 50 100 --variants "response, random frames" "response, frames far from each other"
models uracil --frames 100 --variants "response, with minima"
on uracil uracil-minima-heldout --name "uracil, at minima" --frames 100 --variants response "response, with minima"
models uracil --frames 50 100 200 400 --variants "response 2"
models benzene --frames 50 100 200 --variants "response 2"
python models.py --page
