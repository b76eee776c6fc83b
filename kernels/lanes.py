"""Eight pixels at a time, whatever the camera packs them into: the one place that speaks to the compiler in vectors.

Loops over short slices of a frame are not vectorised by numba: it must assume that source and target overlap. These
intrinsics emit the load, the widening and the store as one vector each, in portable LLVM (SSE, AVX, NEON alike).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

SPAN_PX = 8
"""Pixels of a span."""
VECTOR_PX = 32
"""Pixels that `dot` takes at a time."""
LARGEST = 32767
"""Values are signed 16-bit numbers."""

_BYTE, _SHORT, _INT, _LONG = (ir.IntType(bits) for bits in (8, 16, 32, 64))
_SPAN = ir.VectorType(_SHORT, SPAN_PX)


def _constant(values: list[int], element: Any) -> Any:
    return ir.Constant(ir.VectorType(element, len(values)), values)


def _at(context: Any, builder: Any, array_type: Any, array: Any, index: Any, vector: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), vector.as_pointer())


def _every_lane(builder: Any, vector: Any, value: Any) -> Any:
    lanes = ir.Constant(vector, ir.Undefined)
    for lane in range(vector.count):
        lanes = builder.insert_element(lanes, value, _INT(lane))
    return lanes


def _load(builder: Any, pointer: Any, align: int) -> Any:
    lanes = builder.load(pointer)
    lanes.align = align
    return lanes


def _element(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    """Element `index` of a flat array of unsigned integers, as 64 bits."""
    element = context.get_data_type(array_type.dtype)
    value = builder.load(builder.gep(context.make_array(array_type)(context, builder, array).data, [index]))
    return value if element == _LONG else builder.zext(value, _LONG)


Source = Callable[[Any, Any, Any, Any, Any], Any]
"""``(context, builder, frame type, frame, index)`` to eight 16-bit lanes: the pixels from `index` on."""


def _copy_all(context: Any, builder: Any, types_: Any, arguments: Any, source: Source) -> Any:
    """The loop of `copy_spans`: arguments are (out, place, frame, start, left, scale, ...)."""
    out_type, place_type, frame_type, start_type, _, scale_type = types_[:6]
    out, place, frame, start, left, scale = arguments[:6]
    largest = cgutils.alloca_once_value(builder, ir.Constant(_SPAN, None))
    count = context.make_array(start_type)(context, builder, start).nitems
    with cgutils.for_range_slice(builder, _LONG(0), count, _LONG(1), inc=True) as (j, _):
        lanes = source(context, builder, frame_type, frame, _element(context, builder, start_type, start, j))
        before = builder.load(largest)
        builder.store(builder.select(builder.icmp_unsigned(">", lanes, before), lanes, before), largest)
        if scale_type != types.none:
            at = _at(context, builder, scale_type, scale, builder.mul(j, _LONG(SPAN_PX)), _SPAN)
            lanes = _scaled(builder, builder.shl(lanes, _every_lane(builder, _SPAN, left)), _load(builder, at, 2))
        to = _element(context, builder, place_type, place, j)
        builder.store(lanes, _at(context, builder, out_type, out, to, _SPAN)).align = 2
    reduce = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(_SHORT, [_SPAN]), f"llvm.vector.reduce.umax.v{SPAN_PX}i16"
    )
    return builder.call(reduce, [builder.load(largest)])


def _scaled(builder: Any, lanes: Any, scale: Any) -> Any:
    """``(lanes * scale + 2**14) >> 15``, written as compilers know it from x86 (PMULHRSW)."""
    wide = ir.VectorType(_INT, SPAN_PX)
    product = builder.mul(builder.sext(lanes, wide), builder.sext(scale, wide))
    one, fourteen = (_constant([value] * SPAN_PX, _INT) for value in (1, 14))
    return builder.trunc(builder.lshr(builder.add(builder.lshr(product, fourteen), one), one), _SPAN)


@intrinsic
def copy_spans(
    typing_context: Any, out: Any, place: Any, frame: Any, start: Any, left: Any, scale: Any, right: Any, most: Any
) -> Any:
    """``out[place[j] : + 8] = min(frame[start[j] : + 8] >> right, most)`` for all j; returns the largest of them before
    any scaling. Nothing is checked.

    `out` is flat int16, `frame` flat uint8 or uint16, `place` and `start` uint32; `left`, `right` and `most` uint16,
    the last two unused for uint8. With `scale`, flat int16 and 8 a span in the order of `start`, a value is
    ``((value << left) * scale + 2**14) >> 15``; without, it is None.
    """
    signature = types.uint16(out, place, frame, start, left, scale, right, most)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        def source(context: Any, builder: Any, frame_type: Any, frame: Any, index: Any) -> Any:
            pixels = ir.VectorType(context.get_data_type(frame_type.dtype), SPAN_PX)
            lanes = _load(builder, _at(context, builder, frame_type, frame, index, pixels), pixels.element.width // 8)
            if frame_type.dtype == types.uint8:
                return builder.zext(lanes, _SPAN)
            lanes = builder.lshr(lanes, _every_lane(builder, _SPAN, arguments[6]))
            most = _every_lane(builder, _SPAN, arguments[7])
            return builder.select(builder.icmp_unsigned("<", lanes, most), lanes, most)

        return _copy_all(context, builder, signature.args, arguments, source)

    return signature, generate


@intrinsic
def copy_spans_12p(typing_context: Any, out: Any, place: Any, payload: Any, start: Any, left: Any, scale: Any) -> Any:
    """`copy_spans` from Mono12p (two pixels in three bytes, low bits first): `payload` is flat uint8.

    Only the bytes of a span's own pixels are read.
    """
    signature = types.uint16(out, place, payload, start, left, scale)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _copy_all(context, builder, signature.args, arguments, _source_12p)

    return signature, generate


def _source_12p(context: Any, builder: Any, payload_type: Any, payload: Any, index: Any) -> Any:
    """A span is 12 bytes, or 13 where it begins within a byte: two words that overlap, each moved to its first pixel,
    so that all spans unpack alike. A choice between two ways would be a branch that nobody can predict.
    """
    odd = builder.and_(index, _LONG(1))
    byte = builder.lshr(builder.mul(index, _LONG(3)), _LONG(1))
    half = builder.shl(odd, _LONG(2))
    words = ir.Constant(ir.VectorType(_LONG, 2), ir.Undefined)
    second = builder.add(builder.add(byte, _LONG(4)), odd), builder.sub(_LONG(16), half)
    for lane, (at, bits) in enumerate(((byte, half), second)):
        pointer = _at(context, builder, payload_type, payload, at, ir.VectorType(_LONG, 1))
        word = builder.extract_element(_load(builder, pointer, 1), _INT(0))
        words = builder.insert_element(words, builder.lshr(word, bits), _INT(lane))
    data = builder.bitcast(words, ir.VectorType(_BYTE, 16))
    place = [8 * word + byte + low for word in (0, 1) for byte in (0, 1, 3, 4) for low in (0, 1)]
    undefined = ir.Constant(data.type, ir.Undefined)
    lanes = builder.bitcast(builder.shuffle_vector(data, undefined, _constant(place, _INT)), _SPAN)
    lanes = builder.lshr(lanes, _constant([0, 4] * (SPAN_PX // 2), _SHORT))
    return builder.and_(lanes, _constant([0xFFF] * SPAN_PX, _SHORT))


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
        total = builder.sext(builder.add(*(builder.load(each) for each in sums)), wide)
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


@intrinsic
def combine(typing_context: Any, table: Any, place: Any, stride: Any, columns: Any, amounts: Any, out: Any) -> Any:
    """``out[k] = sum_j table[place + j * stride + k] * amounts[j]`` for 8 to 16 columns, all float32 and C-contiguous;
    nothing checked. Two vectors that overlap hold all columns in registers.
    """
    signature = types.void(table, types.uint64, types.uint64, types.uint64, amounts, out)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        table_type, _, _, _, amount_type, out_type = signature.args
        table, place, stride, columns, amounts, out = arguments
        real = ir.FloatType()
        eight = ir.VectorType(real, 8)
        count = context.make_array(amount_type)(context, builder, amounts).nitems
        firsts = _LONG(0), builder.sub(columns, _LONG(8))
        sums = [cgutils.alloca_once_value(builder, ir.Constant(eight, None)) for _ in firsts]
        with cgutils.for_range_slice(builder, _LONG(0), count, _LONG(1), inc=True) as (j, _):
            at = _at(context, builder, amount_type, amounts, j, ir.VectorType(real, 1))
            amount = builder.extract_element(_load(builder, at, 4), _INT(0))
            lanes = _every_lane(builder, eight, amount)
            row = builder.add(place, builder.mul(j, stride))
            for first, total in zip(firsts, sums, strict=True):
                at = _at(context, builder, table_type, table, builder.add(row, first), eight)
                product = builder.fmul(_load(builder, at, 4), lanes, flags=["contract"])
                builder.store(builder.fadd(builder.load(total), product, flags=["contract"]), total)
        for first, total in zip(firsts, sums, strict=True):
            at = _at(context, builder, out_type, out, first, eight)
            builder.store(builder.load(total), at).align = 4
        return context.get_dummy_value()

    return signature, generate
