"""Decoding under five requirements, and masks beside xgrammar's: python -m benchmarks.constraints

The 18 M-parameter Llama of bench_generate with a tokenizer of 32,000 pieces. Responses are sampled
up to equally many tokens with and without the constraint, in turn; given are medians of the time
per token. Every constrained run computes its own masks, and each of its responses is checked. Masks
are timed cold and kept, compile times too, beside xgrammar's for languages that both can express;
before, its masks must be ours. They are but for two things, which are left out: special tokens that
end nothing (xgrammar allows them), and the mask of the first token where decoding drops a first
space (ours allows one, as it is no part of the text).
"""

import argparse
import random
import statistics
from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np
import torch

from benchmarks.generation import make_llama
from benchmarks.timing import no_collection
from rnr_kernels.automata.automaton import Automaton
from rnr_kernels.automata.characters import matching
from rnr_kernels.automata.languages import Language, characters, literal, union
from rnr_kernels.automata.matcher import Matcher, allocate_bitmask
from rnr_kernels.automata.tokens import TokenTree
from rnr_kernels.generation import generate
from rnr_kernels.roles.constraints import constrain
from rnr_kernels.roles.requirement import Requirement
from rnr_kernels.sampling import Sampling

REQUIREMENTS = (
    Requirement("punctuation:no_comma"),
    Requirement("keywords:forbidden_words", forbidden_words=("actually", "very", "really")),
    Requirement("detectable_format:title"),
    Requirement("length_constraints:number_words", relation="less than", num_words=200),
    Requirement("startend:end_checker", end_phrase="I hope this helps."),
)
MOST_RATIO = 1.10
LENGTHS = (64, 128)
BATCHES = (1, 8)
COMMON_TOKENS = 20
"""So many steps are compared with xgrammar."""
PROMPT = "Tell me about the sea"

PEERS: dict[str, tuple[Language, str]] = {
    "one of three answers": (
        union(map(literal, ("My answer is yes.", "My answer is no.", "My answer is maybe."))),
        "My answer is (yes|no|maybe)\\.",
    ),
    "small letters and spaces": (characters(matching("[a-z ]")).repeated(1), "[a-z ]+"),
    "no digits": (characters(~matching("[0-9]")).repeated(1), "[^0-9]+"),
}
"""Our language, and xgrammar's regular expression."""


def microseconds(function: Callable[[], Any], repeats: int) -> float:
    """The median time of a call."""
    times = []
    with no_collection():
        for _ in range(repeats):
            start = perf_counter()
            function()
            times.append(perf_counter() - start)
    return 1e6 * statistics.median(times)


def decoding(
    model: Any, tokenizer: Any, tree: TokenTree, rows: int, length: int, rounds: int
) -> None:
    """Time per token of generate with and without the constraint."""
    automaton = constrain(REQUIREMENTS, tokenizer, tree=tree).automaton
    assert automaton is not None
    seconds: dict[str, list[float]] = {"plain": [], "five requirements": []}

    def run(chosen: Automaton | None, seed: int) -> float:
        automaton.masks.clear()
        start = perf_counter()
        found = list(
            generate(
                model, tokenizer, [PROMPT] * rows, template="plain", automata=chosen,
                sampling=Sampling(temperature=1.0, seed=seed), max_new_tokens=length,
                batch_size=rows,
            )
        )  # fmt: skip
        took = perf_counter() - start
        for completion in found if chosen is not None else ():
            assert all(each.check(completion.text) for each in REQUIREMENTS), completion.text
        return took / max(len(each.token_ids) for each in found)

    for chosen in (automaton, None):  # warms up
        run(chosen, 0)
    with no_collection():
        for seed in range(rounds):
            seconds["plain"].append(run(None, seed))
            seconds["five requirements"].append(run(automaton, seed))
    plain, ours = (statistics.median(each) for each in seconds.values())
    ratio = statistics.median(b / a for a, b in zip(*seconds.values(), strict=True))
    verdict = "reached" if ratio <= MOST_RATIO else "MISSED"
    print(
        f"B = {rows}, {length} tokens: {1e3 * plain:.2f} ms a token plain, {1e3 * ours:.2f} ms "
        f"constrained, ratio {ratio:.3f}; required {MOST_RATIO}: {verdict}"
    )


