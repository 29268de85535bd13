"""Architectures of timm, torchvision and diffusers: on the datapath throughout, trained, copied, saved, compiled."""

import copy

import pytest
import torch
import vision
from trials import check_compiled, check_copies, check_numbers, check_summary, check_training, converted

# Relative error of untrained outputs, where it is more than of most: deep and narrow, normalized to few images, or with
# standardized weights and no norms. The same codes multiplied in float32 are off as far.
ERRORS = dict(efficientnet_b0=0.5, nfnet=0.25, deeplab_v3=0.5)
# aot_eager interpolates by other operators than torch, in float32 models, too; the detector's many graphs take it long.
BACKENDS = dict.fromkeys(("deeplab_v3", "faster_rcnn"), "eager")


@pytest.mark.parametrize("name", vision.MAKERS)
def test_vision_models(name):
    torch.manual_seed(0)
    plain, inputs = vision.MAKERS[name]()
    model = converted(copy.deepcopy(plain))
    check_numbers(plain, model, inputs, ERRORS.get(name, 0.15))
    check_summary(model, inputs)
    check_copies(lambda: vision.MAKERS[name]()[0], model, inputs)
    check_training(plain, model, inputs, lr=1 / 64, float_lr=1e-3)


@pytest.mark.parametrize("name", vision.MAKERS)
def test_vision_models_compile(name):
    torch.manual_seed(0)
    plain, inputs = vision.MAKERS[name]()
    check_compiled(plain, converted(copy.deepcopy(plain)), inputs, BACKENDS.get(name, "aot_eager"))
