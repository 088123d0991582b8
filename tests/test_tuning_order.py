"""The order of examples: random steps, in them examples of similar length side by side."""

import random

from rnr_kernels.tuning.order import ShuffledSteps

STEP, DEVICE = 16, 4
LENGTHS = [10 + (37 * n) % 190 for n in range(330)]


def epoch(number: int, *, seed: int = 1, lengths: list[int] = LENGTHS) -> list[int]:
    order = ShuffledSteps(lengths, STEP, seed)
    order.set_epoch(number)
    return list(order)


def padding_share(order: list[int]) -> float:
    """Of all places of the forward passes, those that hold no token."""
    batches = [order[at : at + DEVICE] for at in range(0, len(order), DEVICE)]
    places = sum(max(LENGTHS[n] for n in batch) * len(batch) for batch in batches)
    return 1 - sum(LENGTHS) / places


def test_every_example_comes_once_an_epoch() -> None:
    order = ShuffledSteps(LENGTHS, STEP, 1)
    assert len(order) == 330
    assert sorted(order) == list(range(330))


def test_the_order_follows_from_seed_and_epoch() -> None:
    assert epoch(0) == epoch(0)
    assert epoch(3) == epoch(3)
    assert epoch(0) != epoch(1)
    assert epoch(0) != epoch(0, seed=2)
    assert epoch(1, seed=1) != epoch(0, seed=2)


def test_a_step_has_its_longest_example_first() -> None:
    order = [LENGTHS[n] for n in epoch(0)]
    for at in range(0, 330, STEP):
        assert order[at : at + STEP] == sorted(order[at : at + STEP], reverse=True)


def test_little_padding() -> None:
    shuffled = random.Random(0).sample(range(330), 330)
    assert 0.33 < padding_share(shuffled) < 0.40
    assert padding_share(epoch(0)) < 0.15


def test_what_a_step_has_does_not_depend_on_lengths() -> None:
    same = epoch(2, lengths=[50] * 330)
    found = epoch(2)
    for at in range(0, 330, STEP):
        assert set(found[at : at + STEP]) == set(same[at : at + STEP])


def test_the_rest_of_an_epoch_comes_last() -> None:
    assert sorted(ShuffledSteps([5, 9, 7], 2, 1)) == [0, 1, 2]
    order = list(ShuffledSteps([5, 9, 7], 2, 1))
    first, second = ([5, 9, 7][n] for n in order[:2])
    assert first >= second
    assert list(ShuffledSteps([3, 8], 64, 1)) == [1, 0]
