"""The architectures that are checked: all of torchvision's, one of each family of timm's, and Hugging Face classes.

Nothing is downloaded: weights are random. `make` is the factory that files name, `catalogue:make(key='...')`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from tune_prune.tasks.models import build_on_meta

CLASSES = 10

SIZES = (28, 32, 64, 96, 128, 160, 224, 256, 320, 512)
"""Heights of square images, from which the smallest is taken that a model accepts."""

FRAMES = (8, 16)
"""Frames of a video, likewise."""


@dataclass(frozen=True)
class Case:
    """An architecture: its family, how it is made, and a loss of random inputs, a batch of two, in training mode.

    `reduced` says how a model that would not fit in memory is made smaller; `whole` makes it as it is, on the meta
    device, for its layers to be counted.
    """

    family: str
    make: Callable[[], nn.Module]
    loss: Callable[[nn.Module], Tensor]
    reduced: str = ""
    whole: Callable[[], nn.Module] | None = None


def make(key: str) -> nn.Module:
    """Makes the architecture of this key."""
    return cases()[key].make()


@cache
def cases() -> dict[str, Case]:
    """All architectures by key, "<library>/<name>"."""
    return torchvision_cases() | timm_cases() | huggingface_cases()


# Losses of any outputs


def sum_of_squares(outputs: object) -> Tensor:
    """The mean squares of all outputs that depend on weights, added up."""
    leaves = [leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor) and leaf.requires_grad]
    return torch.stack([leaf.float().square().mean() for leaf in leaves]).sum()


def image_loss(model: nn.Module) -> Tensor:
    """The loss of images of the smallest size that the model accepts."""
    return _of_smallest(model, [(3, size, size) for size in SIZES])


def video_loss(model: nn.Module) -> Tensor:
    """The loss of videos of the smallest size that the model accepts."""
    return _of_smallest(model, [(3, frames, size, size) for size in SIZES for frames in FRAMES])


def _of_smallest(model: nn.Module, shapes: list[tuple[int, ...]]) -> Tensor:
    reasons = []
    for shape in [_accepted[model]] if model in _accepted else shapes:
        try:
            value = sum_of_squares(model(torch.rand(2, *shape)))
        except Exception as error:  # each model refuses other sizes in its own way
            reasons.append(f"{shape}: {type(error).__name__}: {error}")
            continue
        _accepted[model] = shape
        return value
    raise RuntimeError(f"accepts no size; {reasons[-1]}")


_accepted: WeakKeyDictionary[nn.Module, tuple[int, ...]] = WeakKeyDictionary()


# torchvision


def torchvision_cases() -> dict[str, Case]:
    """All models of torchvision for classification, segmentation, detection, video and optical flow."""
    from torchvision import models
    from torchvision.models import detection, optical_flow, segmentation, video

    found = {}
    for family, module, loss in (
        ("classification", models, image_loss),
        ("segmentation", segmentation, image_loss),
        ("detection", detection, detection_loss),
        ("video", video, video_loss),
        ("optical flow", optical_flow, flow_loss),
    ):
        for name in models.list_models(module=module):
            found[f"torchvision/{name}"] = Case(f"torchvision {family}", _maker(models, name, family), loss)
    return found | large_cases()


def _maker(models: Any, name: str, family: str) -> Callable[[], nn.Module]:
    options: dict[str, Any] = {"weights": None}
    if family != "optical flow":
        options["num_classes"] = CLASSES
    if family in ("segmentation", "detection"):
        options["weights_backbone"] = None
    if name in ("googlenet", "inception_v3"):
        options["init_weights"] = False  # which takes a minute
    if family == "detection" and not name.startswith("ssd"):
        options |= {"min_size": 64, "max_size": 64}
    if name == "keypointrcnn_resnet50_fpn":
        options["num_classes"] = 2

    def build() -> nn.Module:
        made: nn.Module = models.get_model(name, **options)
        return made

    return build


def large_cases() -> dict[str, Case]:
    """The models of more than 190 million weights, whose check would take more than 6 GB, with fewer blocks."""
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt
    from torchvision.models.regnet import BlockParams, RegNet
    from torchvision.models.vision_transformer import VisionTransformer

    def regnet() -> nn.Module:
        stages = BlockParams([1, 1, 1], [528, 1056, 2904], [264, 264, 264], [1.0, 1.0, 1.0], [2, 2, 2], 0.25)
        return RegNet(stages, num_classes=CLASSES)

    def convnext() -> nn.Module:
        stages = [CNBlockConfig(192, 384, 1), CNBlockConfig(384, 768, 1), CNBlockConfig(768, None, 1)]
        return ConvNeXt(stages, num_classes=CLASSES)

    def vit(patch: int, heads: int, width: int) -> Callable[[], nn.Module]:
        return lambda: VisionTransformer(2 * patch, patch, 2, heads, width, 4 * width, num_classes=CLASSES)

    def whole(name: str) -> Callable[[], nn.Module]:
        return lambda: cast(nn.Module, build_on_meta(f"torchvision:{name}(num_classes={CLASSES})"))

    reduced = {
        "regnet_y_128gf": (regnet, "3 of 27 blocks"),
        "convnext_large": (convnext, "3 of 36 blocks"),
        "vit_h_14": (vit(14, 16, 1280), "2 of 32 blocks, images of 28"),
        "vit_l_16": (vit(16, 16, 1024), "2 of 24 blocks, images of 32"),
        "vit_l_32": (vit(32, 16, 1024), "2 of 24 blocks, images of 64"),
    }
    return {
        f"torchvision/{name}": Case("torchvision classification", small, image_loss, how, whole(name))
        for name, (small, how) in reduced.items()
    }


def detection_loss(model: nn.Module) -> Tensor:
    """The sum of a detector's own losses for an object an image; with a mask and key points, which some want."""
    size = 320 if "SSD" in type(model).__name__ else 64
    mask = torch.zeros(1, size, size, dtype=torch.uint8)
    mask[:, 8:40, 8:40] = 1
    target = {
        "boxes": torch.tensor([[8.0, 8.0, 40.0, 40.0]]), "labels": torch.tensor([1]), "masks": mask,
        "keypoints": torch.tensor([[[20.0, 20.0, 1.0]] * 17]),
    }  # fmt: skip
    losses = model([torch.rand(3, size, size) for _ in range(2)], [dict(target) for _ in range(2)])
    return torch.stack(list(losses.values())).sum()


