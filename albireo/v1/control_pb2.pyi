from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class GetServerInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ServerInfo(_message.Message):
    __slots__ = ("version", "api", "models", "max_message_bytes", "max_deadline_seconds", "max_queue")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    API_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_DEADLINE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    MAX_QUEUE_FIELD_NUMBER: _ClassVar[int]
    version: str
    api: str
    models: _containers.RepeatedScalarFieldContainer[str]
    max_message_bytes: int
    max_deadline_seconds: float
    max_queue: int
    def __init__(self, version: _Optional[str] = ..., api: _Optional[str] = ..., models: _Optional[_Iterable[str]] = ..., max_message_bytes: _Optional[int] = ..., max_deadline_seconds: _Optional[float] = ..., max_queue: _Optional[int] = ...) -> None: ...

class GetModelInfoRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class ModelInfo(_message.Message):
    __slots__ = ("model", "architecture", "vocab_size", "max_model_len", "eos_token_ids", "chat", "dtype", "tp", "device")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ARCHITECTURE_FIELD_NUMBER: _ClassVar[int]
    VOCAB_SIZE_FIELD_NUMBER: _ClassVar[int]
    MAX_MODEL_LEN_FIELD_NUMBER: _ClassVar[int]
    EOS_TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    CHAT_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    TP_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    model: str
    architecture: str
    vocab_size: int
    max_model_len: int
    eos_token_ids: _containers.RepeatedScalarFieldContainer[int]
    chat: bool
    dtype: str
    tp: int
    device: str
    def __init__(self, model: _Optional[str] = ..., architecture: _Optional[str] = ..., vocab_size: _Optional[int] = ..., max_model_len: _Optional[int] = ..., eos_token_ids: _Optional[_Iterable[int]] = ..., chat: _Optional[bool] = ..., dtype: _Optional[str] = ..., tp: _Optional[int] = ..., device: _Optional[str] = ...) -> None: ...

class GetLoadRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class Load(_message.Message):
    __slots__ = ("epoch", "step", "group_alive", "waiting", "running", "steps_in_flight", "slots_total", "slots_free", "blocks_total", "blocks_free", "blocks_cached", "preemptions", "prefix_hit_tokens", "prompt_tokens", "wasted_rows", "integrity_violations", "integrity_checked_step")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    GROUP_ALIVE_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    STEPS_IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    SLOTS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FREE_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_FREE_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_CACHED_FIELD_NUMBER: _ClassVar[int]
    PREEMPTIONS_FIELD_NUMBER: _ClassVar[int]
    PREFIX_HIT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    WASTED_ROWS_FIELD_NUMBER: _ClassVar[int]
    INTEGRITY_VIOLATIONS_FIELD_NUMBER: _ClassVar[int]
    INTEGRITY_CHECKED_STEP_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    step: int
    group_alive: bool
    waiting: int
    running: int
    steps_in_flight: int
    slots_total: int
    slots_free: int
    blocks_total: int
    blocks_free: int
    blocks_cached: int
    preemptions: int
    prefix_hit_tokens: int
    prompt_tokens: int
    wasted_rows: int
    integrity_violations: _containers.RepeatedScalarFieldContainer[str]
    integrity_checked_step: int
    def __init__(self, epoch: _Optional[int] = ..., step: _Optional[int] = ..., group_alive: _Optional[bool] = ..., waiting: _Optional[int] = ..., running: _Optional[int] = ..., steps_in_flight: _Optional[int] = ..., slots_total: _Optional[int] = ..., slots_free: _Optional[int] = ..., blocks_total: _Optional[int] = ..., blocks_free: _Optional[int] = ..., blocks_cached: _Optional[int] = ..., preemptions: _Optional[int] = ..., prefix_hit_tokens: _Optional[int] = ..., prompt_tokens: _Optional[int] = ..., wasted_rows: _Optional[int] = ..., integrity_violations: _Optional[_Iterable[str]] = ..., integrity_checked_step: _Optional[int] = ...) -> None: ...
