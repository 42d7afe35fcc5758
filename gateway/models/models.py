"""All models that a gateway serves: its own (``--model``), and those that it finds (``--models``).

The services ask it for the model of each call. On the event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import grpc

from albireo.checkpoint.files import CheckpointError
from gateway.calls.refusal import Refusal, cut, invalid, unavailable
from gateway.liveness.periodic import Periodic
from gateway.models.backend import Shared
from gateway.models.cell import Cell
from gateway.models.checkpoint import Checkpoint
from gateway.models.checkpoint_directory import ABSENT, CheckpointDirectory
from gateway.models.model import Model
from gateway.streams.failures import GONE, Failure

logger = logging.getLogger(__name__)

FIND_SECONDS = 1.0
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
        self._unusable: dict[str, str] = {}  # states of checkpoints that are not served, by name
        self._periodic = Periodic("models", FIND_SECONDS, self._find)
        self._warned = ""
        settings = shared.settings
        self._directory = CheckpointDirectory(settings.models) if settings.models is not None else None
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

    def missing(self, model: Model, problem: str) -> Refusal:
        """UNAVAILABLE because a scheduler or groups are missing; with other names where this may be wrong."""
        hint = "" if model.name in self._found() else self._hint()
        return unavailable(f"{problem}{hint}")

    async def start(self) -> None:
        """Begins with the own model. Raises RedisError where no cell answers."""
        for model in self._models.values():
            await model.start()
            model.run()

    async def run(self) -> None:
        """Finds models until stopped."""
        await self._periodic.run()

    def fail_streams(self, failure: Failure) -> None:
        """Ends the open streams; no more are accepted."""
        self._periodic.stop()
        for model in self._models.values():
            model.fail_streams(failure)

    async def stop(self) -> None:
        """After ``fail_streams``."""
        self._periodic.stop()
        await asyncio.gather(*(model.stop() for model in self._models.values()))

    async def _find(self) -> None:
        """Adds models that have come, and removes those that are gone: without checkpoint and scheduler."""
        found = self._found()
        self._warn(found)
        if self._directory is None:
            return
        checkpoints = await asyncio.to_thread(self._directory.look, found | self._models.keys())
        for name, state in checkpoints.items():
            if self._periodic.stopping:
                return
            known = name in self._models
            if name in found and not known and state not in (ABSENT, self._unusable.get(name)):
                await self._add(name, state)
            elif known and name not in found and name != self.own and state == ABSENT:
                await self._remove(name)

    async def _add(self, name: str, state: str) -> None:
        assert self._directory is not None
        if len(self._models) >= MAX_MODELS:
            self._refuse(name, state, f"{MAX_MODELS} models are served already")
            return
        try:
            checkpoint = await asyncio.to_thread(self._load, self._directory.path_of(name))
        except (CheckpointError, OSError) as error:
            self._refuse(name, state, str(error))
            return
        if self._periodic.stopping:
            return
        logger.info("model %s: found", name)
        model = self._create(name, checkpoint)
        self._on_alive(name, False)
        model.run()

    def _refuse(self, name: str, state: str, problem: str) -> None:
        """Not to be tried again before its files have changed."""
        logger.error("model %s is not served: %s", name, problem)
        self._unusable[name] = state

    async def _remove(self, name: str) -> None:
        model = self._models.pop(name)
        logger.info("model %s: gone", name)
        self._on_alive(name, None)
        model.fail_streams(GONE)
        await model.stop()

    def _create(self, name: str, checkpoint: Checkpoint) -> Model:
        model = Model(self._shared, self._cells, name, checkpoint, self._on_alive)
        self._models[name] = model
        return model

    def _load(self, path: Path) -> Checkpoint:
        return Checkpoint.load(path, defaults=self._shared.settings.generation_config == "auto")

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


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:MAX_NAMES]))
