# SPDX-License-Identifier: GPL-3.0-or-later
"""Which precision a GPU draws in: the fastest that draws a known frame as float32 does.

Black pictures are what half precision is known for, on cards without tensor cores above all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from backend.errors import EngineError

from .graphs import GraphedRenderer, first_line
from .renderers import Forms, Renderer

AGREEMENT = 0.02  # mean difference of pictures in 0..1 (five levels of 255) that half precision may make
SPREAD = 1e-3  # a picture that varies less than this is blank
FAST_HALF = (7, 0)  # compute capability, from which on float16 is fast: Volta


@dataclass
class Form:
    """How a GPU draws. notes: what the user should know, if it is not in the best way."""

    renderer: Renderer
    precision: str
    notes: list[str] = field(default_factory=list)


def candidates(device: str) -> tuple[str, ...]:
    """The precisions to try before float32, fastest first."""
    if device != "cuda" or torch.cuda.get_device_capability() < FAST_HALF:
        return ()
    brain = torch.cuda.is_bf16_supported(including_emulation=False)
    return ("float16", "bfloat16") if brain else ("float16",)


def choose_form(
    forms: Forms,
    tried: tuple[str, ...],
    volume: Tensor,
    keypoints: Tensor,
    record: Callable[[Renderer], GraphedRenderer] | None = None,
) -> Form:
    """The first of the precisions `tried` that stands the test, else float32.

    volume (1,32,16,64,64) and keypoints (1,21,3) on the device: the known frame, at rest. record: makes what
    replays CUDA graphs; it has to draw the same frame, too.
    """

    def draw(renderer: Renderer) -> Tensor:
        return renderer.draw(renderer.prepare(volume, keypoints), keypoints)

    form = Form(forms.on_device("float32"), "float32")
    wanted = draw(form.renderer)
    for precision in tried:
        try:
            renderer = forms.on_device(precision)
            wrong = disagreement(draw(renderer), wanted)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # cuDNN has no algorithm for it, say
            wrong = first_line(error)
        if not wrong:
            form.renderer, form.precision = renderer, precision
            break
        form.notes.append(f"{precision} failed its test on this GPU: {wrong}")
    if form.notes:
        form.notes.insert(0, f"{form.precision} is used")
    if record is not None:
        graphed = record(form.renderer)
        try:
            wrong = disagreement(draw(graphed), wanted)
        except torch.OutOfMemoryError:
            wrong = "the memory is too small for them"
        if graphed.note or wrong:
            form.notes.append(graphed.note or f"drawing goes on without CUDA graphs, since {wrong}")
        else:
            form.renderer = graphed
    return form


def check_against_cpu(forms: Forms, renderer: Renderer, volume: Tensor, keypoints: Tensor) -> None:
    """Raise EngineError where a device's pictures are not the CPU's: Apple's convolutions have been wrong
    without a word. A quarter of the known frame is drawn, for the CPU takes seconds for the whole.
    """
    part = volume[..., ::2, ::2].contiguous()
    drawn = renderer.draw(renderer.prepare(part, keypoints), keypoints).cpu()
    on_cpu = forms.on_cpu()
    wanted = on_cpu.draw(on_cpu.prepare(part.cpu(), keypoints.cpu()), keypoints.cpu())
    if wrong := disagreement(drawn, wanted):
        raise EngineError(
            f"This PyTorch does not draw right on the {volume.device.type} device: {wrong}.",
            "Choose --device cpu or --engine mesh, or install another PyTorch.",
        )


def disagreement(got: Tensor, wanted: Tensor) -> str:
    """What is wrong with a picture, beside the same drawn plainly in float32; "" where nothing is."""
    if not torch.isfinite(got).all():
        return "it gave numbers that are not finite"
    if float(got.std()) < SPREAD <= float(wanted.std()):
        return "it gave a blank picture"
    if float(F.l1_loss(got, wanted)) > AGREEMENT:
        return "its picture was far off"
    return ""
