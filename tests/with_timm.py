"""Makes ``import timm`` work where STABMON_TIMM names a folder that holds timm and torchvision, as ``.ci/run`` does.

The extra ``test`` leaves them out: torchvision takes its operators from a library that only loads beside a CUDA build
of torch, and does not import without them. They are declared here; nothing calls them.
"""

import os
import sys

import torch

if "STABMON_TIMM" in os.environ and os.environ["STABMON_TIMM"] not in sys.path:
    sys.path.append(os.environ["STABMON_TIMM"])
    for name in ("nms", "qnms"):
        torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
