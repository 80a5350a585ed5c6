"""Prints the losses of three small steps on a mesh: `python sharded_steps.py DATA,FSDP,TENSOR`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from oracles.training import SmallTraining, random_batch

from magiccolor_jax.parallel.sharding import train_mesh

if __name__ == "__main__":
    training = SmallTraining(train_mesh(tuple(map(int, sys.argv[1].split(",")))))
    batches = [random_batch(seed, cases=8) for seed in range(3)]
    print(*(metrics["loss"] for metrics in training.run(batches)))
