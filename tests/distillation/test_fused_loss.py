"""The fused loss against losses.kl() and losses.mlm() of full logits."""

import pytest
import torch

from distilkit.distillation import losses
from distilkit.distillation.fused_loss import kl_and_mlm
from distilkit.encoders.forward import Head

Model = tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]


def heads(rows: int, width: int, vocabulary: int, *, bias: bool) -> tuple[Model, Model]:
    """Return features (R, H), weights (V, H) and biases (V,) of a student and a teacher."""
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


@pytest.mark.parametrize("chunk", [None, 50 * 200])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize(("rows", "masked"), [(1, 0), (31, 31), (33, 1), (100, 40)])
def test_kl_and_mlm_equals_both_of_whole_logits(
    rows: int, masked: int, temperature: float, bias: bool, chunk: int | None
) -> None:
    """Values and gradients equal those of full logits, whatever the number of rows, chunk size and weights."""
    student, teacher = heads(rows, 8, 200, bias=bias)
    targets = torch.arange(masked) * 3 % 200
    ours, plain = leaves(student), leaves(student)
    theirs = [part for part in teacher if part is not None]
    total, ce, mlm = kl_and_mlm(
        Head(*(ours if bias else [*ours, None])), Head(*teacher), targets, temperature,
        0.7, torch.tensor(1.3), chunk_logits=chunk,
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


def test_no_rows_give_no_loss_and_no_gradient() -> None:
    """A micro-batch without a masked token changes nothing."""
    student, teacher = heads(0, 8, 200, bias=True)
    ours = leaves(student)
    total, _, _ = kl_and_mlm(Head(*ours), Head(*teacher), torch.empty(0, dtype=torch.long), 2.0, 1.0, 1.0)
    total.backward()

    assert total.item() == 0
    assert all(part.grad is not None and not part.grad.any() for part in ours)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 0.02), (torch.float16, 0.002)])
def test_half_precision_keeps_small_gradients(dtype: torch.dtype, tolerance: float) -> None:
    """Gradients survive autocast with the small weight of a micro-batch in a large update and a gradient scaler."""
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
        assert (mine.grad - other.grad).norm() < tolerance * other.grad.norm()
