"""Importing this loads the modules of every process of a spread run. Ray does so in prestarted processes. Which will
be workers is not known before, so the modules of workers only (torch, transformers, DeepSpeed) are loaded later."""

from showhow.processes.loading import load

load("showhow.processes.spread", "showhow.processes.workers")
