"""Training methods by name. Each is a class built from (experiment, channels) that meets `train.method.Method`."""

from protloc_jax.train.methods.dino import Dino
from protloc_jax.train.methods.dino_adversary import DinoAdversary
from protloc_jax.train.methods.supervised import Supervised

METHODS = {"dino": Dino, "dino_adversary": DinoAdversary, "supervised": Supervised}
