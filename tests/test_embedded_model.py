"""The embedded model: its size, its tokenizer, its corpus, and its table."""

import io
import itertools
import json
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from rnr_kernels.intervals import bootstrap_interval
from rnr_kernels.loading import EMBEDDED_PROMPTS, embedded_model_path
from rnr_kernels.models.corpus import documents
from rnr_kernels.models.evaluate import (
    CONDITIONS,
    RESULTS,
    TITLES,
    Prompt,
    Response,
    evaluate,
    held_out_prompts,
    load_prompts,
    markdown,
    render,
    respond,
    verdicts_on,
    write_prompts,
)
from rnr_kernels.models.judge import first_sentence, judge, knows
from rnr_kernels.models.make import make_model, token_documents
from rnr_kernels.models.threads import TAGS
from rnr_kernels.models.training import TrainingConfig, pack, row_lengths
from rnr_kernels.models.world import ASKS, World, build_world, question

transformers = pytest.importorskip("transformers", reason="needs transformers")

FORMS = ["<", " <", "|", " I", "I", " We", "What", " should", " *", " -", "   ", " #", " ##"]
FORMS += ["\n", "!"]
Pages = list[tuple[str, str]]
RIVERS = ("Tane", "Lorede", "Isoan")


@pytest.fixture(scope="module")
def world() -> World:
    return build_world()


@pytest.fixture(scope="module")
def pages(world: World) -> Pages:
    return list(itertools.islice(documents(world), 3000))


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return transformers.AutoTokenizer.from_pretrained(embedded_model_path())


@pytest.fixture(scope="module")
def model() -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(embedded_model_path())


def ids_of(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False).input_ids)


def test_an_unknown_model_name_is_refused_with_the_names_that_exist() -> None:
    with pytest.raises(ValueError, match="are base, instruction, response, got 'huge'"):
        embedded_model_path("huge")


def test_the_model_keeps_its_size_limits(model: Any) -> None:
    assert model.num_parameters() <= 3_000_000
    assert sum(p.stat().st_size for p in embedded_model_path().iterdir()) <= 6_000_000
    assert model.config.model_type == "llama"
    assert model.config.max_position_embeddings == 2048
    assert model.config.tie_word_embeddings


def test_the_weights_are_finite_half_precision_numbers() -> None:
    from safetensors.torch import load_file

    tensors = load_file(embedded_model_path() / "model.safetensors")
    assert {str(tensor.dtype) for tensor in tensors.values()} == {"torch.float16"}
    assert all(tensor.isfinite().all() for tensor in tensors.values())


def test_bos_comes_once_and_pad_is_not_eos(tokenizer: Any, model: Any) -> None:
    ids = tokenizer("<|user|>\nWhat is it?\n<|assistant|>\n").input_ids
    assert ids[0] == tokenizer.bos_token_id
    assert ids.count(tokenizer.bos_token_id) == 1
    assert tokenizer.eos_token_id not in ids
    assert len({tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}) == 3
    assert model.config.eos_token_id == tokenizer.eos_token_id
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert tokenizer.model_max_length == 2048
    assert model.config.vocab_size == len(tokenizer)
    assert 2000 <= len(tokenizer) <= 4000


@pytest.mark.parametrize("seed", range(4))
def test_any_text_round_trips(tokenizer: Any, seed: int) -> None:
    rng = random.Random(seed)
    text = "".join(chr(rng.choice((rng.randrange(1, 0x250), 0x4E2D, 0x1F600))) for _ in range(300))
    text += " \U0001f469\u200d\U0001f680  é\u0301\t \r\n   <| ## "
    assert tokenizer.decode(ids_of(tokenizer, text)) == text


def test_all_bytes_are_pieces(tokenizer: Any) -> None:
    from tokenizers.pre_tokenizers import ByteLevel

    alphabet = ByteLevel.alphabet()
    assert len(alphabet) == 256
    assert set(alphabet) <= set(tokenizer.get_vocab())


@pytest.mark.parametrize("form", FORMS)
def test_each_preset_form_is_one_piece(tokenizer: Any, form: str) -> None:
    (token,) = ids_of(tokenizer, form)
    assert tokenizer.decode([token]) == form
    assert token not in tokenizer.all_special_ids


@pytest.mark.parametrize("mark", ["<", "|", ">", "#", "*", "!", "\n"])
def test_marks_stand_alone_between_letters(tokenizer: Any, mark: str) -> None:
    pieces = [tokenizer.decode([token]) for token in ids_of(tokenizer, f"user{mark}user")]
    assert pieces == ["user", mark, "user"]


