import math

import pytest
import torch

from distilkit.distillation import fused_loss, losses
from distilkit.distillation.fused_loss import kl_and_mlm
from distilkit.encoders.forward import Head, mean_by_row


def test_kl_by_hand() -> None:
    """Two rows of two classes at T = 2, against the textbook sum written out with math.log."""
    student, teacher = torch.tensor([[2.0, 0.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [4.0, 0.0]])
    total = 0.0
    for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
        p_s = [math.exp(x / 2) / sum(math.exp(y / 2) for y in s) for x in s]
        p_t = [math.exp(x / 2) / sum(math.exp(y / 2) for y in t) for x in t]
        total += sum(b * (math.log(b) - math.log(a)) for a, b in zip(p_s, p_t, strict=True))

    assert losses.kl(student, teacher, 2.0).item() == pytest.approx(4 * total / 2, rel=1e-6)


def test_kl_gradient_is_the_closed_form() -> None:
    """d/ds = T/R · (softmax(s/T) - softmax(t/T))."""
    torch.manual_seed(0)
    student, teacher = torch.randn(5, 7, requires_grad=True), torch.randn(5, 7)
    losses.kl(student, teacher, 3.0).backward()

    expected = 3.0 / 5 * (torch.softmax(student / 3, -1) - torch.softmax(teacher / 3, -1))
    torch.testing.assert_close(student.grad, expected.detach())


def test_kl_of_equal_logits_is_zero_whatever_the_temperature() -> None:
    """Shifting all of a row's logits changes nothing either."""
    logits = torch.randn(4, 9)

    assert losses.kl(logits, logits + 3.0, 1.7).item() == pytest.approx(0.0, abs=1e-6)


def test_mlm_is_the_mean_over_labelled_rows() -> None:
    """Uniform logits over V give ln V, and rows labelled -100 don't count."""
    logits = torch.zeros(3, 11)
    logits[2, 0] = 50.0  # would be a large loss for label 1, were it counted
    labels = torch.tensor([4, 7, -100])

    assert losses.mlm(logits, labels).item() == pytest.approx(math.log(11))


def test_cosine_by_hand() -> None:
    """Parallel rows cost 0, orthogonal ones 1 and opposite ones 2; the rows are averaged."""
    student = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    teacher = torch.tensor([[5.0, 0.0], [0.0, 2.0], [-3.0, 0.0]])

    assert losses.cosine(student, teacher).item() == pytest.approx((0 + 1 + 2) / 3)


def test_relations_by_hand() -> None:
    """Two tokens, one head of width 4 dealt out as two relation heads of width 2: dot products over the root of 2."""
    states = torch.tensor([[[[1.0, 2.0, 3.0, 4.0], [0.0, 1.0, 1.0, 0.0]]]])  # (B, A, T, D)
    root = math.sqrt(2)

    expected = torch.tensor(
        [[[[5 / root, 2 / root], [2 / root, 1 / root]], [[25 / root, 3 / root], [3 / root, 1 / root]]]]
    )
    torch.testing.assert_close(losses.relations(states, 2), expected)


def test_attention_leaves_padding_out() -> None:
    """What padding would attend to, or draw to itself, changes nothing."""
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
    """T² times the mean over rows and labels of the KL between two coins."""
    student, teacher = torch.tensor([[0.0, 2.0]]), torch.tensor([[2.0 * math.log(3.0), 2.0]])

    expected = 4 * (0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)) / 2  # σ(ln 3) = 3/4 against 1/2
    assert losses.binary_kl(student, teacher, 2.0).item() == pytest.approx(expected)


def test_mean_by_row() -> None:
    """Each row gets the mean of the windows that it owns, in whatever order they come."""
    logits, owners = torch.tensor([[1.0, 0.0], [5.0, 2.0], [3.0, 4.0]]), torch.tensor([1, 0, 1])

    assert mean_by_row(logits, owners, 2).tolist() == [[5.0, 2.0], [2.0, 2.0]]


