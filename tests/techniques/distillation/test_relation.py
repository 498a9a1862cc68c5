"""Relations: torchdistill, SciPy, loops in float64 from the papers, and what must not change them."""

import math

import pytest
import torch
from torch.nn import functional as F

from compresslab.errors import CompressionError
from compresslab.techniques.distillation.relation import (
    distances,
    kendall_tau,
    neighbour_probabilities,
    pkt_loss,
    rkd_angle_loss,
    rkd_distance_loss,
    similarity_loss,
)

RKD = [rkd_distance_loss, rkd_angle_loss]
every_loss = pytest.mark.parametrize("loss", [*RKD, pkt_loss, similarity_loss])


@pytest.fixture
def reference():
    """The losses of torchdistill, an independent implementation."""
    reason = "torchdistill, the independent reference, is missing: pip install torchdistill"
    return pytest.importorskip("torchdistill.losses.mid_level", reason=reason)


def drawn(n=8, size=5, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, size, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()


def agree(ours, theirs, student):
    """The same value to 1e-6 of it, and the same gradient to the student, to 1e-6 of its largest number."""
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=0)
    (mine,), (wanted,) = (torch.autograd.grad(value, student) for value in (ours, theirs))
    torch.testing.assert_close(mine, wanted, rtol=0, atol=1e-6 * wanted.abs().max().item())


# RKD


def test_distances_are_euclidean():
    a = drawn()
    for i in range(8):
        for j in range(8):
            assert distances(a)[i, j].item() == pytest.approx(math.dist(a[i].tolist(), a[j].tolist()))


def test_distances_are_exact_where_points_are_close_and_far_from_zero():
    a = torch.tensor([[1000.0, 0.0], [1000.001, 0.0]])
    assert distances(a)[0, 1].item() == pytest.approx((a[1, 0] - a[0, 0]).item(), rel=1e-6)
    assert distances(a).diag().tolist() == [0, 0]


def test_a_distance_pulls_along_the_line_between_two_points_and_at_zero_nowhere():
    a = torch.tensor([[0.0, 0.0], [3.0, 4.0], [3.0, 4.0]], requires_grad=True)
    distances(a)[0, 1].backward()
    assert a.grad.flatten().tolist() == pytest.approx([-0.6, -0.8, 0.6, 0.8, 0, 0])
    (zero,) = torch.autograd.grad(distances(a)[1, 2], a)
    assert zero.abs().max() == 0


def test_the_distance_loss_is_that_of_torchdistill(reference):
    student, teacher = drawn(), drawn(size=9, seed=1)
    theirs = reference.RKDLoss("", "", 1.0, 1.0, "mean").compute_rkd_distance_loss(teacher.detach(), student)
    agree(rkd_distance_loss(student, teacher), theirs, student)


def test_the_angle_loss_is_that_of_torchdistill(reference):
    student, teacher = drawn(), drawn(size=9, seed=1)
    theirs = reference.RKDLoss("", "", 1.0, 1.0, "mean").compute_rkd_angle_loss(teacher.detach(), student)
    agree(rkd_angle_loss(student, teacher), theirs, student)


def test_the_angle_loss_is_the_papers_sum_written_as_a_loop():
    student, teacher = drawn(n=4).detach(), drawn(n=4, size=3, seed=1).detach()

    def cosine(a, i, j, k):  # at the corner j
        return F.cosine_similarity(a[i] - a[j], a[k] - a[j], dim=0)

    total = 0.0
    for i, j, k in [(i, j, k) for i in range(4) for j in range(4) for k in range(4) if i != j != k]:
        x = cosine(student, i, j, k) - cosine(teacher, i, j, k)
        total += x.square() / 2 if x.abs() <= 1 else x.abs() - 0.5
    torch.testing.assert_close(rkd_angle_loss(student, teacher), total / 4**3)


@pytest.mark.parametrize("loss", RKD)
def test_moved_turned_and_scaled_points_have_the_same_relations(loss):
    teacher = drawn()
    turn, _ = torch.linalg.qr(drawn(n=5, seed=2))
    assert loss(7 * teacher @ turn + 3, teacher).item() == pytest.approx(0, abs=1e-12)
    assert loss(drawn(seed=1), teacher).item() > 1e-3