def flow_loss(model: nn.Module) -> Tensor:
    """The loss of the flow between two images, of the smallest size that RAFT's pyramid accepts."""
    return sum_of_squares(model(torch.rand(2, 3, 128, 128), torch.rand(2, 3, 128, 128), num_flow_updates=2))


# timm

TIMM = (
    "beit_base_patch16_224", "cait_xxs24_224", "coat_tiny", "convit_tiny", "convmixer_768_32", "convnext_zepto_rms",
    "cpubone_nano", "crossvit_tiny_240", "cs3darknet_focus_s", "csatv2", "cspnext_tiny", "davit_tiny",
    "deepseek_vit_412m", "deit_tiny_patch16_224", "densenet121", "dla46x_c", "dpn48b", "edgenext_xx_small",
    "efficientformer_l1", "efficientformerv2_s0", "efficientvim_m1", "efficientvit_b0", "efficientvit_m0",
    "ese_vovnet19b_slim_dw", "fasternet_t0", "fastvit_t8", "focalnet_tiny_srf", "gcvit_xxtiny", "gemma4_vit_167m_enc",
    "ghostnet_050", "gmlp_ti16_224", "halonet_h1", "hardcorenas_b", "hgnetv2_b0", "hiera_tiny_224", "hrnet_w18_small",
    "iformer_t", "inception_next_atto", "inception_resnet_v2", "inception_v3", "inception_v4", "lcnet_035",
    "lcnetv2_small", "legacy_seresnet18", "legacy_xception", "levit_128s", "lowformer_b0", "mambaout_femto",
    "maxvit_pico_rw_256", "mobilenetv2_035", "mobileone_s1", "mobilevit_xxs", "mvitv2_tiny",
    "naflexvit_base_patch16_gap", "nasnetalarge", "nest_tiny", "nextvit_small", "nf_regnet_b0", "pit_ti_224",
    "pnasnet5large", "poolformerv2_s12", "pvt_v2_b0", "qwen3_vit_88m", "rdnet_tiny", "regnetx_002", "repghostnet_050",
    "repvit_m1", "res2next50", "resnest14d", "resnet10t", "resnetv2_18", "rexnet_100", "sam2_hiera_tiny",
    "samvit_base_patch16", "selecsls42", "sequencer2d_s", "shvit_s1", "skresnet18", "starnet_s050", "swiftformer_xs",
    "swin_tiny_patch4_window7_224", "swinv2_cr_tiny_224", "swinv2_tiny_window8_256", "tiny_vit_5m_224",
    "tnt_s_legacy_patch16_224", "tresnet_m", "twins_svt_small", "vgg11", "visformer_tiny",
    "vit_srelpos_small_patch16_224", "vit_tiny_patch16_224", "vit_tiny_patch16_dinov3_qkvb", "vit_tiny_r_s16_p8_224",
    "vitamin_small_224", "volo_d1_224", "xception41p", "xcit_nano_12_p8_224",
)  # fmt: skip
"""The model with the fewest parameters of each of timm's modules, without those that are made for its own tests, and
without MobileNetV5, of which the smallest has 294 million."""

