"""Integer and float32 operations of the reference, one for one.

Kernels that use them are compiled without fused multiply-adds (`arguments.OPTIONS`), save for those
written as such.
"""

import math

import triton
import triton.language as tl

from rnr_kernels.reference.sampling import EXP2_COEFFICIENTS

INTERPRETED = tl.constexpr(bool(triton.knobs.runtime.interpret))
LOG2_E = tl.constexpr(math.log2(math.e))

_C5, _C4, _C3, _C2, _C1 = (tl.constexpr(value) for value in EXP2_COEFFICIENTS)


@triton.jit
def exp(x):
    """exp of float32; results below 2^-126 become 0, which saves three of six instructions."""
    if INTERPRETED:
        return tl.exp(x)
    else:
        return tl.inline_asm_elementwise(
            "ex2.approx.ftz.f32 $0, $1;",
            "=f,f",
            [x * LOG2_E],
            dtype=tl.float32,
            is_pure=True,
            pack=1,
        )


@triton.jit
def order_of(x):
    """int32 in the order of float32."""
    bits = x.to(tl.int32, bitcast=True)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@triton.jit
def at_order(order):
    """The float32 of an `order_of`."""
    return (order ^ ((order >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)


@triton.jit
def weight_exponent(x, scale):
    """The exponent of a token's weight, before its tile's ceiling is taken off."""
    scaled = tl.minimum(tl.maximum(x * scale, -1073741824.0), 1073741824.0)
    return tl.where(x > float("-inf"), scaled, float("-inf"))


@triton.jit
def fixed_point_exp2(exponent):
    """int64: floor(2^(exponent + 40)) for exponent <= 0, by the reference's polynomial."""
    exponent = tl.maximum(exponent, -100.0)
    whole = tl.floor(exponent + 0.5)
    fraction = exponent - whole
    series = tl.fma(fraction, _C5, _C4)
    series = tl.fma(series, fraction, _C3)
    series = tl.fma(series, fraction, _C2)
    series = tl.fma(series, fraction, _C1)
    series = tl.fma(series, fraction, 1.0)
    # Scaled by a power of two, which is exact: by adding to the exponent.
    bits = series.to(tl.int32, bitcast=True) + ((whole.to(tl.int32) + 40) << 23)
    return bits.to(tl.float32, bitcast=True).to(tl.int64)


@triton.jit
def token_weights(x, scale, ceiling):
    """int64 weights of adjusted logits against their tile's ceiling, -inf where that is empty."""
    ceiling = tl.where(ceiling == float("-inf"), 0.0, ceiling)
    exponent = weight_exponent(x, scale) - ceiling
    return tl.where(x > float("-inf"), fixed_point_exp2(exponent), 0)


@triton.jit
def tile_shifts(row_ceiling, ceilings):
    """int64: how far tiles' weights are shifted down to the row's ceiling."""
    gap = tl.minimum(tl.maximum(row_ceiling - ceilings, 0.0), 63.0)
    return tl.where(ceilings == float("-inf"), 63.0, gap).to(tl.int64)


@triton.jit
def uniform_bits(seed, position):
    """int64 in [0, 2^53): ten rounds of Philox4x32 (Salmon et al. 2011), the first two words."""
    mask = 0xFFFFFFFF
    k0, k1 = (seed & mask).to(tl.uint64), ((seed >> 32) & mask).to(tl.uint64)
    c0, c1 = (position & mask).to(tl.uint64), ((position >> 32) & mask).to(tl.uint64)
    c2, c3 = c0 * 0, c0 * 0
    for _ in tl.static_range(10):
        p0, p1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & mask, (p0 >> 32) ^ c3 ^ k1, p0 & mask
        k0, k1 = (k0 + 0x9E3779B9) & mask, (k1 + 0xBB67AE85) & mask
    return ((c1 << 21) | (c0 >> 11)).to(tl.int64)


@triton.jit
def multiply_shift_53(bits, total):
    """floor(bits * total / 2^53), exactly, for bits < 2^53 and total < 2^62: see the reference."""
    low = (1 << 27) - 1
    total_high, total_low = total >> 27, total & low
    bits_high, bits_low = bits >> 27, bits & low
    middle = bits_high * total_low + ((bits_low * total_low) >> 27) + bits_low * total_high
    return ((bits_high * total_high) << 1) + (middle >> 26)
