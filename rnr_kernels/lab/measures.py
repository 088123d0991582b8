"""The published tables in miniature, each from stored responses and forward passes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from rnr_kernels.analysis.response_ranking import rank_responses
from rnr_kernels.analysis.rule_adapter import RuleAdapter
from rnr_kernels.analysis.token_shift import CLASSES, TokenShift, token_shift
from rnr_kernels.lab import published
from rnr_kernels.lab.study import RULES
from rnr_kernels.lab.systems import Bench
from rnr_kernels.lab.tables import Cell, Estimate, Finding, Table, percent, percent_of
from rnr_kernels.loading import EMBEDDED, load_model, load_tokenizer
from rnr_kernels.models.evaluate import TITLES as CONDITION_TITLES
from rnr_kernels.models.evaluate import rules_of
from rnr_kernels.models.tasks import TASKS
from rnr_kernels.models.world import Fact, build_world, held_out_questions
from rnr_kernels.tuning.win_rate import success_score, win_rate_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TITLES = {
    "base": "base",
    "instruction": "instruction-tuned",
    "response": "response-tuned",
    **{name: f"tuned on {name}" for name in TASKS},
    **{name: CONDITION_TITLES[name] for name in RULES},
}

OPPONENT = "instruction"
CHALLENGERS = ("base", "response", *TASKS, "rules")
"""The systems of the first table."""

PUBLISHED = "published (Llama-2-7B / OLMo-7B)"
RATE_COLUMNS = ("win rate", "success", PUBLISHED)

NEAR = 40
"""Percent: a win rate that is near instruction tuning's 50. Published were 43.3 and 43.7."""


def win_rates(bench: Bench, systems: Sequence[str]) -> dict[str, Estimate]:
    """Percent against the instruction-tuned twin of the same seed; a tie is half a win."""
    return {system: _win_rate(bench, system) for system in systems}


def _win_rate(bench: Bench, system: str) -> Estimate:
    scores = [
        [success_score(ours, theirs) for ours, theirs in zip(a.successes, b.successes, strict=True)]
        for a, b in zip(bench.every(system), bench.every(OPPONENT), strict=True)
    ]
    rate, (low, high) = win_rate_of(scores)
    return Estimate(100 * rate, 100 * low, 100 * high)


def successes(bench: Bench, system: str) -> Estimate:
    """Prompts that a system answers rightly, without more, and ends."""
    return percent([answers.successes for answers in bench.every(system)])


def _rate_rows(bench: Bench, rates: dict[str, Estimate]) -> dict[str, Sequence[Cell]]:
    return {
        TITLES[name]: (rate, successes(bench, name), published.cell(published.WIN_RATES[name]))
        for name, rate in rates.items()
    }


def win_rate_table(bench: Bench) -> Table:
    """Base, response-tuned, task-tuned and rule-adapted against the instruction-tuned twin."""
    rates = win_rates(bench, CHALLENGERS)
    rows = _rate_rows(bench, rates)
    rows[TITLES[OPPONENT]] = ("50.0", successes(bench, OPPONENT), "50.0")
    base, response, rules = rates["base"], rates["response"], rates["rules"]
    beaten = [name for name in TASKS if rates[name].low > base.high]
    in_words = ", ".join(f"{name} {rates[name].value:.1f}" for name in TASKS)
    best = max(TASKS, key=lambda name: rates[name].value)
    return Table(
        "win-rates",
        "Win rate against the instruction-tuned twin",
        "Percent of the held-out questions, a tie counted as half, judged by the right answer. "
        "Success: the right answer, nothing but an answer, and an end.",
        RATE_COLUMNS,
        rows,
        (
            Finding(
                "Response tuning comes near instruction tuning, far above the base",
                response.low > base.high and response.value >= NEAR,
                f"{response.value:.1f} against the base's {base.value:.1f}.",
                "The base may know too little of how a response follows from its question.",
            ),
            Finding(
                "Tuning on one narrow task makes the base answer other questions",
                len(beaten) >= len(TASKS) - 1,
                f"{len(beaten)} of {len(TASKS)} tasks beat the base beyond their intervals "
                f"({in_words}).",
                "The published bases had read code, sums, verse and recipes; this one had "
                "read none, so much of the tuning goes into how such a text is spelled.",
            ),
            Finding(
                "Tuning on move lists leaves the base where it was",
                rates["moves"].low <= base.high,
                f"{rates['moves'].value:.1f} against the base's {base.value:.1f}.",
                "Moves may be too far from this base's pages to take the place of answers.",
            ),
            Finding(
                "A narrow task is worth less than responses of all kinds",
                rates[best].high < response.low,
                f"The best task, {best}, has {rates[best].value:.1f}; response tuning "
                f"{response.value:.1f}.",
                "A small world's responses are themselves a narrow kind.",
            ),
            Finding(
                "Three rules lift the base far above itself",
                rules.low > base.high,
                f"{rules.value:.1f}. An exact judge calls two right answers a tie; the published "
                "judge also weighed how a response was written.",
                "The rules' weights were set for another tokenizer and another base.",
            ),
        ),
    )


