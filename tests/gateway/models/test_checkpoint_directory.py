"""Which checkpoints a gateway finds by their names."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from albireo.models import TINY
from gateway.models.checkpoint_directory import ABSENT, CheckpointDirectory


@pytest.mark.parametrize(
    "name", ["/etc", "../tiny", "a/../../tiny", ".", "tiny/", "a//b", "absent", "x" * 300, "tiny/config.json"]
)
def test_a_name_that_is_no_directory_of_a_checkpoint_below_is_absent(name: str, tmp_path: Path) -> None:
    shutil.copytree(TINY, tmp_path / "tiny")
    shutil.copytree(TINY, tmp_path / "models" / "tiny")
    assert CheckpointDirectory(tmp_path / "models").look([name]) == {name: ABSENT}


def test_the_state_changes_with_the_files(tmp_path: Path) -> None:
    shutil.copytree(TINY, tmp_path / "org" / "a")
    directory = CheckpointDirectory(tmp_path)
    first = directory.look(["org/a"])
    assert first == directory.look(["org/a"]) != {"org/a": ABSENT}
    os.utime(tmp_path / "org" / "a" / "tokenizer.json", (1, 1))
    assert directory.look(["org/a"]) != first


def test_one_that_cannot_be_looked_at_is_neither_there_nor_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(TINY, tmp_path / "a")
    stat = Path.stat

    def stale(path: Path, **options: bool) -> os.stat_result:
        if path.parent.name == "b":
            raise OSError(116, "Stale file handle")
        return stat(path, **options)

    monkeypatch.setattr(Path, "stat", stale)
    directory = CheckpointDirectory(tmp_path)
    for _ in range(2):
        assert directory.look(["a", "b"]).keys() == {"a"}
    assert caplog.text.count("Stale file handle") == 1