FEWER_BLOCKS = {"deepseek_vit_412m": 2, "gemma4_vit_167m_enc": 2}
"""Depths of models whose check would take more than 6 GB."""


def timm_cases() -> dict[str, Case]:
    """A model of each family of timm."""
    found = {}
    for name in TIMM:
        depth = FEWER_BLOCKS.get(name)
        if depth is None:
            case = Case("timm", _timm_maker(name), image_loss)
        else:
            small, whole = _timm_maker(name, depth=depth), _on_meta(_timm_maker(name))
            case = Case("timm", small, image_loss, f"{depth} blocks", whole)
        found[f"timm/{name}"] = case
    return found


def _on_meta(make: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        with torch.device("meta"):
            return make()

    return build


def _timm_maker(name: str, **options: Any) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import timm

        made: nn.Module = timm.create_model(name, pretrained=False, num_classes=CLASSES, **options)
        return made

    return build


# Hugging Face

WORDS = 99
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
TEXT = SMALL | {"vocab_size": WORDS, "max_position_embeddings": 64}
GROUPED = TEXT | {"num_key_value_heads": 2}
VISION = SMALL | {"image_size": 32, "patch_size": 8, "num_labels": CLASSES}
DECODER = {
    "vocab_size": WORDS, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "pad_token_id": 1,
    "decoder_start_token_id": 2,
}  # fmt: skip

HUGGING_FACE: dict[str, tuple[str, dict[str, Any]]] = {
    "BertForSequenceClassification": ("text", TEXT),
    "RobertaForMaskedLM": ("text", TEXT),
    "DistilBertForSequenceClassification": (
        "text", {"vocab_size": WORDS, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64}
    ),
    "AlbertForMaskedLM": ("text", TEXT | {"embedding_size": 16}),
    "ElectraForTokenClassification": ("tokens", TEXT | {"embedding_size": 16}),
    "DebertaV2ForSequenceClassification": (
        "text", TEXT | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 16}
    ),
    "XLNetLMHeadModel": ("text", {"vocab_size": WORDS, "d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64}),
    "GPT2LMHeadModel": ("text", {"vocab_size": WORDS, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}),
    "GPTNeoXForCausalLM": ("text", TEXT),
    "OPTForCausalLM": (
        "text", {"vocab_size": WORDS, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
                 "ffn_dim": 64, "word_embed_proj_dim": 32, "max_position_embeddings": 64}
    ),
    "BloomForCausalLM": ("text", {"vocab_size": WORDS, "hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "LlamaForCausalLM": ("text", GROUPED),
    "MistralForCausalLM": ("text", GROUPED),
    "Qwen2ForCausalLM": ("text", GROUPED),
    "Gemma2ForCausalLM": ("text", GROUPED | {"head_dim": 8}),
    "MixtralForCausalLM": ("text", GROUPED | {"num_local_experts": 3, "num_experts_per_tok": 2}),
    "MambaForCausalLM": ("text", {"vocab_size": WORDS, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}),
    "T5ForConditionalGeneration": (
        "text", {"vocab_size": WORDS, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4,
                 "decoder_start_token_id": 0}
    ),
    "BartForConditionalGeneration": ("text", DECODER | {"max_position_embeddings": 64}),
    "WhisperForConditionalGeneration": (
        "speech", DECODER | {"num_mel_bins": 8, "max_source_positions": 20, "max_target_positions": 20,
                             "eos_token_id": 3, "bos_token_id": 2}
    ),
    "Wav2Vec2ForCTC": (
        "sound", SMALL | {"vocab_size": 20, "conv_dim": [16, 16], "conv_stride": [5, 2], "conv_kernel": [10, 3],
                          "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2, "mask_time_prob": 0.0}
    ),
    "CLIPModel": (
        "both", {"projection_dim": 16, "text_config": TEXT | {"eos_token_id": 2},
                 "vision_config": SMALL | {"image_size": 32, "patch_size": 8}}
    ),
    "ViTForImageClassification": ("images", VISION),
    "SwinForImageClassification": (
        "images", {"image_size": 32, "patch_size": 2, "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 4],
                   "window_size": 4, "num_labels": CLASSES}
    ),
    "ConvNextForImageClassification": (
        "images", {"hidden_sizes": [8, 16, 16, 32], "depths": [1, 1, 1, 1], "num_labels": CLASSES}
    ),
    "SegformerForSemanticSegmentation": (
        "pixels", {"hidden_sizes": [8, 16, 16, 32], "depths": [1, 1, 1, 1], "decoder_hidden_size": 16,
                   "num_attention_heads": [1, 2, 2, 4], "num_labels": CLASSES}
    ),
}  # fmt: skip
"""Classes, each with its kind of inputs and the values of a small config."""


HALF_PRECISION = {"LlamaForCausalLM": "bfloat16", "GPT2LMHeadModel": "float16"}
"""Classes that are checked in half precision, too."""


def huggingface_cases() -> dict[str, Case]:
    """Classes of Hugging Face's transformers, made from small configs."""
    found = {
        f"transformers/{name}": Case("transformers", _huggingface_maker(name), _huggingface_loss(name, kind))
        for name, (kind, _) in HUGGING_FACE.items()
    }
    for name, dtype in HALF_PRECISION.items():
        maker, kind = _huggingface_maker(name, dtype), HUGGING_FACE[name][0]
        found[f"transformers/{name}, {dtype}"] = Case("transformers", maker, _huggingface_loss(name, kind))
    return found


def _huggingface_maker(name: str, dtype: str = "float32") -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        import transformers

        kind, config = getattr(transformers, name), HUGGING_FACE[name][1]
        made: nn.Module = kind(kind.config_class(**config)).to(getattr(torch, dtype))
        return made

    return build


def _huggingface_loss(name: str, kind: str) -> Callable[[nn.Module], Tensor]:
    """The class's own loss, or the sum of squares where it has none."""

    def loss(model: nn.Module) -> Tensor:
        words, images = torch.randint(4, WORDS, (2, 12)), torch.rand(2, 3, 32, 32)
        labels = torch.tensor([0, 1]) if "SequenceClassification" in name else words
        given: dict[str, dict[str, Tensor]] = {
            "text": {"input_ids": words, "labels": labels},
            "tokens": {"input_ids": words, "labels": torch.randint(2, (2, 12))},
            "speech": {"input_features": torch.rand(2, 8, 40), "labels": words},
            "sound": {"input_values": torch.rand(2, 400), "labels": torch.randint(1, 20, (2, 4))},
            "both": {"input_ids": words, "pixel_values": images},
            "images": {"pixel_values": images, "labels": torch.tensor([0, 1])},
            "pixels": {"pixel_values": images, "labels": torch.randint(CLASSES, (2, 32, 32))},
        }
        outputs = model(**given[kind])
        own: Tensor | None = getattr(outputs, "loss", None)
        return sum_of_squares(dict(outputs)) if own is None else own

    return loss
