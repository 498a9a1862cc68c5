# %% [markdown]
# # Teacher and student
#
# So far a network was trained, and then made smaller. There is another way to a small network: train it as one, and let
# a large one teach it. A label says "coat". A teacher says "coat, perhaps a pullover, surely no sandal", and it can say
# more: where it looked, and what it finds alike. Whatever it says, only the student is shipped.
#
# What is taught (answers, features, relations) and how (by a fixed teacher, by peers, by oneself) are two questions, and
# every method is a pair of answers. We try them all on the same student.
#
# {{ lab }}

# %%
import time

import torch
from torch import Tensor, nn

import compresslab as cl
from compresslab.course.distillation import figures as scenes
from compresslab.course.figures import gains as gains_as
from compresslab.experiments import distillation as experiments
from compresslab.notebook import lab, metric, verdict
from compresslab.techniques import distillation as d

# %%
check, hint, reveal, yours = lab("02_distillation")
data = cl.fashion_mnist()
teacher, results = cl.load_baseline("teacher"), experiments.load_results()
names = list(experiments.METHODS)  # kd, dkd, fitnet, …
alone = experiments.values(results, "methods", "alone")

# %% [markdown]
# Bet first. Eleven methods will teach the same small network: which one gains most? And if the teacher gets better, does
# the student?

# %%
guess = {"the winner": "fitnet", "a better teacher makes a better student": True}  # your bets

# %% [markdown]
# ## When does a student need a teacher?
#
# With all labels at hand a small network learns nearly what it can hold, and a teacher adds little. But labels are what
# costs. So this is our setting: a network that somebody trained on 50,000 labels, which we do not have; `500` images
# with labels; `11,500` without. Everyone sees the same views of the same images in as many steps, and everyone, the
# student *alone* too, has three tries at a learning rate, judged on validation. Then each method runs again from three
# other seeds, which alone are judged on test.

# %%
# About 10 seconds: the teacher looks twice at each image, the second time in the mirror.
teacher_accuracy = cl.accuracy(teacher, data.test)
metric("teacher.accuracy", teacher_accuracy)
metric("student_alone.accuracy", cl.mean_over_seeds(alone))
long = experiments.values(results, "methods", "alone_long")
metric("student_alone_long.accuracy", cl.mean_over_seeds(long))

# %% tags=["nbval-check-output"]
small = cl.student()
for name, network in (("teacher", teacher), ("student", small)):
    macs = cl.count_macs(network, data.test.first(1).inputs())
    print(f"{name}: {cl.count_parameters(network):9,} parameters, {macs:11,} MACs")
verdict("the teacher is right at least 95 times in 100", teacher_accuracy >= 0.95)

# %% [markdown]
# The teacher reaches {{ teacher.accuracy | percent }} on test. The student alone, with its `500` labels, reaches
# {{ student_alone.accuracy | percent }}, and {{ student_alone_long.accuracy | percent }} in three times the steps: more
# time is no substitute for a teacher. (Given all 50,000 labels and thirty passes, this student reaches
# {{ student_all_labels.accuracy | percent }}.)

# %%
metric("student_all_labels.accuracy", cl.read_card("student")["test_accuracy"])

# %% [markdown]
# ## What a teacher's answer says
#
# A label says "coat" and no more. The teacher's other nine probabilities are small, but not equally small, and a
# *temperature* makes them large enough to learn from ([Hinton, Vinyals and Dean
# 2015](https://arxiv.org/abs/1503.02531)).


# %% exercise="soft_targets"
def soft_targets(logits: Tensor, *, temperature: float) -> Tensor:
    """The probabilities of each image's classes, softened by a temperature. About 1 line.

        p[i, c] = exp(z[i, c] / T) / Σ_k exp(z[i, k] / T)          z = logits, T = temperature

    T = 1 is the ordinary softmax. The larger T, the closer all classes come together; below 1 the best class stands
    out more. Logits may be large, 600 or -600, and float32 has no exp(600): what you write must not give NaN there.

    Args:
        logits: (batch, classes), floats; not changed.
        temperature: above 0.

    Returns:
        p, in the shape and dtype of logits; each row adds up to 1.
    """
    ### BEGIN SOLUTION
    return torch.softmax(logits / temperature, dim=1)
    ### END SOLUTION


# %%
few = data.validation.first(200)
logits = torch.cat([teacher(inputs).detach() for inputs, _ in few.batches()])
unsure = (logits.softmax(dim=1).amax(dim=1)).argsort()  # the images that the teacher finds hard
scenes.draw_soft_targets_at(few.pixels[unsure[3]], logits[unsure[3]])

# %% [markdown]
# Turn the temperature yourself. Which classes come up first? At which temperature is nothing left to learn?

# %%
scenes.explore_soft_targets(few.pixels[unsure[:20]], logits[unsure[:20]])


# %% exercise="why_wrong_answers_teach"
def why_wrong_answers_teach() -> str:
    """The letter of the right answer: "a", "b", "c", "d" or "e"."""
    ### BEGIN SOLUTION
    return "b"
    ### END SOLUTION


