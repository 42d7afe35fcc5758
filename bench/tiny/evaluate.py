"""Evaluates the bundled model on tasks with one right answer; sums and differences are held out.

python -m bench.tiny.evaluate albireo/models/tiny
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table
from transformers import AutoModelForCausalLM, AutoTokenizer

from bench.tiny.corpus import CHECKED, Example


class Student:
    """The model with plain transformers: greedy, batched."""

    def __init__(self, directory: Path, dtype: torch.dtype = torch.float32) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(directory, padding_side="left")
        self._tokenizer.pad_token = self._tokenizer.eos_token
        self._model = AutoModelForCausalLM.from_pretrained(directory, dtype=dtype).eval()

    @torch.inference_mode()
    def answers(self, questions: list[str], max_tokens: int = 128) -> list[str]:
        chats = [[{"role": "user", "content": question}] for question in questions]
        inputs: Any = self._tokenizer.apply_chat_template(
            chats,
            add_generation_prompt=True,
            padding=True,
            return_tensors="pt",
            return_dict=True,
        )
        ids = self._model.generate(
            **inputs, max_new_tokens=max_tokens, do_sample=False, pad_token_id=self._tokenizer.eos_token_id
        )
        answers: list[str] = self._tokenizer.batch_decode(
            ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
        )
        return answers


def examples(task: str, count: int, seed: int) -> list[Example]:
    """``count`` examples of one task; of sums and differences, held-out pairs only."""
    draw = random.Random(f"{task} {seed}")
    return [CHECKED[task](draw) for _ in range(count)]


def accuracy(student: Student, chosen: list[Example], batch: int = 100) -> float:
    """Share of answers that are right to the letter."""
    right = 0
    for start in range(0, len(chosen), batch):
        part = chosen[start : start + batch]
        found = student.answers([example.question for example in part])
        right += sum(text == example.answer for text, example in zip(found, part, strict=True))
    return right / len(chosen)


def main(
    directory: Annotated[Path, typer.Argument(help="The checkpoint.")],
    count: Annotated[int, typer.Option(help="Examples of each task.")] = 500,
    seed: Annotated[int, typer.Option(help="Seed of the examples.")] = 100,
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "float32",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Prints the exact-match accuracy of each task."""
    torch.set_num_threads(1)
    student = Student(directory, getattr(torch, dtype))
    found = {task: accuracy(student, examples(task, count, seed)) for task in CHECKED}
    if as_json:
        print(json.dumps({"dtype": dtype, "examples": count, "accuracy": found}))
        return
    table = Table("task", "exact", title=f"{directory}, {dtype}, {count} examples each")
    for task, share in found.items():
        table.add_row(task, f"{share:.1%}")
    Console().print(table)


if __name__ == "__main__":
    typer.run(main)
