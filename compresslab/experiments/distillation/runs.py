"""One run of lab 02's comparison, as a worker process does it: a job in, what it reached out."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from compresslab.data.fashion_mnist import fashion_mnist
from compresslab.data.images import Images, Splits
from compresslab.errors import Diverged
from compresslab.experiments.distillation.methods import (
    HINT,
    LAYERS,
    METHODS,
    Learned,
    learn_alone,
    learn_together,
)
from compresslab.experiments.distillation.setting import (
    IMAGES,
    LABELLED,
    LABELLED_VIEWS,
    Setting,
    few_labels,
    of_classes,
)
from compresslab.experiments.distillation.transformer import (
    deep_transformer,
    learn_inside,
    shallow_transformer,
)
from compresslab.experiments.long_runs import save_whole
from compresslab.models.pretrained import load_baseline
from compresslab.models.residual import Mirrored, ResidualNetwork, baseline, student
from compresslab.models.surgery import evaluating
from compresslab.techniques.distillation.layer_outputs import tapped
from compresslab.techniques.distillation.offline import know
from compresslab.techniques.distillation.retrieval import one_shot_accuracy, recall_at_1
from compresslab.training.loop import accuracy, fast_precision

__all__ = [
    "SEEN",
    "SEEN_TEACHER",
    "STUDENTS",
    "TRANSFORMER",
    "UNSEEN",
    "Job",
    "double",
    "embed",
    "half",
    "perform",
    "setting_of",
]

SEEN, UNSEEN = (0, 2, 4, 6, 8), (1, 3, 5, 7, 9)  # even and odd classes: fixed before any run was looked at
SEEN_TEACHER = "seen_classes_teacher.safetensors"
TRANSFORMER = "transformer_teacher.safetensors"
KEPT_SEED = 0  # whose students are stored


def half() -> ResidualNetwork:
    """The student's family at half its widths."""
    return ResidualNetwork(4, [(8, 2), (16, 2)])


def double() -> ResidualNetwork:
    """The student's family at twice its widths."""
    return ResidualNetwork(16, [(32, 2), (64, 2)])


STUDENTS = {"half": half, "student": student, "double": double}


@dataclass(frozen=True)
class Job:
    """One run: what is taught, at which learning rate, from which seed.

    Attributes:
        group: "tries" (only validation is looked at), "methods", "students", "teachers", "peers", "labels",
            "held_out", "transformers".
        method: a name in METHODS, "alone", or "alone_long".
        seed: of the first weights, the order of the images and their augmentation.
        longer: how many times as long the student alone learns.
    """

    group: str
    method: str
    seed: int
    learning_rate: float
    longer: int = 1
    student: str = "student"
    teacher: str = "teacher"
    peer: str = ""
    labels: int = LABELLED

    @property
    def key(self) -> str:
        """The run's name in the results, such as ``methods/kd/0``."""
        middle = {
            "tries": f"{self.learning_rate:g}",
            "students": self.student,
            "teachers": self.teacher,
            "peers": self.peer,
            "labels": str(self.labels),
        }.get(self.group)
        return "/".join([self.group, self.method, *([middle] if middle else []), str(self.seed)])


def perform(job: Job, folder: Path, small: bool = False) -> dict:
    """What a job's student reached, as JSON values; the students of one seed go to ``folder``.

    The seconds are those of the student's training; a teacher's pass over the views, once for all runs, is
    not among them.
    """
    data, setting = _data(small), setting_of(job, folder, small=small)
    start = time.perf_counter()
    try:
        learned = _learn(job, setting, folder)
    except Diverged as error:
        # a run that diverged has taught nothing: the untrained student stands for it
        torch.manual_seed(job.seed)
        learned = Learned(_untrained(job)(), {"diverged": str(error)})
    seconds = time.perf_counter() - start
    network = learned.network
    found = {
        "learning_rate": job.learning_rate,
        "small": small,
        "seconds": round(seconds, 1),
        "validation_accuracy": accuracy(network, setting.validation),
    }
    if job.group == "held_out":
        found |= _on_unseen_classes(network, of_classes(data.test, UNSEEN))
    elif job.group != "tries":
        found["test_accuracy"] = accuracy(network, data.test)
    if job.seed == KEPT_SEED and job.group in ("methods", "held_out"):
        save_whole(network, folder / f"{job.group}_{job.method}.safetensors")
    return found | learned.details