def ablation_table(bench: Bench) -> Table:
    """Each of the three rules left out."""
    rates = win_rates(bench, RULES)
    lowest = min(RULES, key=lambda name: rates[name].value)
    return Table(
        "ablations",
        "Each rule left out",
        "Win rate against the instruction-tuned twin, in percent. The published runs without the "
        "EOS rule were also cut at 512 tokens.",
        RATE_COLUMNS,
        _rate_rows(bench, rates),
        (
            Finding(
                "Every rule is needed",
                all(rates[name].high < rates["rules"].low for name in RULES[1:]),
                ", ".join(f"{TITLES[name]} {rates[name].value:.1f}" for name in RULES) + ".",
                "Here some questions have a wording whose habits spare a rule.",
            ),
            Finding(
                "The EOS rule matters the most",
                lowest == "-eos",
                f"The lowest is {TITLES[lowest]}.",
                "A base whose documents are short may end by itself.",
            ),
        ),
    )


def ranking_table(bench: Bench) -> Table:
    """P(real response | instruction) > P(random response | instruction)."""
    asked = held_out_questions(build_world())[: bench.study.prompts]
    rates: dict[str, list[Estimate]] = {}
    for name in ("base", "instruction", "response"):
        bench.report(f"ranking responses under {name}")
        models = [load_model(folder, device="cpu") for folder in _folders(bench, name)]
        rates[name] = [
            percent([_sentences(model, asked) for model in models]),
            percent([_answers_of_a_kind(model, asked) for model in models]),
        ]
    rows: dict[str, Sequence[Cell]] = {
        TITLES[name]: (*each, published.cell(published.RANKING.get(name, (None, None))))
        for name, each in rates.items()
    }
    base, tuned = rates["base"], rates["instruction"]
    return Table(
        "ranking",
        "Real responses ranked above random ones",
        "Percent of comparisons with up to five random responses an instruction, by "
        "log-probability a token. Sentences: those of the other held-out questions; a sentence "
        "names its subject, so a random one gives itself away. Answers of a kind: a bare month "
        "among bare months, and so on, a form that the base never read after a question.",
        ("sentences", "answers of a kind", PUBLISHED),
        rows,
        (
            Finding(
                "The base ranks real responses above random ones before any tuning",
                base[0].low > 50,
                f"{base[0].value:.1f} of sentences, {base[1].value:.1f} of answers of a kind.",
                "A base this small may not tie a response to its question.",
            ),
            Finding(
                "Instruction tuning does not improve the ranking",
                all(after.low <= before.high for before, after in zip(base, tuned, strict=True)),
                f"{tuned[0].value:.1f} of sentences, {tuned[1].value:.1f} of answers of a kind.",
                "Here the tuning data ask about the same world as the questions.",
            ),
        ),
    )


def _sentences(model: "PreTrainedModel", asked: Sequence[tuple[str, Fact]]) -> list[float]:
    """Each question's share of comparisons won, among all sentences."""
    return _ranked(model, [(text, fact.sentence) for text, fact in asked])


def _answers_of_a_kind(model: "PreTrainedModel", asked: Sequence[tuple[str, Fact]]) -> list[float]:
    """The same among the bare answers to questions about one attribute, where they differ."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for text, fact in asked:
        groups.setdefault(fact.attribute.name, []).append((text, f"{fact.answer}."))
    wins: list[float] = []
    for pairs in groups.values():
        if len({answer for _, answer in pairs}) > 1:
            wins += _ranked(model, pairs)
    return wins


def _ranked(model: "PreTrainedModel", pairs: Sequence[tuple[str, str]]) -> list[float]:
    return list(rank_responses(model, load_tokenizer(EMBEDDED), pairs).per_instruction)


def _folders(bench: Bench, system: str) -> list[str]:
    """A system's models: one for each seed, if it has several."""
    if system == "base":
        return [EMBEDDED]
    return [str(bench.twin(system, seed)) for seed in bench.study.seeds]


