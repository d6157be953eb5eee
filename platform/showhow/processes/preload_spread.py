"""Importing this loads what each process of a spread run needs. Ray does so in the processes that it makes ready. Ray
does not say before which will be a worker, so what only these need (torch, transformers, DeepSpeed) they load later."""

from showhow.processes.loading import load

load("showhow.processes.spread", "showhow.processes.workers")
