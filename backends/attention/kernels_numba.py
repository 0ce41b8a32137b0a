"""Passes over stored queries as compiled loops (numba): what pip alone installs, as fast as memory allows.

The two inner loops are written in LLVM's own terms so that their sums stay in registers: (64 pixels of a head's channels)
times (keys of one or several classes), and the transpose.  Everything else is plain numba.  Kernels release the GIL and
work on a range of (step, pixel block) items, or of blocks; :mod:`backends.attention.passes_numba` spreads the ranges over threads, so numba's
own thread pools, which may not be entered from several threads, are never started.

What is compiled is kept on disk by this file's time and size alone: after a change of ``llvm_vectors.py`` delete ``__pycache__``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from backends.attention.llvm_vectors import (
    PER_LOGIT,
    VECTOR,
    add_sigmoids,
    constant,
    data,
    fetch_next,
    fma,
    one_and_power,
    splat,
    store_vector,
    vector_at,
    widen,
)


def _make_tile(classes: int, sigmoids: bool) -> Any:
    """The product of ``classes`` keys with a block of 64 pixels is stored or, with ``sigmoids``, its sigmoids are added."""

    @intrinsic
    def tile(typing: Any, q: Any, q_at: Any, keys: Any, k_at: Any, out: Any, out_at: Any, channels: Any) -> Any:
        """x = sum over c of keys[k_at + c * classes + s] * q[q_at + c * 64 + p]; all arrays flat.

        out[out_at + s * 64 + p] = x or, with sigmoids, += 1 / (1 + 2 ** x).
        """
        signature = types.void(q, types.intp, keys, types.intp, out, types.intp, types.intp)

        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            q_data, k_data, out_data = (data(context, builder, sig.args[i], args[i]) for i in (0, 2, 4))
            q_at, k_at, out_at, count = args[1], args[3], args[5], args[6]
            index = count.type
            element = sig.args[0].dtype
            entry = builder.block
            body, done = builder.append_basic_block("channels"), builder.append_basic_block("stored")
            builder.branch(body)
            builder.position_at_end(body)
            c = builder.phi(index)
            c.add_incoming(ir.Constant(index, 0), entry)
            sums = [[builder.phi(VECTOR) for _ in range(4)] for _ in range(classes)]
            row = builder.add(q_at, builder.mul(c, ir.Constant(index, 64)))
            pixels = [
                widen(
                    builder,
                    vector_at(builder, q_data, builder.add(row, ir.Constant(index, 16 * j))),
                    element,
                )
                for j in range(4)
            ]
            fetch_next(builder, q_data, row, count, element)
            first = builder.add(k_at, builder.mul(c, ir.Constant(index, classes)))
            for s in range(classes):
                pointer = builder.gep(k_data, [builder.add(first, ir.Constant(index, s))])
                key = splat(builder, builder.load(pointer))
                for j in range(4):
                    total = fma(builder, key, pixels[j], sums[s][j])
                    sums[s][j].add_incoming(constant(0.0), entry)
                    sums[s][j].add_incoming(total, body)
                    if j == 3 and s == classes - 1:
                        following = builder.add(c, ir.Constant(index, 1))
                        c.add_incoming(following, body)
                        builder.cbranch(builder.icmp_signed("<", following, count), body, done)
            builder.position_at_end(done)
            # The value a phi takes next is the finished sum when the loop ends.
            found = [total.incomings[1][0] for of_class in sums for total in of_class]
            if sigmoids:
                add_sigmoids(builder, found, out_data, out_at)
            else:
                for k, value in enumerate(found):
                    store_vector(builder, out_data, builder.add(out_at, ir.Constant(index, 16 * k)), value)
            return context.get_dummy_value()

        return signature, generate

    return tile


@intrinsic
def _pull_tile(typing: Any, q: Any, q_at: Any, weights: Any, lanes: Any, lanes_at: Any, channels: Any) -> Any:
    """lanes[lanes_at + c * 16 + i] += sum over the pixels p = i mod 16 of weights[p] * q[q_at + c * 64 + p]."""
    signature = types.void(q, types.intp, weights, lanes, types.intp, types.intp)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        q_data, w_data, lane_data = (data(context, builder, sig.args[i], args[i]) for i in (0, 2, 3))
        q_at, lanes_at, count = args[1], args[4], args[5]
        index = count.type
        element = sig.args[0].dtype
        weights = [vector_at(builder, w_data, ir.Constant(index, 16 * j)) for j in range(4)]
        entry = builder.block
        body, done = builder.append_basic_block("channels"), builder.append_basic_block("pulled")
        builder.branch(body)
        builder.position_at_end(body)
        c = builder.phi(index)
        c.add_incoming(ir.Constant(index, 0), entry)
        at = builder.add(lanes_at, builder.mul(c, ir.Constant(index, 16)))
        total = vector_at(builder, lane_data, at)
        row = builder.add(q_at, builder.mul(c, ir.Constant(index, 64)))
        fetch_next(builder, q_data, row, count, element)
        for j in range(4):
            here = vector_at(builder, q_data, builder.add(row, ir.Constant(index, 16 * j)))
            total = fma(builder, weights[j], widen(builder, here, element), total)
        store_vector(builder, lane_data, at, total)
        following = builder.add(c, ir.Constant(index, 1))
        c.add_incoming(following, body)
        builder.cbranch(builder.icmp_signed("<", following, count), body, done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    return signature, generate


#: Classes whose sums of 64 pixels fit into the registers of AVX-512 beside the pixels.
TILE = 5
_one, _several = _make_tile(1, sigmoids=False), _make_tile(TILE, sigmoids=True)


@intrinsic
def _one_and_power(typing: Any, x: Any) -> Any:
    """1 + 2 ** x, off by less than 3e-7 of it."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return one_and_power(builder, args[0])

    return types.float32(types.float32), generate


