"""Tuning a tiny model: what its loss is, what it learns, and what is written."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_llama import EOS, greedy_response, save_llama
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from rnr_kernels.loading import load_model, load_tokenizer
from rnr_kernels.templates import TEMPLATES
from rnr_kernels.tuning.conversations import Conversation, conversations_of
from rnr_kernels.tuning.monitor import Diverged
from rnr_kernels.tuning.run_folder import RunFolder
from rnr_kernels.tuning.settings import Lora, Settings
from rnr_kernels.tuning.train import Tuned, check_whole, training_arguments, tune

TEXTS = [
    ("What?", "We see the sea."),
    ("I think", "What I see"),
    ("We?", "I should go!"),
    ("See the sea", "We"),
]
CONVERSATIONS = conversations_of([{"prompt": a, "response": b} for a, b in TEXTS])
TWO_TURNS = conversations_of(
    [{"conversations": ["What?", "sea", "We?", "go!"]}, {"conversations": ["I", "I should"]}]
)
QUICK = Settings(epochs=3, learning_rate=1e-3, batch_size=4, device_batch_size=4)


@pytest.fixture(scope="module")
def base(tiny_bpe: PreTrainedTokenizerBase, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_llama(tmp_path_factory.mktemp("tiny"), tiny_bpe)


def run(
    base: Path,
    out: Path,
    settings: Settings = QUICK,
    conversations: list[Conversation] = CONVERSATIONS,
    mode: str = "instruction",
    **names: Any,
) -> Tuned:
    return tune(str(base), conversations, out, mode=mode, settings=settings, device="cpu", **names)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def greedy(folder: Path, instruction: str) -> str:
    tokenizer = load_tokenizer(str(folder))
    prompt = TEMPLATES["tags"].encode(tokenizer, instruction)
    response = greedy_response(load_model(str(folder), device="cpu"), None, prompt, 20)
    assert response[-1] == EOS
    return str(tokenizer.decode(response[:-1]))


def test_the_trained_responses_are_learnt(base: Path, tmp_path: Path) -> None:
    settings = Settings(epochs=90, learning_rate=2e-2, batch_size=4, device_batch_size=4)
    tuned = run(base, tmp_path / "out", settings, save_every=1000)
    assert tuned.steps[0].loss == pytest.approx(5.66, abs=0.1)  # log(286) is 5.656
    assert tuned.steps[-1].loss < 0.05
    assert [greedy(tmp_path / "out", asked) for asked, _ in TEXTS] == [said for _, said in TEXTS]


def test_response_tuning_learns_what_comes_after_empty_tags(base: Path, tmp_path: Path) -> None:
    settings = Settings(epochs=60, learning_rate=2e-2, batch_size=2, device_batch_size=2)
    same = conversations_of([{"prompt": asked, "response": "We see."} for asked in ("What?", "I")])
    tuned = run(base, tmp_path / "out", settings, same, mode="response", save_every=1000)
    assert tuned.steps[-1].loss < 0.05
    assert greedy(tmp_path / "out", "") == "We see."
    others = conversations_of([{"prompt": "go!", "response": "We see."}] * 2)
    run(base, tmp_path / "others", settings, others, mode="response", save_every=1000)
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (
        tmp_path / "others" / "model.safetensors"
    ).read_bytes()


def by_hand(base: Path, turns: list[list[tuple[str, str]]]) -> float:
    """Mean cross-entropy of response and EOS tokens, one conversation at a time."""
    model: Any = AutoModelForCausalLM.from_pretrained(base)
    tokenizer = AutoTokenizer.from_pretrained(base)
    total, count = 0.0, 0
    for conversation in turns:
        ids: list[int] = []
        trained: list[int] = []
        for number, (asked, said) in enumerate(conversation):
            before = "\n" if number else ""
            ids += tokenizer.encode(f"{before}<|user|>\n{asked}\n<|assistant|>\n")
            response = [*tokenizer.encode(said), EOS]
            trained += range(len(ids), len(ids) + len(response))
            ids += response
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0]
        for position in trained:
            target = torch.tensor(ids[position])
            total += cross_entropy(logits[position - 1], target).item()
        count += len(trained)
    return total / count


@pytest.mark.parametrize("device_batch_size", [1, 4])
def test_the_first_loss_is_the_mean_over_trained_tokens(
    base: Path, tmp_path: Path, device_batch_size: int
) -> None:
    settings = Settings(epochs=1, batch_size=4, device_batch_size=device_batch_size)
    tuned = run(base, tmp_path / "out", settings)
    assert tuned.steps[0].loss == pytest.approx(by_hand(base, [[t] for t in TEXTS]), abs=1e-5)
    assert (tuned.num_examples, tuned.num_skipped, len(tuned.steps)) == (4, 0, 1)


@pytest.mark.parametrize("device_batch_size", [1, 2])
def test_the_first_loss_of_several_turns(
    base: Path, tmp_path: Path, device_batch_size: int
) -> None:
    settings = Settings(epochs=1, batch_size=2, device_batch_size=device_batch_size)
    tuned = run(base, tmp_path / "out", settings, TWO_TURNS)
    expected = by_hand(base, [[("What?", "sea"), ("We?", "go!")], [("I", "I should")]])
    assert tuned.steps[0].loss == pytest.approx(expected, abs=1e-5)


def test_accumulated_gradients_are_those_of_one_batch(base: Path, tmp_path: Path) -> None:
    one = run(base, tmp_path / "one", QUICK)
    four = run(
        base,
        tmp_path / "four",
        Settings(epochs=3, learning_rate=1e-3, batch_size=4, device_batch_size=1),
    )
    assert [s.loss for s in one.steps] == pytest.approx([s.loss for s in four.steps], abs=1e-5)
    assert [s.gradient_norm for s in one.steps] == pytest.approx(
        [s.gradient_norm for s in four.steps], rel=1e-4
    )
    before, left, right = weights(base), weights(tmp_path / "one"), weights(tmp_path / "four")
    for name in before:
        moved = (left[name] - before[name]).abs().max().item()
        # Adam divides by the gradient's size: rounding counts where a gradient is almost zero.
        assert (left[name] - right[name]).abs().max().item() < 0.05 * moved, name


def test_a_last_step_of_fewer_examples(base: Path, tmp_path: Path) -> None:
    settings = Settings(epochs=2, batch_size=3, device_batch_size=1)
    tuned = run(base, tmp_path / "out", settings)
    assert [step.step for step in tuned.steps] == [1, 2, 3, 4]


def test_the_schedule_is_as_published(base: Path, tmp_path: Path) -> None:
    def rates(schedule: str, warmup: float) -> list[float]:
        settings = Settings(
            epochs=10, learning_rate=1e-3, schedule=schedule, warmup=warmup, batch_size=4,
            device_batch_size=4,
        )  # fmt: skip
        tuned = run(base, tmp_path / f"{schedule}{warmup}", settings, save_every=1000)
        return [round(1e3 * step.learning_rate, 4) for step in tuned.steps]

    assert rates("linear", 0.0) == [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]
    assert rates("cosine", 0.2) == [
        0.0, 0.5, 1.0, 0.9619, 0.8536, 0.6913, 0.5, 0.3087, 0.1464, 0.0381,
    ]  # fmt: skip


def test_what_is_written(base: Path, tmp_path: Path) -> None:
    tuned = run(base, tmp_path / "out", data_name="sea.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {
        "README.md", "config.json", "loss.png", "model.safetensors", "tokenizer.json",
        "training.json",
    }  # fmt: skip
    log = json.loads((tmp_path / "out" / "training.json").read_text())
    assert log["base"] == base.name and log["mode"] == "instruction"
    assert log["settings"]["learning_rate"] == 0.001
    assert log["steps"] == [vars(step) for step in tuned.steps]
    assert (tmp_path / "out" / "loss.png").read_bytes()[:4] == b"\x89PNG"
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.startswith(
        "---\nlibrary_name: transformers\npipeline_tag: text-generation\n"
        f"base_model: {base.name}\ntags: [rnr_kernels]\n---\n\n# out\n"
    )
    assert f"4 records of sea.jsonl (digest `{log['digest']}`)" in card
    assert f"{tuned.num_tokens} tokens in an epoch, {tuned.num_trained} with a loss" in card
    assert "| learning rate | 0.001 |" in card and "| lora | none |" in card
    assert "3 steps of AdamW, gradients clipped to a norm of 1." in card


def test_records_left_out_are_counted(base: Path, tmp_path: Path) -> None:
    long = conversations_of([{"prompt": "What?", "response": "We see the sea. " * 20}])
    with pytest.raises(ValueError, match=r"^record 1: 128 tokens, more than the 96 that an"):
        run(base, tmp_path / "out", conversations=long)
    assert list(tmp_path.iterdir()) == []
    tuned = run(base, tmp_path / "out", conversations=CONVERSATIONS + long, skip_long=True)
    assert (tuned.num_examples, tuned.num_skipped) == (4, 1)
    assert "1 longer records were left out." in (tmp_path / "out" / "README.md").read_text()


def test_the_stored_dtype_of_the_base_is_kept(
    tiny_bpe: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    half = save_llama(tmp_path / "half", tiny_bpe, dtype=torch.float16)
    run(half, tmp_path / "out")
    assert {tensor.dtype for tensor in weights(tmp_path / "out").values()} == {torch.float16}
    assert not torch.equal(
        weights(half)["lm_head.weight"], weights(tmp_path / "out")["lm_head.weight"]
    )


@pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)  # peft
def test_low_rank_matrices_alone_are_trained_and_then_merged(base: Path, tmp_path: Path) -> None:
    from peft import PeftModel

    settings = Settings(epochs=3, learning_rate=1e-2, batch_size=4, lora=Lora(rank=2, alpha=8))
    tuned = run(base, tmp_path / "out", settings)
    assert tuned.steps[2].loss < tuned.steps[0].loss
    before, merged = weights(base), weights(tmp_path / "out")
    adapter = load_file(tmp_path / "out" / "adapter" / "adapter_model.safetensors")
    assert before.keys() == merged.keys()
    adapted = set()
    for name, weight in before.items():
        key = f"base_model.model.{name.removesuffix('.weight')}.lora"
        if f"{key}_A.weight" in adapter:
            delta = adapter[f"{key}_B.weight"] @ adapter[f"{key}_A.weight"] * 8 / 2
            torch.testing.assert_close(merged[name], weight + delta, rtol=0, atol=1e-6)
            adapted.add(name.split(".")[-2])
        else:
            assert torch.equal(merged[name], weight), name
    assert adapted == {
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    }  # fmt: skip
    ids = torch.tensor([[40, 41, 42, 43]])
    wrapped: Any = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base), tmp_path / "out" / "adapter"
    )
    with torch.no_grad():
        expected = wrapped(ids).logits
        found = load_model(str(tmp_path / "out"), device="cpu")(ids).logits
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_a_loss_that_runs_away_leaves_nothing(base: Path, tmp_path: Path) -> None:
    settings = Settings(epochs=40, learning_rate=10.0, batch_size=4, device_batch_size=4)
    with pytest.raises(Diverged, match="try a smaller learning rate; nothing was written"):
        run(base, tmp_path / "out", settings)
    assert list(tmp_path.iterdir()) == []


def test_a_tokenizer_without_eos(
    base: Path, tiny_bpe: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    folder = save_llama(tmp_path / "base", tiny_bpe)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "eos_token": None}))
    with pytest.raises(ValueError, match=r"^the tokenizer has no EOS token"):
        run(folder, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


def test_a_tokenizer_of_another_model(tiny_bpe: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    folder = save_llama(tmp_path / "base", tiny_bpe)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["sea."])
    tokenizer.save_pretrained(folder)
    with pytest.raises(ValueError, match="makes token 286, but the model has 286 tokens only"):
        run(folder, tmp_path / "out")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ({"save_every": 0}, "save_every must be at least 1 step, got 0"),
        ({"mode": "both"}, "mode must be one of instruction, response, task, got 'both'"),
    ],
    ids=str,
)
def test_bad_arguments(base: Path, tmp_path: Path, names: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError) as error:
        run(base, tmp_path / "out", **names)
    assert str(error.value) == words
    assert list(tmp_path.iterdir()) == []


def test_another_gpu_is_chosen_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(ValueError) as error:
        training_arguments(RunFolder(tmp_path / "out"), QUICK, None, "cuda:1")
    assert str(error.value) == (
        "tuning uses the first GPU it sees, got device 'cuda:1': set CUDA_VISIBLE_DEVICES=1 and "
        "leave the device out"
    )


def test_an_output_that_is_taken_is_kept(base: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    with pytest.raises(ValueError, match="out exists: remove it, or name another folder"):
        run(base, tmp_path / "out")
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "mine"]


def test_weights_that_are_not_whole_are_told(base: Path, tmp_path: Path) -> None:
    """What a sharded launcher may leave: the files of a model with a tensor missing."""
    folder = tmp_path / "gathered"
    shutil.copytree(base, folder)
    check_whole(folder)
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.0.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"not whole \(model.layers.0.mlp.up_proj.weight and 0"):
        check_whole(folder)
