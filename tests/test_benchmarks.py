"""The benchmarks' own code: that wrong peers are caught, and that tables say what was measured."""

import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks import cases, generation, host_cost, inputs, peers, report, results, workloads
from benchmarks.cases import BOUNDS, CASES, OURS, Bound, Case
from benchmarks.memory import peak_bytes
from benchmarks.timing import Effort, measure, record
from benchmarks.workloads import Peer, Workload
from rnr_kernels import compile_rules, hewitt2024
from rnr_kernels.testing import assert_same_bits

OPS = (*cases.RULE_OPS, *cases.STATS_OPS)


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled peers as they are written: compiling takes seconds, and a compiler."""
    monkeypatch.setattr(peers, "compiled", lambda f: dict.fromkeys(peers.COMPILE_MODES, f))


def small(op: str) -> Workload:
    return workloads.build(Case(op, 2, 256))


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("op", OPS)
def test_every_peer_computes_what_the_op_does(op: str) -> None:
    small(op).check()


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize(
    ("op", "function", "name"),
    [
        ("rule_log_softmax", "dense_log_softmax", "dense mask added, log_softmax"),
        ("apply_rules_", "scatter_add_", cases.BY_INDEX),
        ("sample_ greedy", "argmax", cases.ARGMAX),
        ("sample_ filtered", "warped_probabilities", cases.WARPERS),
        ("token_stats", "token_stats_rearranged", cases.rearranged(cases.EAGER)),
        ("shift_stats", "shift_stats", cases.EAGER),
    ],
)
def test_a_peer_that_is_one_percent_off_fails_its_gate(
    op: str, function: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = getattr(peers, function)

    def wrong(*arguments: Any) -> Any:
        found = right(*arguments)
        if isinstance(found, tuple):
            return (*found[:1], 1.01 * found[1], *found[2:])
        return found + 1 if found.dtype == torch.int64 else 1.01 * found

    monkeypatch.setattr(peers, function, wrong)
    with pytest.raises(AssertionError, match=f"{name} does not compute what we do"):
        small(op).check()


def test_the_matrix_product_is_the_logits_of_the_statistics(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    workload = workloads.build_linear(Case("linear_token_stats", 3, 100))
    workload.check()
    monkeypatch.setattr(peers, "product", lambda hidden, weight, out: out.zero_())
    with pytest.raises(AssertionError, match=cases.PRODUCT):
        workload.check()


@pytest.mark.parametrize("op", ["generate, greedy", "generate, top_p 0.9"])
def test_both_decode_loops_choose_the_same_tokens(op: str) -> None:
    generation.build(Case(op, 2, 64, "model")).check()


def test_a_call_is_traced_to_its_kernel() -> None:
    workload = host_cost.build(Case("host cost of token_stats", 1, 32))
    workload.check()
    alone = workload.peers[cases.KERNEL].run()
    assert_same_bits(alone[3], workload.ours().entropy)


class FakeFixture:
    """What `measure` uses of pytest-benchmark's fixture, with rounds of one second."""

    def pedantic(
        self, target: Callable[[], Any], *, rounds: int, iterations: int, teardown: Any
    ) -> None:
        for _ in range(rounds):
            for _ in range(iterations):
                target()
            teardown()
        self.stats = SimpleNamespace(stats=SimpleNamespace(data=[1.0] * rounds))


def test_peers_run_in_every_round_in_an_order_that_moves_on() -> None:
    seen: list[str] = []
    workload = Workload(
        lambda: seen.append("ours"),
        {
            name: Peer(lambda name=name: seen.append(name), lambda: None)  # type: ignore[misc]
            for name in ("a", "b")
        },
    )
    effort = Effort(min_rounds=4, max_rounds=4, block_s=0.0, case_s=0.0)
    found = measure(FakeFixture(), workload, effort)
    # Before: a trial round, and one call to learn how many fill a block.
    assert seen[-12:] == ["ours", "b", "a", "ours", "a", "b"] * 2
    assert found["rounds"] == 4
    assert list(found["times"]) == [OURS, "a", "b"]


