from albireo.v1 import inference_pb2 as _inference_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GetServerInfoRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ServerInfo(_message.Message):
    __slots__ = ("version", "api", "models", "max_message_bytes", "max_deadline_seconds", "max_queue", "other_models")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    API_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_DEADLINE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    MAX_QUEUE_FIELD_NUMBER: _ClassVar[int]
    OTHER_MODELS_FIELD_NUMBER: _ClassVar[int]
    version: str
    api: str
    models: _containers.RepeatedScalarFieldContainer[str]
    max_message_bytes: int
    max_deadline_seconds: float
    max_queue: int
    other_models: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, version: _Optional[str] = ..., api: _Optional[str] = ..., models: _Optional[_Iterable[str]] = ..., max_message_bytes: _Optional[int] = ..., max_deadline_seconds: _Optional[float] = ..., max_queue: _Optional[int] = ..., other_models: _Optional[_Iterable[str]] = ...) -> None: ...

class GetModelInfoRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class ModelInfo(_message.Message):
    __slots__ = ("model", "architecture", "vocab_size", "max_model_len", "eos_token_ids", "chat", "dtype", "tp", "device", "default_sampling")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    ARCHITECTURE_FIELD_NUMBER: _ClassVar[int]
    VOCAB_SIZE_FIELD_NUMBER: _ClassVar[int]
    MAX_MODEL_LEN_FIELD_NUMBER: _ClassVar[int]
    EOS_TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    CHAT_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    TP_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_SAMPLING_FIELD_NUMBER: _ClassVar[int]
    model: str
    architecture: str
    vocab_size: int
    max_model_len: int
    eos_token_ids: _containers.RepeatedScalarFieldContainer[int]
    chat: bool
    dtype: str
    tp: int
    device: str
    default_sampling: _inference_pb2.SamplingOptions
    def __init__(self, model: _Optional[str] = ..., architecture: _Optional[str] = ..., vocab_size: _Optional[int] = ..., max_model_len: _Optional[int] = ..., eos_token_ids: _Optional[_Iterable[int]] = ..., chat: _Optional[bool] = ..., dtype: _Optional[str] = ..., tp: _Optional[int] = ..., device: _Optional[str] = ..., default_sampling: _Optional[_Union[_inference_pb2.SamplingOptions, _Mapping]] = ...) -> None: ...

class GetLoadRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class Load(_message.Message):
    __slots__ = ("epoch", "step", "group_alive", "waiting", "running", "steps_in_flight", "slots_total", "slots_free", "blocks_total", "blocks_free", "blocks_cached", "preemptions", "prefix_hit_tokens", "prompt_tokens", "wasted_rows", "integrity_violations", "integrity_checked_step", "waiting_by_tenant", "gpus", "groups", "wait_seconds")
    class WaitingByTenantEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
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
    WAITING_BY_TENANT_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    WAIT_SECONDS_FIELD_NUMBER: _ClassVar[int]
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
    waiting_by_tenant: _containers.ScalarMap[str, int]
    gpus: _containers.RepeatedCompositeFieldContainer[Gpu]
    groups: _containers.RepeatedCompositeFieldContainer[GroupLoad]
    wait_seconds: float
    def __init__(self, epoch: _Optional[int] = ..., step: _Optional[int] = ..., group_alive: _Optional[bool] = ..., waiting: _Optional[int] = ..., running: _Optional[int] = ..., steps_in_flight: _Optional[int] = ..., slots_total: _Optional[int] = ..., slots_free: _Optional[int] = ..., blocks_total: _Optional[int] = ..., blocks_free: _Optional[int] = ..., blocks_cached: _Optional[int] = ..., preemptions: _Optional[int] = ..., prefix_hit_tokens: _Optional[int] = ..., prompt_tokens: _Optional[int] = ..., wasted_rows: _Optional[int] = ..., integrity_violations: _Optional[_Iterable[str]] = ..., integrity_checked_step: _Optional[int] = ..., waiting_by_tenant: _Optional[_Mapping[str, int]] = ..., gpus: _Optional[_Iterable[_Union[Gpu, _Mapping]]] = ..., groups: _Optional[_Iterable[_Union[GroupLoad, _Mapping]]] = ..., wait_seconds: _Optional[float] = ...) -> None: ...