# %% [markdown]
# The student now hears two voices: the label, which is right, and the teacher, which says more. The loss has a part for
# each, and a weight that says how much the teacher counts.


# %% exercise="kd_loss"
def kd_loss(
    logits: Tensor, teacher_logits: Tensor, labels: Tensor, *, temperature: float, weight: float
) -> Tensor:
    """The loss of a student that learns from labels and from a teacher, one number. About 4 lines.

        p_s = softmax(logits / T),  p_t = softmax(teacher_logits / T)          along the classes, T = temperature
        hard = mean over the images i of  -log softmax(logits)[i, labels[i]]                   here T is 1
        soft = mean over the images i of  Σ_c p_t[i, c] · (log p_t[i, c] - log p_s[i, c])      this is KL(p_t ‖ p_s)
        loss = (1 - weight) · hard + weight · T² · soft

    The teacher is not trained: no gradient may reach teacher_logits, not even where they require one. The gradient of
    logits flows through both parts. Logits may be large: where float32 rounds a probability to 0, its logarithm is
    -infinity, and the loss must still be right (log_softmax sees to that).

    Args:
        logits: of the student, (batch, classes); not changed.
        teacher_logits: in the same shape; not changed.
        labels: (batch,), int64, 0 … classes - 1.
        temperature: above 0.
        weight: the teacher's share, 0 … 1.

    Returns:
        The loss, a tensor of shape (). nn.functional has cross_entropy and kl_div; read which arguments kl_div takes
        as logarithms, which comes first, and what its reductions divide by.
    """
    ### BEGIN SOLUTION
    log_p = torch.log_softmax(logits / temperature, dim=1)
    targets = torch.softmax(teacher_logits.detach() / temperature, dim=1)
    soft = nn.functional.kl_div(log_p, targets, reduction="batchmean") * temperature**2
    return (1 - weight) * nn.functional.cross_entropy(logits, labels) + weight * soft
    ### END SOLUTION


# %% [markdown]
# (Two bonuses. What does the soft part really tell the student? Take its derivative on paper: something surprisingly
# short is left, and it shows where the factor before it comes from.)


