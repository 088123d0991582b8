"""The byte-level BPE tokenizer of the embedded model."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

NUM_PIECES = 2560
BOS, EOS, PAD = "<s>", "</s>", "<pad>"

# `<`, `|`, `>`, `*`, `!`, runs of `#` and newlines stand alone, with a leading space at most, so
# that each preset form is one piece whatever stands beside it.
PIECE_PATTERN = r"\n| ?[<|>*!]| ?#+| ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}<|>*!#]+| +(?!\S)|[^\S\n]+"


def train_tokenizer(texts: Iterable[str], context: int) -> "PreTrainedTokenizerFast":
    """A tokenizer trained on `texts`; every byte is a piece, BOS is put in front once."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECE_PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=NUM_PIECES,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A",
        pair=f"{BOS} $A $B",
        special_tokens=[(BOS, tokenizer.token_to_id(BOS))],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        model_max_length=context,
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )
