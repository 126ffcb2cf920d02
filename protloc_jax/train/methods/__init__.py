"""Training methods by name. Each is a class built from (experiment, channels) that meets `train.method.Method`."""

from protloc_jax.train.methods.byol import Byol
from protloc_jax.train.methods.dino import Dino
from protloc_jax.train.methods.dino_adversary import DinoAdversary
from protloc_jax.train.methods.mae import Mae
from protloc_jax.train.methods.moco import Moco
from protloc_jax.train.methods.simclr import Simclr
from protloc_jax.train.methods.supervised import Supervised
from protloc_jax.train.methods.wsl import Wsl

METHODS = {
    "dino": Dino,
    "dino_adversary": DinoAdversary,
    "supervised": Supervised,
    "wsl": Wsl,
    "simclr": Simclr,
    "byol": Byol,
    "moco": Moco,
    "mae": Mae,
}