def test_stretching_one_direction_changes_distances_and_angles():
    teacher = drawn()
    stretched = teacher * torch.tensor([4.0, 1, 1, 1, 1])
    assert min(loss(stretched, teacher).item() for loss in RKD) > 1e-3


@pytest.mark.parametrize("loss", RKD)
def test_one_image_has_no_relation_and_still_a_gradient(loss):
    student = drawn(n=1)
    value = loss(student, drawn(n=1, seed=1))
    value.backward()
    assert value.item() == 0
    assert torch.equal(student.grad, torch.zeros_like(student))


# PKT


@pytest.mark.parametrize("with_itself", [True, False])
def test_neighbour_probabilities_are_those_of_the_paper_written_as_a_loop(with_itself):
    a = drawn(n=6)
    p = neighbour_probabilities(a, with_itself=with_itself)
    for i in range(6):
        kernel = [(1 + F.cosine_similarity(a[i], a[j], dim=0)) / 2 for j in range(6)]
        kernel[i] = kernel[i] * with_itself
        torch.testing.assert_close(p[i], torch.stack(kernel) / sum(kernel))


def test_rows_are_probabilities_and_no_image_is_its_own_neighbour():
    p = neighbour_probabilities(drawn())
    assert torch.allclose(p.sum(dim=1), torch.ones(8, dtype=torch.float64))
    assert p.diag().tolist() == [0] * 8
    assert (p >= 0).all()


def test_rounding_makes_no_probability_negative():
    a = drawn(n=50, dtype=torch.float32)
    assert (neighbour_probabilities(torch.cat([a, -2 * a])) >= 0).all()


def test_pkt_with_itself_is_that_of_torchdistill_times_the_images(reference):
    student, teacher = drawn(), drawn(size=9, seed=1)
    long = (1000 * student, 1000 * teacher.detach())  # it adds 1e-7 to lengths: nothing, beside these
    theirs = reference.PKTLoss("", "", "", "").cosine_similarity_loss(*long)
    agree(pkt_loss(student, teacher, with_itself=True), theirs * 8, student)


def test_pkt_is_the_divergence_from_teacher_to_student_of_each_image():
    student, teacher = drawn(), drawn(size=9, seed=1)
    off = ~torch.eye(8, dtype=torch.bool)
    p, q = (neighbour_probabilities(a)[off].reshape(8, 7) for a in (teacher, student))
    by_torch = F.kl_div(q.log(), p, reduction="batchmean")
    assert pkt_loss(student, teacher).item() == pytest.approx(by_torch.item(), rel=1e-5)


def test_pkt_sees_directions_only_and_is_zero_for_the_same_ones():
    teacher = drawn()
    lengths = 0.5 + torch.rand(8, 1)
    assert pkt_loss(teacher * lengths, teacher).item() == pytest.approx(0, abs=1e-12)
    assert pkt_loss(drawn(seed=1), teacher).item() > 1e-3


# similarity preserving


def test_similarity_is_the_papers_formula_written_as_a_loop():
    student, teacher = drawn(), drawn(size=9, seed=1)

    def rows(a):
        g = [[sum(x * y for x, y in zip(u, v, strict=True)) for v in a.tolist()] for u in a.tolist()]
        return [[x / math.sqrt(sum(y * y for y in row)) for x in row] for row in g]

    pairs = zip(rows(student), rows(teacher), strict=True)
    frobenius = sum((x - y) ** 2 for mine, theirs in pairs for x, y in zip(mine, theirs, strict=True))
    assert similarity_loss(student, teacher).item() == pytest.approx(frobenius / 8**2, rel=1e-9)


def test_similarity_does_not_change_when_the_space_is_turned_or_scaled():
    teacher = drawn()
    turn, _ = torch.linalg.qr(drawn(n=5, seed=2))
    assert similarity_loss(7 * teacher @ turn, teacher).item() == pytest.approx(0, abs=1e-12)
    assert similarity_loss(drawn(seed=1), teacher).item() > 1e-3


# all of them


@every_loss
def test_the_teacher_gets_no_gradient_and_the_student_does(loss):
    student, teacher = drawn(), drawn(size=9, seed=1)
    loss(student, teacher).backward()
    assert teacher.grad is None
    assert student.grad.abs().max() > 0