def setting_of(job: Job, folder: Path, *, small: bool = False) -> Setting:
    """The setting that a job runs in, with its teacher's knowledge where the method learns from a teacher."""
    seen = job.group == "held_out"
    setting = replace(_setting(seen, small, job.labels), learning_rate=job.learning_rate)
    if job.method in METHODS and METHODS[job.method].strategy == "offline":
        knowledge = _knowledge(job.teacher, folder, seen, job.method == "fitnet", small, job.labels)
        setting = replace(setting, knowledge=knowledge)
    return setting


def embed(network: nn.Module, images: Images) -> torch.Tensor:
    """What a network hands to its last layer: (n, width), for images in order."""
    layer = "network.pool" if isinstance(network, Mirrored) else "pool"
    with evaluating(network):
        return torch.cat([tapped(network, inputs, [layer])[1][0] for inputs, _ in images.batches()])


def _learn(job: Job, setting: Setting, folder: Path) -> Learned:
    if job.group == "transformers" and job.method != "alone":
        teacher = deep_transformer()
        teacher.load_state_dict(load_file(folder / TRANSFORMER))
        answers_alone = job.method == "response"
        return learn_inside(setting, teacher.eval(), answers_alone=answers_alone, seed=job.seed)
    make = _untrained(job)
    if job.method.startswith("alone"):
        return learn_alone(setting, make, seed=job.seed, longer=job.longer)
    method = METHODS[job.method]
    if job.peer:
        return learn_together(setting, make, STUDENTS[job.peer], strength=method.strength, seed=job.seed)
    return method.run(setting, make, strength=method.strength, seed=job.seed)


def _untrained(job: Job) -> Callable[[], nn.Module]:
    """What makes the network that a job trains."""
    return shallow_transformer if job.group == "transformers" else STUDENTS[job.student]


def _on_unseen_classes(network: nn.Module, images: Images) -> dict:
    embeddings = embed(network, images)
    generator = torch.Generator().manual_seed(0)
    return {
        "recall_at_1": recall_at_1(embeddings, images.labels),
        "one_shot_accuracy": one_shot_accuracy(embeddings, images.labels, episodes=1000, generator=generator),
    }


@functools.lru_cache(maxsize=1)
def _data(small: bool) -> Splits:
    data = fashion_mnist()
    return Splits(data.train.first(400), data.validation.first(100), data.test.first(100)) if small else data


@functools.lru_cache(maxsize=2)
def _setting(seen: bool, small: bool, labels: int) -> Setting:
    if small:
        count, every, views, passes = 100, 200, (2, 1), 1
    else:
        count, every, views, passes = labels, IMAGES, (LABELLED_VIEWS // labels, 4), 2
    data = _data(small)
    train, validation = data.train.first(every), data.validation
    if seen:
        count = len(of_classes(train.first(count), SEEN))
        train, validation = of_classes(train, SEEN), of_classes(validation, SEEN)
    return few_labels(
        Splits(train, validation, data.test),
        labelled=count,
        unlabelled=len(train) - count,
        views=views,
        passes=passes,
        precision=fast_precision(),
    )


@functools.lru_cache(maxsize=2)
def _knowledge(teacher: str, folder: Path, seen: bool, hints: bool, small: bool, labels: int):
    if teacher == SEEN_TEACHER:
        network: nn.Module = baseline()
        network.load_state_dict(load_file(folder / SEEN_TEACHER))
    else:
        network = load_baseline(teacher)
    views, precision = _setting(seen, small, labels).views, fast_precision()
    if teacher == "teacher":
        more = {"attention": list(LAYERS.values()), "features": [HINT[1]] if hints else []}
    else:
        more = {}
    embedding = {"mlp": "6", "teacher": "network.pool"}.get(teacher, "pool")
    return know(network, views, embedding=embedding, precision=precision, **more)
