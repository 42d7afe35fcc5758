"""torch's operators on the simulated device: each becomes work of the current stream."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.worker_svc.simulated_cuda import copies
from tests.worker_svc.simulated_cuda.device import CudaError, device
from tests.worker_svc.simulated_cuda.memory import pin, spoil
from tests.worker_svc.simulated_cuda.tensor import SimulatedTensor, allocate

META = torch.device("meta")
CPU = torch.device("cpu")
WAITING = {"_local_scalar_dense", "equal", "masked_select", "nonzero", "_unique2", "unique_consecutive"}
"""Whose result, or its shape, the host must know."""
FEWEST_INT8_ROWS = 16
"""That a product on a card refuses, and none on a CPU."""
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_"}
EMPTY = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}


class Operators(TorchDispatchMode):
    """Of one thread: what makes new tensors names no tensor that is on the device."""

    def __torch_dispatch__(
        self, operator: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if _is_made_of_others(operator):  # in inference mode torch leaves these whole
            with self:
                return operator.decompose(*args, **(kwargs or {}))
        return dispatch(operator, args, kwargs or {})


@cache
def _is_made_of_others(operator: Any) -> bool:
    found: bool = operator.has_kernel_for_dispatch_key(torch._C.DispatchKey.CompositeImplicitAutograd)
    return found


def dispatch(operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    tensors = [leaf for leaf in _leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    simulated = [tensor for tensor in tensors if isinstance(tensor, SimulatedTensor)]
    with torch._C._DisableTorchDispatch():  # what follows is for the CPU
        if simulated or copies.is_cuda(kwargs.get("device")):
            with device().lock:
                return _on_device(operator, args, kwargs, simulated, len(tensors) - len(simulated))
        if not kwargs.get("pin_memory"):
            return operator(*args, **kwargs)
        made = operator(*args, **{**kwargs, "pin_memory": False})
        if _name(operator) in EMPTY:
            spoil(made, device())
        return pin(made, device())


def _leaves(tree: Any) -> Iterator[Any]:
    if isinstance(tree, list | tuple):
        for item in tree:
            yield from _leaves(item)
    elif isinstance(tree, dict):
        yield from _leaves(tuple(tree.values()))
    else:
        yield tree


def _map(change: Callable[[Any], Any], tree: Any) -> Any:
    """torch's own is slow: it knows more kinds of trees."""
    if isinstance(tree, list | tuple):
        return type(tree)([_map(change, item) for item in tree])
    if isinstance(tree, dict):
        return {key: _map(change, item) for key, item in tree.items()}
    return change(tree)


def _name(operator: Any) -> str:
    name: str = operator._schema.name
    return name.removeprefix("aten::")


def _on_device(
    operator: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    simulated: list[SimulatedTensor],
    others: int,
) -> Any:
    """``others``: how many tensors among the arguments are not on the device."""
    name = _name(operator)
    if name == "copy_":
        return copies.copy_(*args, **kwargs)
    if name == "_to_copy":
        return copies.to_copy(*args, **kwargs)
    if others:
        _check_others(name, args, kwargs)
    if name == "_int_mm" and len(args[0]) <= FEWEST_INT8_ROWS:
        raise CudaError(f"_int_mm: self.size(0) needs to be greater than 16, but got {len(args[0])}")
    if name in WAITING or (name in INDEXING and _has_mask(args[1])):
        device().sync(name)
        found = operator(*_memories(args), **_memories(kwargs))
        if name in INDEXING and name != "index":
            return args[0]
        return _map(_wrapped, found)
    aliases = [returned.alias_info for returned in operator._schema.returns]
    if name in ("_unsafe_view", "_reshape_alias") or (aliases and all(a and not a.is_write for a in aliases)):
        viewed = operator(*_memories(args), **_memories(kwargs))
        allocation = simulated[0].allocation
        return _map(lambda leaf: SimulatedTensor(leaf, allocation), viewed)
    if not aliases or all(a and a.is_write for a in aliases):
        return _in_place(operator, name, args, kwargs)
    return _new(operator, name, args, kwargs)


def _check_others(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Numbers of the host can be arguments of a kernel; other tensors on the CPU cannot."""
    for leaf in _leaves((args, kwargs)):
        if isinstance(leaf, Tensor) and not isinstance(leaf, SimulatedTensor):
            if leaf.dim():
                raise CudaError(f"{name}: expected all tensors to be on the same device")
            if name == "where" or name in INDEXING:  # these bring it to the device first
                device().sync(f"{name} with a number on the CPU")


def _has_mask(indices: Any) -> bool:
    return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in indices)


def _memories(tree: Any) -> Any:
    """Arguments as the CPU takes them."""

    def of(leaf: Any) -> Any:
        if isinstance(leaf, SimulatedTensor):
            return leaf.memory
        return CPU if isinstance(leaf, torch.device) else leaf

    return _map(of, tree)


def _wrapped(leaf: Any) -> Any:
    if not isinstance(leaf, Tensor):
        return leaf
    made = allocate(leaf.shape, leaf.stride(), leaf.dtype)
    made.memory.copy_(leaf)
    return made


def _in_place(operator: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    inner, named = _memories(args), _memories(kwargs)
    device().launch(name, lambda: operator(*inner, **named))
    if not operator._schema.returns:
        return None
    written = [
        kwargs[argument.name]
        for argument in operator._schema.arguments
        if argument.kwarg_only and argument.alias_info and argument.alias_info.is_write
    ]
    if written:  # out=
        return written[0] if len(written) == 1 else tuple(written)
    return args[0]


def _new(operator: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    shapes = _shapes(operator, args, kwargs)
    made = [allocate(*shape) if isinstance(shape, _Shape) else shape for shape in shapes.found]
    if name not in EMPTY:
        memories = [tensor.memory if isinstance(tensor, SimulatedTensor) else None for tensor in made]
        inner, named = _memories(args), _memories(kwargs)

        def run() -> None:
            found = operator(*inner, **named)
            for memory, result in zip(memories, [found] if shapes.single else found, strict=True):
                if memory is not None:
                    memory.copy_(result)

        device().launch(name, run)
    return made[0] if shapes.single else tuple(made)


class _Shape(NamedTuple):
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype


class _Shapes(NamedTuple):
    """What an operator brings: one tensor, or several."""

    single: bool
    found: list[Any]


_known: dict[Any, _Shapes] = {}


def _shapes(operator: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Shapes:
    """As torch's meta device knows it, which computes nothing but takes long."""
    key: Any = (operator, _signature(args), _signature(tuple(sorted(kwargs.items()))))
    try:
        if key in _known:
            return _known[key]
    except TypeError:  # an argument that cannot be hashed
        key = None
    found = operator(*_map(_on_meta, args), **_map(_on_meta, kwargs))
    single = isinstance(found, Tensor)
    shapes = _Shapes(single, [_shape(item) for item in ([found] if single else found)])
    if key is not None:
        _known[key] = shapes
    return shapes


def _shape(item: Any) -> Any:
    return _Shape(tuple(item.shape), item.stride(), item.dtype) if isinstance(item, Tensor) else item


def _signature(item: Any) -> Any:
    if isinstance(item, list | tuple):
        return tuple(map(_signature, item))
    return (type(item), _shape(item))


def _on_meta(leaf: Any) -> Any:
    if isinstance(leaf, Tensor):
        return torch.empty_strided(leaf.shape, leaf.stride(), dtype=leaf.dtype, device=META)
    return META if isinstance(leaf, torch.device) else leaf
