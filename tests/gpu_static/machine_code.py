"""What machine code holds: instructions, and what the cheapest way through a loop takes."""

import heapq
import re
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

triton = pytest.importorskip("triton", reason="Triton, which brings cuobjdump, is not installed")


@cache
def cuobjdump() -> Path:
    """NVIDIA's disassembler, which Triton brings."""
    return Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"


def dump(path: Path, *options: str) -> str:
    command = [cuobjdump(), *options, path]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@dataclass(frozen=True)
class Instruction:
    address: int
    text: str

    def is_any_of(self, *names: str) -> bool:
        """By the name alone or with any suffix: LDG is LDG.E.128 too."""
        return self.name in names or self.name.startswith(tuple(f"{name}." for name in names))

    @property
    def name(self) -> str:
        return re.sub(r"^@\S+ ", "", self.text).split()[0]

    @property
    def target(self) -> int | None:
        """Where it may jump to."""
        found = re.search(r"\bBRA\b.*?0x([0-9a-f]+)", self.text)
        return int(found[1], 16) if found else None

    @property
    def may_go_on(self) -> bool:
        """Whether the next instruction may follow."""
        is_end = self.is_any_of("BRA", "EXIT", "RET")
        has_condition = self.text.startswith("@") or re.search(r"BRA\S* !?U?P\d", self.text)
        return not is_end or bool(has_condition)


@dataclass(frozen=True)
class Kernel:
    """One function of a cubin."""

    name: str
    registers: int
    instructions: tuple[Instruction, ...]

    def count(self, *names: str) -> int:
        return sum(one.is_any_of(*names) for one in self.instructions)

    @property
    def spills(self) -> int:
        """Instructions that read or write local memory."""
        return self.count("LDL", "STL")

    def loop(self, name: str) -> list[Instruction]:
        """The cheapest way around a loop through the stretch with the most instructions `name`."""
        blocks, followers = self._blocks()
        core = max(range(len(blocks)), key=lambda b: sum(i.is_any_of(name) for i in blocks[b]))
        came_from: dict[int, int] = {}
        cost = {core: len(blocks[core])}
        queue = [(cost[core], core)]
        while queue:
            so_far, block = heapq.heappop(queue)
            for follower in followers[block]:
                if follower == core:
                    way = [block]
                    while way[-1] != core:
                        way.append(came_from[way[-1]])
                    return [one for b in reversed(way) for one in blocks[b]]
                found = so_far + len(blocks[follower])
                if found < cost.get(follower, found + 1):
                    cost[follower], came_from[follower] = found, block
                    heapq.heappush(queue, (found, follower))
        raise AssertionError(f"{self.name} has no loop with {name}")

    def _blocks(self) -> tuple[list[list[Instruction]], list[list[int]]]:
        """Stretches without jumps, and which may follow each."""
        targets = {one.target for one in self.instructions}
        blocks: list[list[Instruction]] = [[]]
        for one in self.instructions:
            if one.address in targets and blocks[-1]:
                blocks.append([])
            blocks[-1].append(one)
            if one.is_any_of("BRA", "EXIT", "RET", "CALL"):
                blocks.append([])
        blocks = [block for block in blocks if block]
        starts = {block[0].address: b for b, block in enumerate(blocks)}
        followers = []
        for b, block in enumerate(blocks):
            last = block[-1]
            after = [starts[last.target]] if last.target in starts else []
            if last.may_go_on and b + 1 < len(blocks):
                after.append(b + 1)
            followers.append(after)
        return blocks, followers


def kernels_of(path: Path, target: str) -> list[Kernel]:
    """Those that an object file holds for a target, such as sm_80."""
    usage = dict(
        re.findall(r"Function (\S+):\s+REG:(\d+)", dump(path, "-arch", target, "-res-usage"))
    )
    found = []
    for part in dump(path, "-arch", target, "-sass").split("Function : ")[1:]:
        name = part.split()[0]
        lines = re.findall(r"/\*([0-9a-f]{4,6})\*/\s+([^;]+?)\s*;", part)
        instructions = tuple(Instruction(int(address, 16), text) for address, text in lines)
        found.append(Kernel(name, int(usage[name]), instructions))
    return found
