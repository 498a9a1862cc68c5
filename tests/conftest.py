"""What the tests share: one thread, so that they are repeatable and leave the other core alone."""

import torch

torch.set_num_threads(1)