class GroupLoad(_message.Message):
    __slots__ = ("name", "incarnation", "device", "tp", "step", "running", "slots_total", "slots_free", "blocks_total", "blocks_free", "blocks_cached", "prompt_tokens", "prefix_hit_tokens", "output_tokens", "step_seconds", "ranks", "tiers", "streamed", "streamed_blocks")
    NAME_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    TP_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    SLOTS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FREE_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_FREE_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_CACHED_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PREFIX_HIT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    STEP_SECONDS_FIELD_NUMBER: _ClassVar[int]
    RANKS_FIELD_NUMBER: _ClassVar[int]
    TIERS_FIELD_NUMBER: _ClassVar[int]
    STREAMED_FIELD_NUMBER: _ClassVar[int]
    STREAMED_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    name: str
    incarnation: str
    device: str
    tp: int
    step: int
    running: int
    slots_total: int
    slots_free: int
    blocks_total: int
    blocks_free: int
    blocks_cached: int
    prompt_tokens: int
    prefix_hit_tokens: int
    output_tokens: int
    step_seconds: float
    ranks: _containers.RepeatedCompositeFieldContainer[Rank]
    tiers: _containers.RepeatedCompositeFieldContainer[TierLoad]
    streamed: int
    streamed_blocks: int
    def __init__(self, name: _Optional[str] = ..., incarnation: _Optional[str] = ..., device: _Optional[str] = ..., tp: _Optional[int] = ..., step: _Optional[int] = ..., running: _Optional[int] = ..., slots_total: _Optional[int] = ..., slots_free: _Optional[int] = ..., blocks_total: _Optional[int] = ..., blocks_free: _Optional[int] = ..., blocks_cached: _Optional[int] = ..., prompt_tokens: _Optional[int] = ..., prefix_hit_tokens: _Optional[int] = ..., output_tokens: _Optional[int] = ..., step_seconds: _Optional[float] = ..., ranks: _Optional[_Iterable[_Union[Rank, _Mapping]]] = ..., tiers: _Optional[_Iterable[_Union[TierLoad, _Mapping]]] = ..., streamed: _Optional[int] = ..., streamed_blocks: _Optional[int] = ...) -> None: ...

class TierLoad(_message.Message):
    __slots__ = ("name", "frames_total", "frames_used", "blocks_fetched", "blocks_spilled", "frames_lost", "fetches_failed", "prefix_hit_tokens")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FRAMES_TOTAL_FIELD_NUMBER: _ClassVar[int]
    FRAMES_USED_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_FETCHED_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_SPILLED_FIELD_NUMBER: _ClassVar[int]
    FRAMES_LOST_FIELD_NUMBER: _ClassVar[int]
    FETCHES_FAILED_FIELD_NUMBER: _ClassVar[int]
    PREFIX_HIT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    name: str
    frames_total: int
    frames_used: int
    blocks_fetched: int
    blocks_spilled: int
    frames_lost: int
    fetches_failed: int
    prefix_hit_tokens: int
    def __init__(self, name: _Optional[str] = ..., frames_total: _Optional[int] = ..., frames_used: _Optional[int] = ..., blocks_fetched: _Optional[int] = ..., blocks_spilled: _Optional[int] = ..., frames_lost: _Optional[int] = ..., fetches_failed: _Optional[int] = ..., prefix_hit_tokens: _Optional[int] = ...) -> None: ...

class Rank(_message.Message):
    __slots__ = ("rank", "stage", "step", "seconds", "beat_seconds")
    RANK_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    BEAT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    rank: int
    stage: str
    step: int
    seconds: float
    beat_seconds: float
    def __init__(self, rank: _Optional[int] = ..., stage: _Optional[str] = ..., step: _Optional[int] = ..., seconds: _Optional[float] = ..., beat_seconds: _Optional[float] = ...) -> None: ...

class Gpu(_message.Message):
    __slots__ = ("rank", "group", "utilization", "watts", "joules")
    RANK_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    UTILIZATION_FIELD_NUMBER: _ClassVar[int]
    WATTS_FIELD_NUMBER: _ClassVar[int]
    JOULES_FIELD_NUMBER: _ClassVar[int]
    rank: int
    group: str
    utilization: float
    watts: float
    joules: float
    def __init__(self, rank: _Optional[int] = ..., group: _Optional[str] = ..., utilization: _Optional[float] = ..., watts: _Optional[float] = ..., joules: _Optional[float] = ...) -> None: ...

class GetStepStatsRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class StepStats(_message.Message):
    __slots__ = ("histograms", "wasted_rows", "look_ahead", "simulated")
    HISTOGRAMS_FIELD_NUMBER: _ClassVar[int]
    WASTED_ROWS_FIELD_NUMBER: _ClassVar[int]
    LOOK_AHEAD_FIELD_NUMBER: _ClassVar[int]
    SIMULATED_FIELD_NUMBER: _ClassVar[int]
    histograms: _containers.RepeatedCompositeFieldContainer[Histogram]
    wasted_rows: int
    look_ahead: int
    simulated: bool
    def __init__(self, histograms: _Optional[_Iterable[_Union[Histogram, _Mapping]]] = ..., wasted_rows: _Optional[int] = ..., look_ahead: _Optional[int] = ..., simulated: _Optional[bool] = ...) -> None: ...

