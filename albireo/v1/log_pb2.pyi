from albireo.v1 import control_pb2 as _control_pb2
from albireo.v1 import inference_pb2 as _inference_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RankStage(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RANK_STAGE_WAITING: _ClassVar[RankStage]
    RANK_STAGE_COMPUTING: _ClassVar[RankStage]
    RANK_STAGE_COLLECTIVE: _ClassVar[RankStage]
RANK_STAGE_WAITING: RankStage
RANK_STAGE_COMPUTING: RankStage
RANK_STAGE_COLLECTIVE: RankStage

class InboxEntry(_message.Message):
    __slots__ = ("submission", "cancellation")
    SUBMISSION_FIELD_NUMBER: _ClassVar[int]
    CANCELLATION_FIELD_NUMBER: _ClassVar[int]
    submission: Submission
    cancellation: Cancellation
    def __init__(self, submission: _Optional[_Union[Submission, _Mapping]] = ..., cancellation: _Optional[_Union[Cancellation, _Mapping]] = ...) -> None: ...

class Submission(_message.Message):
    __slots__ = ("request_id", "prompt", "sampling", "priority", "timeout_ms", "n", "tenant", "traceparent", "gateway")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_MS_FIELD_NUMBER: _ClassVar[int]
    N_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    GATEWAY_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    prompt: _containers.RepeatedScalarFieldContainer[int]
    sampling: Sampling
    priority: int
    timeout_ms: int
    n: int
    tenant: str
    traceparent: str
    gateway: str
    def __init__(self, request_id: _Optional[str] = ..., prompt: _Optional[_Iterable[int]] = ..., sampling: _Optional[_Union[Sampling, _Mapping]] = ..., priority: _Optional[int] = ..., timeout_ms: _Optional[int] = ..., n: _Optional[int] = ..., tenant: _Optional[str] = ..., traceparent: _Optional[str] = ..., gateway: _Optional[str] = ...) -> None: ...

class Cancellation(_message.Message):
    __slots__ = ("request_id",)
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    def __init__(self, request_id: _Optional[str] = ...) -> None: ...

class Sampling(_message.Message):
    __slots__ = ("max_tokens", "min_tokens", "temperature", "top_k", "top_p", "min_p", "seed", "stop_ids", "ignore_eos", "logprobs", "prompt_logprobs", "typical_p", "repetition_penalty", "presence_penalty", "frequency_penalty", "bias_ids", "biases", "allowed_ids", "bad_ids")
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MIN_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    TOP_P_FIELD_NUMBER: _ClassVar[int]
    MIN_P_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    STOP_IDS_FIELD_NUMBER: _ClassVar[int]
    IGNORE_EOS_FIELD_NUMBER: _ClassVar[int]
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    PROMPT_LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    TYPICAL_P_FIELD_NUMBER: _ClassVar[int]
    REPETITION_PENALTY_FIELD_NUMBER: _ClassVar[int]
    PRESENCE_PENALTY_FIELD_NUMBER: _ClassVar[int]
    FREQUENCY_PENALTY_FIELD_NUMBER: _ClassVar[int]
    BIAS_IDS_FIELD_NUMBER: _ClassVar[int]
    BIASES_FIELD_NUMBER: _ClassVar[int]
    ALLOWED_IDS_FIELD_NUMBER: _ClassVar[int]
    BAD_IDS_FIELD_NUMBER: _ClassVar[int]
    max_tokens: int
    min_tokens: int
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    seed: int
    stop_ids: _containers.RepeatedScalarFieldContainer[int]
    ignore_eos: bool
    logprobs: int
    prompt_logprobs: int
    typical_p: float
    repetition_penalty: float
    presence_penalty: float
    frequency_penalty: float
    bias_ids: _containers.RepeatedScalarFieldContainer[int]
    biases: _containers.RepeatedScalarFieldContainer[float]
    allowed_ids: _containers.RepeatedScalarFieldContainer[int]
    bad_ids: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, max_tokens: _Optional[int] = ..., min_tokens: _Optional[int] = ..., temperature: _Optional[float] = ..., top_k: _Optional[int] = ..., top_p: _Optional[float] = ..., min_p: _Optional[float] = ..., seed: _Optional[int] = ..., stop_ids: _Optional[_Iterable[int]] = ..., ignore_eos: _Optional[bool] = ..., logprobs: _Optional[int] = ..., prompt_logprobs: _Optional[int] = ..., typical_p: _Optional[float] = ..., repetition_penalty: _Optional[float] = ..., presence_penalty: _Optional[float] = ..., frequency_penalty: _Optional[float] = ..., bias_ids: _Optional[_Iterable[int]] = ..., biases: _Optional[_Iterable[float]] = ..., allowed_ids: _Optional[_Iterable[int]] = ..., bad_ids: _Optional[_Iterable[int]] = ...) -> None: ...

