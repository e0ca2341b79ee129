"""Soft-target and masked-LM loss in chunks, without holding the logits."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from distilkit.encoders.forward import Head

CHUNK = (2**24, 2**27)  # logits held at a time, on a CPU and on a GPU


SLICE = 32  # rows of logits that stay in a CPU's cache from one operation to the next


BLOCK = 1024  # columns of a matrix product with many, which CPU libraries compute faster in blocks (MKL: 1.4 times)


def kl_and_mlm(
    student: Head,
    teacher: Head,
    targets: Tensor,
    temperature: float,
    alpha_ce: float | Tensor,
    alpha_mlm: float | Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return (alpha_ce · kl + alpha_mlm · mlm, kl, mlm) without ever holding (R, V) logits; kl over all R rows.

    targets (M,) are the tokens to predict at the first M of them. The same numbers as kl() and mlm() of the two heads'
    logits. Rows are taken in chunks, and each chunk's gradient, T/R · (softmax(s/T) - softmax(t/T)) and (softmax(s) -
    onehot)/M, is turned into that of features, weight and bias at once. Only the first of the three carries a gradient.
    """
    total, ce, masked = _KLAndMLM.apply(*student, *teacher, targets, temperature, alpha_ce, alpha_mlm)  # type: ignore[no-untyped-call]
    return total, ce, masked


class _KLAndMLM(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917 - apply() takes no keywords
        ctx: Any,
        features: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        teacher_features: Tensor,
        teacher_weight: Tensor,
        teacher_bias: Tensor | None,
        targets: Tensor,
        temperature: float,
        alpha_ce: float | Tensor,
        alpha_mlm: float | Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        device, rows = features.device.type, len(features)
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
        ours = _cool(Head(features, weight, bias), temperature, dtype)
        theirs = _cool(Head(teacher_features, teacher_weight, teacher_bias), temperature, dtype)
        grad_h, grad_w = torch.empty_like(features, dtype=dtype), torch.zeros_like(weight)
        grad_b, h = weight.new_zeros(len(weight), dtype=torch.float32), features.to(dtype)
        size = max(1, -(-rows // max(1, -(-rows * len(weight) // CHUNK[device != "cpu"]))))  # rows in a chunk
        buffers = [torch.empty(size, len(weight), device=device) for _ in range(2)]
        of_ce, of_mlm = alpha_ce * temperature / max(rows, 1), alpha_mlm / max(len(targets), 1)
        scale = torch.as_tensor(of_ce + of_mlm, dtype=torch.float32).clamp(min=1e-30)  # left to backward(): without it
        of_ce, of_mlm = of_ce / scale, of_mlm / scale  # the gradients are no larger than 1, nor too small for fp16
        ce, mlm_sum = grad_b.new_zeros(()), grad_b.new_zeros(())
        with torch.autocast(device, enabled=False):
            for start in range(0, rows, size):
                at = slice(start, min(start + size, rows))
                grad, their_logits = (buffer[: at.stop - start] for buffer in buffers)  # (C, V)
                _logits(ours, at, grad)
                _logits(theirs, at, their_logits)
                target = targets[at].unsqueeze(-1)  # (m, 1)
                wrong, missed = _misses(grad[: len(target)] * temperature, target)  # (m, V)
                few = SLICE if device == "cpu" else size
                for p, q in zip(grad.split(few), their_logits.split(few), strict=True):
                    ce += _difference(p, q)
                    grad_b += p.mul_(of_ce).sum(0)
                mlm_sum += missed
                grad[: len(target)] += wrong.mul_(of_mlm)
                grad_b += wrong.sum(0)
                g = grad.to(dtype)
                torch.mm(g, ours.weight, out=grad_h[at])
                if grad_w.dtype == dtype:
                    grad_w.addmm_(g.T, h[at])
                else:
                    grad_w += g.T @ h[at]
        ce, mlm_mean = ce * temperature**2 / max(rows, 1), mlm_sum / max(len(targets), 1)
        ctx.save_for_backward(grad_h, grad_w, None if bias is None else grad_b)
        ctx.scale = scale
        ctx.mark_non_differentiable(ce, mlm_mean)
        return alpha_ce * ce + alpha_mlm * mlm_mean, ce, mlm_mean

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        grad_h, grad_w, grad_b = ctx.saved_tensors
        grad = grad * ctx.scale
        return grad_h * grad, grad_w * grad, None if grad_b is None else grad_b * grad, *[None] * 7


def _cool(head: Head, temperature: float, dtype: torch.dtype) -> Head:
    """Return a head whose logits are divided by the temperature, which is cheaper before them than after."""
    bias = None if head.bias is None else (head.bias / temperature).to(dtype)
    return Head((head.features / temperature).to(dtype), head.weight.to(dtype), bias)


def _misses(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return softmax(logits) - onehot(targets) (m, V) and the sum of the rows' cross-entropy; targets (m, 1)."""
    log_p = torch.log_softmax(logits, dim=-1)
    loss = -log_p.gather(1, targets).sum()
    return log_p.exp_().scatter_add_(1, targets, log_p.new_full(targets.shape, -1.0)), loss


def _difference(ours: Tensor, theirs: Tensor) -> Tensor:
    """Turn logits (C, V) into softmax(ours) - softmax(theirs) in place; returns the sum of the rows' KL divergence.

    KL is the teacher's mean of the logits' difference plus the difference of the logsumexps (ours - theirs), each of
    which is the greatest logit less the logarithm of its probability: as many exponentials less.
    """
    normalizers = ours.amax(-1) - theirs.amax(-1)  # (C,)
    q = torch.softmax(theirs, dim=-1)
    divergence = theirs.sub_(ours).mul_(q).sum(-1)  # sum() adds pairwise, which a dot product does not
    p = torch.softmax(ours, dim=-1, out=ours)
    normalizers += q.amax(-1).log() - p.amax(-1).log()
    p.sub_(q)
    return (divergence + normalizers).sum()


def _logits(head: Head, at: slice, out: Tensor) -> None:
    """Compute a chunk's logits (C, V) into `out`."""
    features, weight, bias = head.features[at], head.weight, head.bias
    if out.dtype != weight.dtype:
        out.copy_(F.linear(features, weight, bias))
        return
    width = BLOCK if out.device.type == "cpu" else len(weight)
    for start in range(0, len(weight), width):
        block = slice(start, start + width)
        torch.mm(features, weight[block].T, out=out[:, block])
        if bias is not None:
            out[:, block].add_(bias[block])
