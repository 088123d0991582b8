"""Watching a run: what is kept of its steps, and when it is stopped."""

import json
from pathlib import Path

import pytest

from rnr_kernels.tuning.monitor import Diverged, Monitor, Step


def feed(monitor: Monitor, losses: list[float], *, norm: float = 1.0) -> None:
    first = len(monitor.steps) + 1
    for step, loss in enumerate(losses, start=first):
        logs = {"loss": loss, "grad_norm": norm, "learning_rate": 1e-3}
        monitor.add(logs, step, 100)


def test_steps_are_kept_and_passed_on() -> None:
    seen: list[tuple[Step, int]] = []
    monitor = Monitor(on_step=lambda step, total: seen.append((step, total)))
    monitor.add({"loss": 2.5, "grad_norm": 0.5, "learning_rate": 1e-5, "epoch": 0.1}, 1, 40)
    monitor.add({"train_runtime": 3.0, "train_loss": 2.5}, 1, 40)
    assert monitor.steps == [Step(1, 2.5, 0.5, 1e-5)]
    assert seen == [(Step(1, 2.5, 0.5, 1e-5), 40)]


@pytest.mark.parametrize(
    ("loss", "norm"), [(float("nan"), 1.0), (float("inf"), 1.0), (2.0, float("nan"))]
)
def test_a_number_that_is_not_finite_stops_at_once(loss: float, norm: float) -> None:
    monitor = Monitor()
    feed(monitor, [3.0])
    with pytest.raises(Diverged) as error:
        feed(monitor, [loss], norm=norm)
    assert str(error.value) == (
        f"training diverged at step 2: the loss is {loss}, the gradient's norm {norm}; try a "
        "smaller learning rate; nothing was written"
    )


def test_float16_may_overflow_but_not_its_loss() -> None:
    monitor = Monitor(may_overflow=True)
    feed(monitor, [3.0, 2.9], norm=float("inf"))
    with pytest.raises(Diverged, match="the loss is nan"):
        feed(monitor, [float("nan")])


def test_a_loss_that_grows_stops() -> None:
    monitor = Monitor()
    feed(monitor, [2.0] * 10 + [3.0] * 9 + [3.0])  # three is half as much again, and no more
    with pytest.raises(Diverged) as error:
        feed(monitor, [3.1])
    assert "diverged at step 21: the loss rose from 2.000 to 3.010" in str(error.value)


def test_a_spike_does_not_stop() -> None:
    monitor = Monitor()
    feed(monitor, [2.0] * 20 + [10.0] + [2.0] * 20)
    assert len(monitor.steps) == 41


def test_noise_of_a_small_loss_does_not_stop() -> None:
    monitor = Monitor()
    feed(monitor, [0.02] * 10 + [0.2] * 20)
    assert len(monitor.steps) == 30


def test_growth_needs_twenty_steps() -> None:
    monitor = Monitor()
    feed(monitor, [1.0] * 9 + [50.0] * 10)
    with pytest.raises(Diverged, match=r"at step 20: the loss rose from 5.900 to 50.000"):
        feed(monitor, [50.0])


def test_the_steps_of_an_interrupted_run(tmp_path: Path) -> None:
    state = {
        "log_history": [
            {"step": 1, "loss": 4.0, "grad_norm": 2.0, "learning_rate": 1e-5},
            {"step": 1, "eval_loss": 3.0},
            {"step": 2, "loss": 3.5, "grad_norm": 1.5, "learning_rate": 2e-5},
        ]
    }
    (tmp_path / "trainer_state.json").write_text(json.dumps(state))
    monitor = Monitor()
    monitor.load(tmp_path / "trainer_state.json")
    assert monitor.steps == [Step(1, 4.0, 2.0, 1e-5), Step(2, 3.5, 1.5, 2e-5)]
    assert monitor.mean_loss() == 3.75
    assert monitor.mean_loss(last=1) == 3.5
