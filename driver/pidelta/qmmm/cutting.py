"""Compiled loops over charge groups: make them whole, find those in reach, weigh them, and the way back."""

# mypy: allow-untyped-defs

from __future__ import annotations

import numpy as np

from pidelta.core.compilation import compiled
from pidelta.core.switching import quintic, quintic_slope
from pidelta.core.vectors import nearest

_compiled = compiled(nogil=True, error_model="numpy")


@_compiled
def make_whole(positions, particles, neighbours, parts, n_parts, cell, inverse):
    """Positions (M, 3) of grouped particles, each group whole, and the centres (C, 3) of its parts."""
    whole = np.empty((len(particles), 3))
    centres, sizes = np.zeros((n_parts, 3)), np.zeros(n_parts)
    for m in range(len(particles)):
        i = particles[m]
        x, y, z = positions[i, 0], positions[i, 1], positions[i, 2]
        if neighbours[m] != m:
            near = neighbours[m]
            dx, dy, dz = nearest(x - whole[near, 0], y - whole[near, 1], z - whole[near, 2], cell, inverse)
            x, y, z = whole[near, 0] + dx, whole[near, 1] + dy, whole[near, 2] + dz
        whole[m, 0], whole[m, 1], whole[m, 2] = x, y, z
        part = parts[m]
        centres[part, 0] += x
        centres[part, 1] += y
        centres[part, 2] += z
        sizes[part] += 1.0
    for part in range(n_parts):
        for k in range(3):
            centres[part, k] /= sizes[part]
    return whole, centres


@_compiled
def images_in_reach(qm, centres, part_starts, cell, inverse, cutoff):
    """Groups, and their images as lattice vectors, of which a centre is within the cutoff of a QM atom.

    A point within a distance d of another has fractional displacements of at most d / height, so that few
    images of a centre can be within reach of the middle of the QM region.
    """
    middle = np.array([qm[:, 0].mean(), qm[:, 1].mean(), qm[:, 2].mean()])
    reach = cutoff + np.sqrt(((qm - middle) ** 2).sum(axis=1).max())
    widest = reach * np.sqrt((inverse**2).sum(axis=0))
    groups, shifts = [np.int64(0) for _ in range(0)], [(0.0, 0.0, 0.0) for _ in range(0)]
    for g in range(len(part_starts) - 1):
        first = len(groups)
        for c in range(part_starts[g], part_starts[g + 1]):
            d = centres[c] - middle
            low, high = np.empty(3, dtype=np.int64), np.empty(3, dtype=np.int64)
            for k in range(3):
                fraction = d[0] * inverse[0, k] + d[1] * inverse[1, k] + d[2] * inverse[2, k]
                low[k] = np.int64(np.ceil(-widest[k] - fraction))
                high[k] = np.int64(np.floor(widest[k] - fraction))
            for i in range(low[0], high[0] + 1):
                for j in range(low[1], high[1] + 1):
                    for k in range(low[2], high[2] + 1):
                        x = i * cell[0, 0] + j * cell[1, 0] + k * cell[2, 0]
                        y = i * cell[0, 1] + j * cell[1, 1] + k * cell[2, 1]
                        z = i * cell[0, 2] + j * cell[1, 2] + k * cell[2, 2]
                        square = (d[0] + x) ** 2 + (d[1] + y) ** 2 + (d[2] + z) ** 2
                        if square >= reach * reach or not _is_near(centres[c], x, y, z, qm, cutoff):
                            continue
                        known = False
                        for entry in range(first, len(groups)):
                            known = known or shifts[entry] == (x, y, z)
                        if not known:
                            groups.append(g)
                            shifts.append((x, y, z))
    shift_array = np.empty((len(groups), 3))
    for entry in range(len(groups)):
        for axis in range(3):
            shift_array[entry, axis] = shifts[entry][axis]
    return np.array(groups, dtype=np.int64), shift_array


@_compiled
def _square(centre, x, y, z, atom):
    """The squared distance of an atom from a centre moved by x, y, z."""
    return (centre[0] + x - atom[0]) ** 2 + (centre[1] + y - atom[1]) ** 2 + (centre[2] + z - atom[2]) ** 2


@_compiled
def _is_near(centre, x, y, z, qm, cutoff):
    for atom in qm:  # noqa: SIM110, as numba compiles no generators
        if _square(centre, x, y, z, atom) < cutoff * cutoff:
            return True
    return False


