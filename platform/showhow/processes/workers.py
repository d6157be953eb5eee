"""Processes that train one model together: Ray Train within the resources that Ray Tune has reserved for a trial.

By default a Ray Train run reserves a placement group of its own, in addition to that of its trial. Then trials start
without devices, two of them can each reserve half of what they need, and the devices of a stopped one stay reserved
until another process has asked the dashboard. Here the workers use the bundles that Ray Tune reserved with the trial,
all or none, which are released when it ends for any reason. Ray Train's processes for features that are not used here
(its datasets, notices of preemption, requests to the autoscaler) are not started, as each costs seconds of a processor
before the first step.

This overrides internals of Ray 2.60; tests/ray/test_spread.py states what another version must satisfy.
"""

import asyncio
import os
from collections.abc import Callable
from typing import Any

from ray.exceptions import OutOfMemoryError as RayOutOfMemoryError
from ray.exceptions import RayActorError
from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError, WorkerGroupError
from ray.train._internal.utils import get_address_and_port
from ray.train.backend import Backend, BackendConfig
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.constants import ENABLE_PREEMPTION_WATCHER_ENV_VAR
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError
from ray.train.v2._internal.execution.context import get_train_context
from ray.train.v2._internal.execution.controller.controller import TrainController
from ray.train.v2._internal.execution.scaling_policy import FixedScalingPolicy
from ray.train.v2._internal.execution.worker_group.placement_group_handle import DefaultPlacementGroupHandle
from ray.train.v2._internal.execution.worker_group.worker_group import WorkerGroup
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

import ray
from ray import tune
from showhow.errors import OutOfMemoryError, TrialError
from showhow.processes.loading import load
from showhow.processes.trial import Say, in_json
from showhow.sections.resources import Resources

Work = Callable[[Say], None]  # takes a function that sends a message, from the first worker only


def work_together(work: Work, devices: int, each: Resources, hear: Callable[[str], None]) -> None:
    """Run `work` in a torch.distributed process for each device, in the bundles of the placement group of the calling
    Ray Tune trial, in order. `hear` receives messages made by trial.in_json; when it raises, or one worker fails, the
    others are ended.

    Raises the error of a worker that failed (TrialError, OSError, MemoryError), and RuntimeError when one died; when
    Ray ended it because the machine ran out of memory, OutOfMemoryError."""
    bundle: dict[str, float] = {"CPU": each.cpus_per_device}
    trainer = _Trainer(
        _do,
        train_loop_config={"work": work, "threads": each.cpus_per_device},
        backend_config=_TorchInWorkers(),
        scaling_config=ScalingConfig(
            num_workers=devices,
            use_gpu=each.gpus_per_device > 0,
            resources_per_worker=bundle | ({"GPU": each.gpus_per_device} if each.gpus_per_device else {}),
        ),
        run_config=RunConfig(
            name="workers",
            storage_path=tune.get_context().get_trial_dir(),  # stays empty: a run saves its own state
            failure_config=FailureConfig(max_failures=0, controller_failure_limit=0),  # Ray Tune tries again
        ),
    )
    trainer.hear = hear
    try:
        trainer.fit()
    except (TrainingFailedError, RayActorError) as error:
        raise _summary(error) from error


class _Trainer(DataParallelTrainer):  # type: ignore[misc]
    hear: Callable[[str], None]

    def _create_default_callbacks(self) -> list[Any]:
        unused = (DatasetsCallback, PlacementGroupCleanerCallback)
        return [callback for callback in super()._create_default_callbacks() if not isinstance(callback, unused)]

    def _initialize_and_run_controller(self, **arguments: Any) -> Any:
        arguments["scaling_policy"] = _ReservedDevices(self.scaling_config)
        # Without Ray Train's environment variables, with which prestarted processes could not be used.
        controller = ray.remote(num_cpus=0)(_Controller).remote(**arguments)
        try:
            running = controller.run.remote()
            while (message := ray.get(controller.next_message.remote())) is not None:
                if isinstance(message, Exception):
                    raise message
                self.hear(message)
            ray.get(running)
            return ray.get(controller.get_result.remote())
        finally:
            ray.kill(controller)  # and the workers, which it owns


