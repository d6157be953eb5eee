"""Importing this loads what a trial needs (torch, transformers, Ray Tune). Ray does so in the processes that it makes
ready, while the cluster starts and the datasets are made."""

from showhow.processes.loading import load

load("showhow.bench.fine_tune", "showhow.processes.trial")