def rows(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of a student, with gradient, and of a teacher, (6, 50) each."""
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (3 * torch.randn(6, 50, generator=generator) for _ in range(2))
    return student.requires_grad_(), teacher


def test_kl_sampled_is_unbiased() -> None:
    """Averaged over 40,000 draws a row, value and gradient are those of kl() within five standard errors or so."""
    student, teacher = rows(4)
    p = torch.softmax(teacher / 2, -1)
    entropy = torch.distributions.Categorical(probs=p).entropy()
    draws = torch.multinomial(p, 40_000, replacement=True, generator=torch.Generator().manual_seed(0))
    found, full = losses.kl_sampled(student, draws, entropy, 2.0), losses.kl(student, teacher, 2.0)
    ours, theirs = (torch.autograd.grad(loss, student)[0] for loss in (found, full))

    # a surprisal spreads over about ±2, so the mean over 6 · 40,000 draws by 4 · 2 / 490
    assert found.item() == pytest.approx(full.item(), abs=0.08)
    assert (ours - theirs).norm() < 0.02 * theirs.norm()


def test_kl_sampled_by_hand() -> None:
    """A token drawn twice counts twice: three draws of two tokens at T = 1."""
    student = torch.tensor([[math.log(0.75), math.log(0.25)]])
    found = losses.kl_sampled(student, torch.tensor([[0, 0, 1]]), torch.tensor([0.5]), 1.0)

    assert found.item() == pytest.approx(-(2 * math.log(0.75) + math.log(0.25)) / 3 - 0.5, rel=1e-5)


Model = tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]


def heads(rows: int, width: int, vocabulary: int, *, bias: bool) -> tuple[Model, Model]:
    """A student's and a teacher's features (R, H), weights (V, H) and biases."""
    generator = torch.Generator().manual_seed(rows)
    made = [
        [torch.randn(shape, generator=generator) for shape in ((rows, width), (vocabulary, width), (vocabulary,))]
        for _ in range(2)
    ]
    return tuple((h, w, b if bias else None) for h, w, b in made)  # type: ignore[return-value]


def leaves(model: Model) -> list[torch.Tensor]:
    return [part.clone().requires_grad_() for part in model if part is not None]


def logits(parts: list[torch.Tensor]) -> torch.Tensor:
    return torch.nn.functional.linear(*parts)


@pytest.mark.parametrize("chunk", [2**24, 50 * 200])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize(("rows", "masked"), [(1, 0), (31, 31), (33, 1), (100, 40)])
def test_kl_and_mlm_equals_both_of_whole_logits(
    rows: int, masked: int, temperature: float, bias: bool, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values and gradients, in slices and chunks that end anywhere, with heads of their own, whatever the weights."""
    monkeypatch.setattr(fused_loss, "CHUNK", (chunk, chunk))
    student, teacher = heads(rows, 8, 200, bias=bias)
    targets = torch.arange(masked) * 3 % 200
    ours, plain = leaves(student), leaves(student)
    theirs = [part for part in teacher if part is not None]
    total, ce, mlm = kl_and_mlm(
        Head(*(ours if bias else [*ours, None])), Head(*teacher), targets, temperature,
        0.7, torch.tensor(1.3),
    )  # fmt: skip
    found = logits(plain)
    expected_ce = losses.kl(found, logits(theirs), temperature)
    expected_mlm = losses.mlm(found[:masked], targets) if masked else found.new_zeros(())
    (3 * total).backward()
    (3 * (0.7 * expected_ce + 1.3 * expected_mlm)).backward()

    torch.testing.assert_close([ce, mlm], [expected_ce.detach(), expected_mlm.detach()], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(total, 0.7 * ce + 1.3 * mlm)
    for mine, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-5, atol=1e-5)


def test_kl_and_mlm_of_no_rows_is_nothing() -> None:
    """A micro-batch without a token to predict changes nothing."""
    student, teacher = heads(0, 8, 200, bias=True)
    ours = leaves(student)
    total, _, _ = kl_and_mlm(Head(*ours), Head(*teacher), torch.empty(0, dtype=torch.long), 2.0, 1.0, 1.0)
    total.backward()

    assert total.item() == 0
    assert all(part.grad is not None and not part.grad.any() for part in ours)


@pytest.mark.parametrize(("dtype", "near"), [(torch.bfloat16, 0.02), (torch.float16, 0.002)])
def test_half_precision_loses_no_small_gradients(dtype: torch.dtype, near: float) -> None:
    """Under autocast, with the tiny share that a micro-batch has of a large update and a gradient scaler's factor."""
    student, teacher = heads(64, 8, 200, bias=True)
    ours, plain, share = leaves(student), leaves(student), 1e-6
    with torch.autocast("cpu", dtype):
        total, _, _ = kl_and_mlm(Head(*ours), Head(*teacher), torch.arange(9), 2.0, 5 * share, 2 * share)
    (total * 2**16).backward()
    found = logits(plain)
    whole = 5 * losses.kl(found, logits(list(teacher)), 2.0) + 2 * losses.mlm(found[:9], torch.arange(9))  # type: ignore[arg-type]
    (whole * share * 2**16).backward()

    for mine, other in zip(ours, plain, strict=True):
        assert mine.grad is not None
        assert other.grad is not None
        assert (mine.grad - other.grad).norm() < near * other.grad.norm()
