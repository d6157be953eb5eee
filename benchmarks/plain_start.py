"""The peer of start_up.py: a small sweep as a careful user writes it with Ray Tune and transformers. No ShowHow.

`python -m benchmarks.plain_start` draws the quickstart's examples, trains a run of two steps at each level, and prints
when the first step was done and when the last run ended (seconds since the epoch). What it does with care: imports
stand within what a trial calls, so that the driver does not wait for them; processes are reused; no dashboard, no
checkpoints. `--alone` takes the steps in this process, without Ray.
"""

import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

EXAMPLES, BATCH, STEPS, TERMS = 20_000, 16, 2, 6
LEVELS = ("none", "short", "medium", "long")
SYMBOLS = ["<pad>", "<end>", *"0123456789+= ", "answer"]


def main() -> None:
    """Draw the data, train, print the times."""
    with tempfile.TemporaryDirectory() as folder:
        is_alone = "--alone" in sys.argv
        for level in LEVELS[:1] if is_alone else LEVELS:
            (Path(folder) / f"{level}.json").write_text(json.dumps(draw(level)))
        times = [fine_tune({"folder": folder, "level": LEVELS[0]})] if is_alone else sweep(folder)
    print(json.dumps([min(first for first, _ in times), max(last for _, last in times)]))


def draw(level: str) -> list[list[int]]:
    """Return the token ids of all examples of a level."""
    rng = random.Random(0)
    ids = {symbol: index for index, symbol in enumerate(SYMBOLS)}
    rows = []
    for _ in range(EXAMPLES):
        terms = [rng.randrange(10) for _ in range(TERMS)]
        total, steps = terms[0], ""
        for term in terms[1:]:
            after = (total + term) % 10
            shown = {"none": "", "short": f"{after} ", "medium": f"{total}+{term} ", "long": f"{total}+{term}={after} "}
            steps += shown[level]
            total = after
        text = [*"+".join(map(str, terms)), "=", *steps, "answer", " ", str(total)]
        rows.append([*(ids[symbol] for symbol in text), ids["<end>"]])
    return rows


def sweep(folder: str) -> list[tuple[float, float]]:
    """Train each level once under Ray Tune."""
    import ray
    from ray import tune

    def trial(config: dict[str, Any]) -> None:
        first, last = fine_tune(config)
        tune.report({"first": first, "last": last})

    ray.init("local", include_dashboard=False, log_to_driver=False)
    tuner = tune.Tuner(
        tune.with_resources(trial, {"CPU": 1}),
        param_space={"folder": folder, "level": tune.grid_search(list(LEVELS))},
        tune_config=tune.TuneConfig(reuse_actors=True),
        run_config=tune.RunConfig(storage_path=folder, verbose=0),
    )
    results = tuner.fit()
    ray.shutdown()
    return [(result.metrics["first"], result.metrics["last"]) for result in results]


def fine_tune(config: dict[str, Any]) -> tuple[float, float]:
    """Take the steps of a run; return when the first was done and when the last."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(1)
    rows = json.loads((Path(config["folder"]) / f"{config['level']}.json").read_text())
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(SYMBOLS),
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=2,
            num_attention_heads=8,
            attn_implementation="eager",
        )
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4, fused=True)
    done = []
    for step in range(STEPS):
        batch = torch.tensor(rows[step * BATCH : (step + 1) * BATCH])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model(batch, labels=batch, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        done.append(time.time())
    return done[0], done[-1]


if __name__ == "__main__":
    main()