class _ReservedDevices(FixedScalingPolicy):  # type: ignore[misc]
    """Requests nothing from the autoscaler: Ray Tune has reserved the resources."""

    def after_controller_start(self, train_run_context: Any) -> None:
        """Do nothing."""

    def _maybe_send_resource_request(self) -> None:
        """Do nothing."""


class _ReservedGroup(DefaultPlacementGroupHandle):  # type: ignore[misc]
    """The trial's placement group, which Ray Tune removes."""

    def shutdown(self) -> None:
        """Do nothing."""


class _ReservedWorkerGroup(WorkerGroup):  # type: ignore[misc]
    def _create_placement_group(self, *_arguments: Any) -> _ReservedGroup:
        return _ReservedGroup(ray.util.get_current_placement_group())


class _Controller(TrainController):  # type: ignore[misc]
    """Watches the workers and forwards their messages."""

    worker_group_cls = _ReservedWorkerGroup

    def __init__(self, **arguments: Any) -> None:
        os.environ[ENABLE_PREEMPTION_WATCHER_ENV_VAR] = "0"
        self._messages: asyncio.Queue[str | Exception | None] = asyncio.Queue()
        super().__init__(**arguments)

    async def run(self) -> None:
        try:
            await super().run()
        finally:
            self._messages.put_nowait(None)

    async def send(self, message: str | Exception) -> None:
        self._messages.put_nowait(message)

    async def next_message(self) -> str | Exception | None:
        """Return the next message, or None after the last one."""
        return await self._messages.get()


class _TorchInWorkers(BackendConfig):  # type: ignore[misc]
    """Like TorchConfig, but only the workers load torch, which takes 1.5 s of a processor in each other process."""

    @property
    def backend_cls(self) -> type[Backend]:
        return _Joining


class _Joining(Backend):  # type: ignore[misc]
    share_cuda_visible_devices = True

    def on_start(self, worker_group: Any, backend_config: BackendConfig) -> None:  # noqa: ARG002 - Ray's signature
        address, port = worker_group.execute_single(0, get_address_and_port)
        worker_group.execute(_join, address, port)


def _join(address: str, port: int) -> None:
    """Add this worker to the group of torch.distributed."""
    load("ray.train.torch.config")  # with torch
    from ray.train.torch.config import _set_torch_distributed_env_vars, _setup_torch_process_group

    context = get_train_context()
    backend = "nccl" if context.train_run_context.scaling_config.use_gpu else "gloo"
    os.environ |= {"MASTER_ADDR": address, "MASTER_PORT": str(port)}
    _set_torch_distributed_env_vars()
    _setup_torch_process_group(backend, context.get_world_rank(), context.get_world_size(), "env://")


def _do(config: dict[str, Any]) -> None:
    from ray.train.torch.config import TorchConfigContextManager

    from showhow.training.threads import use_threads

    use_threads(config["threads"])
    context = get_train_context()

    def say(kind: str, content: Any) -> None:
        if context.get_world_rank() == 0:
            ray.get(context.controller_actor.send.remote(in_json(kind, content)))

    try:
        with TorchConfigContextManager():
            config["work"](say)
    except (TrialError, OSError, MemoryError) as error:
        ray.get(context.controller_actor.send.remote(error))  # ends the others, which may wait for this one


def _summary(error: Exception) -> Exception:
    """Return why `fit` failed, as one error for the caller that retries."""
    if not isinstance(error, WorkerGroupError):
        return RuntimeError(str(error).strip().splitlines()[-1])
    failures = sorted(error.worker_failures.items())
    for rank, failure in failures:
        if isinstance(failure, WorkerHealthCheckFailedError):  # the errors of the others follow from it
            if isinstance(failure.health_check_failure, RayOutOfMemoryError):
                return OutOfMemoryError(
                    f"the machine ran out of memory, and Ray ended the process of device {rank + 1}"
                )
            return RuntimeError(f"the process of device {rank + 1} died")
    rank, failure = failures[0]
    return RuntimeError(f"{type(failure).__name__} on device {rank + 1}: {failure}")
