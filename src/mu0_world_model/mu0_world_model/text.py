"""Own the small tokenizer of models that are trained from scratch.

The released model brings its backbone's; no backbone can be fetched for a small one, so its
tokens are learned from the instructions of its own data (byte-level BPE: any text can be read).
"""

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

_PAD = "<pad>"


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Learn a tokenizer of at most vocab_size tokens; 257 of them are bytes and padding."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[_PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sorted(set(texts)), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=_PAD)


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> list[Path]:
    """Write a tokenizer's files into a folder and return them."""
    folder.mkdir(parents=True, exist_ok=True)
    return [Path(path) for path in tokenizer.save_pretrained(folder) if Path(path).is_file()]