class PlanEntry(_message.Message):
    __slots__ = ("open", "plan", "close")
    OPEN_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    CLOSE_FIELD_NUMBER: _ClassVar[int]
    open: GroupOpen
    plan: Plan
    close: GroupClose
    def __init__(self, open: _Optional[_Union[GroupOpen, _Mapping]] = ..., plan: _Optional[_Union[Plan, _Mapping]] = ..., close: _Optional[_Union[GroupClose, _Mapping]] = ...) -> None: ...

class GroupOpen(_message.Message):
    __slots__ = ("epoch", "group", "name")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    group: str
    name: str
    def __init__(self, epoch: _Optional[int] = ..., group: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class GroupClose(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

class Notice(_message.Message):
    __slots__ = ("open", "group_open", "group_closed", "ended")
    OPEN_FIELD_NUMBER: _ClassVar[int]
    GROUP_OPEN_FIELD_NUMBER: _ClassVar[int]
    GROUP_CLOSED_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    open: EpochOpen
    group_open: GroupOpen
    group_closed: GroupClosed
    ended: WaitingEnded
    def __init__(self, open: _Optional[_Union[EpochOpen, _Mapping]] = ..., group_open: _Optional[_Union[GroupOpen, _Mapping]] = ..., group_closed: _Optional[_Union[GroupClosed, _Mapping]] = ..., ended: _Optional[_Union[WaitingEnded, _Mapping]] = ...) -> None: ...

class EpochOpen(_message.Message):
    __slots__ = ("epoch",)
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    def __init__(self, epoch: _Optional[int] = ...) -> None: ...

class GroupClosed(_message.Message):
    __slots__ = ("group", "name", "reason")
    GROUP_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    group: str
    name: str
    reason: str
    def __init__(self, group: _Optional[str] = ..., name: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class WaitingEnded(_message.Message):
    __slots__ = ("ended",)
    ENDED_FIELD_NUMBER: _ClassVar[int]
    ended: _containers.RepeatedCompositeFieldContainer[Ended]
    def __init__(self, ended: _Optional[_Iterable[_Union[Ended, _Mapping]]] = ...) -> None: ...

class Plan(_message.Message):
    __slots__ = ("released", "paused", "resumed", "admissions", "grant_slots", "grant_counts", "grant_blocks", "chunks", "ended", "num_decodes", "digest", "timing", "spills", "fetches", "offloads", "spans")
    RELEASED_FIELD_NUMBER: _ClassVar[int]
    PAUSED_FIELD_NUMBER: _ClassVar[int]
    RESUMED_FIELD_NUMBER: _ClassVar[int]
    ADMISSIONS_FIELD_NUMBER: _ClassVar[int]
    GRANT_SLOTS_FIELD_NUMBER: _ClassVar[int]
    GRANT_COUNTS_FIELD_NUMBER: _ClassVar[int]
    GRANT_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    CHUNKS_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    NUM_DECODES_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    SPILLS_FIELD_NUMBER: _ClassVar[int]
    FETCHES_FIELD_NUMBER: _ClassVar[int]
    OFFLOADS_FIELD_NUMBER: _ClassVar[int]
    SPANS_FIELD_NUMBER: _ClassVar[int]
    released: _containers.RepeatedScalarFieldContainer[int]
    paused: _containers.RepeatedScalarFieldContainer[int]
    resumed: _containers.RepeatedScalarFieldContainer[int]
    admissions: _containers.RepeatedCompositeFieldContainer[Admission]
    grant_slots: _containers.RepeatedScalarFieldContainer[int]
    grant_counts: _containers.RepeatedScalarFieldContainer[int]
    grant_blocks: _containers.RepeatedScalarFieldContainer[int]
    chunks: _containers.RepeatedCompositeFieldContainer[Chunk]
    ended: _containers.RepeatedCompositeFieldContainer[Ended]
    num_decodes: int
    digest: int
    timing: _control_pb2.StepTiming
    spills: _containers.RepeatedCompositeFieldContainer[Spill]
    fetches: _containers.RepeatedCompositeFieldContainer[Fetch]
    offloads: _containers.RepeatedCompositeFieldContainer[Offload]
    spans: _containers.RepeatedCompositeFieldContainer[Span]
    def __init__(self, released: _Optional[_Iterable[int]] = ..., paused: _Optional[_Iterable[int]] = ..., resumed: _Optional[_Iterable[int]] = ..., admissions: _Optional[_Iterable[_Union[Admission, _Mapping]]] = ..., grant_slots: _Optional[_Iterable[int]] = ..., grant_counts: _Optional[_Iterable[int]] = ..., grant_blocks: _Optional[_Iterable[int]] = ..., chunks: _Optional[_Iterable[_Union[Chunk, _Mapping]]] = ..., ended: _Optional[_Iterable[_Union[Ended, _Mapping]]] = ..., num_decodes: _Optional[int] = ..., digest: _Optional[int] = ..., timing: _Optional[_Union[_control_pb2.StepTiming, _Mapping]] = ..., spills: _Optional[_Iterable[_Union[Spill, _Mapping]]] = ..., fetches: _Optional[_Iterable[_Union[Fetch, _Mapping]]] = ..., offloads: _Optional[_Iterable[_Union[Offload, _Mapping]]] = ..., spans: _Optional[_Iterable[_Union[Span, _Mapping]]] = ...) -> None: ...

class Spill(_message.Message):
    __slots__ = ("tier", "blocks", "frames", "keys")
    TIER_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    tier: int
    blocks: _containers.RepeatedScalarFieldContainer[int]
    frames: _containers.RepeatedScalarFieldContainer[int]
    keys: bytes
    def __init__(self, tier: _Optional[int] = ..., blocks: _Optional[_Iterable[int]] = ..., frames: _Optional[_Iterable[int]] = ..., keys: _Optional[bytes] = ...) -> None: ...

class Fetch(_message.Message):
    __slots__ = ("slot", "tier", "blocks", "frames", "keys")
    SLOT_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    slot: int
    tier: int
    blocks: _containers.RepeatedScalarFieldContainer[int]
    frames: _containers.RepeatedScalarFieldContainer[int]
    keys: bytes
    def __init__(self, slot: _Optional[int] = ..., tier: _Optional[int] = ..., blocks: _Optional[_Iterable[int]] = ..., frames: _Optional[_Iterable[int]] = ..., keys: _Optional[bytes] = ...) -> None: ...

class Offload(_message.Message):
    __slots__ = ("slot", "tier", "frames", "keys")
    SLOT_FIELD_NUMBER: _ClassVar[int]
    TIER_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    slot: int
    tier: int
    frames: _containers.RepeatedScalarFieldContainer[int]
    keys: bytes
    def __init__(self, slot: _Optional[int] = ..., tier: _Optional[int] = ..., frames: _Optional[_Iterable[int]] = ..., keys: _Optional[bytes] = ...) -> None: ...

class Span(_message.Message):
    __slots__ = ("slot", "start", "count", "first_layer", "last_layer")
    SLOT_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    FIRST_LAYER_FIELD_NUMBER: _ClassVar[int]
    LAST_LAYER_FIELD_NUMBER: _ClassVar[int]
    slot: int
    start: int
    count: int
    first_layer: int
    last_layer: int
    def __init__(self, slot: _Optional[int] = ..., start: _Optional[int] = ..., count: _Optional[int] = ..., first_layer: _Optional[int] = ..., last_layer: _Optional[int] = ...) -> None: ...

class Frames(_message.Message):
    __slots__ = ("tier", "frames")
    TIER_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    tier: int
    frames: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, tier: _Optional[int] = ..., frames: _Optional[_Iterable[int]] = ...) -> None: ...

class Contents(_message.Message):
    __slots__ = ("tier", "frames", "keys")
    TIER_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    tier: int
    frames: _containers.RepeatedScalarFieldContainer[int]
    keys: bytes
    def __init__(self, tier: _Optional[int] = ..., frames: _Optional[_Iterable[int]] = ..., keys: _Optional[bytes] = ...) -> None: ...

class TierRead(_message.Message):
    __slots__ = ("tier", "blocks", "seconds")
    TIER_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    tier: int
    blocks: int
    seconds: float
    def __init__(self, tier: _Optional[int] = ..., blocks: _Optional[int] = ..., seconds: _Optional[float] = ...) -> None: ...

class Tier(_message.Message):
    __slots__ = ("name", "frames", "read_block_seconds", "write_block_seconds")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FRAMES_FIELD_NUMBER: _ClassVar[int]
    READ_BLOCK_SECONDS_FIELD_NUMBER: _ClassVar[int]
    WRITE_BLOCK_SECONDS_FIELD_NUMBER: _ClassVar[int]
    name: str
    frames: int
    read_block_seconds: float
    write_block_seconds: float
    def __init__(self, name: _Optional[str] = ..., frames: _Optional[int] = ..., read_block_seconds: _Optional[float] = ..., write_block_seconds: _Optional[float] = ...) -> None: ...

class Admission(_message.Message):
    __slots__ = ("slot", "incarnation", "request_id", "tokens", "num_outputs", "num_cached", "sampling", "traceparent")
    SLOT_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    NUM_OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    NUM_CACHED_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    slot: int
    incarnation: int
    request_id: str
    tokens: _containers.RepeatedScalarFieldContainer[int]
    num_outputs: int
    num_cached: int
    sampling: Sampling
    traceparent: str
    def __init__(self, slot: _Optional[int] = ..., incarnation: _Optional[int] = ..., request_id: _Optional[str] = ..., tokens: _Optional[_Iterable[int]] = ..., num_outputs: _Optional[int] = ..., num_cached: _Optional[int] = ..., sampling: _Optional[_Union[Sampling, _Mapping]] = ..., traceparent: _Optional[str] = ...) -> None: ...

class Chunk(_message.Message):
    __slots__ = ("slot", "start", "count")
    SLOT_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    slot: int
    start: int
    count: int
    def __init__(self, slot: _Optional[int] = ..., start: _Optional[int] = ..., count: _Optional[int] = ...) -> None: ...

class Ended(_message.Message):
    __slots__ = ("request_id", "reason", "num_outputs")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    NUM_OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    reason: _inference_pb2.FinishReason
    num_outputs: int
    def __init__(self, request_id: _Optional[str] = ..., reason: _Optional[_Union[_inference_pb2.FinishReason, str]] = ..., num_outputs: _Optional[int] = ...) -> None: ...

class ResultEntry(_message.Message):
    __slots__ = ("open", "result", "close")
    OPEN_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    CLOSE_FIELD_NUMBER: _ClassVar[int]
    open: GroupOpen
    result: StepResult
    close: GroupClose
    def __init__(self, open: _Optional[_Union[GroupOpen, _Mapping]] = ..., result: _Optional[_Union[StepResult, _Mapping]] = ..., close: _Optional[_Union[GroupClose, _Mapping]] = ...) -> None: ...

class StepResult(_message.Message):
    __slots__ = ("admitted", "slots", "incarnations", "ids", "finishes", "logprobs", "ended", "timing", "decodes", "prefill_tokens", "wasted_rows", "prompt_logprobs", "unfetched", "lost", "read", "contents", "contents_end", "streamed")
    ADMITTED_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    INCARNATIONS_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    FINISHES_FIELD_NUMBER: _ClassVar[int]
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    DECODES_FIELD_NUMBER: _ClassVar[int]
    PREFILL_TOKENS_FIELD_NUMBER: _ClassVar[int]
    WASTED_ROWS_FIELD_NUMBER: _ClassVar[int]
    PROMPT_LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    UNFETCHED_FIELD_NUMBER: _ClassVar[int]
    LOST_FIELD_NUMBER: _ClassVar[int]
    READ_FIELD_NUMBER: _ClassVar[int]
    CONTENTS_FIELD_NUMBER: _ClassVar[int]
    CONTENTS_END_FIELD_NUMBER: _ClassVar[int]
    STREAMED_FIELD_NUMBER: _ClassVar[int]
    admitted: _containers.RepeatedCompositeFieldContainer[Admitted]
    slots: bytes
    incarnations: bytes
    ids: bytes
    finishes: bytes
    logprobs: _containers.RepeatedCompositeFieldContainer[RowLogprobs]
    ended: _containers.RepeatedCompositeFieldContainer[Ended]
    timing: _control_pb2.StepTiming
    decodes: int
    prefill_tokens: int
    wasted_rows: int
    prompt_logprobs: _containers.RepeatedCompositeFieldContainer[PromptLogprobs]
    unfetched: _containers.RepeatedScalarFieldContainer[int]
    lost: _containers.RepeatedCompositeFieldContainer[Frames]
    read: _containers.RepeatedCompositeFieldContainer[TierRead]
    contents: _containers.RepeatedCompositeFieldContainer[Contents]
    contents_end: bool
    streamed: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, admitted: _Optional[_Iterable[_Union[Admitted, _Mapping]]] = ..., slots: _Optional[bytes] = ..., incarnations: _Optional[bytes] = ..., ids: _Optional[bytes] = ..., finishes: _Optional[bytes] = ..., logprobs: _Optional[_Iterable[_Union[RowLogprobs, _Mapping]]] = ..., ended: _Optional[_Iterable[_Union[Ended, _Mapping]]] = ..., timing: _Optional[_Union[_control_pb2.StepTiming, _Mapping]] = ..., decodes: _Optional[int] = ..., prefill_tokens: _Optional[int] = ..., wasted_rows: _Optional[int] = ..., prompt_logprobs: _Optional[_Iterable[_Union[PromptLogprobs, _Mapping]]] = ..., unfetched: _Optional[_Iterable[int]] = ..., lost: _Optional[_Iterable[_Union[Frames, _Mapping]]] = ..., read: _Optional[_Iterable[_Union[TierRead, _Mapping]]] = ..., contents: _Optional[_Iterable[_Union[Contents, _Mapping]]] = ..., contents_end: _Optional[bool] = ..., streamed: _Optional[_Iterable[int]] = ...) -> None: ...

class PromptLogprobs(_message.Message):
    __slots__ = ("incarnation", "start", "logprobs")
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    incarnation: int
    start: int
    logprobs: _containers.RepeatedCompositeFieldContainer[_inference_pb2.TokenLogprobs]
    def __init__(self, incarnation: _Optional[int] = ..., start: _Optional[int] = ..., logprobs: _Optional[_Iterable[_Union[_inference_pb2.TokenLogprobs, _Mapping]]] = ...) -> None: ...

class Admitted(_message.Message):
    __slots__ = ("request_id", "incarnation", "num_outputs", "num_cached")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    NUM_OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    NUM_CACHED_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    incarnation: int
    num_outputs: int
    num_cached: int
    def __init__(self, request_id: _Optional[str] = ..., incarnation: _Optional[int] = ..., num_outputs: _Optional[int] = ..., num_cached: _Optional[int] = ...) -> None: ...

class RowLogprobs(_message.Message):
    __slots__ = ("row", "logprobs")
    ROW_FIELD_NUMBER: _ClassVar[int]
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    row: int
    logprobs: _inference_pb2.TokenLogprobs
    def __init__(self, row: _Optional[int] = ..., logprobs: _Optional[_Union[_inference_pb2.TokenLogprobs, _Mapping]] = ...) -> None: ...

class GroupInfo(_message.Message):
    __slots__ = ("incarnation", "num_blocks", "max_seqs", "max_model_len", "tp", "device", "dtype", "architecture", "vocab_size", "eos_token_ids", "fingerprint", "name", "step_seconds", "prefill_token_seconds", "tiers", "num_layers")
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    NUM_BLOCKS_FIELD_NUMBER: _ClassVar[int]
    MAX_SEQS_FIELD_NUMBER: _ClassVar[int]
    MAX_MODEL_LEN_FIELD_NUMBER: _ClassVar[int]
    TP_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    ARCHITECTURE_FIELD_NUMBER: _ClassVar[int]
    VOCAB_SIZE_FIELD_NUMBER: _ClassVar[int]
    EOS_TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    STEP_SECONDS_FIELD_NUMBER: _ClassVar[int]
    PREFILL_TOKEN_SECONDS_FIELD_NUMBER: _ClassVar[int]
    TIERS_FIELD_NUMBER: _ClassVar[int]
    NUM_LAYERS_FIELD_NUMBER: _ClassVar[int]
    incarnation: str
    num_blocks: int
    max_seqs: int
    max_model_len: int
    tp: int
    device: str
    dtype: str
    architecture: str
    vocab_size: int
    eos_token_ids: _containers.RepeatedScalarFieldContainer[int]
    fingerprint: str
    name: str
    step_seconds: float
    prefill_token_seconds: float
    tiers: _containers.RepeatedCompositeFieldContainer[Tier]
    num_layers: int
    def __init__(self, incarnation: _Optional[str] = ..., num_blocks: _Optional[int] = ..., max_seqs: _Optional[int] = ..., max_model_len: _Optional[int] = ..., tp: _Optional[int] = ..., device: _Optional[str] = ..., dtype: _Optional[str] = ..., architecture: _Optional[str] = ..., vocab_size: _Optional[int] = ..., eos_token_ids: _Optional[_Iterable[int]] = ..., fingerprint: _Optional[str] = ..., name: _Optional[str] = ..., step_seconds: _Optional[float] = ..., prefill_token_seconds: _Optional[float] = ..., tiers: _Optional[_Iterable[_Union[Tier, _Mapping]]] = ..., num_layers: _Optional[int] = ...) -> None: ...

class ServedModel(_message.Message):
    __slots__ = ("architecture", "dtype", "vocab_size", "max_model_len", "eos_token_ids", "fingerprint", "simulated", "tp", "device")
    ARCHITECTURE_FIELD_NUMBER: _ClassVar[int]
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    VOCAB_SIZE_FIELD_NUMBER: _ClassVar[int]
    MAX_MODEL_LEN_FIELD_NUMBER: _ClassVar[int]
    EOS_TOKEN_IDS_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    SIMULATED_FIELD_NUMBER: _ClassVar[int]
    TP_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    architecture: str
    dtype: str
    vocab_size: int
    max_model_len: int
    eos_token_ids: _containers.RepeatedScalarFieldContainer[int]
    fingerprint: str
    simulated: bool
    tp: int
    device: str
    def __init__(self, architecture: _Optional[str] = ..., dtype: _Optional[str] = ..., vocab_size: _Optional[int] = ..., max_model_len: _Optional[int] = ..., eos_token_ids: _Optional[_Iterable[int]] = ..., fingerprint: _Optional[str] = ..., simulated: _Optional[bool] = ..., tp: _Optional[int] = ..., device: _Optional[str] = ...) -> None: ...

class RankBeat(_message.Message):
    __slots__ = ("count", "stage", "step", "seconds")
    COUNT_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    count: int
    stage: RankStage
    step: int
    seconds: float
    def __init__(self, count: _Optional[int] = ..., stage: _Optional[_Union[RankStage, str]] = ..., step: _Optional[int] = ..., seconds: _Optional[float] = ...) -> None: ...