@_compiled
def _rest(qm, centres, x, y, z, start, stop):
    """prod (1 - s(d)) over QM atoms and the centres of a group moved by x, y, z: 0 for one wholly inside."""
    rest = 1.0
    for c in range(len(centres)):
        for a in range(len(qm)):
            square = _square(centres[c], x, y, z, qm[a])
            if square <= start * start:
                return 0.0
            if square < stop * stop:
                rest *= 1.0 - quintic((np.sqrt(square) - start) / (stop - start))
    return rest


@_compiled
def group_weights(qm, centres, part_starts, groups, shifts, start, stop):
    """w = 1 - prod (1 - s(d)) over QM atoms and centres of each group, moved by its shift."""
    weights = np.empty(len(groups))
    for entry in range(len(groups)):
        own = centres[part_starts[groups[entry]] : part_starts[groups[entry] + 1]]
        x, y, z = shifts[entry]
        weights[entry] = 1.0 - _rest(qm, own, x, y, z, start, stop)
    return weights


@_compiled
def fill_sites(whole, particles, starts, charges, groups, shifts, weights, positions, scaled, atoms):
    """Write the sites of groups and images: positions (m, 3), scaled charges (m,) and particles (m,)."""
    site = 0
    for entry in range(len(groups)):
        for m in range(starts[groups[entry]], starts[groups[entry] + 1]):
            for k in range(3):
                positions[site, k] = whole[m, k] + shifts[entry, k]
            atoms[site] = particles[m]
            scaled[site] = weights[entry] * charges[particles[m]]
            site += 1


@_compiled
def add_weight_gradients(
    qm, sites, rows, starts, group_of_row, parts, part_starts, charges, slopes, start, stop, qm_gradient,
    site_gradient,
):  # fmt: skip
    """Add what the weights contribute to dE/dR of QM atoms (n, 3) and sites (m, 3).

    Args:
        sites: (m, 3), group by group. rows: (m,) their places among the grouped particles.
        charges: (m,) before scaling. slopes: (m,) dE/d(scaled charge).
    """
    most = 0
    for g in range(len(part_starts) - 1):
        most = max(most, part_starts[g + 1] - part_starts[g])
    centres, sizes, centre_gradient = np.empty((most, 3)), np.empty(most), np.empty((most, 3))
    site = 0
    while site < len(rows):
        g = group_of_row[rows[site]]
        end = site + starts[g + 1] - starts[g]
        count = part_starts[g + 1] - part_starts[g]
        _set_centres(sites[site:end], parts[rows[site:end]] - part_starts[g], centres[:count], sizes[:count])
        rest = _rest(qm, centres[:count], 0.0, 0.0, 0.0, start, stop)
        if rest > 0.0:  # else wholly inside: the weight is 1 and stays so
            weight_slope = 0.0
            for m in range(site, end):
                weight_slope += slopes[m] * charges[m]
            centre_gradient[:count] = 0.0
            _add_slopes(
                qm, centres[:count], weight_slope * rest, start, stop, qm_gradient, centre_gradient[:count]
            )
            for m in range(site, end):
                part = parts[rows[m]] - part_starts[g]
                for k in range(3):
                    site_gradient[m, k] += centre_gradient[part, k] / sizes[part]
        site = end


@_compiled
def _set_centres(sites, parts, centres, sizes):
    """Set the centres of the parts of one group, and how many sites each has."""
    centres[:], sizes[:] = 0.0, 0.0
    for m in range(len(sites)):
        sizes[parts[m]] += 1.0
        for k in range(3):
            centres[parts[m], k] += sites[m, k]
    for c in range(len(centres)):
        for k in range(3):
            centres[c, k] /= sizes[c]


@_compiled
def _add_slopes(qm, centres, scale, start, stop, qm_gradient, centre_gradient):
    """Add `scale` times the gradient of sum -ln(1 - s(d)), over QM atoms (n, 3) and centres of one group."""
    for c in range(len(centres)):
        for a in range(len(qm)):
            square = _square(centres[c], 0.0, 0.0, 0.0, qm[a])
            if square >= stop * stop:
                continue
            distance = np.sqrt(square)
            x = (distance - start) / (stop - start)
            slope = scale / (1.0 - quintic(x)) * quintic_slope(x) / ((stop - start) * distance)
            for k in range(3):
                part = slope * (centres[c, k] - qm[a, k])
                centre_gradient[c, k] += part
                qm_gradient[a, k] -= part
