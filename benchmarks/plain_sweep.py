"""The peer of sweep.py: the same study as a careful user writes it with Ray Tune and transformers' Trainer. No ShowHow.

`python -m benchmarks.plain_sweep PLAN.json FOLDER` trains every point of a grid and writes FOLDER/results.json. What it
does with care: one thread a trial, bfloat16 and fused AdamW (with eager attention, where the plan says so, the fastest
of the Trainer's settings for this model), no checkpoints, no progress bars, one log an evaluation, all replies written
as one batch with a key-value cache, no dashboard. Rows of a level are equally long, so grouping them by length would
change nothing. Imports stand within what a trial calls, so that the driver does not wait for them.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any


def fine_tune(config: dict[str, Any]) -> None:
    """Train one point. Tells Ray Tune loss and validation accuracy as it goes, at the end test accuracy and times."""
    begun = time.time()
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments

    from ray import tune

    plan, shards = config["plan"], config["plan"]["shards"][config["level"]]
    imported = time.time()
    torch.manual_seed(config["seed"])
    model = LlamaForCausalLM(LlamaConfig(**plan["model"]))
    validation, test = (_Questions(shards[split], plan["questions"][split], plan) for split in ("validation", "test"))
    settings = TrainingArguments(
        config["folder"], seed=config["seed"], learning_rate=config["learning_rate"], **_settings(plan)
    )

    class Evaluate(TrainerCallback):  # type: ignore[misc]
        def on_log(self, args, state, _control, logs, **_rest):  # type: ignore[no-untyped-def]
            if "loss" in logs:
                accuracy, examples = validation.accuracy(model), state.global_step * args.train_batch_size
                tune.report({"examples": examples, "loss": logs["loss"], "validation": accuracy})

    trainer = Trainer(model, settings, _collate, _rows(shards["train"]), callbacks=[Evaluate()])
    ready = time.time()
    trainer.train()
    trained = time.time()
    times = {"begun": begun, "import_seconds": imported - begun, "setup_seconds": ready - imported}
    times["train_seconds"] = trained - ready - validation.seconds
    accuracy = test.accuracy(model)
    tune.report({"test": accuracy, "eval_seconds": validation.seconds + test.seconds, "ended": time.time(), **times})


def _settings(plan: dict[str, Any]) -> dict[str, Any]:
    """Return the Trainer's arguments that all points share."""
    batch = plan["batch_size"]
    return {
        "per_device_train_batch_size": batch,
        "max_steps": plan["max_examples"] // batch,
        "warmup_steps": plan["warmup_examples"] // batch,
        "lr_scheduler_type": "constant_with_warmup",
        "adam_beta2": plan["beta_2"],
        "max_grad_norm": plan["gradient_clip"],
        "optim": "adamw_torch_fused",
        "bf16": True,
        "use_cpu": True,
        "dataloader_pin_memory": False,
        "logging_steps": plan["every_examples"] // batch,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


def _columns(path: str) -> dict[str, list[Any]]:
    from pyarrow import parquet

    columns: dict[str, list[Any]] = parquet.read_table(path).to_pydict()
    return columns


def _rows(path: str) -> list[dict[str, Any]]:
    """Return question and target in one row, with no loss on the question."""
    import torch

    columns = _columns(path)
    return [
        {"input_ids": torch.tensor(prompt + target), "labels": torch.tensor([-100] * len(prompt) + target)}
        for prompt, target in zip(columns["prompt_ids"], columns["target_ids"], strict=True)
    ]


def _collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
    import torch

    return {name: torch.stack([row[name] for row in rows]) for name in ("input_ids", "labels")}


class _Questions:
    """The first questions of a split, and the seconds spent on asking them."""

    def __init__(self, path: str, count: int, plan: dict[str, Any]) -> None:
        import torch
        from tokenizers import Tokenizer

        columns = {name: values[:count] for name, values in _columns(path).items()}
        self._prompts = torch.tensor(columns["prompt_ids"])
        self._prefix = plan["answer_prefix"]
        self._answers = [self._answer(text) for text in columns["target"]]
        self._longest = max(map(len, columns["target_ids"])) + plan["extra_tokens"]
        self._tokenizer = Tokenizer.from_file(plan["tokenizer"])
        self.seconds = 0.0

    def accuracy(self, model: Any) -> float:
        """Return the share of questions that the model answers right."""
        import torch

        started = time.time()
        model.eval()
        mask = torch.ones_like(self._prompts)
        written = model.generate(self._prompts, attention_mask=mask, max_new_tokens=self._longest, do_sample=False)
        model.train()
        replies = self._tokenizer.decode_batch(written[:, self._prompts.shape[1] :].tolist())
        right = sum(self._answer(reply) == answer for reply, answer in zip(replies, self._answers, strict=True))
        self.seconds += time.time() - started
        return right / len(replies)

    def _answer(self, text: str) -> str:
        return text.rpartition(self._prefix)[2]  # without explanation there is no prefix: the whole text answers


def main() -> None:
    """Run the grid of a plan."""
    import ray
    from ray import tune

    plan, folder = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2]).resolve()
    ray.init("local", include_dashboard=False)
    axes = {name: tune.grid_search(plan[name]) for name in ("seed", "learning_rate", "level")}
    ready = time.time()
    results = tune.Tuner(
        tune.with_resources(fine_tune, {"CPU": 1}),
        param_space={**axes, "plan": plan, "folder": str(folder / "trainer")},
        run_config=tune.RunConfig(name="plain", storage_path=str(folder)),
    ).fit()
    if results.num_errors:
        raise results.errors[0]
    rows = [
        {name: one.config[name] for name in axes}
        | one.metrics
        | {"validations": one.metrics_dataframe["validation"].dropna().tolist()}
        for one in results
    ]
    (folder / "results.json").write_text(json.dumps({"ready": ready, "runs": rows}), encoding="utf-8")


if __name__ == "__main__":
    main()
