"""The losses against hand arithmetic and closed forms."""

import math

import pytest
import torch

from distilkit.distillation import losses


def test_kl_by_hand() -> None:
    """Two rows of two classes at T = 2 give the textbook sum, written with math.log."""
    student, teacher = torch.tensor([[2.0, 0.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [4.0, 0.0]])
    total = 0.0
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        p_s = [math.exp(x / 2) / sum(math.exp(y / 2) for y in s) for x in s]
        p_t = [math.exp(x / 2) / sum(math.exp(y / 2) for y in t) for x in t]
        total += sum(b * (math.log(b) - math.log(a)) for a, b in zip(p_s, p_t, strict=True))

    assert losses.kl(student, teacher, 2.0).item() == pytest.approx(4 * total / 2, rel=1e-6)


def test_kl_gradient_is_the_closed_form() -> None:
    """The gradient of kl() is T/R · (softmax(s/T) - softmax(t/T))."""
    torch.manual_seed(0)
    student, teacher = torch.randn(5, 7, requires_grad=True), torch.randn(5, 7)
    losses.kl(student, teacher, 3.0).backward()

    expected = 3.0 / 5 * (torch.softmax(student / 3, -1) - torch.softmax(teacher / 3, -1))
    torch.testing.assert_close(student.grad, expected.detach())


def test_kl_of_equal_logits_is_zero_whatever_the_temperature() -> None:
    """A constant added to all logits of a row does not change it."""
    logits = torch.randn(4, 9, generator=torch.Generator().manual_seed(0))

    # The sum of about 1 nat of terms of either sign rounds to a few float32 eps, times T² = 2.9.
    assert losses.kl(logits, logits + 3.0, 1.7).item() == pytest.approx(0.0, abs=2e-6)


def test_mlm_is_the_mean_over_labelled_rows() -> None:
    """Uniform logits over V give ln V. Rows labelled -100 are ignored."""
    logits = torch.zeros(3, 11)
    logits[2, 0] = 50.0  # a large loss for every label but 0
    labels = torch.tensor([4, 7, -100])

    assert losses.mlm(logits, labels).item() == pytest.approx(math.log(11))


def test_cosine_by_hand() -> None:
    """Parallel rows give 0, orthogonal ones 1, opposite ones 2; the loss is their mean."""
    student = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    teacher = torch.tensor([[5.0, 0.0], [0.0, 2.0], [-3.0, 0.0]])

    assert losses.cosine(student, teacher).item() == pytest.approx((0 + 1 + 2) / 3)


def test_relations_by_hand() -> None:
    """One head of width 4 becomes two relation heads of width 2: dot products divided by the root of 2."""
    states = torch.tensor([[[[1.0, 2.0, 3.0, 4.0], [0.0, 1.0, 1.0, 0.0]]]])  # (B, A, T, D)
    root = math.sqrt(2)

    expected = torch.tensor(
        [[[[5 / root, 2 / root], [2 / root, 1 / root]], [[25 / root, 3 / root], [3 / root, 1 / root]]]]
    )
    torch.testing.assert_close(losses.relations(states, 2), expected)


def test_attention_ignores_padding() -> None:
    """Scores from and to padding do not change the loss, which equals the sum by hand."""
    torch.manual_seed(0)
    student, teacher = torch.randn(1, 2, 3, 3), torch.randn(1, 2, 3, 3)
    wider = [torch.nn.functional.pad(scores, (0, 1, 0, 1), value=9.0) for scores in (student, teacher)]

    padded = losses.attention(*wider, torch.tensor([[1, 1, 1, 0]]))
    torch.testing.assert_close(padded, losses.attention(student, teacher, None))
    total = 0.0
    for s, t in zip(student.reshape(-1, 3).tolist(), teacher.reshape(-1, 3).tolist(), strict=True):
        p_s, p_t = ([math.exp(x) / sum(map(math.exp, row)) for x in row] for row in (s, t))
        total += sum(b * math.log(b / a) for a, b in zip(p_s, p_t, strict=True))
    assert padded.item() == pytest.approx(total / 6, rel=1e-5)  # 2 heads of 3 tokens


def test_binary_kl_by_hand() -> None:
    """T² times the mean over rows and labels of the KL divergence of two Bernoulli distributions."""
    student, teacher = torch.tensor([[0.0, 2.0]]), torch.tensor([[2.0 * math.log(3.0), 2.0]])

    expected = 4 * (0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)) / 2  # σ(ln 3) = 3/4 against 1/2
    assert losses.binary_kl(student, teacher, 2.0).item() == pytest.approx(expected)


def rows(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits of a student, with gradient, and of a teacher, (6, 50) each."""
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (3 * torch.randn(6, 50, generator=generator) for _ in range(2))
    return student.requires_grad_(), teacher


def test_kl_sampled_is_unbiased() -> None:
    """With 40,000 samples per row, value and gradient equal those of kl() within about five standard errors."""
    student, teacher = rows(4)
    p = torch.softmax(teacher / 2, -1)
    entropy = torch.distributions.Categorical(probs=p).entropy()
    samples = torch.multinomial(p, 40_000, replacement=True, generator=torch.Generator().manual_seed(0))
    found, full = losses.kl_sampled(student, samples, entropy, 2.0), losses.kl(student, teacher, 2.0)
    ours, theirs = (torch.autograd.grad(loss, student)[0] for loss in (found, full))

    # -log p has a standard deviation of about 2, so the mean over 6 · 40,000 samples, times T², of 4 · 2 / 490.
    assert found.item() == pytest.approx(full.item(), abs=0.08)
    assert (ours - theirs).norm() < 0.02 * theirs.norm()


def test_kl_sampled_by_hand() -> None:
    """A token sampled twice counts twice: three samples of two tokens at T = 1."""
    student = torch.tensor([[math.log(0.75), math.log(0.25)]])
    found = losses.kl_sampled(student, torch.tensor([[0, 0, 1]]), torch.tensor([0.5]), 1.0)

    assert found.item() == pytest.approx(-(2 * math.log(0.75) + math.log(0.25)) / 3 - 0.5, rel=1e-5)
