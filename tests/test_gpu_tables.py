"""What is required on a GPU, how a run is held to it, and what it prints and writes."""

import json
import platform
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import report, results
from benchmarks.cases import OURS
from benchmarks.gpu import (
    __main__,
    cases,
    machine,
    measuring,
    peers,
    subprocesses,
    summary,
    wheels,
)
from benchmarks.gpu.budget import Budget
from benchmarks.gpu.cases import COLD, HOST, PLAN, SINGLE, SWEEPS, Bound, Case, Selection, small
from benchmarks.gpu.checks import Outcome
from benchmarks.gpu.measuring import MAKERS, SKIPPED
from benchmarks.gpu.peers import Workload

CPU = torch.device("cpu")
TINY = Case("token_stats", 2, 64)
HEADER: dict[str, Any] = {
    "gpu": "NVIDIA H200",
    "driver": "580.1",
    "torch": "2.11.0+cu130",
    "cuda": "13.0",
    "triton": "3.6.0",
    "nvcc": "13.0",
    "commit": "unknown",
    "dirty": True,
    "date": "2026-12-01",
    "sources": "0123456789ab",
    "seed": 5,
    "copy_bandwidth": {"median": 4.3e12, "p20": 4.29e12, "p80": 4.31e12, "bytes": 1},
}


# What is measured and required


def test_every_requirement_is_measured_and_every_case_can_be() -> None:
    swept = [bound for sweep in SWEEPS for bound in sweep]
    assert {bound.case for bound in (*SINGLE, *swept)} <= set(PLAN)
    names = [str(case) for case in PLAN]
    assert len(set(names)) == len(names)
    assert {case.op for case in PLAN} == set(MAKERS)
    assert [bound.case.rows for bound in SWEEPS[0]] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512]


def test_names_say_how_a_case_is_measured() -> None:
    case = Case("sample_ temperature", 1, 32, how=HOST, backend="native")
    assert str(case) == "sample_-temperature-B1-V32-extended-bfloat16-host-native"
    assert case.label == (
        "sample_ temperature, B = 1, V = 32, bfloat16, host's time of a call, native"
    )
    assert case.served_op == "sample_"


def test_a_quick_run_has_the_bounds_and_the_first_of_a_sweep() -> None:
    quick = Selection.quick()
    assert len(quick.plan) < len(PLAN) / 2
    assert [len(sweep) for sweep in quick.sweeps] == [2] * len(SWEEPS)
    scaled = quick.scaled(small)
    assert max(case.rows * case.vocab_size for case in scaled.plan) == 4 * 640
    assert {bound.case for bound in scaled.single} <= set(scaled.plan)


# The table

PEERS = (
    cases.FLASHINFER,
    cases.FLASHINFER_FILTERED,
    cases.XGRAMMAR,
    cases.LIGER,
    cases.CCE,
    cases.CHAIN,
    cases.COMPILED_CHAIN,
    cases.PRODUCT,
)


def entry(median: float, percent: float = 80.0) -> dict[str, float]:
    times = {"median_us": median, "p20_us": median, "p80_us": median}
    return times | {"percent_of_copy": percent}


def full_records() -> dict[str, Any]:
    """Every case measured: ours in 10 us, peers in 30."""
    reason = "ModuleNotFoundError: " + 40 * "no module "
    records: dict[str, Any] = {}
    for case in PLAN:
        names = (f"{OURS} on triton", *PEERS)
        times = {OURS: entry(10.0)} | {name: entry(30.0) for name in (*names, "torch.compile")}
        refused = {f"{OURS} on backend {case}": reason}
        records[str(case)] = {"rounds": 3, "times": times, "not_measured": refused}
        if case.how == cases.MEMORY:
            records[str(case)] = {"bytes": 2e6}
    return records


@pytest.mark.parametrize(
    ("bound", "word"),
    [
        (Bound(TINY, "us", 10.0), "ok"),
        (Bound(TINY, "us", 9.9), "MISSED"),
        (Bound(TINY, "us", None), "-"),
        (Bound(TINY, "% of a copy", 80.0), "ok"),
        (Bound(TINY, "% of a copy", 80.1), "MISSED"),
        (Bound(TINY, "times faster", 3.0, ("peer", "absent")), "ok"),
        (Bound(TINY, "times faster", 3.1, ("peer",)), "MISSED"),
        (Bound(TINY, "times faster", 3.1, ("absent",)), "not measured"),
        (Bound(replace(TINY, rows=9), "us", 10.0), "not measured"),
        (Bound(TINY, "bytes", 1.0), "not measured"),
    ],
)
def test_a_requirement_is_met_or_missed(bound: Bound, word: str) -> None:
    records = {str(TINY): {"times": {OURS: entry(10.0), "peer": entry(30.0)}}}
    assert summary.verdict(bound, records) == word


