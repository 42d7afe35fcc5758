"""Small tokenizers of the families that served models use, made on the spot."""

from __future__ import annotations

import json

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

CORPUS = [
    "Tell me a story about a fox and 37 bears.",
    "Ein Bär läuft über die Straße, façade, naïve, señor.",
    "日本語のテキスト、中文文本、한국어 텍스트",
    "👩‍👩‍👧‍👦 family 🦊 fox 🐻 bear 🇩🇪 flag",
    "    indented(code)  # twice   spaced\n\ttab\r\n",
]
SPECIAL = [AddedToken(name, special=True, normalized=False) for name in ("<s>", "</s>", "<|user|>")]
PLAIN_ADDED = AddedToken("<tool_call>", special=False, normalized=False)


def byte_level() -> Tokenizer:
    """As GPT-2, Llama 3 and Qwen: every byte is a token, so characters are split anywhere."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.add_tokens([PLAIN_ADDED])
    return tokenizer


def byte_fallback() -> Tokenizer:
    """As Llama 2 and Mistral: metaspace, and bytes for what the vocabulary lacks."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")],
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(content=" ", left=1),
        ]
    )
    byte_tokens: list[str | AddedToken] = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=["<unk>", *byte_tokens], limit_alphabet=60, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    # The trainer can only add its bytes as special tokens; in the checkpoints they are ordinary ones.
    data = json.loads(tokenizer.to_str())
    tokenizer = Tokenizer.from_str(json.dumps({**data, "added_tokens": []}))
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.add_tokens([PLAIN_ADDED])
    return tokenizer


def metaspace() -> Tokenizer:
    """As T5 and Gemma-like checkpoints: a metaspace decoder and no bytes."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<unk>"], show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_special_tokens(SPECIAL)
    return tokenizer


MAKERS = {"byte_level": byte_level, "byte_fallback": byte_fallback, "metaspace": metaspace}


def word_piece() -> Tokenizer:
    """As BERT: parts of words are marked, and its decoder puts spaces between words."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.WordPiece(cleanup=True)
    trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=["[UNK]"], show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_special_tokens(SPECIAL)
    return tokenizer


def no_decoder() -> Tokenizer:
    """As tests of other projects: the library joins tokens with spaces where there is no decoder."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<unk>"], show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_special_tokens(SPECIAL)
    return tokenizer


def id_of(tokenizer: Tokenizer, token: str) -> int:
    """The id of a token that there is."""
    found = tokenizer.token_to_id(token)
    assert found is not None
    return found
