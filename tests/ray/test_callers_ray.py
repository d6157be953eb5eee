"""A study in a process that has initialised Ray itself, as a notebook does."""

import os
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path


def run_script(script: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    with tempfile.TemporaryDirectory(prefix="ray") as temporary:  # a short path: Ray's sockets are in it
        environment = {**os.environ, "RAY_TMPDIR": temporary}
        environment.pop("MLFLOW_TRACKING_URI", None)
        return subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )


def test_the_callers_ray_is_used_from_a_thread_or_within_an_event_loop_and_left_as_it_was(
    tiny_file: Path, tmp_path: Path
) -> None:
    script = """
        import asyncio, os, sys, threading
        from pathlib import Path
        import ray
        from ray.tune.execution import class_cache

        ray.init(num_cpus=2, include_dashboard=False, runtime_env={"env_vars": {"MINE": "1"}})
        node = ray.get_runtime_context().get_node_id()
        tune, variables = dict(class_cache.DEFAULT_ENV_VARS), dict(os.environ)

        from showhow.study.study import Study
        from showhow.sweep.run_study import run_study

        study = Study.load(Path(sys.argv[1]), ["recipe.max_examples=160", "seeds=[0]"])
        results = []
        thread = threading.Thread(target=lambda: results.append(run_study(study, home=Path(sys.argv[2]))))
        thread.start()
        thread.join()
        (result,) = results
        print("ROWS", [row.runs for row in result.rows])

        async def in_a_cell():
            return run_study(study.model_copy(update={"name": "again"}), address="auto", home=Path(sys.argv[2]))

        again = asyncio.run(in_a_cell())
        print("AGAIN", [row.runs for row in again.rows])

        @ray.remote
        def mine():
            return os.environ["MINE"]

        assert ray.get(mine.remote()) == "1"
        assert ray.get_runtime_context().get_node_id() == node
        assert class_cache.DEFAULT_ENV_VARS == tune
        print("CHANGED", [name for name in os.environ if name.startswith("TUNE_")])
        ray.shutdown()
    """
    done = run_script(script, tiny_file, tmp_path / "home")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ROWS [1, 1]" in done.stdout
    assert "AGAIN [1, 1]" in done.stdout
    assert "CHANGED []" in done.stdout


def test_a_cluster_other_than_the_callers_and_one_too_small_are_refused(tiny_file: Path, tmp_path: Path) -> None:
    script = """
        import sys
        from pathlib import Path
        import ray

        ray.init(num_cpus=1, include_dashboard=False)
        from showhow.errors import UserError
        from showhow.study.study import Study
        from showhow.sweep.run_study import run_study

        study = Study.load(Path(sys.argv[1]))
        large = Study.load(Path(sys.argv[1]), ["resources.cpus_per_device=2"])
        for asked, address in ((study, "127.0.0.1:1"), (large, None)):
            try:
                run_study(asked, address=address, home=Path(sys.argv[2]))
            except UserError as error:
                print("REFUSED", error)
        assert ray.is_initialized()
        ray.shutdown()
    """
    done = run_script(script, tiny_file, tmp_path / "home")
    assert done.returncode == 0, done.stdout + done.stderr
    other, small = [line for line in done.stdout.splitlines() if line.startswith("REFUSED")]
    assert "--address 127.0.0.1:1: this process is connected to another Ray already, at " in other
    assert "ray.shutdown()" in other
    assert "the Ray that this process is connected to" in small
