"""Trains the bundled model from scratch and writes it in Hugging Face layout.

    python -m bench.tiny.train albireo/models/tiny

Deterministic for one machine and torch version: fixed seeds, own corpus. Needs `transformers`. Takes about
half an hour on one core.
"""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import torch
import typer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from bench.tiny.corpus import Example, training_examples

SPECIALS = ("<|bos|>", "<|end|>", "<|user|>", "<|assistant|>")
BOS, END, USER, ASSISTANT = range(len(SPECIALS))
VOCABULARY = 384
IGNORED = -100  # label of a position that is not part of an answer
WARMUP_STEPS = 200
REPORT_STEPS = 100

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] not in ('user', 'assistant') %}"
    "{{ raise_exception('roles are user and assistant') }}{% endif %}"
    "<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def train_tokenizer(seed: int) -> Tokenizer:
    """Byte-level BPE with single digits; any text survives it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # Merges come from stories and days alone: words that are spelled backwards stay in letters.
    examples = itertools.islice(training_examples(seed), 20000)
    texts = (e.answer for e in examples if e.task in ("story", "calendar"))
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def encode(tokenizer: Tokenizer, example: Example, *, chat: bool) -> tuple[list[int], list[int]]:
    """Ids and labels of one document: only tokens of the answer have a label."""
    answer = [*tokenizer.encode(example.answer).ids, END]
    if not chat:
        return [BOS, *answer], [IGNORED, *answer]
    question = [BOS, USER, *tokenizer.encode(example.question).ids, END, ASSISTANT]
    return [*question, *answer], [*[IGNORED] * len(question), *answer]


def batches(tokenizer: Tokenizer, seed: int, rows: int, length: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Documents packed end to end into ``[rows, length]``; one in ten is the answer as plain text."""
    ids: list[int] = []
    labels: list[int] = []
    for number, example in enumerate(training_examples(seed)):
        more_ids, more_labels = encode(tokenizer, example, chat=number % 10 != 0)
        ids += more_ids
        labels += more_labels
        if len(ids) >= rows * length:
            shape = (rows, length)
            yield (
                torch.tensor(ids[: rows * length]).view(shape),
                torch.tensor(labels[: rows * length]).view(shape),
            )
            ids, labels = [], []


def write(model: LlamaForCausalLM, tokenizer: Tokenizer, directory: Path) -> None:
    """Writes the checkpoint in bf16, with tokenizer and chat template."""
    model.bfloat16().save_pretrained(directory)
    tokenizer.save(str(directory / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": SPECIALS[BOS],
        "eos_token": SPECIALS[END],
        "clean_up_tokenization_spaces": False,
        "model_max_length": model.config.max_position_embeddings,
        "chat_template": CHAT_TEMPLATE,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def new_model() -> LlamaForCausalLM:
    """Random weights of the bundled model's shape."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=4,
            num_attention_heads=8,
            num_key_value_heads=4,
            max_position_embeddings=1024,
            tie_word_embeddings=True,
            bos_token_id=BOS,
            eos_token_id=END,
        )
    )


def learning_rate(step: int, steps: int) -> float:
    """As a share of the highest: rises linearly to 1, then falls along a cosine to 0.02."""
    if step < WARMUP_STEPS:
        return (step + 1) / WARMUP_STEPS
    progress = (step - WARMUP_STEPS) / max(1, steps - WARMUP_STEPS)
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress))


def train(
    model: LlamaForCausalLM, examples: Iterator[tuple[Tensor, Tensor]], *, steps: int, rate: float
) -> None:
    """One optimizer step for each of ``steps`` batches, as ``batches`` makes them; prints the loss."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate(step, steps))
    began = time.monotonic()
    for step, (ids, labels) in enumerate(itertools.islice(examples, steps), 1):
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        if step % REPORT_STEPS == 0:
            seconds = time.monotonic() - began
            speed = step * ids.numel() / seconds
            line = f"step {step:5d}  loss {loss.item():.4f}  {speed:,.0f} tokens/s  {seconds:.0f} s"
            print(line, flush=True)


def main(
    directory: Annotated[Path, typer.Argument(help="Directory to write.")],
    steps: Annotated[int, typer.Option(help="Optimizer steps.")] = 3000,
    seed: Annotated[int, typer.Option(help="Seed of corpus, tokenizer and weights.")] = 1,
    rows: Annotated[int, typer.Option(help="Sequences a step.")] = 16,
    length: Annotated[int, typer.Option(help="Tokens a sequence.")] = 256,
    rate: Annotated[float, typer.Option(help="Highest learning rate.")] = 3e-3,
    threads: Annotated[int, typer.Option(help="Compute threads.")] = 1,
) -> None:
    """Trains and writes the bundled model."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    tokenizer = train_tokenizer(seed)
    model = new_model()
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters")
    train(model, batches(tokenizer, seed + 1, rows, length), steps=steps, rate=rate)
    write(model, tokenizer, directory)


if __name__ == "__main__":
    typer.run(main)
