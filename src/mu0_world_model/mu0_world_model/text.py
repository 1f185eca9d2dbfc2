"""Own the small tokenizer of models that are trained from scratch.

The released model brings its backbone's; no backbone can be fetched for a small one, so its
tokens are learned from the instructions of its own data (byte-level BPE: any text can be read).
"""

import json
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from mu0_core.errors import CheckpointError

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


def extend_tokenizer(
    tokenizer: PreTrainedTokenizerBase, texts: Iterable[str], vocab_size: int
) -> PreTrainedTokenizerFast:
    """Learn tokens for words that a byte-pair tokenizer cuts up; those it has keep their numbers.

    Args:
        tokenizer: What is extended; it stays as it is.
        texts: Where the words are from.
        vocab_size: Number of tokens, at most.

    Raises:
        CheckpointError: The tokenizer is of another kind.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    state = {} if backend is None else json.loads(backend.to_str())
    if backend is None or state["model"]["type"] != "BPE":
        raise CheckpointError(f"tokenizer: only byte pairs can be extended, got {tokenizer!r}")
    model = state["model"]
    seen = {word for t in set(texts) for word, _ in backend.pre_tokenizer.pre_tokenize_str(t)}
    words = [[token.value for token in backend.model.tokenize(word)] for word in sorted(seen)]
    # Added tokens stand apart and would be numbered anew behind a larger vocabulary.
    model["vocab"] |= {token["content"]: token["id"] for token in state["added_tokens"]}
    while len(model["vocab"]) < vocab_size:
        pairs = Counter(pair for word in words for pair in pairwise(word))
        if not pairs:
            break
        first, second = max(pairs, key=lambda pair: (pairs[pair], pair))
        model["merges"].append([first, second])
        model["vocab"].setdefault(first + second, len(model["vocab"]))
        words = [_merged(word, first, second) for word in words]
    extended = Tokenizer.from_str(json.dumps(state))
    return PreTrainedTokenizerFast(tokenizer_object=extended, **tokenizer.special_tokens_map)


def _merged(tokens: list[str], first: str, second: str) -> list[str]:
    """Join every such pair of neighbours."""
    result: list[str] = []
    for token in tokens:
        if token == second and result and result[-1] == first:
            result[-1] = first + second
        else:
            result.append(token)
    return result


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> list[Path]:
    """Write a tokenizer's files into a folder and return them."""
    folder.mkdir(parents=True, exist_ok=True)
    return [Path(path) for path in tokenizer.save_pretrained(folder) if Path(path).is_file()]
