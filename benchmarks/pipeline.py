"""The pipeline of roles and rules beside its generator: python -m benchmarks.pipeline

Two figures. The overhead is what a build takes for an example when replies cost nothing: a
generator that has them by heart. The occupancy is how much of a server's time `--in-flight`
requests fill: a server in a process of its own answers every request after a fixed time, and
counts how many it holds at once.
"""

import argparse
import asyncio
import json
import multiprocessing
import random
import re
import tempfile
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Event
from time import perf_counter, process_time
from typing import Any

from benchmarks.timing import no_collection
from rnr_kernels.endpoint import Endpoint
from rnr_kernels.roles.pipeline.asks import Ask, Reply
from rnr_kernels.roles.pipeline.build import build_dataset
from rnr_kernels.roles.pipeline.endpoint_generator import EndpointGenerator
from rnr_kernels.roles.pipeline.settings import BuildSettings
from rnr_kernels.roles.pipeline.template_generator import TemplateGenerator
from rnr_kernels.roles.pipeline.template_texts import WORDS

NUM_EXAMPLES = 3000
IN_FLIGHT = 32
LATENCY = 0.05
"""Seconds of the server's own."""

MOST_OVERHEAD = 2.0
"""Milliseconds an example that the pipeline is allowed besides its generator."""
LEAST_OCCUPANCY = 0.9
"""Of the server's time, times requests in flight, that has to be filled, both ends included."""

HEAD_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


class _Recorded(TemplateGenerator):
    """Answers from memory what it has been asked before."""

    def __init__(self) -> None:
        super().__init__()
        self._replies: dict[tuple[str, int], Reply] = {}
        self.seconds = 0.0

    def replies(self, asks: list[Ask], stopped: Event) -> list[Reply]:
        started = perf_counter()
        found = []
        for ask in asks:
            key = (ask.example.id, ask.seed)
            if key not in self._replies:
                (self._replies[key],) = super().replies([ask], stopped)
            found.append(self._replies[key])
        self.seconds += perf_counter() - started
        return found


def instructions(path: Path, count: int) -> Path:
    """Instructions of random words, none like another."""
    rng = random.Random(0)
    records = [{"instruction": " ".join(rng.choices(WORDS, k=20))} for _ in range(count)]
    path.write_text(json.dumps(records))
    return path


def overhead(folder: Path, count: int) -> tuple[float, float]:
    """Wall and processor time in milliseconds an example, the generator's own aside."""
    source, generator = instructions(folder / "overhead.json", count), _Recorded()
    build_dataset(source, folder / "first", generator)
    generator.seconds = 0.0
    with no_collection():
        started, used = perf_counter(), process_time()
        build_dataset(source, folder / "second", generator)
        wall, processor = perf_counter() - started, process_time() - used
    return 1000 * (wall - generator.seconds) / count, 1000 * processor / count


def occupancy(folder: Path, count: int, in_flight: int, latency: float) -> dict[str, float]:
    """How full a build keeps a server, from its first request to its last reply."""
    source = instructions(folder / "occupancy.json", count)
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    server = multiprocessing.get_context("spawn").Process(target=_serve, args=(theirs, latency))
    server.start()
    try:
        endpoint = Endpoint("m", base_url=f"http://127.0.0.1:{ours.recv()}/v1", api_key="none")
        generator = EndpointGenerator(endpoint, requests_in_flight=in_flight)
        settings = BuildSettings(
            num_requirements=(1, 1),
            written_share=0,
            kinds=["punctuation:no_comma"],
            plain_share=0,
            out_of_scope_share=0,
        )
        used = process_time()
        build_dataset(source, folder / "endpoint", generator, settings=settings)
        used = process_time() - used
        ours.send("end")
        found: dict[str, float] = ours.recv()
    finally:
        server.terminate()
        server.join()
    seconds = found["last"] - found["first"]
    return {
        "requests": found["requests"],
        "seconds": seconds,
        "occupancy": found["held"] / (seconds * in_flight),
        "processor": 1000 * used / found["requests"],
    }


def _serve(pipe: Connection, latency: float) -> None:
    """Answers chat completions after `latency` seconds, until the other side says so."""
    asyncio.run(_server(pipe, latency))


async def _server(pipe: Connection, latency: float) -> None:
    counts = {"requests": 0.0, "held": 0.0, "first": 0.0, "last": 0.0}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(HEAD_END)
                length = _LENGTH.search(head)
                body = await reader.readexactly(int(length[1]) if length else 0)
                started = perf_counter()
                counts["first"] = counts["first"] or started
                await asyncio.sleep(latency)
                writer.write(_answer(json.loads(body)))
                await writer.drain()
                counts["last"] = perf_counter()
                counts["requests"] += 1
                counts["held"] += counts["last"] - started
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    pipe.send(server.sockets[0].getsockname()[1])
    await asyncio.get_running_loop().run_in_executor(None, pipe.recv)
    pipe.send(counts)


def _answer(request: dict[str, Any]) -> bytes:
    schema = request.get("response_format", {}).get("json_schema", {}).get("schema", {})
    fields = schema.get("properties", {})
    content = "Certainly so."
    if "conflicts" in fields:
        content = '{"conflicts": []}'
    elif fields:
        content = json.dumps(dict.fromkeys(fields, "You are a clerk."))
    body = json.dumps({"choices": [{"message": {"content": content}}]}).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return head.encode() + HEAD_END + body


def main() -> None:
    """Prints both figures, and whether they reach what is required."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=NUM_EXAMPLES)
    parser.add_argument("--in-flight", type=int, default=IN_FLIGHT)
    parser.add_argument("--latency", type=float, default=LATENCY, help="seconds")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wall, processor = overhead(folder, given.examples)
        print(
            f"overhead: {wall:.2f} ms an example ({processor:.2f} ms of processor time), at most "
            f"{MOST_OVERHEAD:g} required, {given.examples} examples"
        )
        found = occupancy(folder, given.examples, given.in_flight, given.latency)
    print(
        f"occupancy: {100 * found['occupancy']:.1f} % of {given.in_flight} requests in flight for "
        f"{found['seconds']:.1f} s, at least {100 * LEAST_OCCUPANCY:g} % required; "
        f"{found['requests']:.0f} requests of {1000 * given.latency:g} ms, "
        f"{found['processor']:.2f} ms of processor time a request"
    )


if __name__ == "__main__":
    main()
