"""The peer of train_start.py: trials of two processes as a careful user writes them with Ray Tune, Ray Train and
DeepSpeed. No ShowHow.

`python -m benchmarks.plain_train_start` runs trials of two steps, one after another, and prints for each the seconds
from its start to the end of its first step. What it does with care: imports stand within what a process calls, and the
trial itself takes hardly a processor. The dashboard is on, without which a trial that is stopped keeps its processors;
and Ray is told of one processor more than the workers take, else the trial itself would leave them too few.
"""

import json
import os
import tempfile
import time
from typing import Any

PROCESSES, TRIALS, BATCH, STEPS, TOKENS, VOCABULARY = 2, 2, 8, 2, 24, 19


def main() -> None:
    """Run the trials, print the seconds."""
    os.environ["DS_ACCELERATOR"] = "cpu"
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(sweep(folder)))


def sweep(folder: str) -> list[float]:
    """Run one trial after another."""
    import ray
    from ray import tune

    started = {}

    class Ears(tune.Callback):  # type: ignore[misc]
        def on_trial_start(self, *, trial: Any, **_others: Any) -> None:
            started[trial.config["trial"]] = time.time()

    ray.init("local", num_cpus=PROCESSES + 1, log_to_driver=False)
    tuner = tune.Tuner(
        tune.with_resources(trial, {"CPU": 0.001}),
        param_space={"folder": folder, "trial": tune.grid_search(list(range(TRIALS)))},
        tune_config=tune.TuneConfig(max_concurrent_trials=1),
        run_config=tune.RunConfig(storage_path=folder, verbose=0, callbacks=[Ears()]),
    )
    stepped = {result.metrics["config"]["trial"]: result.metrics["stepped"] for result in tuner.fit()}
    ray.shutdown()
    return [stepped[index] - started[index] for index in range(TRIALS)]


def trial(config: dict[str, Any]) -> None:
    """Start the processes of a trial."""
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    TorchTrainer(
        fine_tune,
        scaling_config=ScalingConfig(num_workers=PROCESSES, resources_per_worker={"CPU": 1}),
        run_config=RunConfig(
            name=f"train-{config['trial']}", storage_path=config["folder"], callbacks=[TuneReportCallback()]
        ),
    ).fit()


def fine_tune() -> None:
    """Take the steps of a trial; report when the first was done."""
    import deepspeed
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from ray import train

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=2,
            num_attention_heads=8,
            attn_implementation="eager",
        )
    )
    engine = deepspeed.initialize(
        model=model,
        optimizer=torch.optim.AdamW(model.parameters(), lr=5e-4),
        config={
            "train_micro_batch_size_per_gpu": BATCH,
            "gradient_clipping": 1.0,
            "zero_optimization": {"stage": 1},
            "zero_allow_untested_optimizer": True,
        },
    )[0]
    done = []
    for _ in range(STEPS):
        batch = torch.randint(0, VOCABULARY, (BATCH, TOKENS))
        engine.backward(engine(input_ids=batch, labels=batch, use_cache=False).loss)
        engine.step()
        done.append(time.time())
    train.report({"stepped": done[0]})


if __name__ == "__main__":
    main()
