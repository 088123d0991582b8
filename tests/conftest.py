"""Tokenizers that many tests share, and the backends."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cpu_backends import ON_CPU
from real_inputs import real_input
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from rnr_kernels import backends, cli
from rnr_kernels.backends import native

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(params=[backend.name for backend in ON_CPU])
def every_backend(request: pytest.FixtureRequest) -> Iterator[None]:
    """What an op means is the same on each: tests in literal numbers run on all of them."""
    if request.param == "native" and (missing := native.unavailable()):
        pytest.skip(missing)
    with backends.use(request.param):
        yield


@pytest.fixture(scope="session")
def llama2_tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(real_input("llama2_tokenizer"))


@pytest.fixture(scope="session")
def ifeval_prompts() -> list[dict[str, Any]]:
    text = real_input("ifeval_prompts.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def _mistral_data() -> Path:
    mistral_common = pytest.importorskip("mistral_common", reason="needs mistral_common's files")
    return Path(mistral_common.__file__).parent / "data"


@pytest.fixture(scope="session")
def sentencepiece_32k_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("sentencepiece", reason="needs sentencepiece to read tokenizer.model")
    folder = tmp_path_factory.mktemp("sentencepiece_32k")
    shutil.copy(_mistral_data() / "tokenizer.model.v1", folder / "tokenizer.model")
    config = {
        "tokenizer_class": "LlamaTokenizer",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="session")
def sentencepiece_32k(sentencepiece_32k_folder: Path) -> PreTrainedTokenizerBase:
    """A real SentencePiece vocabulary of 32,000 pieces."""
    return AutoTokenizer.from_pretrained(sentencepiece_32k_folder)


@pytest.fixture(scope="session")
def tekken_131k_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tekken_131k")
    shutil.copy(_mistral_data() / "tekken_240911.json", folder / "tekken.json")
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "<pad>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="session")
def tekken_131k(tekken_131k_folder: Path) -> PreTrainedTokenizerBase:
    """A real byte-level vocabulary of 131,072 tokens."""
    return AutoTokenizer.from_pretrained(tekken_131k_folder)


@pytest.fixture(scope="session")
def tiny_bpe() -> PreTrainedTokenizerBase:
    """A byte-level BPE with BOS, EOS and pad: ids 0 to 2, the 256 bytes, then a few words."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<s>", "</s>", "<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    words = ["I think We should say What we see:\n", "We see the sea.\nI should go! What?\n"]
    tokenizer.train_from_iterator(words * 8, trainer)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command line: exit code, stdout and stderr of a call."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setenv("COLUMNS", "160")
        monkeypatch.setattr("sys.argv", ["rnr-kernels", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        printed = capsys.readouterr()
        return int(stopped.value.code or 0), printed.out, printed.err

    return call


@pytest.fixture
def evaluate(run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
        code, out, err = run("roles", "evaluate", *arguments)
        assert "sk-secret" not in out + err
        return code, out, err

    return call
