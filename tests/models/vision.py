"""Small models of timm's, torchvision's and diffusers' architectures, with random weights: a maker each, of a model in
the mode that it is tested in, and of its inputs.
"""

import functools

import torch
from tools import require_vision
from torch import nn
from torch.optim.swa_utils import update_bn


def _images(size, n=2):
    """Noise of different colours."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, 3, 1, 1, generator=generator) + torch.randn(n, 3, size, size, generator=generator)


def _settled(model):
    """With batch norms that know their images, at rest; and those images."""
    x = _images(32, 4)
    update_bn([x], model)
    return model.eval(), dict(x=x)


def _at_rest(model):
    return model.eval(), dict(x=_images(32))


def resnet50():
    timm = require_vision("timm")
    return _settled(
        timm.create_model(
            "resnet50", num_classes=10, layers=(1, 1, 1, 1), channels=(8, 16, 24, 32), stem_width=8, output_stride=8
        )
    )


def efficientnet_b0():
    make = require_vision("timm.models.efficientnet")._gen_efficientnet
    return _settled(make("efficientnet_b0", 0.1, 0.3, num_classes=10, output_stride=8))


def vit():
    timm = require_vision("timm")
    sizes = dict(img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=4)
    return _at_rest(timm.create_model("vit_tiny_patch16_224", num_classes=10, **sizes))


def convnext():
    timm = require_vision("timm")
    return _at_rest(timm.create_model("convnext_atto", num_classes=10, depths=(1, 1, 1, 1), dims=(8, 16, 24, 32)))


def swin():
    timm = require_vision("timm")
    sizes = dict(img_size=32, patch_size=4, window_size=4, embed_dim=16, depths=(2, 2), num_heads=(2, 4))
    return _at_rest(timm.create_model("swin_tiny_patch4_window7_224", num_classes=10, **sizes))


def mixer():
    models = require_vision("timm.models.mlp_mixer")
    model = models.MlpMixer(10, img_size=32, patch_size=8, num_blocks=2, embed_dim=32)
    nn.init.normal_(model.head.weight, std=0.1)  # timm's zeros would stay
    return _at_rest(model)


def nfnet():
    """Standardized weights, with gains of which some begin at zero."""
    models = require_vision("timm.models.nfnet")
    config = models.NfCfg(
        depths=(1, 1, 1, 1),
        channels=(16, 16, 32, 32),
        stem_type="deep_quad",
        stem_chs=16,
        group_size=8,
        attn_layer="se",
        attn_kwargs=dict(rd_ratio=0.5),
        extra_conv=True,
        num_features=32,
    )
    return _at_rest(models.NormFreeNet(config, num_classes=10))


def resnetv2_bit():
    """Standardized weights, group norms before convolutions."""
    norm = functools.partial(require_vision("timm.layers").GroupNormAct, num_groups=4)
    make, stem = require_vision("timm.models.resnetv2").ResNetV2, dict(stem_chs=16, stem_type="fixed")
    return _at_rest(make((1, 1, 1, 1), (16, 32, 32, 32), 10, output_stride=8, norm_layer=norm, **stem))


def _backbone():
    blocks = [[1, 16, 1, 1], [4, 24, 1, 2], [4, 32, 1, 2], [4, 40, 1, 2]]  # expansion, channels, repeats, stride
    norm = functools.partial(nn.GroupNorm, 4)
    make = require_vision("torchvision.models").MobileNetV2
    return make(width_mult=0.5, inverted_residual_setting=blocks, norm_layer=norm).features[:-1]


def faster_rcnn():
    """A feature pyramid, proposals, aligned regions; in training it gives its losses, here of every proposal."""
    detection = require_vision("torchvision.models.detection")
    utils = require_vision("torchvision.models.detection.backbone_utils")
    backbone = utils.BackboneWithFPN(_backbone(), {"2": "0", "3": "1", "4": "2"}, [16, 16, 24], 16)
    model = detection.FasterRCNN(
        backbone,
        min_size=48,
        max_size=48,
        rpn_anchor_generator=detection.rpn.AnchorGenerator(((8,), (16,), (24,), (32,)), ((0.5, 1.0, 2.0),) * 4),
        rpn_pre_nms_top_n_train=50,
        rpn_post_nms_top_n_train=20,
        rpn_batch_size_per_image=2000,
        box_batch_size_per_image=2000,
        box_head=detection.faster_rcnn.TwoMLPHead(16 * 7 * 7, 32),
        box_predictor=detection.faster_rcnn.FastRCNNPredictor(32, 3),
    )
    boxes = torch.tensor([[4.0, 4.0, 20.0, 24.0], [16.0, 8.0, 44.0, 40.0]])
    targets = [dict(boxes=boxes + i, labels=torch.tensor([1, 2])) for i in range(2)]
    return model.train(), dict(images=list(_images(48).sigmoid()), targets=targets)


def deeplab_v3():
    """Dilated convolutions of several rates, and pooled ones."""
    models = require_vision("torchvision.models.segmentation.deeplabv3")
    getter = require_vision("torchvision.models._utils").IntermediateLayerGetter
    return _settled(models.DeepLabV3(getter(_backbone(), {"4": "out"}), models.DeepLabHead(24, 5, (1, 2, 3))))


def unet2d():
    diffusers = require_vision("diffusers")
    model = diffusers.UNet2DModel(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=8,
        attention_head_dim=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )
    return model.eval(), dict(sample=_images(8), timestep=torch.tensor([3, 700]))


MAKERS = {
    f.__name__: f
    for f in (
        *(resnet50, efficientnet_b0, vit, convnext, swin, mixer, nfnet, resnetv2_bit),
        *(faster_rcnn, deeplab_v3, unet2d),
    )
}
