"""The pipeline's benchmark measures what it says."""

from pathlib import Path

from benchmarks.pipeline import occupancy, overhead


def test_overhead_is_what_a_build_takes_beside_its_generator(tmp_path: Path) -> None:
    wall, processor = overhead(tmp_path, 10)
    assert wall > 0 and processor > 0
    first, second = (tmp_path / name / "train.jsonl" for name in ("first", "second"))
    assert first.read_bytes() == second.read_bytes() != b""


def test_occupancy_counts_every_request_and_never_more_than_are_in_flight(tmp_path: Path) -> None:
    found = occupancy(tmp_path, 20, 4, 0.01)
    assert found["requests"] == 60
    assert 0 < found["occupancy"] <= 1
    assert found["seconds"] >= 60 * 0.01 / 4