def masks(tokenizer: Any, tree: TokenTree) -> None:
    """Compile and mask times of our five requirements, and beside xgrammar."""
    start = perf_counter()
    automaton = constrain(REQUIREMENTS, tokenizer, tree=tree).automaton
    assert automaton is not None
    print(f"five requirements: constrain {1e3 * (perf_counter() - start):.1f} ms, "
          f"{automaton.num_states} states")  # fmt: skip
    bitmask = allocate_bitmask(1, tree.vocab_size)
    matcher = Matcher(automaton, 512)
    matcher.fill_next_token_bitmask(bitmask)
    kept = microseconds(lambda: matcher.fill_next_token_bitmask(bitmask), 300)

    def cold() -> None:
        automaton.masks.clear()
        matcher.fill_next_token_bitmask(bitmask)

    print(f"  mask: {microseconds(cold, 100):.1f} us cold, {kept:.1f} us kept")
    try:
        import xgrammar
    except ImportError:
        print("xgrammar is not installed; no peer")
        return
    info = xgrammar.TokenizerInfo.from_huggingface(tokenizer, vocab_size=tree.vocab_size)
    for name in PEERS:
        beside_xgrammar(name, info, tree)


def compared_masks(ours: Matcher, theirs: Any) -> int:
    """How many masks are equal, along random tokens; AssertionError for one that is not."""
    tree = ours.automaton.tree
    bitmask, their_mask = (allocate_bitmask(1, tree.vocab_size) for _ in "ab")
    rng = random.Random(0)
    compared = 0
    for step in range(COMMON_TOKENS):
        ours.fill_next_token_bitmask(bitmask)
        theirs.fill_next_token_bitmask(their_mask)
        their_mask &= tree.every | tree.ends
        if step or not tree.drops_first_space:
            assert torch.equal(bitmask, their_mask), f"masks differ at step {step}"
            compared += 1
        going_on = (bitmask & their_mask & ~tree.ends).numpy().view(np.uint8)
        both = np.flatnonzero(np.unpackbits(going_on, bitorder="little"))
        if not len(both):
            break
        token_id = int(rng.choice(both))
        assert ours.accept_token(token_id) and theirs.accept_token(token_id)
    return compared


def beside_xgrammar(name: str, info: Any, tree: TokenTree) -> None:
    """One language that both can express."""
    import xgrammar

    language, pattern = PEERS[name]
    bitmask, their_mask = (allocate_bitmask(1, tree.vocab_size) for _ in "ab")
    ours = Matcher(Automaton.compile(language, tree))
    compiler = xgrammar.GrammarCompiler(info, max_threads=1, cache_enabled=False)
    theirs = xgrammar.GrammarMatcher(compiler.compile_regex(pattern))
    compared = compared_masks(ours.fork(), theirs)
    theirs.reset()
    compile_times = (
        microseconds(lambda: Automaton.compile(language, tree), 5),
        microseconds(lambda: compiler.compile_regex(pattern), 5),
    )

    def cold_ours(matcher: Matcher = ours) -> None:
        matcher.automaton.masks.clear()
        matcher.fill_next_token_bitmask(bitmask)

    fills = (
        microseconds(cold_ours, 50),
        microseconds(lambda: ours.fill_next_token_bitmask(bitmask), 300),
        microseconds(lambda: theirs.fill_next_token_bitmask(their_mask), 300),
    )
    print(
        f"{name}: compile {compile_times[0] / 1e3:.1f} ms, xgrammar "
        f"{compile_times[1] / 1e3:.1f} ms; mask {fills[0]:.1f} us cold, {fills[1]:.1f} us "
        f"kept, xgrammar {fills[2]:.1f} us; {compared} masks compared, all equal"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tokenizer", help="a folder with a tokenizer of at most 32,000 tokens")
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    from transformers import AutoTokenizer

    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(arguments.tokenizer)
    start = perf_counter()
    tree = TokenTree.of(tokenizer)
    print(f"tree of {tree.vocab_size:,} tokens: {1e3 * (perf_counter() - start):.0f} ms")
    masks(tokenizer, tree)
    model = make_llama(32_000)
    model.generation_config.eos_token_id = list(tree.eos_token_ids)
    for rows in BATCHES:
        for length in LENGTHS:
            decoding(model, tokenizer, tree, rows, length, arguments.rounds)


if __name__ == "__main__":
    main()
