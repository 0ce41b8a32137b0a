"""Vectors of 16 lanes in LLVM's terms: what the kernels' inner loops are put together from.

Every function takes llvmlite's builder and adds instructions; LLVM makes of them what the machine has, AVX-512 or less.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils

LANES = 16
VECTOR = ir.VectorType(ir.FloatType(), LANES)
I32 = ir.IntType(32)


def widen(builder: Any, values: Any, element: Any) -> Any:
    """<16 x element> -> <16 x float>: int8 by value, uint16 as bits of bfloat16, int16 as bits of float16, else as it is."""
    if element == types.int8:
        return builder.sitofp(builder.sext(values, ir.VectorType(I32, LANES)), VECTOR)
    if element == types.int16:
        return builder.fpext(builder.bitcast(values, ir.VectorType(ir.HalfType(), LANES)), VECTOR)
    if element == types.uint16:
        wide = builder.zext(values, ir.VectorType(I32, LANES))
        return builder.bitcast(builder.shl(wide, ir.Constant(wide.type, [16] * LANES)), VECTOR)
    return values


def vector_at(builder: Any, data: Any, index: Any) -> Any:
    """16 elements from ``index`` on, any alignment."""
    pointer = builder.gep(data, [index])
    loaded = builder.load(builder.bitcast(pointer, ir.PointerType(ir.VectorType(pointer.type.pointee, LANES))))
    loaded.align = 1
    return loaded


def store_vector(builder: Any, data: Any, index: Any, value: Any) -> None:
    pointer = builder.bitcast(builder.gep(data, [index]), ir.PointerType(VECTOR))
    builder.store(value, pointer).align = 4


def splat(builder: Any, scalar: Any) -> Any:
    one = builder.insert_element(ir.Constant(VECTOR, ir.Undefined), scalar, ir.Constant(I32, 0))
    return builder.shuffle_vector(
        one, ir.Constant(VECTOR, ir.Undefined), ir.Constant(ir.VectorType(I32, LANES), [0] * LANES)
    )


def _same(builder: Any, name: str, *values: Any) -> Any:
    """LLVM's function ``name`` of floats or of vectors, whose result is of the same type."""
    kind = values[0].type
    suffix = f"v{LANES}f32" if kind == VECTOR else "f32"
    function = ir.FunctionType(kind, [kind] * len(values))
    return builder.call(cgutils.get_or_insert_function(builder.module, function, f"llvm.{name}.{suffix}"), values)


def fma(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c, rounded once."""
    return _same(builder, "fma", a, b, c)


def fetch_next(builder: Any, data: Any, row: Any, channels: Any, element: Any) -> None:
    """Ask for the same row of the next head: it lies on another page, and what comes there the machine does not guess."""
    kind = ir.PointerType(ir.IntType(8))
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(ir.VoidType(), [kind, I32, I32, I32]), "llvm.prefetch.p0"
    )
    to_read, keep, of_data = (ir.Constant(I32, k) for k in (0, 3, 1))
    later = builder.add(row, builder.mul(channels, ir.Constant(row.type, 64)))
    lines = element.bitwidth // 8  # 64 numbers of so many bytes
    for line in range(lines):
        place = builder.gep(data, [builder.add(later, ir.Constant(row.type, 64 // lines * line))])
        builder.call(function, [builder.bitcast(place, kind), to_read, keep, of_data])


def data(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    """Where the numbers of a numba array lie."""
    return context.make_array(kind)(context, builder, value).data


def constant(value: float) -> Any:
    """The same number in all lanes."""
    return ir.Constant(VECTOR, [value] * LANES)


#: Of the natural exponential as a power of two: exp(-x) = 2 ** (PER_LOGIT * x).
PER_LOGIT = np.float32(-1.4426950408889634)
#: 2 ** f for f in -0.5..0.5, minimax, highest power first; off by less than 3e-7 of it.
_POWER = (
    0.0013276467797798,
    0.0096755418926477,
    0.0555071346461773,
    0.2402212023735046,
    0.6931469440460205,
    1.0000001192092896,
)
#: Beyond, a sigmoid is 0 or 1 to 18 digits; two such powers can be multiplied.
_FAR = 60.0


def one_and_power(builder: Any, x: Any) -> Any:
    """1 + 2 ** x of a vector or of one float."""
    lanes = LANES if x.type == VECTOR else 0

    def number(value: float) -> Any:
        return constant(value) if lanes else ir.Constant(x.type, value)

    for sign, limit in (("<", _FAR), (">", -_FAR)):
        x = builder.select(builder.fcmp_unordered(sign, x, number(limit)), x, number(limit))  # NaN stays
    whole = _same(builder, "rint", x)
    f = builder.fsub(x, whole)
    power = number(_POWER[0])
    for factor in _POWER[1:]:
        power = fma(builder, power, f, number(factor))
    # times 2 ** whole, by adding to the exponent's bits
    words = ir.VectorType(I32, lanes) if lanes else I32
    exponent = builder.shl(builder.fptosi(whole, words), ir.Constant(words, [23] * lanes if lanes else 23))
    scaled = builder.bitcast(builder.add(builder.bitcast(power, words), exponent), x.type)
    return builder.fadd(scaled, number(1.0))


def add_sigmoids(builder: Any, powers: list[Any], total: Any, first: Any) -> None:
    """total[first + 16 k + lane] += 1 / (1 + 2 ** powers[k]), off by less than 3e-7; an even number of vectors: two share a division."""
    for k in range(0, len(powers), 2):
        a, b = (one_and_power(builder, x) for x in powers[k : k + 2])
        shared = builder.fdiv(constant(1.0), builder.fmul(a, b))
        for place, other in ((k, b), (k + 1, a)):
            at = builder.add(first, ir.Constant(first.type, LANES * place))
            store_vector(builder, total, at, fma(builder, other, shared, vector_at(builder, total, at)))