def test_the_table_says_everything_in_few_words() -> None:
    outcomes = [
        Outcome("float64", f"native {i}", "ok", "log-softmax 1.0e-06 (eager 1.0e-06), " * 5, 1.0)
        for i in range(8)
    ]
    outcomes += [Outcome("graph replays", str(i), "not run", "no CUDA", 0.0) for i in range(9)]
    text = summary.text(HEADER, outcomes, [], full_records(), Selection.everything())
    assert len(text) < 12_000
    assert "NVIDIA H200: torch 2.11.0+cu130, CUDA 13.0, Triton 3.6.0, nvcc 13.0, sources 01" in text
    assert "a copy moves 4.300 TB/s (4.290 to 4.310)" in text
    assert "CORRECTNESS, seed 5: 8 ok, 0 failed, 9 not run, 8 s" in text
    assert "not run: graph replays (0), graph replays (1), graph replays (2) and 6 more: no" in text
    (line,) = re.findall("^sample_ temperature, B = 1, bf16 .*$", text, re.MULTILINE)
    assert re.split(r" {2,}", line)[1:] == [
        "6", "10.0", "10.0", "10.0", "10.0", "80 %", "MISSED", "(triton 30.0)"
    ]  # fmt: skip
    assert "rule_log_softmax, B = 512, fp32" in text
    assert re.search(r"extra memory +100 MB +2\.0 MB +ok", text)
    assert "beside the PyTorch chain, at least 4 x faster: MISSED at B = 1, 2, 4, 8" in text
    assert "beside FlashInfer sampling_from_logits, at least 2 x faster: ok" in text
    assert re.search(r"CORRECT; of \d+ requirements \d+ met, \d+ MISSED, 0 not measured$", text)


def test_the_table_names_what_is_wrong_and_what_is_missing() -> None:
    outcomes = [Outcome("float64", "triton", "failed", "the error is too large", 1.0)]
    records = {str(PLAN[0]): {"not_measured": {OURS: SKIPPED}}}
    selection = Selection.everything()
    text = summary.text(HEADER, outcomes, ["token_stats: no kernel"], records, selection)
    assert "FAILED float64, triton: the error is too large" in text
    assert "FAILED while measured: token_stats: no kernel" in text
    assert "skipped: time, 1 of 1 cases" in text
    assert "at least 2 x faster: not measured" in text
    assert text.splitlines()[-1].startswith("WRONG; of ")


def test_of_a_sweep_the_readme_has_the_worst() -> None:
    records = full_records()
    name = str(SWEEPS[0][3].case)
    records[name]["times"][cases.FLASHINFER] = entry(15.0)
    found = report.table({"header": HEADER, "records": records})
    assert found.count(cases.FLASHINFER) == 1
    assert "B = 8, V = 128,256, bfloat16, graph, cold L2 | FlashInfer sampling_from_log" in found
    assert "**missed**: 1.5 times faster: 10.0 us (10.0 to 10.0), not 15.0 us" in found
    assert (
        "| at least 87.0 % of a copy's bandwidth | **missed**: 80.0 % of a copy's bandwidth"
        in found
    )
    del records[name]["times"][cases.FLASHINFER]
    assert report.worst(SWEEPS[0], records) == SWEEPS[0][3]


# Files


def session(path: Path) -> __main__.Session:
    selection = Selection((TINY,), (Bound(TINY, "us", 1e9),), ())
    return __main__.Session(CPU, 5, True, selection, Budget(60.0), path)


