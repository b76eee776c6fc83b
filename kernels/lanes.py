"""Eight pixels at a time, whatever the camera packs them into: the one place that speaks to the compiler in vectors.

Loops over short slices of a frame are not vectorised by numba: it must assume that source and target overlap. These
intrinsics emit the load, the widening and the store as one vector each, in portable LLVM (SSE, AVX, NEON alike).
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

SPAN_PX = 8
"""Pixels of a span."""
PACKED_READ_BYTES = 16
"""Bytes that `copy_span_12p` reads; 12 or 13 of them matter."""
VECTOR_PX = 32
"""Pixels that `dot` takes at a time."""
LARGEST = 32767
"""Values are signed 16-bit numbers."""

_BYTE, _SHORT, _INT, _LONG = (ir.IntType(bits) for bits in (8, 16, 32, 64))


def _constant(values: list[int], element: Any) -> Any:
    return ir.Constant(ir.VectorType(element, len(values)), values)


def _at(context: Any, builder: Any, array_type: Any, array: Any, index: Any, vector: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), vector.as_pointer())


def _every_lane(builder: Any, vector: Any, value: Any) -> Any:
    lanes = ir.Constant(vector, ir.Undefined)
    for lane in range(SPAN_PX):
        lanes = builder.insert_element(lanes, value, _INT(lane))
    return lanes


def _store(builder: Any, lanes: Any, target: Any) -> None:
    builder.store(lanes, target).align = 2


@intrinsic
def copy_span(typing_context: Any, out: Any, out_index: Any, frame: Any, index: Any, shift: Any, most: Any) -> Any:
    """``out[out_index : + 8] = min(frame[index : + 8] >> shift, most)``, nothing checked.

    `out` is flat int16, `frame` flat uint8 or uint16, indices uint64, `shift` and `most` uint16, unused for uint8.
    """
    signature = types.void(out, types.uint64, frame, types.uint64, types.uint16, types.uint16)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out_type, _, frame_type, _, _, _ = signature.args
        pixels = ir.VectorType(context.get_data_type(frame_type.dtype), SPAN_PX)
        lanes = builder.load(_at(context, builder, frame_type, arguments[2], arguments[3], pixels))
        wide = ir.VectorType(_SHORT, SPAN_PX)
        if frame_type.dtype == types.uint8:
            lanes.align = 1
            lanes = builder.zext(lanes, wide)
        else:
            lanes.align = 2
            lanes = builder.lshr(lanes, _every_lane(builder, wide, arguments[4]))
            most = _every_lane(builder, wide, arguments[5])
            lanes = builder.select(builder.icmp_unsigned("<", lanes, most), lanes, most)
        _store(builder, lanes, _at(context, builder, out_type, arguments[0], arguments[1], wide))
        return context.get_dummy_value()

    return signature, generate


@intrinsic
def copy_span_12p(typing_context: Any, out: Any, out_index: Any, payload: Any, index: Any) -> Any:
    """``out[out_index : + 8]`` = pixels `index` to `index` + 7 of Mono12p (two pixels in three bytes, low bits first).

    Reads 16 bytes of `payload`, flat uint8, from byte ``3 * index // 2``; nothing checked.
    """
    signature = types.void(out, types.uint64, payload, types.uint64)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out_type, _, payload_type, _ = signature.args
        byte = builder.lshr(builder.mul(arguments[3], _LONG(3)), _LONG(1))
        packed = ir.VectorType(_BYTE, PACKED_READ_BYTES)
        data = builder.load(_at(context, builder, payload_type, arguments[2], byte, packed))
        data.align = 1
        target = _at(context, builder, out_type, arguments[0], arguments[1], ir.VectorType(_SHORT, SPAN_PX))
        with builder.if_else(builder.trunc(arguments[3], ir.IntType(1))) as (odd, even):
            with odd:
                _store(builder, _unpack_12p(builder, data, 1), target)
            with even:
                _store(builder, _unpack_12p(builder, data, 0), target)
        return context.get_dummy_value()

    return signature, generate


def _unpack_12p(builder: Any, data: Any, first: int) -> Any:
    """Eight pixels from 16 bytes; `first` is 1 when they begin with the upper pixel of a pair."""
    upper = [(first + lane) % 2 for lane in range(SPAN_PX)]
    start = [(3 * (first + lane)) // 2 - first for lane in range(SPAN_PX)]
    pairs = _constant([byte for low in start for byte in (low, low + 1)], _INT)
    undefined = ir.Constant(data.type, ir.Undefined)
    words = builder.bitcast(builder.shuffle_vector(data, undefined, pairs), ir.VectorType(_SHORT, SPAN_PX))
    words = builder.lshr(words, _constant([4 * up for up in upper], _SHORT))
    return builder.and_(words, _constant([0xFFF] * SPAN_PX, _SHORT))


@intrinsic
def dot(typing_context: Any, values: Any, index: Any, weights: Any, place: Any, count: Any) -> Any:
    """``sum(values[index + i] * weights[place + i])`` over `count` pixels, a multiple of `VECTOR_PX`, as int64.

    `values` is flat int16, `weights` flat int8; indices and count are uint64; nothing checked. Each of 16 lanes adds
    `count` / 16 products in 32 bits. A product of sign-extended shorts whose neighbours are added is one instruction
    where the processor has one (x86: PMADDWD or VPDPWSSD), which the compiler finds in this form only.
    """
    signature = types.int64(values, types.uint64, weights, types.uint64, types.uint64)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value_type, _, weight_type, _, _ = signature.args
        shorts, half = ir.VectorType(_SHORT, VECTOR_PX), ir.VectorType(_INT, VECTOR_PX // 2)
        value_at = _at(context, builder, value_type, arguments[0], arguments[1], ir.VectorType(_SHORT, 1))
        weight_at = _at(context, builder, weight_type, arguments[2], arguments[3], ir.VectorType(_BYTE, 1))
        sums = [cgutils.alloca_once_value(builder, ir.Constant(half, None)) for _ in range(2)]

        def step(offset: Any, total: Any) -> None:
            left = builder.load(builder.bitcast(builder.gep(value_at, [offset]), shorts.as_pointer()))
            left.align = 2
            bytes_ = ir.VectorType(_BYTE, VECTOR_PX)
            right = builder.load(builder.bitcast(builder.gep(weight_at, [offset]), bytes_.as_pointer()))
            right.align = 1
            builder.store(builder.add(builder.load(total), _pair_sums(builder, left, right)), total)

        pairs = builder.sub(arguments[4], builder.urem(arguments[4], _LONG(2 * VECTOR_PX)))
        with cgutils.for_range_slice(builder, _LONG(0), pairs, _LONG(2 * VECTOR_PX), inc=True) as (offset, _):
            step(offset, sums[0])
            step(builder.add(offset, _LONG(VECTOR_PX)), sums[1])
        with cgutils.for_range_slice(builder, pairs, arguments[4], _LONG(VECTOR_PX), inc=True) as (offset, _):
            step(offset, sums[0])
        wide = ir.VectorType(_LONG, VECTOR_PX // 2)
        total = builder.add(*(builder.sext(builder.load(each), wide) for each in sums))
        kind = ir.FunctionType(_LONG, [wide])
        reduce = cgutils.get_or_insert_function(builder.module, kind, "llvm.vector.reduce.add.v16i64")
        return builder.call(reduce, [total])

    return signature, generate


def _pair_sums(builder: Any, left: Any, right: Any) -> Any:
    """Products of 32 shorts and 32 bytes, each two neighbours added: 16 ints."""
    ints = ir.VectorType(_INT, VECTOR_PX)
    product = builder.mul(builder.sext(left, ints), builder.sext(builder.sext(right, left.type), ints))
    undefined = ir.Constant(ints, ir.Undefined)
    even, odd = (
        builder.shuffle_vector(product, undefined, _constant(list(range(first, VECTOR_PX, 2)), _INT))
        for first in (0, 1)
    )
    return builder.add(even, odd)