class Histogram(_message.Message):
    __slots__ = ("name", "bounds", "counts", "sum")
    NAME_FIELD_NUMBER: _ClassVar[int]
    BOUNDS_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    SUM_FIELD_NUMBER: _ClassVar[int]
    name: str
    bounds: _containers.RepeatedScalarFieldContainer[float]
    counts: _containers.RepeatedScalarFieldContainer[int]
    sum: float
    def __init__(self, name: _Optional[str] = ..., bounds: _Optional[_Iterable[float]] = ..., counts: _Optional[_Iterable[int]] = ..., sum: _Optional[float] = ...) -> None: ...

class WatchStepsRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class StepTiming(_message.Message):
    __slots__ = ("plan_begin", "plan_end", "previous_published", "settled_step", "look_ahead", "fetched", "staged", "forward_begin", "sampling_begin", "sampling_end", "output_begin", "previous_appended", "kv_wait", "transfers", "stream_wait")
    PLAN_BEGIN_FIELD_NUMBER: _ClassVar[int]
    PLAN_END_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_PUBLISHED_FIELD_NUMBER: _ClassVar[int]
    SETTLED_STEP_FIELD_NUMBER: _ClassVar[int]
    LOOK_AHEAD_FIELD_NUMBER: _ClassVar[int]
    FETCHED_FIELD_NUMBER: _ClassVar[int]
    STAGED_FIELD_NUMBER: _ClassVar[int]
    FORWARD_BEGIN_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_BEGIN_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_END_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_BEGIN_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_APPENDED_FIELD_NUMBER: _ClassVar[int]
    KV_WAIT_FIELD_NUMBER: _ClassVar[int]
    TRANSFERS_FIELD_NUMBER: _ClassVar[int]
    STREAM_WAIT_FIELD_NUMBER: _ClassVar[int]
    plan_begin: int
    plan_end: int
    previous_published: int
    settled_step: int
    look_ahead: int
    fetched: int
    staged: int
    forward_begin: int
    sampling_begin: int
    sampling_end: int
    output_begin: int
    previous_appended: int
    kv_wait: int
    transfers: _containers.RepeatedCompositeFieldContainer[KvTransfer]
    stream_wait: int
    def __init__(self, plan_begin: _Optional[int] = ..., plan_end: _Optional[int] = ..., previous_published: _Optional[int] = ..., settled_step: _Optional[int] = ..., look_ahead: _Optional[int] = ..., fetched: _Optional[int] = ..., staged: _Optional[int] = ..., forward_begin: _Optional[int] = ..., sampling_begin: _Optional[int] = ..., sampling_end: _Optional[int] = ..., output_begin: _Optional[int] = ..., previous_appended: _Optional[int] = ..., kv_wait: _Optional[int] = ..., transfers: _Optional[_Iterable[_Union[KvTransfer, _Mapping]]] = ..., stream_wait: _Optional[int] = ...) -> None: ...

class KvTransfer(_message.Message):
    __slots__ = ("tier", "write", "begin", "end", "bytes", "streamed")
    TIER_FIELD_NUMBER: _ClassVar[int]
    WRITE_FIELD_NUMBER: _ClassVar[int]
    BEGIN_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    STREAMED_FIELD_NUMBER: _ClassVar[int]
    tier: str
    write: bool
    begin: int
    end: int
    bytes: int
    streamed: bool
    def __init__(self, tier: _Optional[str] = ..., write: _Optional[bool] = ..., begin: _Optional[int] = ..., end: _Optional[int] = ..., bytes: _Optional[int] = ..., streamed: _Optional[bool] = ...) -> None: ...

class StepRecord(_message.Message):
    __slots__ = ("epoch", "step", "timing", "decodes", "prefill_tokens", "tokens", "wasted_rows", "simulated", "received", "handed_out", "group")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    DECODES_FIELD_NUMBER: _ClassVar[int]
    PREFILL_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    WASTED_ROWS_FIELD_NUMBER: _ClassVar[int]
    SIMULATED_FIELD_NUMBER: _ClassVar[int]
    RECEIVED_FIELD_NUMBER: _ClassVar[int]
    HANDED_OUT_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    step: int
    timing: StepTiming
    decodes: int
    prefill_tokens: int
    tokens: int
    wasted_rows: int
    simulated: bool
    received: int
    handed_out: int
    group: str
    def __init__(self, epoch: _Optional[int] = ..., step: _Optional[int] = ..., timing: _Optional[_Union[StepTiming, _Mapping]] = ..., decodes: _Optional[int] = ..., prefill_tokens: _Optional[int] = ..., tokens: _Optional[int] = ..., wasted_rows: _Optional[int] = ..., simulated: _Optional[bool] = ..., received: _Optional[int] = ..., handed_out: _Optional[int] = ..., group: _Optional[str] = ...) -> None: ...
