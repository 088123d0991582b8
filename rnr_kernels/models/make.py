"""Makes the embedded model: `python -m rnr_kernels.models.make --seed 0 --out DIR`."""

import argparse
import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from rnr_kernels.models.corpus import CORPUS_SEED, documents
from rnr_kernels.models.tokenizer import train_tokenizer
from rnr_kernels.models.training import TrainingConfig, new_model, pack, row_lengths, train
from rnr_kernels.models.world import WORLD_SEED, World, build_world

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_TOKENIZER_DOCUMENTS = 20_000
_BATCH = 1000


def token_documents(
    tokenizer: "PreTrainedTokenizerFast", world: World, seed: int = CORPUS_SEED
) -> Iterator[list[int]]:
    """The corpus as token ids; each document has BOS in front and EOS at its end."""
    texts = (text for _, text in documents(world, seed))
    eos = int(tokenizer.eos_token_id)
    backend = tokenizer.backend_tokenizer
    while True:
        for encoding in backend.encode_batch_fast(list(itertools.islice(texts, _BATCH))):
            yield [*encoding.ids, eos]


def build_tokenizer(world: World, config: TrainingConfig) -> "PreTrainedTokenizerFast":
    """The tokenizer, trained on the first documents of the corpus."""
    sample = itertools.islice(documents(world), _TOKENIZER_DOCUMENTS)
    return train_tokenizer((text for _, text in sample), config.context)


def make_model(
    seed: int,
    out: Path,
    config: TrainingConfig,
    tokenizer: "PreTrainedTokenizerFast",
    rows: list[torch.Tensor],
) -> dict[str, Any]:
    """Trains one seed, writes model and tokenizer to `out`, and returns what the card reports."""
    torch.manual_seed(seed)
    ids = {
        f"{kind}_token_id": getattr(tokenizer, f"{kind}_token_id") for kind in ("bos", "eos", "pad")
    }
    model = new_model(config, len(tokenizer), ids)
    start = time.perf_counter()
    loss = train(model, rows, config, seed=seed)
    seconds = time.perf_counter() - start
    model.to(torch.float16)  # type: ignore[arg-type]
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    return {
        "seed": seed,
        "world_seed": WORLD_SEED,
        "corpus_seed": CORPUS_SEED,
        "parameters": model.num_parameters(),
        "pieces": len(tokenizer),
        "tokens": config.num_steps * config.tokens_per_step,
        "last_loss": round(loss, 4),
        "seconds": round(seconds),
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="initial weights and order of rows")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--tokens", type=int, default=TrainingConfig.num_tokens)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-compile", action="store_true", help="do without torch.compile")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    config = TrainingConfig(num_tokens=arguments.tokens, compiled=not arguments.no_compile)
    world = build_world()
    tokenizer = build_tokenizer(world, config)
    rows = pack(token_documents(tokenizer, world), list(itertools.chain(*row_lengths(config))))
    print(json.dumps(make_model(arguments.seed, arguments.out, config, tokenizer, rows)))


if __name__ == "__main__":
    main()