def test_a_wrong_peer_stops_the_measurement() -> None:
    def gate() -> None:
        raise AssertionError("other tokens")

    workload = Workload(lambda: None, {"peer": Peer(lambda: None, gate)})
    with pytest.raises(AssertionError, match="peer does not compute what we do: other tokens"):
        measure(FakeFixture(), workload, Effort(3, 3, 0.0, 0.0))


def test_a_record_holds_medians_spread_and_ratios() -> None:
    times = {OURS: [1e-5, 2e-5, 4e-5], "peer": [4e-5, 4e-5, 4e-5]}
    found = record(times, {OURS: 7, "peer": 1}, steps=2)
    assert found == {
        "rounds": 3,
        "steps_a_call": 2,
        "times": {
            OURS: {"median_us": 10.0, "p20_us": 7.0, "p80_us": 16.0, "calls_a_round": 7},
            "peer": {
                "median_us": 20.0,
                "p20_us": 20.0,
                "p80_us": 20.0,
                "calls_a_round": 1,
                "ratio": 2.0,
                "ratio_by_round": 2.0,
            },
        },
    }


def test_no_two_cases_share_a_name() -> None:
    names = [str(case) for case in CASES]
    assert len(set(names)) == len(names)


def test_every_bound_is_measured() -> None:
    assert {bound.case for bound in BOUNDS} <= set(CASES)


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("op", OPS)
def test_the_peers_of_every_bound_exist(op: str) -> None:
    named = {name for bound in BOUNDS if bound.case.op == op for name in bound.against}
    assert named <= small(op).peers.keys()


CASE = Case("token_stats", 8, 128_256)


