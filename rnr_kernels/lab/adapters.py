"""Rules set by hand beside rules fitted to the instruction data."""

import os
from collections.abc import Sequence

from rnr_kernels.intervals import ratio_interval
from rnr_kernels.lab.measures import TITLES, successes
from rnr_kernels.lab.systems import Bench
from rnr_kernels.lab.tables import Cell, Estimate, Finding, Table
from rnr_kernels.loading import EMBEDDED, load_model, load_tokenizer
from rnr_kernels.models.evaluate import rules_of
from rnr_kernels.models.instructions import instructions, messages
from rnr_kernels.models.world import build_world, held_out_questions
from rnr_kernels.rules.files import load_rules, save_rules
from rnr_kernels.rules.kinds import RuleSet
from rnr_kernels.tuning.conversations import conversations_of
from rnr_kernels.tuning.fit import fit_rules
from rnr_kernels.tuning.likelihood import LogLikelihood, rules_log_likelihood


def adapter_table(bench: Bench) -> Table:
    """Held-out likelihood and success of the base, of rules by hand, and of fitted ones."""
    counts = bench.study.fitted_weights
    systems = {"base": RuleSet(), "rules": rules_of("rules") or RuleSet()}
    systems |= {f"fitted-{count}": _fitted(bench, count) for count in counts}
    asked = held_out_questions(build_world())[: bench.study.prompts]
    held_out = conversations_of(
        [{"messages": messages(text, fact.sentence)} for text, fact in asked]
    )
    found = rules_log_likelihood(
        load_model(EMBEDDED, device="cpu"),
        load_tokenizer(EMBEDDED),
        list(systems.values()),
        held_out,
    )
    likelihoods = dict(zip(systems, found, strict=True))
    rows: dict[str, Sequence[Cell]] = {}
    success: dict[str, Estimate] = {}
    for name, rules in systems.items():
        bench.answers(name, bench.study.seeds[0], rules)
        success[name] = successes(bench, name)
        title = TITLES.get(name, f"{name.removeprefix('fitted-')} fitted weights")
        rows[title] = (_per_token(likelihoods[name]), success[name])
    # Named before anything is seen: as many weights as are set by hand, where there is a choice.
    judged = f"fitted-{counts[len(counts) // 2]}"
    words = {name: f"{likelihoods[name].per_token:.2f}" for name in systems}
    return Table(
        "adapters",
        "Rules by hand, and rules fitted to the instruction data",
        "Log-likelihood of held-out answers in nats a token, and success in percent. Fitted: "
        f"penalised maximum likelihood of {bench.study.fitted_conversations:,} conversations of "
        "all kinds, about facts that are not held out.",
        ("log-likelihood a token", "success"),
        rows,
        (
            Finding(
                "Fitted rules make held-out answers likelier than rules by hand",
                likelihoods[judged].per_token > likelihoods["rules"].per_token,
                f"{words[judged]} with {counts[len(counts) // 2]} weights against "
                f"{words['rules']} nats a token; the base has {words['base']}.",
                "Too few weights or conversations.",
            ),
            Finding(
                "Fitted rules answer as many questions as rules by hand",
                success[judged].value >= success["rules"].value,
                f"{success[judged].value:.1f} against {success['rules'].value:.1f}.",
                "Likelihood sees right contexts alone: it cannot know the loops into which greedy "
                "decoding runs.",
            ),
        ),
    )


def _fitted(bench: Bench, count: int) -> RuleSet:
    """Rules with `count` weights, fitted unless their file is there."""
    file = bench.folder / "rules" / f"fitted-{count}.json"
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        bench.report(f"fitting {count} weights")
        records = instructions(build_world(), bench.study.fitted_conversations)
        fitted = fit_rules(
            load_model(EMBEDDED, device="cpu"),
            load_tokenizer(EMBEDDED),
            conversations_of([{"messages": each} for each in records]),
            num_weights=count,
            least_gain=0.0,  # as many as are asked for
            name=f"fitted-{count}",
        )
        partial = file.with_suffix(".partial.json")
        save_rules(fitted.rules, partial)
        os.replace(partial, file)
    return load_rules(file)


def _per_token(likelihood: LogLikelihood) -> Estimate:
    low, high = ratio_interval(likelihood.responses, likelihood.lengths)
    return Estimate(likelihood.per_token, low, high, digits=2)