def test_a_run_writes_what_it_found_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(machine, "SMALL_COPY_BYTES", 4096)
    monkeypatch.setattr(wheels, "FETCHED", tmp_path / "nothing")
    monkeypatch.setattr(subprocesses, "start_sanitizers", lambda device: [])
    workload = Workload(lambda index: None, 1, {}, bytes_a_call=1)
    monkeypatch.setattr(measuring, "MAKERS", {TINY.op: lambda case, device: workload})
    found = session(tmp_path / "none-on-the-cpu.json")
    outcome = Outcome("a", "b", "ok", "seen", 0.5)
    monkeypatch.setattr(__main__, "run_all", lambda checks, budget: [outcome])
    assert __main__.run(found, builds=False) == 0
    (stored,) = results.read(tmp_path)
    assert stored["header"]["seed"] == 5
    assert stored["correctness"] == [
        {"check": "a", "subject": "b", "status": "ok", "detail": "seen", "seconds": 0.5}
    ]
    assert stored["records"].keys() == {str(TINY)}
    about = stored["header"]
    assert about["gpu"] == "none: on the CPU"
    assert about["served_by"].keys() >= {"sample_", "token_stats"}
    assert platform.node() not in json.dumps(stored).split('"')
    printed = capsys.readouterr().out
    assert "CORRECT; of 1 requirements 1 met" in printed
    assert TINY.op in report.grid(stored)

    failed = replace(outcome, status="failed")
    monkeypatch.setattr(__main__, "run_all", lambda checks, budget: [failed])
    assert __main__.run(session(tmp_path / "x.json"), builds=False) == 1


def test_a_results_file_is_named_by_the_gpu() -> None:
    assert machine.file_name(HEADER) == "nvidia-h200.json"
    assert machine.file_name({"gpu": "NVIDIA H100 80GB HBM3"}) == "nvidia-h100-80gb-hbm3.json"


def test_sources_have_a_hash_where_no_commit_is_known(tmp_path: Path) -> None:
    source = tmp_path / "rnr_kernels" / "a.py"
    source.parent.mkdir()
    hashes = []
    for text in ("one", "two", "one"):
        source.write_text(text)
        hashes.append(machine.sources_hash(tmp_path))
    assert hashes[0] == hashes[2] != hashes[1]
    assert report.source(HEADER) == "sources 0123456789ab"
    assert report.source(HEADER | {"commit": "abcdef0123456"}) == "commit abcdef012"


def test_the_page_on_results_names_every_file() -> None:
    text = (results.RESULTS / "README.md").read_text(encoding="utf-8")
    files = {path.name for path in results.RESULTS.glob("*.json")}
    assert set(re.findall(r"`(\S+\.json)`", text)) == files
    gpus = [found for found in results.read() if "gpu" in found["header"]]
    assert ("No GPU has been measured yet." in text) == (not gpus)


# Peers of other packages


def test_wheels_that_are_not_there_and_peers_that_do_not_compile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wheels, "FETCHED", tmp_path)
    assert wheels.install(tmp_path) == (
        f"there are no wheels in {tmp_path.name}; make gpu-peers fetches them"
    )
    assert wheels.missing_peers(None, 1.0) == {}
    fails = subprocesses.start([sys.executable, "-c", "raise SystemExit('no nvcc')"])
    assert wheels.missing_peers(fails, 30.0) == dict.fromkeys(wheels.OF_FLASHINFER, "no nvcc")
    slow = subprocesses.start([sys.executable, "-c", "import time; time.sleep(60)"])
    reasons = wheels.missing_peers(slow, 0.1)
    assert set(reasons.values()) == {"it was still compiling after 0 s more"}


def test_every_wheel_is_pinned() -> None:
    lines = (results.ROOT / "benchmarks" / "gpu" / "peers.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z_-]+==[0-9][0-9a-z.]*", pin) for pin in pins)
    assert {pin.partition("==")[0] for pin in pins} >= {
        "flashinfer-python", "xgrammar", "liger-kernel", "cut-cross-entropy"
    }  # fmt: skip


def test_what_a_peer_needs_is_imported_where_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("flashinfer", "xgrammar", "liger_kernel", "cut_cross_entropy"):
        monkeypatch.setitem(sys.modules, name, None)
    for make in (
        lambda: peers.FlashInfer(CPU),
        lambda: peers.xgrammar_bitmask(CPU),
        peers.liger_cross_entropy,
        peers.cut_cross_entropy,
    ):
        with pytest.raises(ImportError):
            make()


def test_cold_is_how_a_case_is_measured_unless_it_says_otherwise() -> None:
    assert TINY.how == COLD