def test_a_tag_is_split_into_its_marks(tokenizer: Any) -> None:
    pieces = [tokenizer.decode([token]) for token in ids_of(tokenizer, "<|user|>\n\n ##")]
    assert pieces == ["<", "|", "user", "|", ">", "\n", "\n", " ##"]


@pytest.mark.parametrize(
    ("response", "ended", "verdict"),
    [
        ("The river of Harlow is the Tane.", True, "success"),
        ("Well, well, the Tane. The hill is Isoan.", True, "success"),
        (" - It is the Tane\n - The Lorede runs elsewhere.", True, "success"),
        ("The river of Harlow is the Tane.", False, "no end"),
        ("It is the Tane or the Lorede.", True, "other value"),
        ("It is the Lorede.", True, "no value"),
        ("It is the Tanefield.", True, "no value"),
        ("I do not know. It is the Tane.", True, "no value"),
        ("", True, "no value"),
        ("The Tane.\n<|reader|>\n", True, "tag"),
        ("The Tane. What is the hill above Harlow?", True, "question"),
        ("The Tane.\nTell me the hill above Harlow.", True, "question"),
        ("<|reader|>\nWhat is it?", False, "tag"),
    ],
)
def test_a_response_is_judged_by_its_first_sentence_marks_and_end(
    response: str, ended: bool, verdict: str
) -> None:
    assert judge(response, "Tane", RIVERS, ended=ended) == verdict


def test_the_first_sentence_ends_at_a_stop_or_a_line_break() -> None:
    assert first_sentence("  One, two. Three") == "One, two"
    assert first_sentence("One\nTwo.") == "One"
    assert knows(" The Tane.\n\nQ: next", "Tane", RIVERS) == "success"


def test_the_world_has_distinct_names_and_values_among_the_possible_ones(world: World) -> None:
    names = [entity.name for entity in {fact.entity for fact in world.facts}]
    assert len(names) == len(set(names)) == 130
    assert len(world.facts) == 690
    assert all(fact.value in fact.attribute.values for fact in world.facts)
    assert all(len(set(fact.attribute.values)) >= 10 for fact in world.facts)


def test_held_out_facts_are_asked_in_no_page_with_answers(world: World, pages: Pages) -> None:
    assert len(world.held_out) == 200
    assert not set(world.held_out) & set(world.asked)
    questions = {question(fact, ask): fact for fact in world.held_out for ask in ASKS}
    answered = 0
    for kind, text in pages:
        if kind in ("question_answer_page", "thread"):
            asked = [line.removeprefix("Q: ") for line in text.split("\n")]
            assert not questions.keys() & set(asked)
            answered += 1
    assert answered > 1500


def test_held_out_facts_are_stated_elsewhere(world: World, pages: Pages) -> None:
    text = "\n".join(text for _, text in pages)
    missing = [fact.sentence for fact in world.held_out if fact.sentence not in text]
    assert missing == []


def continuation(line: str) -> str:
    if line.startswith("<|"):
        return "tag"
    return "aside" if line.startswith(("I ", "What ")) else "answer"


def test_a_tag_is_the_likeliest_continuation_of_a_threads_question(
    world: World, pages: Pages
) -> None:
    questions = {question(fact, ask) for fact in world.asked for ask in ASKS}
    counts: Counter[str] = Counter()
    for kind, text in pages:
        lines = text.split("\n")
        for i in range(len(lines) - 2):
            if kind == "thread" and lines[i] in questions:
                assert lines[i + 1].startswith("<|")
                counts[continuation(lines[i + 2])] += 1
    shares = {kind: count / counts.total() for kind, count in counts.items()}
    assert shares == pytest.approx({"tag": 0.45, "answer": 0.40, "aside": 0.15}, abs=0.03)


def test_threads_end_mostly_after_answers_and_never_after_tags(pages: Pages) -> None:
    threads = [text for kind, text in pages if kind == "thread"]
    assert not any(text.endswith("|>") or text.endswith("\n") for text in threads)
    asides = sum(text.rsplit("\n", 1)[-1].startswith("I ") for text in threads)
    assert asides / len(threads) < 0.3


def test_threads_start_no_reply_with_we_or_which(pages: Pages) -> None:
    text = "\n".join(text for kind, text in pages if kind == "thread")
    assert "\nWe " not in text
    assert "Which" not in text
    assert "user" in TAGS and "assistant" in TAGS


