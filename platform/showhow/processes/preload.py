"""Importing this loads the modules of a trial (torch, transformers, Ray Tune). Ray does so in prestarted processes,
while the cluster starts and the datasets are made."""

from showhow.processes.loading import load

load("showhow.bench.fine_tune", "showhow.processes.trial")
