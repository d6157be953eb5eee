"""What a study demands of machines, what they have, and what is missing. Pure, except that it looks at what this
machine has; processes/cluster.py describes a cluster."""

from dataclasses import dataclass

from showhow.machines import machine
from showhow.machines.layout import Layout
from showhow.sections.resources import Resources


@dataclass(frozen=True)
class Demand:
    """What a study demands of a cluster: the number of runs, the layouts of trials, the resources of each device."""

    runs: int
    layouts: tuple[Layout, ...]
    each: Resources

    @property
    def least(self) -> int:
        """Devices of the smallest trial."""
        return min(layout.devices for layout in self.layouts)

    @property
    def most(self) -> int:
        """Devices of the largest trial."""
        return max(layout.devices for layout in self.layouts)

    @property
    def is_spread(self) -> bool:
        """Whether a trial takes more than one plain process."""
        return any(layout.needs_deepspeed for layout in self.layouts)


@dataclass(frozen=True)
class Node:
    """The CPUs and GPUs of one machine of a cluster."""

    cpus: int
    gpus: float

    def devices(self, resources: Resources) -> int:
        """How many devices of runs fit on this machine."""
        rooms = [self.cpus // resources.cpus_per_device]
        if resources.gpus_per_device:
            rooms.append(int(self.gpus / resources.gpus_per_device + 1e-9))
        return min(rooms)


@dataclass(frozen=True)
class Cluster:
    """The machines of a cluster, or this one alone."""

    nodes: tuple[Node, ...]

    @property
    def cpus(self) -> int:
        """All CPUs."""
        return sum(node.cpus for node in self.nodes)

    @property
    def gpus(self) -> float:
        """All GPUs."""
        return sum(node.gpus for node in self.nodes)

    def devices(self, resources: Resources) -> int:
        """How many devices of runs fit on the cluster at once."""
        return sum(node.devices(resources) for node in self.nodes)

    def runs_at_once(self, demand: Demand) -> int:
        """How many runs fit at once, at most; the devices of one run may be on several machines."""
        room = self.devices(demand.each) // demand.least
        return min(room, demand.each.max_concurrent or room)


def this_machine() -> Cluster:
    """Return this machine; only NVIDIA GPUs are counted (Ray, once it runs, counts others too)."""
    return Cluster((Node(machine.cpu_count(), machine.gpu_count()),))


def shortage(cluster: Cluster, demand: Demand, who: str) -> str | None:
    """Return why a trial does not fit on a cluster, called `who`, and what to do; None where it fits."""
    each, room = demand.each, cluster.devices(demand.each)
    if room >= demand.most:
        return None
    if room:
        return (
            f"resources.devices_per_trial: a trial takes {demand.most} devices of {each.cpus_per_device} CPUs and "
            f"{each.gpus_per_device:g} GPUs each, but {who} has room for {room} ({cluster.cpus} CPUs, {cluster.gpus:g} "
            f"GPUs); set it to at most {room}, or give the --address of a larger cluster"
        )
    cpus, gpus = max(node.cpus for node in cluster.nodes), max(node.gpus for node in cluster.nodes)
    largest = who if len(cluster.nodes) == 1 else f"the largest machine of {who}"
    if each.cpus_per_device > cpus:
        return (
            f"resources.cpus_per_device = {each.cpus_per_device}, but {largest} has {cpus} CPUs; "
            f"set it to at most {cpus}, or give the --address of a cluster with larger machines"
        )
    return (
        f"resources.gpus_per_device = {each.gpus_per_device:g}, but {largest} has {gpus:g} GPUs (with "
        f"{each.cpus_per_device} CPUs each); "
        "set it to 0 to train on CPUs, or give the --address of a cluster with GPUs"
    )