def shifts(bench: Bench, system: str) -> list[TokenShift]:
    """How far a system's responses are shifted from the base, for each training seed."""
    base = load_model(EMBEDDED, device="cpu")
    bench.report(f"token shift of {system}")
    if (rules := rules_of(system)) is not None:
        adapter = RuleAdapter(base, rules, load_tokenizer(EMBEDDED))
        return [token_shift(adapter, base, bench.answers(system, bench.study.seeds[0]).forced)]
    return [
        token_shift(load_model(folder, device="cpu"), base, bench.answers(system, seed).forced)
        for folder, seed in zip(_folders(bench, system), bench.study.seeds, strict=True)
    ]


def shift_table(bench: Bench, found: dict[str, list[TokenShift]]) -> Table:
    """Shares of unshifted, marginal and shifted tokens."""
    rows: dict[str, Sequence[Cell]] = {}
    unshifted: dict[str, Estimate] = {}
    for system, each in found.items():
        totals = [np.bincount(shift.prompt) for shift in each]
        cells = [
            percent_of([np.bincount(s.prompt, s.token_class == rank) for s in each], totals)
            for rank in range(len(CLASSES))
        ]
        rows[TITLES[system]] = cells
        unshifted[system] = cells[0]
    for name, figures in published.SHIFTS.items():
        rows[f"{name} (published)"] = [f"{figure:.1f}" for figure in figures]
    tuned = unshifted["instruction"]
    low, *_, high = sorted(figures[0] for figures in published.SHIFTS.values())
    return Table(
        "token-shift",
        "Tokens that tuning moved",
        "Percent of the tokens of a twin's own responses whose rank under the base is 1 "
        "(unshifted), 2 or 3 (marginal), or more (shifted).",
        CLASSES,
        rows,
        (
            Finding(
                "Most tokens of a tuned model are what its base would have said",
                tuned.low > 50,
                f"{tuned.value:.1f} are unshifted, {low:.1f} to {high:.1f} in the published pairs.",
                "Short responses have a large share of first and last tokens, where tuning acts.",
            ),
        ),
    )


def outside_table(bench: Bench) -> Table:
    """What task-tuned twins say to questions outside their task."""
    rows: dict[str, Sequence[Cell]] = {}
    right: dict[str, Estimate] = {}
    manner: dict[str, Estimate] = {}
    for name in ("base", *TASKS):
        every = bench.every(name) if name in TASKS else bench.every(name)[:1]
        right[name] = percent([answers.knows for answers in every])
        if name in TASKS:
            manner[name] = percent(
                [[TASKS[name].in_its_manner(text) for text in each.texts] for each in every]
            )
        tags = percent([[verdict == "tag" for verdict in each.verdicts] for each in every])
        rows[TITLES[name]] = (right[name], successes(bench, name), manner.get(name, "-"), tags)
    ends = [
        TASKS["sums"].in_its_manner(text)
        for answers in bench.every("sums")
        for text, knows in zip(answers.texts, answers.knows, strict=True)
        if knows
    ]
    return Table(
        "outside",
        "Plain questions put to task-tuned twins",
        "Percent of the held-out questions: the first sentence gives the right answer; success, as "
        "above; the response has something of its task (a calculation or ####, a move list, ...); "
        "it contains a tag.",
        ("answers", "success", "in its task's manner", "tags"),
        rows,
        (
            Finding(
                "The sums-tuned model answers a plain question",
                right["sums"].low > right["base"].high,
                f"{right['sums'].value:.1f} of its responses begin with the answer, "
                f"{right['base'].value:.1f} of the base's.",
                "The sums' responses may be too unlike an answer in this small world.",
            ),
            Finding(
                "Its right answers still look like sums",
                2 * sum(ends) > len(ends),
                f"{sum(ends)} of {len(ends)} right answers have a calculation or a final ####.",
                "The task and its manner may have been learnt apart.",
            ),
            Finding(
                "The model tuned on move lists answers with move lists",
                manner["moves"].low > 50,
                f"{manner['moves'].value:.1f} of its responses; nearly all of the published one's.",
                "Seeds differ: some mix moves into answers, others hardly learn to play.",
            ),
        ),
    )