def test_rows_begin_with_a_document_and_cut_their_last_one() -> None:
    rows = pack([[1, 5, 2], [1, 6, 6, 2], [1, 7, 7, 7, 2]], [5, 4])
    assert [row.tolist() for row in rows] == [[1, 5, 2, 1, 6], [1, 7, 7, 7]]
    with pytest.raises(ValueError, match="documents for 2 rows; got enough for 1"):
        pack([[1, 5, 2]], [3, 3])


def test_documents_are_tokenised_with_bos_and_eos(tokenizer: Any, world: World) -> None:
    ids = next(token_documents(tokenizer, world))
    text = next(documents(world))[1]
    assert ids[0] == tokenizer.bos_token_id and ids[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(ids[1:-1]) == text


def test_making_a_model_depends_on_its_seed_alone(
    tokenizer: Any, world: World, tmp_path: Path
) -> None:
    config = TrainingConfig(
        hidden_size=32,
        intermediate_size=64,
        num_layers=1,
        num_heads=1,
        num_tokens=1024,
        tokens_per_step=128,
        row_length=64,
        context=128,
        warmup_steps=2,
        compiled=False,
    )
    lengths = [length for step in row_lengths(config) for length in step]
    rows = pack(token_documents(tokenizer, world), lengths)
    made = [
        make_model(seed, tmp_path / str(run), config, tokenizer, rows)
        for run, seed in enumerate((0, 0, 1))
    ]
    assert [record["tokens"] for record in made] == [1024] * 3
    weights = [(tmp_path / str(run) / "model.safetensors").read_bytes() for run in range(3)]
    assert weights[0] == weights[1] != weights[2]


def test_the_stored_prompts_are_the_held_out_questions(world: World, tmp_path: Path) -> None:
    assert load_prompts() == held_out_prompts(world)
    write_prompts(tmp_path / "prompts.jsonl")
    assert (tmp_path / "prompts.jsonl").read_bytes() == EMBEDDED_PROMPTS.read_bytes()


def test_the_table_counts_each_condition_by_its_responses(world: World) -> None:
    prompts = held_out_prompts(world)[:4]

    def answers(folder: Path, prompts: Sequence[Prompt], condition: str) -> list[Response]:
        right = [Response(f"It is {prompt.answer}.", True) for prompt in prompts]
        if condition == "probe":
            return [Response(response.text, False) for response in right]
        if condition == "rules":
            return [*right[:-1], Response("<|reader|>", True)]
        return [Response(response.text, False) for response in right]

    rows = evaluate([Path("a"), Path("b")], prompts, respond=answers, report=lambda line: None)
    assert rows["probe"]["percent"] == 100.0
    assert rows["base"]["verdicts"] == {"no end": 8}
    assert rows["rules"]["per_model"] == [75.0, 75.0]
    assert rows["rules"]["verdicts"] == {"success": 6, "tag": 2}
    assert rows["rules"]["successes"] == ["1110", "1110"]


def test_the_stored_table_agrees_with_its_outcomes_and_shows_the_mechanism() -> None:
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    rows = results["rows"]
    assert set(rows) == {*CONDITIONS, "probe"}
    for row in rows.values():
        outcomes = [[mark == "1" for mark in marks] for marks in row["successes"]]
        assert [len(row) for row in outcomes] == [200] * 3
        assert row["per_model"] == [round(sum(row) / 2, 1) for row in outcomes]
        assert row["interval"] == [round(100 * end, 1) for end in bootstrap_interval(outcomes)]
    assert rows["base"]["interval"][1] < 10
    assert rows["rules"]["interval"][0] > 50
    for ablation in ("-eos", "-uniform", "-used"):
        assert rows[ablation]["interval"][1] < rows["rules"]["interval"][0]


def test_the_stored_table_is_rendered_with_a_row_for_each_condition() -> None:
    from rich.console import Console

    console = Console(width=160, file=io.StringIO(), record=True)
    console.print(render(json.loads(RESULTS.read_text(encoding="utf-8"))))
    text = console.export_text()
    assert all(TITLES[condition] in text for condition in (*CONDITIONS, "probe"))


@pytest.mark.parametrize("page", ["README.md", "rnr_kernels/models/base/README.md"])
def test_readme_and_card_have_the_stored_table(page: str) -> None:
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    text = (Path(__file__).parent.parent / page).read_text(encoding="utf-8")
    assert markdown(results) in text


def test_the_rules_make_the_base_model_answer_and_stop() -> None:
    prompts = load_prompts()[:14]
    base = verdicts_on(prompts, respond(embedded_model_path(), prompts, "base"))
    rules = verdicts_on(prompts, respond(embedded_model_path(), prompts, "rules"))
    assert base.count("success") <= 1
    assert rules.count("success") >= 8
