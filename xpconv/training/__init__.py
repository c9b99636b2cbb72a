"""Training networks: the loop over epochs and batches, and what happens around it.

trainer.py        Trainer: batches, updates, evaluation, the history
data.py           images and labels, checked once and handed out in batches
checkpoint.py     the file that a stopped training goes on from
progress.py       what is shown while it runs
interruption.py   Ctrl-C
"""

from xpconv.training.progress import Progress
from xpconv.training.trainer import Trainer

__all__ = ["Progress", "Trainer"]
