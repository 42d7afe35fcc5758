"""Options of every command: all documented, unknown ones and bad values refused by name."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from albireo.cli import app
from albireo.local.settings import StackSettings
from albireo.runtime.settings import ServiceSettings
from gateway.settings import GatewaySettings
from scheduler_svc.settings import SchedulerSettings
from worker_svc.settings import WorkerSettings

SERVICES: dict[str, type[ServiceSettings]] = {
    "up": StackSettings,
    "demo": StackSettings,
    "gateway": GatewaySettings,
    "scheduler": SchedulerSettings,
    "worker": WorkerSettings,
}
TIERED = ("kv_memory", "kv_host_memory", "kv_disk", "kv_disk_size")
PASSED_ON = {
    **{name: f"ALBIREO_WORKER_{name.upper()}" for name in (*TIERED, "weights", "kv_dtype")},
    **{name: f"ALBIREO_GATEWAY_{name.upper()}" for name in ("open", "tls_cert", "tls_key", "tls_client_ca")},
}
"""What `albireo up` takes for its workers and its gateway, by their own variables."""
PLANNING = {
    "simulate": "model device tp synchronous sampling max-seqs max-model-len kv-memory "
    "max-num-batched-tokens prefill-chunk max-queue json chart workload prompt-length output-length "
    "concurrency rate burstiness num-requests controls seed",
    "plan": "model device devices ttft-p99 tpot-p99 synchronous sampling max-seqs max-model-len "
    "max-num-batched-tokens prefill-chunk json chart workload prompt-length output-length "
    "concurrency rate burstiness num-requests controls seed",
    "calibrate": "model output device tp dtype max-seqs quick",
}
"""Commands that ask no gateway."""
SHARED = {*ServiceSettings.model_fields, "group", "synchronous"}
CLIENTS = {
    "generate": "target model-name raw json timeout request-id priority max-tokens min-tokens temperature "
    "top-k top-p min-p typical-p repetition-penalty presence-penalty frequency-penalty logit-bias "
    "allowed-token-ids bad-token-ids seed stop stop-token-ids ignore-eos n logprobs prompt-logprobs",
    "chat": "target model-name temperature max-tokens",
    "health": "service timeout",
    "bench serve": "target model-name concurrency rate num-requests warmup prompt-length output-length "
    "temperature seed timeout json workload burstiness controls",
    "trace": "target model-name seconds picture picture-steps",
    "top": "target model-name interval once picture",
}


def run(*arguments: str) -> tuple[int, str]:
    # Wide, so that no name is broken over two lines.
    result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "240", "NO_COLOR": "1"})
    return result.exit_code, result.output


def test_help_lists_every_command() -> None:
    code, output = run("--help")
    assert code == 0
    for name in (
        *SERVICES,
        "generate",
        "chat",
        "trace",
        "top",
        "doctor",
        "simulate",
        "plan",
        "calibrate",
        "bench",
    ):
        assert f" {name} " in output
    assert " serve " in run("bench", "--help")[1]


@pytest.mark.parametrize("name", SERVICES)
def test_help_of_a_service_lists_every_option_with_its_variable_meaning_and_default(name: str) -> None:
    code, output = run(name, "--help")
    text = " ".join(output.replace("│", " ").split())
    assert code == 0
    prefix = SERVICES[name].model_config.get("env_prefix")
    assert prefix
    for field, info in SERVICES[name].model_fields.items():
        option = f"--{field.replace('_', '-')}"
        own = f"ALBIREO_{field.upper()}" if field in SHARED else f"{prefix}{field.upper()}"
        variable = PASSED_ON.get(field, own)
        assert f" {option} " in text
        assert f"[env var: {variable}]" in text
        assert info.description
        assert info.description in text
        if info.is_required():
            assert f"{variable}] [required]" in text
        elif info.default not in ("", None):
            assert f"{variable}] [default: " in text


@pytest.mark.parametrize("name", PLANNING)
def test_help_of_a_planning_command_lists_its_options(name: str) -> None:
    code, output = run(name, "--help")
    assert code == 0
    for option in PLANNING[name].split():
        assert f" --{option} " in output


@pytest.mark.parametrize("name", CLIENTS)
def test_help_of_a_client_command_lists_its_options_and_the_targets_variable(name: str) -> None:
    code, output = run(*name.split(), "--help")
    assert code == 0
    assert "[env var: ALBIREO_TARGET]" in output
    for option in CLIENTS[name].split():
        assert f" --{option} " in output


def test_help_of_the_doctor_names_the_services_variables() -> None:
    code, output = run("doctor", "--help")
    assert code == 0
    for variable in ("ALBIREO_WORKER_MODEL", "ALBIREO_GATEWAY_MODEL", "ALBIREO_UP_TP", "ALBIREO_REDIS_URL"):
        assert variable in output


@pytest.mark.parametrize("name", [*SERVICES, *CLIENTS, "doctor"])
def test_an_unknown_option_is_an_error(name: str) -> None:
    rest = {"generate": ["hi"], "trace": ["trace.json"]}.get(name, [])
    code, output = run(*name.split(), "--no-such-option", *rest)
    assert code == 2
    assert "No such option: --no-such-option" in output


@pytest.mark.parametrize(
    ("command", "option", "value"),
    [
        ("up", "--tp", "0"),
        ("up", "--dtype", "float16"),
        ("demo", "--port", "70000"),
        ("demo", "--tp", "two"),
        ("gateway", "--max-queue", "0"),
        ("gateway", "--log-level", "LOUD"),
        ("gateway", "--metrics-port", "70000"),
        ("gateway", "--log-format", "xml"),
        ("scheduler", "--trace-sample-ratio", "1.5"),
        ("worker", "--otlp-endpoint", "localhost:4317"),
        ("up", "--otlp-endpoint", "http://"),
        ("scheduler", "--look-ahead", "9"),
        ("worker", "--device", "tpu"),
        ("generate", "--max-tokens", "-1"),
        ("generate", "--min-tokens", "4294967296"),
        ("generate", "--top-k", "-1"),
        ("generate", "--seed", "-1"),
        ("generate", "--seed", "18446744073709551616"),
        ("generate", "--priority", "101"),
        ("generate", "--timeout", "-1"),
        ("generate", "--temperature", "hot"),
        ("generate", "--n", "-1"),
        ("generate", "--logit-bias", "5"),
        ("generate", "--logit-bias", "a=1"),
        ("generate", "--bad-token-ids", "4294967296"),
        ("generate", "--logprobs", "1"),
        ("generate", "--prompt-logprobs", "1"),
        ("chat", "--max-tokens", "0"),
        ("bench serve", "--prompt-length", "zipf:3"),
        ("bench serve", "--output-length", "fixed:0"),
        ("bench serve", "--rate", "-1"),
        ("bench serve", "--burstiness", "0"),
        ("bench serve", "--controls", "hot"),
        ("bench serve", "--workload", "no-such-preset"),
        ("bench serve", "--num-requests", "0"),
        ("bench serve", "--concurrency", "0"),
        ("top", "--interval", "0"),
        ("doctor", "--tp", "0"),
    ],
)
def test_a_bad_value_is_an_error_that_names_the_option(command: str, option: str, value: str) -> None:
    rest = {"generate": ["hi"], "gateway": ["--model", "m"], "worker": ["--model", "m"]}.get(command, [])
    code, output = run(*command.split(), option, value, *rest)
    assert code == 2
    assert option in output


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("bench serve", "--json"),
        ("bench overhead", "--json"),
        ("bench sampling", "--json"),
        ("bench overhead", "--chart"),
        ("bench sampling", "--chart"),
        ("trace", "--picture"),
    ],
)
def test_a_file_that_could_not_be_written_is_refused_before_anything_runs(command: str, option: str) -> None:
    rest = {"trace": ["trace.json"]}.get(command, [])
    code, output = run(*command.split(), option, "/nonexistent/a.png", *rest)
    assert code == 2
    assert f"Invalid value for {option}: /nonexistent/a.png: No such file or directory" in output


def test_a_trace_that_could_not_be_written_is_refused_before_it_is_recorded() -> None:
    code, output = run("trace", "/nonexistent/trace.json", "--target", "127.0.0.1:1")
    assert code == 2
    assert "Invalid value for OUTPUT: /nonexistent/trace.json: No such file or directory" in output


@pytest.mark.parametrize(("command", "missing"), [("gateway", "--model"), ("generate", "prompt")])
def test_what_is_needed_is_asked_for(command: str, missing: str) -> None:
    code, output = run(command)
    assert code == 2
    assert missing in output


@pytest.mark.parametrize("command", ["generate hi", "chat", "bench serve"])
def test_a_gateway_that_is_not_there_is_one_line_and_status_1(command: str) -> None:
    result = CliRunner().invoke(app, [*command.split(), "--target", "127.0.0.1:1"], input="hi\n")
    assert result.exit_code == 1
    assert "albireo: UNAVAILABLE: " in result.output
    assert "Traceback" not in result.output


def test_a_prompt_that_is_not_utf8_is_refused_before_it_is_sent() -> None:
    result = CliRunner().invoke(app, ["generate", "\udcff", "--target", "127.0.0.1:1"])
    assert result.exit_code == 1
    assert "not UTF-8" in result.output


def test_a_service_without_its_checkpoint_says_so() -> None:
    result = CliRunner().invoke(app, ["gateway", "--model", "/nonexistent"])
    assert result.exit_code == 1
    assert "/nonexistent: no such directory" in str(result.exception) + result.output


def test_options_that_contradict_each_other_are_told_in_a_line() -> None:
    result = CliRunner().invoke(app, ["scheduler", "--max-num-batched-tokens", "10"])
    assert result.exit_code == 2
    output = " ".join(result.output.replace("│", " ").split())
    assert "max_num_batched_tokens must be at least max_num_seqs" in output


@pytest.mark.parametrize("name", ["simulate", "plan", "trace", "bench overhead", "bench sampling"])
def test_help_names_the_extra_that_pictures_need(name: str) -> None:
    assert "albireo[bench]" in run(*name.split(), "--help")[1]