@njit(inline="always")
def _sigmoid(x):  # type: ignore[no-untyped-def]
    """1 / (1 + exp(-x)), off by less than 3e-7."""
    return np.float32(1) / _one_and_power(PER_LOGIT * x)


@njit(nogil=True, cache=True, fastmath=True)
def times_vector(matrix, vector, out, first, last):  # type: ignore[no-untyped-def]
    """out[r] = matrix[r] . vector for rows first..last."""
    for r in range(first, last):
        total = np.float32(0)
        for c in range(vector.size):
            total += matrix[r, c] * vector[c]
        out[r] = total


@njit(nogil=True, cache=True, fastmath=True)
def add_times_matrix(vector, matrix, out, first, last):  # type: ignore[no-untyped-def]
    """out += vector[first:last] @ matrix[first:last], row by row: several rows at a time read memory more slowly."""
    for r in range(first, last):
        factor, row = vector[r], matrix[r]
        for k in range(row.size):
            out[k] += factor * row[k]


@njit(nogil=True, cache=True)
def project(q, shape, keys, logits, first, last):  # type: ignore[no-untyped-def]
    """Logits of items first..last: q flat, keys (steps * heads * channels) flat, logits (items, heads, 64)."""
    blocks, heads, channels = shape
    for i in range(first, last):
        step = i // blocks
        for h in range(heads):
            at = i * heads + h
            _one(q, at * channels * 64, keys, (step * heads + h) * channels, logits[i, h], 0, channels)


@njit(nogil=True, cache=True, fastmath=True, error_model="numpy")
def squash(logits, direction, length, shape, weights, sums, first, last):  # type: ignore[no-untyped-def]
    """sums[block, pixel] += weight of the step * sum over heads of sigmoid(logits + length * direction)."""
    blocks, heads, _ = shape
    total = np.empty(64, np.float32)
    for i in range(first, last):
        total[:] = 0
        for h in range(heads):
            if length != 0:
                for p in range(64):
                    total[p] += _sigmoid(logits[i, h, p] + length * direction[i, h, p])
            else:
                for p in range(64):
                    total[p] += _sigmoid(logits[i, h, p])
        block, weight = i % blocks, weights[i // blocks]
        for p in range(64):
            sums[block, p] += weight * total[p]


@njit(nogil=True, cache=True, fastmath=True, error_model="numpy")
def pull(q, shape, scales, logits, gradient, weights, out, first, last):  # type: ignore[no-untyped-def]
    """out[head, channel] += d/dkey of sum over items of gradient[block] * weight * sigmoid(logits)."""
    blocks, heads, channels = shape
    lanes = np.zeros(heads * channels * 16, np.float32)
    slope = np.empty(64, np.float32)
    for i in range(first, last):
        step, block = i // blocks, i % blocks
        weight = weights[step]
        for h in range(heads):
            for p in range(64):
                s = _sigmoid(logits[i, h, p])
                slope[p] = weight * gradient[block, p] * s * (np.float32(1) - s)
            _pull_tile(q, (i * heads + h) * channels * 64, slope, lanes, h * channels * 16, channels)
        if i + 1 == last or (i + 1) // blocks != step:
            for h in range(heads):
                for c in range(channels):
                    at = (h * channels + c) * 16
                    value = np.float32(0)
                    for lane in range(16):
                        value += lanes[at + lane]
                        lanes[at + lane] = 0
                    out[h, c] += value * scales[step, h, c]


@njit(nogil=True, cache=True, fastmath=True, error_model="numpy")
def class_sums(q, shape, scales, keys, tiles, weights, sums, first, last):  # type: ignore[no-untyped-def]
    """sums[class, block, pixel] += weight * sum over heads of sigmoid of each class's logits, for blocks first..last.

    keys (heads, tiles, channels, TILE) flat; classes beyond the last real one have zero keys.
    """
    blocks, heads, channels = shape
    scaled = np.empty(keys.size, np.float32)
    total = np.empty(tiles * TILE * 64, np.float32)  # apart from sums, whose classes share the sets of a cache
    for step in range(weights.size):
        weight = weights[step]
        for h in range(heads):
            for tile in range(tiles):
                for c in range(channels):
                    at, scale = ((h * tiles + tile) * channels + c) * TILE, PER_LOGIT * scales[step, h, c]
                    for s in range(TILE):
                        scaled[at + s] = keys[at + s] * scale
        for block in range(first, last):
            total[:] = 0
            for h in range(heads):
                here = ((step * blocks + block) * heads + h) * channels * 64
                for tile in range(tiles):
                    _several(q, here, scaled, (h * tiles + tile) * channels * TILE, total, tile * TILE * 64, channels)
            for c in range(tiles * TILE):
                for p in range(64):
                    sums[c, block, p] += weight * total[c * 64 + p]