@every_loss
def test_a_step_against_the_gradient_comes_closer_to_the_teacher(loss):
    student, teacher = drawn(), drawn(size=9, seed=1)
    value = loss(student, teacher)
    value.backward()
    assert loss(student - 1e-2 * student.grad / student.grad.norm(), teacher) < value


@every_loss
def test_the_gradient_is_that_of_finite_differences(loss):
    assert torch.autograd.gradcheck(lambda a: loss(a, drawn(n=4, size=2, seed=1)), drawn(n=4, size=3))


@every_loss
def test_the_order_of_the_images_does_not_matter_and_feature_maps_are_flattened(loss):
    student, teacher = drawn(size=12), drawn(size=9, seed=1)
    order = torch.randperm(8)
    wanted = loss(student, teacher).item()
    assert loss(student[order], teacher[order]).item() == pytest.approx(wanted)
    assert loss(student.reshape(8, 3, 2, 2), teacher).item() == wanted


AWKWARD = {
    "one image": lambda: torch.ones(1, 3),
    "one point": lambda: torch.ones(4, 3),
    "all zero": lambda: torch.zeros(4, 3),
    "two alike": lambda: torch.tensor([[1.0, 2.0], [1.0, 2.0], [0.0, 1.0]]),
    "opposite": lambda: torch.tensor([[1.0, 2.0], [-1.0, -2.0]]),
}


@every_loss
@pytest.mark.parametrize("points", AWKWARD.values(), ids=AWKWARD)
def test_awkward_points_give_finite_values_and_gradients_on_either_side(loss, points):
    student, other = points().requires_grad_(), drawn(n=len(points()), dtype=torch.float32)
    for mine, theirs in [(student, other), (other, student), (student, student.detach().clone())]:
        mine.grad = None
        value = loss(mine, theirs)
        value.backward()
        assert value.isfinite()
        assert mine.grad.isfinite().all()
        assert mine.grad.abs().max() < 100


@every_loss
def test_under_autocast_and_for_bfloat16_the_loss_is_in_float32(loss):
    student, teacher = drawn(dtype=torch.float32), drawn(seed=1, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        inside = loss(student, teacher)
    assert torch.equal(inside, loss(student, teacher))
    assert loss(student.bfloat16(), teacher.bfloat16()).dtype == torch.float32


@every_loss
def test_two_numbers_of_images_are_refused(loss):
    with pytest.raises(CompressionError, match=r"same n images, got \(8, 5\) and \(7, 5\); give both one"):
        loss(drawn(), drawn(n=7))
    with pytest.raises(CompressionError, match=r"same n images, got \(8,\) and \(8, 5\)"):
        loss(drawn()[:, 0], drawn())


# Kendall's tau


@pytest.mark.parametrize("levels", [1000, 4, 2])
def test_kendalls_tau_is_that_of_scipy_with_and_without_ties(levels):
    stats = pytest.importorskip("scipy.stats", reason="SciPy, the reference, is missing: pip install scipy")
    x, y = torch.randint(0, levels, (2, 5, 12), generator=torch.Generator().manual_seed(levels))
    wanted = [stats.kendalltau(*rows).statistic for rows in zip(x.numpy(), y.numpy(), strict=True)]
    assert kendall_tau(x, y).tolist() == pytest.approx(wanted, rel=1e-12)
    assert kendall_tau(x[0], y[0]).item() == pytest.approx(wanted[0], rel=1e-12)


def test_kendalls_tau_is_one_for_one_order_and_minus_one_for_its_reverse():
    x = drawn().flatten()
    assert kendall_tau(x, x.exp()).item() == 1
    assert kendall_tau(x, -x).item() == -1
    bytes_up = torch.arange(10, dtype=torch.uint8)
    assert kendall_tau(bytes_up, 255 - bytes_up).item() == -1


def test_where_everything_ties_there_is_no_tau():
    assert kendall_tau(torch.ones(5), torch.arange(5.0)).isnan()


@pytest.mark.parametrize(("x", "y"), [((3,), (4,)), ((1,), (1,)), ((), ())])
def test_rankings_of_two_lengths_or_of_one_thing_are_refused(x, y):
    with pytest.raises(CompressionError, match=r"\(…, n\) with n ≥ 2, got \(.*; give the similarities"):
        kendall_tau(torch.zeros(x), torch.zeros(y))
