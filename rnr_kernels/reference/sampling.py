"""Sampling with integer weights, and the advance of the state."""

from typing import NamedTuple

import torch
from torch import Tensor

from rnr_kernels.layout import ERROR_SLOT, ERROR_TOKEN, TILE, StateTensors
from rnr_kernels.reference.bitmask import pack_bits, token_mask
from rnr_kernels.reference.reductions import NEG_INF, log_softmax
from rnr_kernels.reference.rules import adjust

FIXED_POINT_BITS = 40
EXPONENT_CLAMP = float(2**30)

# Minimax polynomial of 2^f over [-1/2, 1/2] with constant term 1 (left out here), relative error
# 1.1e-7; highest power first, for Horner's scheme.
EXP2_COEFFICIENTS = tuple(
    float.fromhex(digits)
    for digits in (
        "0x1.5bfc8ep-10",
        "0x1.3cee4cp-7",
        "0x1.c6b62ap-5",
        "0x1.ebf9b2p-3",
        "0x1.62e42cp-1",
    )
)


def philox_4x32(key: tuple[Tensor, Tensor], counter: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Ten rounds of Philox4x32 (Salmon et al. 2011) on int64 tensors that hold 32-bit words."""
    mask = 0xFFFFFFFF
    k0, k1 = key
    c0, c1, c2, c3 = counter
    for _ in range(10):
        p0, p1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        hi0, lo0 = (p0 >> 32) & mask, p0 & mask
        hi1, lo1 = (p1 >> 32) & mask, p1 & mask
        c0, c1, c2, c3 = hi1 ^ c1 ^ k0, lo1, hi0 ^ c3 ^ k1, lo0
        k0, k1 = (k0 + 0x9E3779B9) & mask, (k1 + 0xBB67AE85) & mask
    return c0, c1, c2, c3


def uniform_bits(seed: Tensor, position: Tensor) -> Tensor:
    """int64 [R] in [0, 2^53): the uniform of a seed and position is this times 2^-53."""
    mask = 0xFFFFFFFF
    zero = torch.zeros_like(seed)
    key = (seed & mask, (seed >> 32) & mask)
    word0, word1, _, _ = philox_4x32(key, (position & mask, (position >> 32) & mask, zero, zero))
    return (word1 << 21) | (word0 >> 11)


def multiply_shift_53(bits: Tensor, total: Tensor) -> Tensor:
    """floor(bits * total / 2^53), exactly, for bits < 2^53 and total < 2^62."""
    low = (1 << 27) - 1
    total_high, total_low = total >> 27, total & low
    bits_high, bits_low = bits >> 27, bits & low
    middle = bits_high * total_low + ((bits_low * total_low) >> 27)
    # bits * total = 2^54 bits_high total_high + 2^27 (middle + bits_low total_high) + less;
    # the second bracket is below 2^63.
    middle = middle + bits_low * total_high
    return ((bits_high * total_high) << 1) + (middle >> 26)


def fused_multiply_add(a: Tensor, b: Tensor, c: float) -> Tensor:
    """float32 a * b + c with one rounding, as every target's hardware does it.

    The product is exact in float64; the sum is rounded to odd there, which makes the rounding to
    float32 exact.
    """
    product = a.double() * b.double()
    total = product + c
    error = (product - (total - c)) + (c - (total - (total - c)))
    bits = total.view(torch.int64)
    towards_error = torch.where((error > 0) == (total > 0), 1, -1)
    odd = torch.where((error != 0) & (bits & 1 == 0), bits + towards_error, bits)
    return odd.view(torch.float64).float()


def fixed_point_exp2(exponent: Tensor) -> Tensor:
    """int64: 2^exponent for exponent <= 0 in units of 2^-40, by float32 and integer operations.

    n = floor(exponent + 1/2), f = exponent - n, 2^f by the polynomial in fused multiply-adds; its
    24 bits are shifted by n. Below 2^-40 the weight is 0.
    """
    exponent = exponent.clamp(min=-100.0)
    whole = (exponent + 0.5).floor()
    fraction = exponent - whole
    series = torch.full_like(fraction, EXP2_COEFFICIENTS[0])
    for coefficient in EXP2_COEFFICIENTS[1:]:
        series = fused_multiply_add(series, fraction, coefficient)
    series = fused_multiply_add(series, fraction, 1.0)
    mantissa = (series.double() * 2**24).long()
    shift = whole.long() + (FIXED_POINT_BITS - 24)
    return torch.where(
        shift >= 0, mantissa << shift.clamp(min=0), mantissa >> (-shift).clamp(0, 63)
    )


class Weights(NamedTuple):
    """Integer sampling weights, tile by tile."""

    tile: Tensor
    """int64 [R, tiles, TILE]: weight of each token against its tile's power-of-two ceiling."""
    shift: Tensor
    """int64 [R, tiles]: by how much a tile's weights are shifted down to the row's ceiling."""


def sampling_weights(values: Tensor, scale: Tensor) -> Weights:
    """Weights exp2(x * scale) of adjusted logits `values` [R, V]; -inf weighs nothing."""
    padding = -values.shape[1] % TILE
    tiles = torch.nn.functional.pad(values, (0, padding), value=NEG_INF).unflatten(1, (-1, TILE))
    scaled = (tiles * scale[:, None, None]).clamp(-EXPONENT_CLAMP, EXPONENT_CLAMP)
    allowed = tiles > NEG_INF
    scaled = torch.where(allowed, scaled, NEG_INF)
    ceiling = scaled.amax(-1).ceil()
    occupied = allowed.any(-1)
    exponent = scaled - torch.where(occupied, ceiling, 0.0)[..., None]
    weights = torch.where(allowed, fixed_point_exp2(torch.where(allowed, exponent, 0.0)), 0)
    row_ceiling = ceiling.amax(-1, keepdim=True)
    shift = torch.where(occupied, row_ceiling - ceiling, 63.0).clamp(0, 63).long()
    return Weights(weights, shift)


def keep_top_k(values: Tensor, keep: Tensor, top_k: Tensor) -> Tensor:
    """Keeps x >= the k-th largest; off where top_k <= 0 or >= V."""
    vocab_size = values.shape[1]
    ordered = values.sort(dim=1, descending=True).values
    threshold = ordered.gather(1, (top_k.long() - 1).clamp(0, vocab_size - 1)[:, None])
    off = (top_k <= 0) | (top_k >= vocab_size)
    return keep & (off[:, None] | (values >= threshold))


def keep_top_p(values: Tensor, keep: Tensor, weights: Weights, top_p: Tensor) -> Tensor:
    """Keeps v iff the mass of {u kept : x(u) > x(v)} is below top_p of what is kept; off at >= 1.

    Masses are each token's weight shifted to the row's ceiling, summed as integers; the bound is
    ceil(float64(top_p) * float64(total)).
    """
    aligned = (weights.tile >> weights.shift[..., None]).flatten(1)[:, : values.shape[1]]
    aligned = torch.where(keep, aligned, 0)
    ordered, order = torch.where(keep, values, NEG_INF).sort(dim=1, descending=True, stable=True)
    mass = aligned.gather(1, order)
    before = mass.cumsum(1) - mass
    first = torch.ones_like(keep)
    first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    index = torch.arange(values.shape[1], device=values.device).expand_as(order)
    start_of_ties = torch.where(first, index, 0).cummax(1).values
    above = torch.empty_like(before).scatter_(1, order, before.gather(1, start_of_ties))
    limit = (top_p.double() * mass.sum(1).double()).ceil().long()
    return keep & ((top_p >= 1)[:, None] | (above < limit[:, None]))


def keep_min_p(values: Tensor, keep: Tensor, threshold: Tensor) -> Tensor:
    """Keeps x - max >= threshold = float32(T * log(min_p)); -inf is off."""
    return keep & (values - values.amax(1, keepdim=True) >= threshold[:, None])


def filter_tokens(values: Tensor, weights: Weights, slots: StateTensors, slot: Tensor) -> Tensor:
    """bool [R, V]: what top_k, then top_p, and min_p leave."""
    top_k = slots.slot_params[slot, 2]
    _, _, top_p, min_p_threshold = slots.sampling[slot].unbind(1)
    kept = values > NEG_INF
    if bool((top_k > 0).any()):
        kept = keep_top_k(values, kept, top_k)
    if bool((top_p < 1).any()):
        kept = keep_top_p(values, kept, weights, top_p)
    return keep_min_p(values, kept, min_p_threshold)


def mask_weights(weights: Weights, kept: Tensor) -> Weights:
    """The weights with those of dropped tokens set to zero; ceilings stay."""
    padding = -kept.shape[1] % TILE
    tiles = torch.nn.functional.pad(kept, (0, padding)).view(weights.tile.shape)
    return Weights(weights.tile * tiles, weights.shift)


def draw(weights: Weights, bits: Tensor) -> Tensor:
    """First token in id order whose cumulative weight exceeds floor(u * total), u = bits * 2^-53.

    Tiles count with their shifted sums; inside the chosen tile the running sum is shifted.
    """
    running = weights.tile.cumsum(-1)
    tile_mass = running[..., -1] >> weights.shift
    tile_end = tile_mass.cumsum(-1)
    target = multiply_shift_53(bits, tile_end[:, -1])
    tile = (tile_end <= target[:, None]).sum(1).clamp(max=tile_end.shape[1] - 1)
    rows = torch.arange(len(tile), device=tile.device)
    rest = target - (tile_end[rows, tile] - tile_mass[rows, tile])
    inside = running[rows, tile] >> weights.shift[rows, tile][:, None]
    return tile * TILE + (inside <= rest[:, None]).sum(1)


def sample_(
    logits: Tensor,
    vocab_size: int,
    program: list[Tensor],
    state: list[Tensor],
    error: Tensor,
    state_indices: Tensor | None = None,
    allowed_bitmask: Tensor | None = None,
    row_offsets: Tensor | None = None,
    draft_token_ids: Tensor | None = None,
    return_logprob: bool = False,
    return_adjusted_logprob: bool = False,
    return_rank: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Token ids int64 [R], and where asked for (else [0]): log-probability under the final
    distribution, log-probability under the adjusted one, rank under the adjusted one (int32).

    Greedy at temperature 0 (lowest id on ties; filters ignored, final log-probability 0), else
    top_k, top_p on what it left, min_p, and one uniform. Advances the state, by a slot's first row
    (later ones are padding rows and set an error bit), unless draft rows (`row_offsets` or
    `draft_token_ids`) are given.
    """
    adjusted = adjust(
        logits, vocab_size, program, state, error,
        state_indices, allowed_bitmask, row_offsets, draft_token_ids,
    )  # fmt: skip
    slots, rows, valid = StateTensors(*state), adjusted.rows, adjusted.valid
    commits = row_offsets is None and draft_token_ids is None
    if commits:
        first = first_of_slot(rows.slot, rows.live)
        error |= ERROR_SLOT * (rows.live & ~first).any().to(torch.int32)
        valid = valid & first
    values = torch.where(valid[:, None], adjusted.value, 0.0)
    temperature = slots.sampling[rows.slot, 0]
    greedy = temperature <= 0
    chosen = values.argmax(1)
    kept = values > NEG_INF
    if not bool(greedy.all()):
        weights = sampling_weights(values, torch.where(greedy, 1.0, slots.sampling[rows.slot, 1]))
        kept = filter_tokens(values, weights, slots, rows.slot)
        seed, position = slots.rng[rows.slot].unbind(1)
        if row_offsets is not None:
            position = position + row_offsets.long()
        drawn = draw(mask_weights(weights, kept), uniform_bits(seed, position))
        chosen = torch.where(greedy, chosen, drawn)
    token_ids = torch.where(valid, chosen, -1)

    if commits:
        commit(slots, rows.slot, token_ids[:, None], valid.long(), vocab_size)

    column = token_ids.clamp(min=0)[:, None]
    logprob, adjusted_logprob = values.new_empty(0), values.new_empty(0)
    rank = values.new_empty(0, dtype=torch.int32)
    if return_logprob:
        heat = torch.where(greedy, 1.0, temperature).double()
        kept_values = torch.where(kept, values, NEG_INF).double() / heat[:, None]
        final = log_softmax(kept_values, valid).gather(1, column).squeeze(1)
        logprob = torch.where(greedy & valid, 0.0, final).float()
    if return_adjusted_logprob:
        adjusted_logprob = log_softmax(values, valid).gather(1, column).squeeze(1).float()
    if return_rank:
        above = (values > values.gather(1, column)).sum(1) + 1
        rank = torch.where(valid, above, 0).to(torch.int32)
    return token_ids, logprob, adjusted_logprob, rank


def first_of_slot(slot: Tensor, live: Tensor) -> Tensor:
    """bool [R]: no earlier live row has the same slot."""
    index = torch.arange(len(slot), device=slot.device)
    earlier = (slot[:, None] == slot) & (index[:, None] > index) & live
    return ~earlier.any(1)


def commit(
    slots: StateTensors, slot: Tensor, token_ids: Tensor, counts: Tensor, vocab_size: int
) -> None:
    """Appends the first `counts[r]` of `token_ids` [R, L] to each slot; slots must differ where
    counts are positive."""
    writes = counts > 0
    target = slot[writes]
    keep = torch.arange(token_ids.shape[1], device=slot.device) < counts[writes, None]
    used = token_mask(token_ids[writes], keep, vocab_size)
    slots.used_bitmask[target] |= pack_bits(used, slots.used_bitmask.shape[1])
    slots.slot_params[target, 1] += counts[writes].to(torch.int32)
    slots.rng[target, 1] += counts[writes]


def update_state_(
    vocab_size: int,
    state: list[Tensor],
    error: Tensor,
    token_ids: Tensor,
    counts: Tensor | None = None,
    state_indices: Tensor | None = None,
) -> None:
    """Commits response tokens: the first `counts[r]` (all by default) of `token_ids` [R, L].

    Length and position grow by the count, each id sets its bit; an id outside the vocabulary sets
    nothing but counts (an id >= vocab_size sets the error bit). Of a slot's rows the first writes.
    """
    slots = StateTensors(*state)
    num_slots = len(slots.slot_params)
    num_rows, length = token_ids.shape
    device = token_ids.device
    index = torch.arange(num_rows, device=device) if state_indices is None else state_indices.long()
    live = (index >= 0) & (index < num_slots)
    error |= ERROR_SLOT * (index >= num_slots).any().to(torch.int32)
    given = torch.full_like(index, length) if counts is None else counts.long().clamp(0, length)
    slot = index.clamp(0, num_slots - 1)
    committed = torch.where(live & first_of_slot(slot, live), given, 0)
    counted = torch.arange(length, device=device) < committed[:, None]
    error |= ERROR_TOKEN * (counted & (token_ids >= vocab_size)).any().to(torch.int32)
    commit(slots, slot, token_ids, committed, vocab_size)
