"""All models that a gateway serves: its own (``--model``), and those that it finds (``--models``).

The services ask it for the model of each call. On the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import grpc
from redis.exceptions import RedisError

from albireo.checkpoint.files import CONFIG, CheckpointError
from gateway.calls.refusal import Refusal, cut, invalid, unavailable
from gateway.liveness.periodic import Periodic
from gateway.models.backend import Backend, Shared
from gateway.models.cell import Cell
from gateway.models.checkpoint import Checkpoint
from gateway.models.model import Model

logger = logging.getLogger(__name__)

FIND_SECONDS = 1.0
RETRY_SECONDS = 60.0
"""Before a checkpoint that could not be loaded is tried again."""
MAX_MODELS = 64
"""Most models that are found: each holds a tokenizer and reads logs."""
MAX_NAMES = 16
"""Most names in one message."""


class Models:
    """By name. A model is found where a cell has a scheduler of it and ``--models`` its checkpoint."""

    def __init__(
        self, shared: Shared, cells: Sequence[Cell], on_alive: Callable[[str, bool | None], None]
    ) -> None:
        """``on_alive`` is called with a model's name, and whether it serves; None: it is not there any more.

        Raises CheckpointError for a ``--model`` that lacks something.
        """
        self._shared = shared
        self._cells = cells
        self._on_alive = on_alive
        self._models: dict[str, Model] = {}
        self._unusable: dict[str, float] = {}  # names of checkpoints, and when to try again, by the clock
        self._periodic = Periodic("models", FIND_SECONDS, self._find)
        self._tasks: set[asyncio.Task[None]] = set()
        self._failed = asyncio.Event()
        self._warned = ""
        settings = shared.settings
        self.own = settings.model_name if settings.model is not None else ""
        """The name of the model of ``--model``; empty without one."""
        if settings.model is not None:
            self._create(self.own, self._load(settings.model))

    @property
    def names(self) -> list[str]:
        """Of all, sorted."""
        return sorted(self._models)

    @property
    def alive(self) -> dict[str, bool]:
        """Whether each serves."""
        return {name: model.alive for name, model in self._models.items()}

    @property
    def others(self) -> list[str]:
        """Names of models that have a scheduler in a cell, and are not served here; at most MAX_NAMES."""
        return sorted(self._found() - self._models.keys())[:MAX_NAMES]

    @property
    def streams(self) -> dict[str, int]:
        """How many streams each has open."""
        return {
            name: sum(len(backend.router) for backend in model.backends)
            for name, model in self._models.copy().items()
        }

    def find(self, name: str) -> Model | None:
        """The model of a call. Empty: the one of ``--model``, or else the only one."""
        if not name and not self.own and len(self._models) == 1:
            return next(iter(self._models.values()))
        return self._models.get(name or self.own)

    def get(self, name: str) -> Model:
        """As ``find``. Raises Refusal, with the names of those that are served, where there is none."""
        if (found := self.find(name)) is not None:
            return found
        names = self.names
        if not name and names:
            raise invalid("model", f"name one of {_quoted(names)}")
        if not name:
            raise unavailable("no model is served yet")
        served = f"{_quoted(names)} {'are' if len(names) > 1 else 'is'}" if names else "no model is"
        others = f"; in the cells there is also {_quoted(self.others)}" if self.others else ""
        raise Refusal(grpc.StatusCode.NOT_FOUND, f"model: {cut(name)!r} is not served here, {served}{others}")

    def backends(self, name: str) -> list[Backend]:
        """Of one model; with an empty name of all. Raises Refusal."""
        models = [self.get(name)] if name else list(self._models.values())
        return [backend for model in models for backend in model.backends]

    def missing(self, model: Model, problem: str) -> Refusal:
        """UNAVAILABLE because a scheduler or groups are missing; with other names where this may be wrong."""
        hint = "" if model.name in self._found() else self._hint()
        return unavailable(f"{problem}{hint}")

    async def start(self) -> None:
        """Raises RedisError where no cell answers."""
        for model in self._models.values():
            await model.start()
            self._run(model)
        await self._find()

    async def run(self) -> None:
        """Finds models until stopped. Raises the error by which a task of a model has ended."""
        finding = asyncio.create_task(self._periodic.run())
        failed = asyncio.create_task(self._failed.wait())
        try:
            await asyncio.wait((finding, failed), return_when=asyncio.FIRST_COMPLETED)
            for task in (finding, *self._tasks):
                if task.done():
                    task.result()
        finally:
            failed.cancel()

    def fail_streams(self) -> None:
        """Ends the open streams, and those that are accepted later, with a retryable error."""
        self._periodic.stop()
        for model in self._models.values():
            model.fail_streams()

    async def stop(self) -> None:
        """After ``fail_streams``."""
        self._periodic.stop()
        await asyncio.gather(*(model.stop() for model in self._models.values()))

    async def _find(self) -> None:
        """Adds models that have come, and removes those that are gone: without checkpoint and scheduler."""
        found, directory = self._found(), self._shared.settings.models
        self._warn(found)
        if directory is None:
            return
        for name in sorted(found - self._models.keys()):
            path = checkpoint_of(directory, name)
            if path is not None and len(self._models) < MAX_MODELS and self._may_try(name):
                await self._add(name, path)
        for name in [*self._models]:
            if name not in found and name != self.own and checkpoint_of(directory, name) is None:
                await self._remove(name)

    async def _add(self, name: str, path: Path) -> None:
        try:
            checkpoint = await asyncio.to_thread(self._load, path)
        except (CheckpointError, OSError) as error:
            logger.error("model %s is not served: %s", name, error)
            self._unusable[name] = self._shared.clock.now() + RETRY_SECONDS
            return
        if self._periodic.stopping:
            return
        logger.info("model %s: found", name)
        model = self._create(name, checkpoint)
        self._on_alive(name, False)
        with contextlib.suppress(RedisError):  # it begins when a cell answers
            await model.start()
        self._run(model)

    async def _remove(self, name: str) -> None:
        model = self._models.pop(name)
        logger.info("model %s: gone", name)
        self._on_alive(name, None)
        model.fail_streams()
        await model.stop()

    def _create(self, name: str, checkpoint: Checkpoint) -> Model:
        model = Model(self._shared, self._cells, name, checkpoint, self._on_alive)
        self._models[name] = model
        return model

    def _run(self, model: Model) -> None:
        for task in model.run():
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or task.exception() is None:  # of a model that was stopped
            self._tasks.discard(task)
        else:
            self._failed.set()

    def _load(self, path: Path) -> Checkpoint:
        return Checkpoint.load(path, defaults=self._shared.settings.generation_config == "auto")

    def _may_try(self, name: str) -> bool:
        return self._shared.clock.now() >= self._unusable.get(name, 0.0)

    def _found(self) -> set[str]:
        """Names that have a scheduler in any cell."""
        return {name for cell in self._cells for name in cell.models}

    def _warn(self, found: set[str]) -> None:
        """Logs once that the own model has no scheduler while others have: its name may be wrong."""
        hint = self._hint() if self.own and self.own not in found else ""
        if hint and hint != self._warned:
            logger.warning("%r has no scheduler%s", self.own, hint)
        self._warned = hint

    def _hint(self) -> str:
        others = self.others
        return (
            f"; in the same Redis there is {_quoted(others)}: is the gateway's --model-name right?"
            if others
            else ""
        )


def checkpoint_of(directory: Path, name: str) -> Path | None:
    """The checkpoint of a model, ``<directory>/<name>``; None where there is none."""
    if any(part in ("", ".", "..") for part in name.split("/")):  # not below the directory
        return None
    path = directory / name
    return path if (path / CONFIG).is_file() else None


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:MAX_NAMES]))
