"""Passes over stored queries as compiled loops (numba): what pip alone installs, as fast as memory allows.

The two inner loops are written in LLVM's own terms so that their sums stay in registers: (64 pixels of a head's channels)
times (keys of one or several classes), and the transpose.  Everything else is plain numba.  Kernels release the GIL and
work on a range of (step, pixel block) items; :mod:`backends.attention.passes` spreads the ranges over threads, so numba's
own thread pools, which may not be entered from several threads, are never started.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

_LANES = 16
_VECTOR = ir.VectorType(ir.FloatType(), _LANES)
_I32 = ir.IntType(32)


def _widen(builder: Any, values: Any, element: Any) -> Any:
    """<16 x element> -> <16 x float>: int8 by value, uint16 as bits of bfloat16, int16 as bits of float16, else as it is."""
    if element == types.int8:
        return builder.sitofp(builder.sext(values, ir.VectorType(_I32, _LANES)), _VECTOR)
    if element == types.int16:
        return builder.fpext(builder.bitcast(values, ir.VectorType(ir.HalfType(), _LANES)), _VECTOR)
    if element == types.uint16:
        wide = builder.zext(values, ir.VectorType(_I32, _LANES))
        return builder.bitcast(builder.shl(wide, ir.Constant(wide.type, [16] * _LANES)), _VECTOR)
    return values


def _vector_at(builder: Any, data: Any, index: Any) -> Any:
    """16 elements from ``index`` on, any alignment."""
    pointer = builder.gep(data, [index])
    loaded = builder.load(builder.bitcast(pointer, ir.PointerType(ir.VectorType(pointer.type.pointee, _LANES))))
    loaded.align = 1
    return loaded


def _store_vector(builder: Any, data: Any, index: Any, value: Any) -> None:
    pointer = builder.bitcast(builder.gep(data, [index]), ir.PointerType(_VECTOR))
    builder.store(value, pointer).align = 4


def _splat(builder: Any, scalar: Any) -> Any:
    one = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), scalar, ir.Constant(_I32, 0))
    return builder.shuffle_vector(
        one, ir.Constant(_VECTOR, ir.Undefined), ir.Constant(ir.VectorType(_I32, _LANES), [0] * _LANES)
    )


def _fma(builder: Any, a: Any, b: Any, c: Any) -> Any:
    kind = ir.FunctionType(_VECTOR, [_VECTOR] * 3)
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.fma.v{_LANES}f32"), [a, b, c])


def _data(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    return context.make_array(kind)(context, builder, value).data


def _make_tile(classes: int) -> Any:
    """The product of ``classes`` keys with a block of 64 pixels."""

    @intrinsic
    def tile(typing: Any, q: Any, q_at: Any, keys: Any, k_at: Any, out: Any, channels: Any) -> Any:
        """out[s * 64 + p] = sum over c of keys[k_at + c * classes + s] * q[q_at + c * 64 + p]; all arrays flat."""
        signature = types.void(q, types.intp, keys, types.intp, out, types.intp)

        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            q_data, k_data, out_data = (_data(context, builder, sig.args[i], args[i]) for i in (0, 2, 4))
            q_at, k_at, count = args[1], args[3], args[5]
            index = count.type
            element = sig.args[0].dtype
            entry = builder.block
            body, done = builder.append_basic_block("channels"), builder.append_basic_block("stored")
            zero = ir.Constant(_VECTOR, [0.0] * _LANES)
            builder.branch(body)
            builder.position_at_end(body)
            c = builder.phi(index)
            c.add_incoming(ir.Constant(index, 0), entry)
            sums = [[builder.phi(_VECTOR) for _ in range(4)] for _ in range(classes)]
            row = builder.add(q_at, builder.mul(c, ir.Constant(index, 64)))
            pixels = [
                _widen(
                    builder,
                    _vector_at(builder, q_data, builder.add(row, ir.Constant(index, 16 * j))),
                    element,
                )
                for j in range(4)
            ]
            first = builder.add(k_at, builder.mul(c, ir.Constant(index, classes)))
            for s in range(classes):
                pointer = builder.gep(k_data, [builder.add(first, ir.Constant(index, s))])
                key = _splat(builder, builder.load(pointer))
                for j in range(4):
                    total = _fma(builder, key, pixels[j], sums[s][j])
                    sums[s][j].add_incoming(zero, entry)
                    sums[s][j].add_incoming(total, body)
                    if j == 3 and s == classes - 1:
                        following = builder.add(c, ir.Constant(index, 1))
                        c.add_incoming(following, body)
                        builder.cbranch(builder.icmp_signed("<", following, count), body, done)
            builder.position_at_end(done)
            for s in range(classes):
                for j in range(4):
                    # The value a phi takes next is the finished sum when the loop ends.
                    _store_vector(builder, out_data, ir.Constant(index, s * 64 + 16 * j), sums[s][j].incomings[1][0])
            return context.get_dummy_value()

        return signature, generate

    return tile


@intrinsic
def _pull_tile(typing: Any, q: Any, q_at: Any, weights: Any, lanes: Any, lanes_at: Any, channels: Any) -> Any:
    """lanes[lanes_at + c * 16 + i] += sum over the pixels p = i mod 16 of weights[p] * q[q_at + c * 64 + p]."""
    signature = types.void(q, types.intp, weights, lanes, types.intp, types.intp)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        q_data, w_data, lane_data = (_data(context, builder, sig.args[i], args[i]) for i in (0, 2, 3))
        q_at, lanes_at, count = args[1], args[4], args[5]
        index = count.type
        element = sig.args[0].dtype
        weights = [_vector_at(builder, w_data, ir.Constant(index, 16 * j)) for j in range(4)]
        entry = builder.block
        body, done = builder.append_basic_block("channels"), builder.append_basic_block("pulled")
        builder.branch(body)
        builder.position_at_end(body)
        c = builder.phi(index)
        c.add_incoming(ir.Constant(index, 0), entry)
        at = builder.add(lanes_at, builder.mul(c, ir.Constant(index, 16)))
        total = _vector_at(builder, lane_data, at)
        row = builder.add(q_at, builder.mul(c, ir.Constant(index, 64)))
        for j in range(4):
            here = _vector_at(builder, q_data, builder.add(row, ir.Constant(index, 16 * j)))
            total = _fma(builder, weights[j], _widen(builder, here, element), total)
        _store_vector(builder, lane_data, at, total)
        following = builder.add(c, ir.Constant(index, 1))
        c.add_incoming(following, body)
        builder.cbranch(builder.icmp_signed("<", following, count), body, done)
        builder.position_at_end(done)
        return context.get_dummy_value()

    return signature, generate


#: Classes whose sums of 64 pixels fit into the registers of AVX-512 beside the pixels.
TILE = 5
_one, _several = _make_tile(1), _make_tile(TILE)


@njit(inline="always")
def _tanh_of_half(x):  # type: ignore[no-untyped-def]
    """tanh(x / 2) as numerator and denominator, polynomials as in Eigen."""
    h = x * np.float32(0.5)
    h = np.float32(7.90531110763549805) if h > np.float32(7.90531110763549805) else h
    h = np.float32(-7.90531110763549805) if h < np.float32(-7.90531110763549805) else h
    z = h * h
    p = np.float32(-2.76076847742355e-16) * z + np.float32(2.00018790482477e-13)
    p = p * z + np.float32(-8.60467152213735e-11)
    p = p * z + np.float32(5.12229709037114e-08)
    p = p * z + np.float32(1.48572235717979e-05)
    p = p * z + np.float32(6.37261928875436e-04)
    p = p * z + np.float32(4.89352455891786e-03)
    q = np.float32(1.19825839466702e-06) * z + np.float32(1.18534705686654e-04)
    q = q * z + np.float32(2.26843463243900e-03)
    q = q * z + np.float32(4.89352518554385e-03)
    return h * p, q


@njit(inline="always")
def _sigmoid(x):  # type: ignore[no-untyped-def]
    """1 / (1 + exp(-x)), off by less than 3e-7."""
    p, q = _tanh_of_half(x)
    return np.float32(0.5) * (p / q) + np.float32(0.5)


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
            _one(q, at * channels * 64, keys, (step * heads + h) * channels, logits[i, h], channels)


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
    """sums[class, block, pixel] += weight * sum over heads of sigmoid of each class's logits.

    keys (heads, tiles, channels, TILE) flat; classes beyond the last real one have zero keys.
    """
    blocks, heads, channels = shape
    logits = np.empty(TILE * 64, np.float32)
    scaled = np.empty(keys.size, np.float32)
    before = -1
    for i in range(first, last):
        step, block = i // blocks, i % blocks
        if step != before:
            before = step
            for h in range(heads):
                for row in range(tiles * channels):
                    at = (h * tiles * channels + row) * TILE
                    for s in range(TILE):
                        scaled[at + s] = keys[at + s] * scales[step, h, row % channels]
        half = np.float32(0.5) * weights[step]
        for h in range(heads):
            for tile in range(tiles):
                at = (h * tiles + tile) * channels * TILE
                _several(q, (i * heads + h) * channels * 64, scaled, at, logits, channels)
                for s in range(TILE):
                    for p in range(32):  # two sigmoids a division
                        a, b = _tanh_of_half(logits[s * 64 + p])
                        c, d = _tanh_of_half(logits[s * 64 + p + 32])
                        r = half / (b * d)
                        sums[tile * TILE + s, block, p] += a * d * r + half
                        sums[tile * TILE + s, block, p + 32] += c * b * r + half
