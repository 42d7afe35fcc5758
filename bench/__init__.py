"""All measurements, each of which anyone can run again.

Four ship as commands of ``albireo`` (``albireo/cli/bench``), the others run as modules from a checkout.
Times are estimates for two cores:

| command | measures | takes |
|---|---|---|
| ``albireo bench serve`` | throughput and latencies of a running stack under a load | as long as the load |
| ``albireo bench overhead`` | T1 to T5 of a step, in full and visible: synchronous, overlapped | 1 minute |
| ``albireo bench groups`` | streams of several groups, of which one dies now and then | 6 minutes |
| ``albireo bench sampling`` | T4 on the CPU or a GPU, by sampling controls, batch and ranks | 2 minutes |
| ``python -m bench.gpu_session`` | all that is measured on a GPU machine, its tests included | 8 minutes |
| ``python -m bench.throughput.bare_model DIR`` | the model alone, against the machine's limits | 2 minutes |
| ``python -m bench.throughput.whole_stack DIR`` | the whole stack, against the model alone | 5 minutes |
| ``python -m bench.quantization_quality DIR`` | what 8 bits cost: divergence from fp32 | 10 minutes |
| ``python -m bench.plan_cost`` | CPU time of planning and settling a step | 2 minutes |
| ``python -m bench.fairness`` | tenants: a flood, weights, priorities, in virtual time | 2 minutes |
| ``python -m bench.simulation_cost`` | CPU time of a simulated step, and its part by folder | 2 minutes |
| ``python -m bench.kv_tiers.bandwidths`` | KV tiers on a simulated device, against the ideal | 2 minutes |
| ``python -m bench.fleet`` | one scheduler, up to 64 groups, in virtual time | 10 minutes |
| ``python -m bench.ttft`` | time to first token at half load: synchronous, overlapped | 2 minutes |
| ``python -m bench.control_mix`` | 64 sets of sampling controls at once, against one by one | 5 minutes |
| ``python -m bench.hostile`` | ordinary clients of a gateway while others attack it | 3 minutes |
| ``python -m bench.tokenizers`` | ids and texts of the gateway, against transformers | 1 minute |
| ``python -m bench.kv_tiers.exact`` | KV that comes back from a disk: are tokens the same? | 3 minutes |
| ``python -m bench.kv_tiers.returns DIR`` | conversations that come back, with a disk, without | 12 minutes |
| ``python -m bench.observability`` | whether all telemetry of a stack arrives and is plausible | 80 seconds |
| ``python -m bench.observability.cost`` | what telemetry costs | 2 minutes |
| ``python -m bench.prediction`` | whether a simulation predicts a calibrated stack | 25 minutes |
| ``python -m bench.paper`` | the paper's tables, simulated from one of its rows | 3 minutes |
| ``python -m bench.tiny.evaluate DIR`` | exact answers of the bundled model | 1 minute |

``DIR`` is a checkpoint: ``python -m bench.throughput.random_checkpoint DIR`` writes one of a real model's
shape, ``python -m bench.tiny.train DIR`` trains the bundled one. ``stack.py`` starts a stack for a
measurement, ``machine.py`` names the machine.
"""
