"""Soft-target and masked-LM loss in chunks, without holding the logits."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from distilkit.encoders.forward import Head

CHUNK_LOGITS = {"cpu": 2**24, "cuda": 2**27}  # logits held at once, by device type
CACHE_ROWS = 32  # This many rows of logits stay in a CPU's cache between operations.
BLOCK_COLUMNS = 1024  # CPU libraries compute a wide matrix product faster in blocks of columns (MKL: 1.4 times).


def kl_and_mlm(
    student: Head,
    teacher: Head,
    targets: Tensor,
    temperature: float,
    alpha_ce: float | Tensor,
    alpha_mlm: float | Tensor,
    *,
    chunk_logits: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return (alpha_ce · kl + alpha_mlm · mlm, kl, mlm) without holding the logits (R, V) in memory.

    kl is a mean over all R rows. mlm is a mean over the first M rows, whose tokens to predict are targets (M,). The
    values equal losses.kl() and losses.mlm() of the full logits. Rows are processed in chunks of about `chunk_logits`
    logits (default: by device). Each chunk's gradient with respect to the logits, T/R · (softmax(s/T) - softmax(t/T))
    and (softmax(s) - onehot)/M, is immediately propagated to features, weight and bias. Only the first of the three
    returned values carries a gradient.
    """
    device = student.features.device.type
    chunk_logits = chunk_logits or CHUNK_LOGITS.get(device, CHUNK_LOGITS["cuda"])
    total, ce, masked = _KLAndMLM.apply(  # type: ignore[no-untyped-call]
        *student, *teacher, targets, temperature, alpha_ce, alpha_mlm, chunk_logits
    )
    return total, ce, masked


class _KLAndMLM(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917 - apply() accepts no keywords
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
        chunk_logits: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        device, rows = features.device.type, len(features)
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
        ours = _scaled_head(Head(features, weight, bias), temperature, dtype)
        theirs = _scaled_head(Head(teacher_features, teacher_weight, teacher_bias), temperature, dtype)
        grad_h, grad_w = torch.empty_like(features, dtype=dtype), torch.zeros_like(weight)
        grad_b, h = weight.new_zeros(len(weight), dtype=torch.float32), features.to(dtype)
        size = max(1, -(-rows // max(1, -(-rows * len(weight) // chunk_logits))))  # rows per chunk
        buffers = [torch.empty(size, len(weight), device=device) for _ in range(2)]
        ce_scale, mlm_scale = alpha_ce * temperature / max(rows, 1), alpha_mlm / max(len(targets), 1)
        # backward() multiplies by `scale`. Until then gradients are at most 1, so they do not underflow in fp16.
        scale = torch.as_tensor(ce_scale + mlm_scale, dtype=torch.float32).clamp(min=1e-30)
        ce_scale, mlm_scale = ce_scale / scale, mlm_scale / scale
        ce, mlm_sum = grad_b.new_zeros(()), grad_b.new_zeros(())
        with torch.autocast(device, enabled=False):
            for start in range(0, rows, size):
                at = slice(start, min(start + size, rows))
                grad, their_logits = (buffer[: at.stop - start] for buffer in buffers)  # (C, V)
                _logits(ours, at, grad)
                _logits(theirs, at, their_logits)
                target = targets[at].unsqueeze(-1)  # (m, 1)
                mlm_grad, mlm_loss = _mlm_gradient(grad[: len(target)] * temperature, target)  # (m, V)
                step = CACHE_ROWS if device == "cpu" else size
                for p, q in zip(grad.split(step), their_logits.split(step), strict=True):
                    ce += _kl_gradient(p, q)
                    grad_b += p.mul_(ce_scale).sum(0)
                mlm_sum += mlm_loss
                grad[: len(target)] += mlm_grad.mul_(mlm_scale)
                grad_b += mlm_grad.sum(0)
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
        return grad_h * grad, grad_w * grad, None if grad_b is None else grad_b * grad, *[None] * 8


def _scaled_head(head: Head, temperature: float, dtype: torch.dtype) -> Head:
    """Return a head that computes logits divided by the temperature, which is cheaper than dividing the logits."""
    bias = None if head.bias is None else (head.bias / temperature).to(dtype)
    return Head((head.features / temperature).to(dtype), head.weight.to(dtype), bias)


def _mlm_gradient(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return softmax(logits) - onehot(targets) (m, V) and the summed cross-entropy of the rows; targets (m, 1)."""
    log_p = torch.log_softmax(logits, dim=-1)
    loss = -log_p.gather(1, targets).sum()
    return log_p.exp_().scatter_add_(1, targets, log_p.new_full(targets.shape, -1.0)), loss


def _kl_gradient(ours: Tensor, theirs: Tensor) -> Tensor:
    """Replace `ours` by softmax(ours) - softmax(theirs), logits (C, V); return the summed KL divergence of the rows.

    KL is the expectation under the teacher of (theirs - ours), plus logsumexp(ours) - logsumexp(theirs). A logsumexp is
    the largest logit minus the log of its probability, which saves computing the exponentials a second time.
    """
    normalizers = ours.amax(-1) - theirs.amax(-1)  # (C,)
    q = torch.softmax(theirs, dim=-1)
    divergence = theirs.sub_(ours).mul_(q).sum(-1)  # sum() adds pairwise, which is more accurate than a dot product
    p = torch.softmax(ours, dim=-1, out=ours)
    normalizers += q.amax(-1).log() - p.amax(-1).log()
    p.sub_(q)
    return (divergence + normalizers).sum()


def _logits(head: Head, at: slice, out: Tensor) -> None:
    """Write the logits (C, V) of a chunk of rows to `out`."""
    features, weight, bias = head.features[at], head.weight, head.bias
    if out.dtype != weight.dtype:
        out.copy_(F.linear(features, weight, bias))
        return
    width = BLOCK_COLUMNS if out.device.type == "cpu" else len(weight)
    for start in range(0, len(weight), width):
        block = slice(start, start + width)
        torch.mm(features, weight[block].T, out=out[:, block])
        if bias is not None:
            out[:, block].add_(bias[block])