# %% exercise="kd_gradient"
def kd_gradient(logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> Tensor:
    """The gradient of the soft part of the loss by the student's logits, derived by hand. About 3 lines.

        p_s = softmax(logits / T),  p_t = softmax(teacher_logits / T)          along the classes, T = temperature
        loss = T² · 1/n · Σ_i Σ_c p_t[i, c] · (log p_t[i, c] - log p_s[i, c])          n images
        gradient[i, c] = ∂ loss / ∂ logits[i, c]          for you to find: no sum is left in it but the softmax's

    The check switches autograd off, and compares you with it. For one logit of one image the derivative of log p_s[k]
    by z[c] is ((1 if k == c else 0) - p_s[c]) / T, and the p_t of an image add up to 1.

    Args:
        logits: of the student, (n, classes); not changed. They may be large, as in soft_targets.
        teacher_logits: in the same shape; not changed.
        temperature: above 0.

    Returns:
        The gradient, in the shape and dtype of logits.
    """
    ### BEGIN SOLUTION
    student = torch.softmax(logits / temperature, dim=1)
    teacher = torch.softmax(teacher_logits / temperature, dim=1)
    return temperature * (student - teacher) / len(logits)
    ### END SOLUTION


# %% exercise="why_t_squared"
def why_t_squared() -> str:
    """The letter of the right answer: "a", "b", "c", "d", "e" or "f"."""
    ### BEGIN SOLUTION
    return "d"
    ### END SOLUTION


# %% [markdown]
# ## Teach, live
#
# The teacher does not change, so it says the same of the same view every time. We draw the views beforehand, ask once,
# and write down what it knows. In each step the student only looks it up.

# %%
# About 30 seconds: the teacher sees all views, once.
setting = experiments.few_labels(
    data, learning_rate=results["learning_rates"]["kd"], precision=cl.fast_precision()
)
start = time.perf_counter()
known = d.know(teacher, setting.views, embedding="network.pool", precision=setting.precision)
print(f"asked once: {time.perf_counter() - start:.0f} s; written down: {known.storage_bytes / 1e6:.0f} MB")


# %%
# About 5 seconds: one training step with the teacher beside it, and one with its words looked up.
def step_with(ask):
    def step(inputs: Tensor) -> None:
        with torch.enable_grad():
            z = small.train()(inputs)
            d.response_loss(z, ask(inputs)).backward()

    return step


batch = setting.views.first(128).inputs()
cache = cl.speedup(
    step_with(lambda x: teacher(x).detach()), step_with(lambda x: known.logits[:128]), batch, rounds=9
)
metric("cache.speedup", cache)

# %% [markdown]
# Looking up makes a step {{ cache.speedup | times }} faster. Now teach, with *your* loss: with the weight 1 it is the
# teacher's voice alone, and the labels are added where there are any.

# %%
# About 15 seconds: one run, from a seed that the stored runs have not seen.
temperature, labels = experiments.METHODS["kd"].strength, setting.views.labels


def teach(pupil: d.Pupil, views: Tensor, index: Tensor) -> Tensor:
    z, y = pupil(views).float(), labels[index]
    soft = yours.kd_loss(z, known.logits[index], y.clamp(min=0), temperature=temperature, weight=1.0)
    return 0.1 * d.labelled_cross_entropy(z, y) + 0.9 * soft


torch.manual_seed(7)
live = d.distill(
    d.Pupil(cl.student()),
    setting.views,
    data.validation,
    teach,
    epochs=setting.passes,
    seed=7,
    learning_rate=setting.learning_rate,
    precision=setting.precision,
)

# %% tags=["nbval-check-output"]
runs = [
    v for n, v in results.items() if n.startswith(("methods/kd/", f"tries/kd/{setting.learning_rate:g}/"))
]
stored = cl.interval_of_one_more(
    [run["validation_accuracy"] for run in runs]
)  # four runs of just this setting
reached = cl.accuracy(live.model, data.validation)
verdict("the live run lies where the stored runs say it should", stored.low <= reached <= stored.high)

# %% [markdown]
# The stored runs are three for every method, from `compresslab train 02_distillation`. Their students of one seed are
# kept, so we can measure those again.

# %%
# About 10 seconds.
students = {name: experiments.load_student(name) for name in ("alone", *names)}
again = {name: cl.accuracy(student, data.test) for name, student in students.items()}

# %% tags=["nbval-check-output"]
first = {name: experiments.values(results, "methods", name)[0] for name in students}
verdict(
    "measured again, every student is what was stored", all(abs(again[n] - first[n]) < 0.002 for n in again)
)

# %% [markdown]
# ## Features: what it sees on the way
#
# Halfway through, a network's features already say what it has seen. A *hint* ([Romero et al.
# 2014](https://arxiv.org/abs/1412.6550)) asks the student to say the same at its own halfway point. The two speak in
# different numbers of channels, so a small interpreter, the *regressor*, learns to translate between them, and goes home
# when the training is over.


# %% exercise="hint_step"
def hint_step(
    student: nn.Module, regressor: nn.Module, teacher: nn.Module, images: Tensor, *, learning_rate: float
) -> tuple[float, dict[str, Tensor]]:
    """The loss before one step towards the teacher's features, and the student to be shipped. About 9 lines.

        loss = mean over all entries of (regressor(student(images)) - teacher(images))²
        w   <- w - learning_rate · ∂loss/∂w        in place, for every weight of the student and the regressor

    The teacher may come in training mode: put it in evaluation mode first, so that its BatchNorm computes with its
    stored statistics and does not move them. None of its tensors changes, and none gets a gradient (a .grad).

    Args:
        student: images → (n, s, h, w), the student up to its hint layer. In training mode, and it stays so: the
            images run through it once, and its BatchNorm moves its statistics as in any training.
        regressor: (n, s, h, w) → (n, t, h, w), in training mode too. It learns along and is not shipped.
        teacher: images → (n, t, h, w), up to its hint layer.
        images: (n, 1, rows, columns). Not changed.
        learning_rate: of a plain step, without momentum.

    Returns:
        The loss before the step, a float, and the student's state dict after it, without the regressor. There may
        be gradients of an earlier step in .grad: they play no part.
    """
    ### BEGIN SOLUTION
    teacher.eval()
    with torch.no_grad():
        wanted = teacher(images)  # (n, t, h, w)
    loss = ((regressor(student(images)) - wanted) ** 2).mean()
    weights = [*student.parameters(), *regressor.parameters()]
    gradients = torch.autograd.grad(loss, weights)
    with torch.no_grad():
        for w, gradient in zip(weights, gradients, strict=True):
            w -= learning_rate * gradient
    return loss.item(), student.state_dict()
    ### END SOLUTION


# %% [markdown]
# Must the student copy every channel? Perhaps it is enough that it looks at the same places ([Zagoruyko and Komodakis
# 2016](https://arxiv.org/abs/1612.03928)). Add up how busy all channels are at each place, and you have a small picture
# of attention, which a student of any width can match.


# %% exercise="attention_map"
def attention_map(features: Tensor) -> Tensor:
    """How busy a layer is at each place of each image, as rows of length 1. About 3 lines.

        energy[i, y, x] = Σ over channels c of features[i, c, y, x]²
        row[i]          = energy[i], its places in one row, one line of the image after the other
        map[i]          = row[i] / sqrt(Σ over places of row[i]²);    a row of zeros stays zeros

    Args:
        features: (n, c, h, w), a layer's outputs. Not changed.

    Returns:
        (n, h · w) in the dtype of the features, one row for each image; no row hangs on another image.
    """
    ### BEGIN SOLUTION
    rows = (features**2).sum(dim=1).flatten(start_dim=1)  # (n, h · w)
    lengths = rows.norm(dim=1, keepdim=True)  # (n, 1)
    return rows / torch.where(lengths > 0, lengths, 1.0)
    ### END SOLUTION


# %%
image = data.test.first(20).inputs()[19:20]
looks = {"teacher": d.layer_outputs(teacher, image, ["network.blocks.6"])[1][0]}
for name in ("alone", "kd", "attention"):
    looks[f"student, {name}"] = d.layer_outputs(students[name], image, ["blocks.1"])[1][0]
scenes.draw_attention(
    data.test.pixels[19], {name: yours.attention_map(f.detach())[0] for name, f in looks.items()}
)

# %% [markdown]
# ## Relations: what is alike
#
# The teacher's embedding has another size than the student's, so their numbers cannot be compared one by one. But how
# far apart two images lie is one number in either network ([Park et al. 2019](https://arxiv.org/abs/1904.05068)). Divided
# by each network's own mean, these numbers can be held against each other.


# %% exercise="rkd_distance"
def rkd_distance(embeddings: Tensor, teacher_embeddings: Tensor) -> Tensor:
    """How differently two networks space the images of a batch. About 6 lines.

        distance[i, j] = |x_i - x_j|, Euclidean, for all pairs of the n images: (n, n)
        relative[i, j] = distance[i, j] / mean of distance[i, j] over the n(n - 1) pairs i ≠ j
        loss           = mean over all n² entries of huber(student's relative - teacher's relative)
        huber(a)       = a² / 2 where |a| < 1, else |a| - 1/2

    Each network's distances are divided by their own mean. A pair of equal images has the distance 0, and counts in
    the mean all the same. Through the student's mean the gradient runs too; it is never NaN, though √ is infinitely
    steep at 0 and the diagonal is 0.

    Args:
        embeddings: the student's, (n, d), n ≥ 2 rows, not all of them equal. Not changed.
        teacher_embeddings: (n, e), of the same images; e and d may differ. Not changed, and gets no gradient.

    Returns:
        The loss, a tensor without dimensions, in the dtype of embeddings. 0 where the two clouds have one shape,
        whatever their sizes. The same number as RKDLoss of torchdistill, to 1e-6.
    """

    ### BEGIN SOLUTION
    def relative(x: Tensor) -> Tensor:
        distances = torch.cdist(x, x)  # (n, n), zeros on the diagonal
        return distances * len(x) * (len(x) - 1) / distances.sum()

    return nn.functional.smooth_l1_loss(relative(embeddings), relative(teacher_embeddings.detach()))
    ### END SOLUTION


# %% [markdown]
# (Two bonuses. Distances miss something: stand at one image, look at a second and then at a third; the angle that you
# turn by says how the three lie, and an angle has no unit. And PKT, [Passalis and Tefas
# 2018](https://arxiv.org/abs/1803.10837), asks which image of the batch each one would take for its neighbour. In some
# overviews it is called PKD, a name that elsewhere belongs to *patient* distillation. Yours counts as its authors' code
# does; the library's leaves out each image itself, as their paper does.)


# %% exercise="rkd_angle"
def rkd_angle(embeddings: Tensor, teacher_embeddings: Tensor) -> Tensor:
    """How differently two networks see the angles between the images of a batch. About 5 lines.

        u[j, i]      = (x_i - x_j) / |x_i - x_j|, the direction from image j to image i;   0 where x_i = x_j
        cos[j, i, k] = u[j, i] · u[j, k], the cosine of the angle at image j, its vertex, between i and k
        loss         = mean over all n³ triples of huber(student's cos - teacher's cos)
        huber(a)     = a² / 2 where |a| < 1, else |a| - 1/2

    The triples with i = j, k = j or i = k count as well: there both networks have the same cosine (0, 0, 1).

    Args:
        embeddings: the student's, (n, d), n ≥ 1. Not changed.
        teacher_embeddings: (n, e), of the same images; e and d may differ. Not changed, and gets no gradient.

    Returns:
        The loss, a tensor without dimensions, in the dtype of embeddings. 0 for fewer than three images, and where
        one cloud is the other turned, moved or enlarged. The same number as RKDLoss of torchdistill, to 1e-6.
    """

    ### BEGIN SOLUTION
    def cosines(x: Tensor) -> Tensor:
        directions = nn.functional.normalize(
            x - x[:, None], dim=2
        )  # (n, n, d): entry [j, i] leads from j to i
        return directions @ directions.transpose(1, 2)  # (n, n, n): the vertex, then the two others

    return nn.functional.smooth_l1_loss(cosines(embeddings), cosines(teacher_embeddings.detach()))
    ### END SOLUTION


# %% exercise="pkt_loss"
def pkt_loss(embeddings: Tensor, teacher_embeddings: Tensor) -> Tensor:
    """How differently two networks choose the neighbours of each image of a batch. About 6 lines.

        s[i, j] = cosine of the angle between x_i and x_j, from -1 to 1: both at unit length, then their product
        c[i, j] = (s[i, j] + 1) / 2, from 0 to 1
        r[i, j] = c[i, j] / (c[i, 0] + … + c[i, n-1]), the probability that image i picks j as its neighbour
        loss    = mean over all n² pairs of p · log((p + 1e-7) / (q + 1e-7));   p: the teacher's r, q: the student's

    An image is a neighbour of itself too (j = i). An embedding of zeros keeps its zeros: it has s = 0 with all, itself
    too. The 1e-7 keep the loss finite where two of the student's embeddings are opposite and q is 0.

    Args:
        embeddings: the student's, (n, d), n ≥ 1. Not changed.
        teacher_embeddings: (n, e), of the same images; e and d may differ. Not changed, and gets no gradient.

    Returns:
        The loss, a tensor without dimensions, in the dtype of embeddings; 1/n times the mean divergence
        KL(teacher ‖ student) of a row, but for the 1e-7. The same number as PKTLoss of torchdistill, to 1e-6.
    """

    ### BEGIN SOLUTION
    def probabilities(x: Tensor) -> Tensor:
        unit = nn.functional.normalize(x, dim=1)
        closeness = (unit @ unit.T + 1) / 2  # (n, n), in [0, 1]
        return closeness / closeness.sum(dim=1, keepdim=True)

    p, q = probabilities(teacher_embeddings.detach()), probabilities(embeddings)
    return (p * ((p + 1e-7) / (q + 1e-7)).log()).mean()
    ### END SOLUTION


# %%
seen = data.test.first(200)
spaces = {"teacher": experiments.embed(teacher, seen)}
spaces |= {
    f"student, {name}": experiments.embed(students[name], seen)
    for name in ("alone", "kd", "rkd", "pkt", "sp")
}
scenes.draw_relations(
    {name: spaces[name] for name in ("teacher", "student, alone", "student, rkd")}, seen.labels
)


# %%
def closeness(embedding: Tensor) -> Tensor:
    unit = nn.functional.normalize(embedding, dim=1)
    return unit @ unit.T  # (n, n)


for name in ("alone", "kd", "rkd", "pkt", "sp"):
    order = d.kendall_tau(closeness(spaces["teacher"]), closeness(spaces[f"student, {name}"]))
    metric(f"{name}.neighbour_order", order.mean().item())

# %% [markdown]
# Does a student keep the *order* of its teacher's neighbours? Kendall's $\tau$ is 1 for the same order and 0 for chance:
# {{ alone.neighbour_order }} for the student alone, {{ kd.neighbour_order }} with KD, {{ rkd.neighbour_order }} with
# RKD, {{ sp.neighbour_order }} with SP, {{ pkt.neighbour_order }} with PKT. PKT keeps more of it than any other, and far
# from all.
#
# What are such relations good for? For classes that nobody has taught. In these runs the teacher and the students saw
# only every other class, and each method kept its learning rate, which is a part of what is compared here. The
# embeddings must then find, among images of the five other classes, one of the same class. Recall counts how often the
# nearest image is one; in the one-shot game, five images are all that is known of the classes.

# %%
plain = experiments.values(results, "held_out", "alone", key="recall_at_1")
metric("alone.recall", cl.mean_over_seeds(plain))
for name in ("kd", "rkd", "pkt", "sp"):
    ours = experiments.values(results, "held_out", name, key="recall_at_1")
    metric(f"{name}.recall_gain", cl.gain_over_seeds(ours, plain))

# %%
once = experiments.values(results, "held_out", "alone", key="one_shot_accuracy")
metric("alone.one_shot", cl.mean_over_seeds(once))
for name in ("kd", "rkd", "pkt", "sp"):
    ours = experiments.values(results, "held_out", name, key="one_shot_accuracy")
    metric(f"{name}.one_shot_gain", cl.gain_over_seeds(ours, once))

# %% [markdown]
# The student alone finds a neighbour of the same unknown class for {{ alone.recall | percent }} of the images. RKD adds
# {{ rkd.recall_gain | points }} (from {{ rkd.recall_gain.low | points }} to {{ rkd.recall_gain.high | points }}), PKT
# {{ pkt.recall_gain | points }} (from {{ pkt.recall_gain.low | points }} to {{ pkt.recall_gain.high | points }}). KD,
# which speaks of the known classes and of nothing else, changes it by {{ kd.recall_gain | points }}. With a single image
# to know a class by, the relations are worth less: RKD {{ rkd.one_shot_gain | points }}, PKT
# {{ pkt.one_shot_gain | points }}, SP {{ sp.one_shot_gain | points }}.
#
# ## Without a teacher
#
# Must a teacher know more than the student? Let two beginners learn side by side, each from the labels and from what the
# other thinks just now ([Zhang et al. 2017](https://arxiv.org/abs/1706.00384)). All that has to be got right is who may
# change whom.


# %% exercise="mutual_losses"
def mutual_losses(logits_a: Tensor, logits_b: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The loss of each of two students who learn from the labels and from one another. About 5 lines.

        p_a, p_b = softmax(logits_a), softmax(logits_b)                     over the classes
        loss_a = mean over the batch of ( -log p_a[y] + KL(p_b ‖ p_a) )      in it p_b is a constant
        loss_b = mean over the batch of ( -log p_b[y] + KL(p_a ‖ p_b) )      in it p_a is a constant
        KL(p ‖ q) = Σ_c p[c] · (log p[c] - log q[c])                         for each image

    loss_a has a gradient in logits_a alone, loss_b in logits_b alone: a teacher is never moved by the one it teaches.
    Logits may lie hundreds apart, and the losses stay finite.

    Args:
        logits_a: (batch, classes), of the first student. Not changed.
        logits_b: (batch, classes), of the second, for the same images. Not changed.
        labels: (batch,), int64: y, the class of each image.

    Returns:
        (loss_a, loss_b), two tensors with one number each.
    """

    ### BEGIN SOLUTION
    def loss(own: Tensor, peer: Tensor) -> Tensor:
        target = peer.detach().softmax(dim=1)  # a constant: the peer does not learn from this loss
        kl = nn.functional.kl_div(own.log_softmax(dim=1), target, reduction="batchmean")
        return nn.functional.cross_entropy(own, labels) + kl

    return loss(logits_a, logits_b), loss(logits_b, logits_a)
    ### END SOLUTION


# %% [markdown]
# Or be your own teacher. That can happen one training after another: a network teaches a fresh copy of itself, which
# teaches the next ([Furlanello et al. 2018](https://arxiv.org/abs/1805.04770)); some overviews call these *born-again*
# networks online, but the teacher has finished before the student starts. It can happen in one network: its last layer
# has seen more than the layers before it, so give each block an exit, and let the deepest explain its answer to the
# others ([Zhang et al. 2019](https://arxiv.org/abs/1905.08094)); a bonus.


# %% exercise="early_exit_loss"
def early_exit_loss(logits: list[Tensor], labels: Tensor, *, temperature: float, weight: float) -> Tensor:
    """The loss of a network whose deepest exit teaches the shallow ones. About 8 lines.

        T, p = temperature, softmax(deepest / T)                             p is a constant
        loss = CE(deepest, y)                                                the deepest exit has the labels alone
        for each shallow exit z:
            q = softmax(z / T)
            loss += (1 - weight) · CE(z, y) + weight · T² · KL(p ‖ q)

    CE is the cross-entropy at temperature 1, KL(p ‖ q) = Σ_c p[c] · (log p[c] - log q[c]); both are means over the
    batch. The deepest exit gets its gradient from CE(deepest, y) and from nothing else. With one exit in the list the
    loss is its cross-entropy. Logits may lie hundreds apart, and the loss stays finite.

    Args:
        logits: of each exit (batch, classes), from shallow to deep: the last is the deepest. Not changed.
        labels: (batch,), int64: y, the class of each image.
        temperature: T, above 0.
        weight: how much a shallow exit listens to the deepest, from 0 (labels alone) to 1 (no labels).

    Returns:
        The loss, a tensor with one number (shape ()).
    """
    ### BEGIN SOLUTION
    deepest = logits[-1]
    target = (deepest.detach() / temperature).softmax(dim=1)  # a constant
    loss = nn.functional.cross_entropy(deepest, labels)
    for z in logits[:-1]:
        log_q = (z / temperature).log_softmax(dim=1)
        kl = nn.functional.kl_div(log_q, target, reduction="batchmean")
        loss = loss + (1 - weight) * nn.functional.cross_entropy(z, labels) + weight * temperature**2 * kl
    return loss
    ### END SOLUTION


# %% [markdown]
# And it can happen through images that nobody has labelled ([Xie et al. 2019](https://arxiv.org/abs/1911.04252)): the
# network labels them itself, and its successor learns from all of them, under noise. But it should hold its tongue
# where it is not sure: a wrong label, learnt by heart, is worse than none.


# %% exercise="confident_labels"
def confident_labels(logits: Tensor, *, threshold: float) -> Tensor:
    """The teacher's label for each image of which it is sure enough, -1 for the others. About 2 lines.

        p[i]     = softmax(logits[i])                                    over the classes
        label[i] = the class with the largest p[i]     if that p[i] ≥ threshold,     else -1 (no label)

    Args:
        logits: (n, classes), of any size: exp(1000) must do no harm. Not changed.
        threshold: a probability in [0, 1]; a p[i] of exactly the threshold is enough.

    Returns:
        (n,) int64, one entry for each image, in their order.
    """
    ### BEGIN SOLUTION
    best, labels = logits.softmax(dim=1).max(dim=1)  # (n,) each
    return torch.where(best >= threshold, labels, -1)
    ### END SOLUTION


# %% [markdown]
# ## Who won?
#
# Every method at its best learning rate of three, with the weight that its authors or the best-known benchmark give it
# ([Tian et al. 2019](https://arxiv.org/abs/1910.10699)). Peers and early exits use the labelled images alone, as their
# papers do; all others see the unlabelled ones too.

# %%
gains = {name: cl.gain_over_seeds(experiments.values(results, "methods", name), alone) for name in names}
for name, gain in gains.items():
    metric(f"{name}.gain", gain)
metric("student_alone_long.gain", cl.gain_over_seeds(long, alone))
gains_as.draw_gains(
    gains | {"alone, three times as long": cl.gain_over_seeds(long, alone)},
    label="gain in test accuracy, points",
)

# %% [markdown]
# With `500` labels, what helps is what carries the teacher's knowledge of the *classes* to the images that have no label:
# its answers (KD {{ kd.gain | points }}, DKD {{ dkd.gain | points }}), and whom it finds alike (PKT
# {{ pkt.gain | points }}). With hints it is {{ fitnet.gain | points }}: they ask a student of `32` channels for a
# teacher's `96`, at the weight that suits larger students. Without a teacher there is nothing new to say, and saying it to
# oneself or to a peer brings nothing: {{ born_again.gain | points }} after two generations, {{ mutual.gain | points }} with
# a peer, {{ mutual_with_a_larger_peer.gain | points }} with a larger one. Even both peers together answer no better than
# one of them ({{ ensemble_over_peer.gain | points }}). A hollow bar is a method that we can't tell from none.

# %%
for name in names:
    metric(
        f"{name}.seconds",
        cl.mean_over_seeds(experiments.values(results, "methods", name, key="seconds")).value,
    )
for name in ("alone", "alone_long"):
    metric(
        f"student_{name}.seconds",
        cl.mean_over_seeds(experiments.values(results, "methods", name, key="seconds")).value,
    )

# %%
cells: dict[tuple[str, str], dict[str, cl.Interval]] = {}
for name, method in experiments.METHODS.items():
    cells.setdefault((method.knowledge, method.strategy), {})[name] = gains[name]
gains_as.draw_taxonomy(cells)

# %%
unlike = cl.gain_over_seeds(experiments.values(results, "peers", "mutual", "double"), alone)
metric("mutual_with_a_larger_peer.gain", unlike)
peers, both = (
    experiments.values(results, "methods", "mutual", key=f"{who}_validation_accuracy")
    for who in ("peer", "ensemble")
)
metric("ensemble_over_peer.gain", cl.gain_over_seeds(both, peers))
for number, reached in enumerate(
    zip(*experiments.values(results, "methods", "born_again", key="generations_validation_accuracy"))
):
    metric(f"generation_{number}.accuracy", cl.mean_over_seeds(reached))

# %%
best = max(gains, key=lambda name: gains[name].value)
print(f"the winner: {best}; your bet was {guess['the winner']}")
metric("best.gain", gains[best])

# %% tags=["nbval-check-output"]
verdict("KD gains, and not by chance", gains["kd"].low > 0)
verdict("KD gains at least a point and a half", gains["kd"].value >= 0.015)
verdict("the best gains at least two points", gains[best].value >= 0.02)
recalls = {
    name: experiments.values(results, "held_out", name, key="recall_at_1") for name in ("rkd", "pkt", "sp")
}
found = any(cl.gain_over_seeds(ours, plain).low > 0 for ours in recalls.values())
verdict("a relation method finds unseen classes better, and not by chance", found)

# %% [markdown]
# What a teacher is worth hangs on how few labels there are:

# %%
by_labels = {
    "alone": [(500, cl.mean_over_seeds(alone))],
    "taught (kd)": [(500, cl.mean_over_seeds(experiments.values(results, "methods", "kd")))],
}
for count in (1000, 4000):
    for series, method in (("alone", "alone"), ("taught (kd)", "kd")):
        by_labels[series].append(
            (count, cl.mean_over_seeds(experiments.values(results, "labels", method, str(count))))
        )
for count in (1000, 4000):
    ours, theirs = (experiments.values(results, "labels", method, str(count)) for method in ("kd", "alone"))
    metric(f"kd.gain_at_{count}_labels", cl.gain_over_seeds(ours, theirs))
gains_as.draw_accuracy(by_labels, against="labelled images")

# %% [markdown]
# ## A better teacher, a larger student
#
# Four teachers, from the wide perceptron to the one above; the one called `student` has the very architecture of its
# pupil, and learnt from all labels.

# %%
taught = {
    name: cl.mean_over_seeds(experiments.values(results, "teachers", "kd", name))
    for name in ("mlp", "student", "baseline")
}
taught["teacher"] = cl.mean_over_seeds(experiments.values(results, "methods", "kd"))
own = {name: cl.read_card(name)["test_accuracy"] for name in taught}
for name, interval in taught.items():
    metric(f"taught_by_{name}.accuracy", interval)
favourite = max(taught, key=lambda name: taught[name].value)
print(f"the most accurate: {max(own, key=own.get)}; the best to learn from: {favourite}")
print(
    f"your bet, that a better teacher makes a better student: {guess['a better teacher makes a better student']}"
)
gains_as.draw_by_teacher(
    [(name, own[name], taught[name]) for name in taught], alone=cl.mean_over_seeds(alone)
)

# %%
curves = {"alone": [], "taught (kd)": []}
for name, make in experiments.STUDENTS.items():
    size = cl.count_parameters(make())
    for series, method in (("alone", "alone"), ("taught (kd)", "kd")):
        group = ("methods", method) if name == "student" else ("students", method, name)
        curves[series].append((size, cl.mean_over_seeds(experiments.values(results, *group))))
gains_as.draw_accuracy(curves)

# %% [markdown]
# ## Inside a transformer
#
# A transformer can be asked more than its answer: which patches attend to which, and what it holds of each patch after
# every layer ([Jiao et al. 2019](https://arxiv.org/abs/1909.10351)). The student has fewer layers and narrower ones, so
# we must say which of its layers learns from which, and through what. (A bonus; the lab on text will come back to it.)


# %% exercise="hidden_state_loss"
def hidden_state_loss(hidden: list[Tensor], teacher_hidden: list[Tensor], projection: Tensor) -> Tensor:
    """How far a student's hidden states, projected, are from those of a deeper teacher. About 5 lines.

    The student has M layers, the teacher N = k · M. Each list begins with the embedding, which is what enters the first
    layer, so hidden has M + 1 tensors and teacher_hidden N + 1; hidden[m] is what layer m returns.

        for m = 0, 1, …, M:
            g     = m · N / M                                      embedding to embedding, last layer to last layer
            loss += mean of (hidden[m] @ projection - teacher_hidden[g])²

    The mean is over all numbers of a state (images, tokens and width), the sum over m. The student's states and the
    projection get a gradient, the teacher's states get none.

    Args:
        hidden: M + 1 tensors (batch, tokens, width), M at least 1. Not changed.
        teacher_hidden: N + 1 tensors (batch, tokens, teacher's width). Not changed.
        projection: (width, teacher's width), one for all layers; it learns together with the student.

    Returns:
        The loss, a tensor with one number (shape ()).
    """
    ### BEGIN SOLUTION
    per_layer = (len(teacher_hidden) - 1) // (len(hidden) - 1)  # N / M
    loss = projection.new_zeros(())
    for m, h in enumerate(hidden):
        target = teacher_hidden[m * per_layer].detach()
        loss = loss + nn.functional.mse_loss(h @ projection, target)
    return loss
    ### END SOLUTION


# %%
answers_alone = experiments.values(results, "transformers", "alone")
metric("transformer_alone.accuracy", cl.mean_over_seeds(answers_alone))
for name in ("response", "tinybert"):
    ours = experiments.values(results, "transformers", name)
    metric(f"transformer_{name}.gain", cl.gain_over_seeds(ours, answers_alone))

# %% [markdown]
# A transformer of two narrow blocks, on `16` patches an image, in the same setting: {{ transformer_alone.accuracy |
# percent }} alone, {{ transformer_response.gain | points }} more from its teacher's answers,
# {{ transformer_tinybert.gain | points }} more from answers, attention and hidden states together.
#
# ## What we claimed, what we measured
#
# | claim | what we measured | verdict |
# |---|---|---|
# | "A small network needs a teacher." | KD gains {{ kd.gain | points }} at `500` labels, {{ kd.gain_at_4000_labels | points }} at `4,000`; three times the steps alone, {{ student_alone_long.gain | points }} | holds, the more the fewer labels there are |
# | "A better teacher makes a better student." | {{ taught_by_mlp.accuracy | percent }} from the perceptron, {{ taught_by_student.accuracy | percent }} from a network of its own size, {{ taught_by_baseline.accuracy | percent }} from the baseline, {{ taught_by_teacher.accuracy | percent }} from the teacher | does not hold: the best teacher here is one of the pupil's own size |
# | "A newer loss beats Hinton's." | KD {{ kd.gain | points }}; DKD {{ dkd.gain | points }}, PKT {{ pkt.gain | points }}, SP {{ sp.gain | points }}, RKD {{ rkd.gain | points }}, attention {{ attention.gain | points }}, FitNet {{ fitnet.gain | points }} | does not hold here, at published weights |
# | "Relations carry over to classes that nobody taught." | Recall: RKD {{ rkd.recall_gain | points }}, PKT {{ pkt.recall_gain | points }}, SP {{ sp.recall_gain | points }}, KD {{ kd.recall_gain | points }} | holds for the nearest neighbour, not with a single image a class |
# | "Peers do without a teacher." | {{ mutual.gain | points }} (from {{ mutual.gain.low | points }} to {{ mutual.gain.high | points }}), with a larger peer {{ mutual_with_a_larger_peer.gain | points }} | does not hold here: two who know `500` labels have little to tell each other |
# | "Born again, the student outgrows its teacher." | {{ generation_0.accuracy | percent }}, then {{ generation_1.accuracy | percent }} and {{ generation_2.accuracy | percent }} on validation | does not hold here |
# | "Unlabelled images make up for labels." (Noisy Student) | {{ noisy_student.gain | points }} | does not hold here: a teacher that is often wrong hands its errors on |
#
# ## Have it marked
#
# {{ check }}
