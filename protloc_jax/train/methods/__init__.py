"""Training methods by name. Each is a class built from (experiment, channels) that meets `train.method.Method`."""

from protloc_jax.train.methods.dino import Dino

METHODS = {"dino": Dino}