@pytest.mark.parametrize(
    ("bound", "cell"),
    [
        (
            Bound(CASE, "times faster", 4.0, ("slow", "fast")),
            "| fast | at least 4.0 times faster "
            "| 5.0 times faster: 20.0 us (19.0 to 22.0), not 100 us (90 to 110) |",
        ),
        (
            Bound(CASE, "times faster", 6.0, ("fast",)),
            "| at least 6.0 times faster | **missed**: 5.0 times faster",
        ),
        (Bound(CASE, "times faster", None, ("fast",)), "| fast | (reported) | 5.0 times faster"),
        (
            Bound(CASE, "times the time", 0.1, ("fast",)),
            "| at most 0.10 times the time | **missed**: 0.20 times the time",
        ),
        (
            Bound(CASE, "ns an element", 0.02),
            "|  | at most 0.02 ns an element | 0.02 ns an element: 20.0 us",
        ),
        (Bound(CASE, "us", 5.0), "| at most 5.0 us | **missed**: 20.0 us |"),
        (
            Bound(CASE, "us more", -80.0, ("slow", "fast")),
            "| fast | at most -80.0 us more | -80.0 us more: 20.0 us (19.0 to 22.0), not 100 us",
        ),
        (Bound(replace(CASE, rows=1), "us", 5.0), "B = 1, V = 128,256 |  | at most 5.0 us | not m"),
        (Bound(replace(CASE, op="memory"), "bytes", 64e6), "| at most 64 MB | 1.5 kB |"),
    ],
)
def test_a_row_of_the_table(bound: Bound, cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def entry(median: float, low: float, high: float) -> dict[str, float]:
        return {"median_us": median, "p20_us": low, "p80_us": high}

    times = {OURS: entry(20, 19, 22), "slow": entry(300, 1, 2), "fast": entry(100, 90, 110)}
    records = {str(CASE): {"times": times}, str(replace(CASE, op="memory")): {"bytes": 1500}}
    monkeypatch.setattr(report, "BOUNDS", (bound,))
    head, rule, row = report.table({"records": records}).splitlines()
    assert head == "| measured | against | required | got |"
    assert rule == "|---|---|---|---|"
    assert cell in row


def test_the_newest_results_have_the_table_and_others_a_line() -> None:
    about = {"instruction_set": "avx2", "threads": 1, "torch": "2.13", "transformers": "5.23"}
    about |= {"commit": "0123456789abc", "dirty": False}
    gpu = about | {"gpu": "NVIDIA H200", "driver": "1", "triton": "3.6", "date": "2026-05-06"}
    gpu["copy_bandwidth"] = {"median": 4.3e12}
    machines = [
        {"header": about | {"processor": name, "date": date}, "records": {}}
        for name, date in (("Old", "2026-01-02"), ("New", "2026-03-04"), ("Older", "2025-12-31"))
    ]
    machines.append({"header": gpu, "records": {}})
    section, _, on_gpu = report.section(machines).rpartition("\n\nNVIDIA H200, driver 1, ")
    assert section.startswith("New, avx2, 1 thread, torch 2.13, ")
    assert section.count("| measured | against |") == 1
    _, _, others = section.rpartition("\n\n")
    assert others.startswith("Measured earlier, on other machines: Old, avx2, 1 thread")
    assert others.endswith("commit 012345678, 2025-12-31.")
    assert on_gpu.startswith("a copy within the device moving 4.30 TB/s, torch 2.13, Triton 3.6, ")
    assert on_gpu.count("| measured | against |") == 1
    assert report.section([]) == f"{report.NOTHING}\n\n{report.NO_GPU}"


def test_the_readme_says_what_the_results_say() -> None:
    text = report.README.read_text(encoding="utf-8")
    assert text == report.replaced(text, report.section(results.read())), (
        "run python -m benchmarks.report --write"
    )


def test_a_readme_without_markers_is_not_written_to() -> None:
    with pytest.raises(ValueError, match=r"must hold the lines <!--"):
        report.replaced("# Title\n", "table")


def header_of(commit: str) -> Callable[[], dict[str, Any]]:
    about = {"processor": "A CPU", "instruction_set": "avx2", "cores": 4}
    return lambda: about | {"commit": commit, "date": "2026-01-02"}


def test_records_of_one_commit_join_and_another_commit_starts_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def written(commit: str, name: str) -> Sequence[str]:
        monkeypatch.setattr(results, "header", header_of(commit))
        path = results.write({name: {"bytes": 1}}, tmp_path)
        assert path.name == "a-cpu-4-cores-avx2.json"
        return list(json.loads(path.read_text())["records"])

    assert written("1", "a") == ["a"]
    assert written("1", "b") == ["a", "b"]
    assert written("2", "c") == ["c"]
    assert [found["records"] for found in results.read(tmp_path)] == [{"c": {"bytes": 1}}]


def test_results_name_no_host() -> None:
    about = results.header()
    assert about["threads"] == torch.get_num_threads()
    assert platform.node() not in json.dumps(about).split('"')


@pytest.mark.parametrize("vocabulary", ["llama2_tokenizer", "tekken_131k"])
def test_rules_by_id_are_the_preset(vocabulary: str, request: pytest.FixtureRequest) -> None:
    tokenizer = request.getfixturevalue(vocabulary)
    expected = compile_rules(hewitt2024(), tokenizer, eos_token_ids=inputs.EOS)
    size = expected.vocab_size
    actual = compile_rules(inputs.rules(size), None, size, eos_token_ids=inputs.EOS)
    for name, table in actual.tensors._asdict().items():
        assert_same_bits(table, getattr(expected.tensors, name), name)


def test_logits_are_extended_along_a_line_in_log_rank() -> None:
    row = 5.0 - 2.0 * torch.arange(1, 9, dtype=torch.float64).log().float()
    longer = inputs.extend(row, 32, seed=3).sort(descending=True).values
    torch.testing.assert_close(longer[:8], row)
    # 5 - 2 ln(32)
    torch.testing.assert_close(longer[31], torch.tensor(-1.9314718))


def test_the_peak_of_tensors_that_are_freed_in_between() -> None:
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        for _ in range(3):
            torch.empty(1000)
        kept = torch.empty(2000)
    assert len(kept) == 2000
    assert peak_bytes(profiler) == 8000
